"""Every test has a data folder of its own; nothing reaches a hub."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before Django reads its settings: they make the data folder when they are imported.
os.environ["DATAVISOR_DATA_DIR"] = tempfile.mkdtemp(prefix="datavisor-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [name for name in os.environ if name.startswith("DATAVISOR_") and name != "DATAVISOR_DATA_DIR"]:
    del os.environ[name]


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Put the test database into a file: a run's thread has a connection of its own, which memory cannot share."""
    from django.conf import settings

    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(settings.DATA_DIR / "test.sqlite3")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the real architecture that answer in milliseconds, at random."""
    from tests.checkpoints import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def data_dir(tmp_path: Path, settings: object, checkpoint: Path) -> Iterator[Path]:
    """Give the test a store, thumbnails and a model of its own."""
    from vlm.process import keeper, sample_store

    folder = tmp_path / "data"
    folder.mkdir()
    settings.DATA_DIR = folder  # type: ignore[attr-defined]
    settings.DUCKDB_PATH = folder / "samples.duckdb"  # type: ignore[attr-defined]
    settings.THUMBNAIL_DIR = folder / "thumbnails"  # type: ignore[attr-defined]
    settings.IMPORT_ROOTS = [tmp_path]  # type: ignore[attr-defined]
    settings.VLM_MODEL = str(checkpoint)  # type: ignore[attr-defined]
    settings.VLM_DEVICE, settings.VLM_DTYPE, settings.VLM_DETAIL = "cpu", "float32", "low"  # type: ignore[attr-defined]
    # Random weights put hardly any probability on the list.
    settings.VLM_MIN_MASS, settings.VLM_MIN_PROBABILITY = 0.0, 0.0  # type: ignore[attr-defined]
    sample_store.cache_clear()
    yield folder
    sample_store().close()
    sample_store.cache_clear()
    keeper.release()
