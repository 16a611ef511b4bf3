"""What all tests share: a data folder of their own, and an end that leaves nothing to the next test."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brake import Brake, braked
from tests.outcome import pytest_runtest_makereport  # noqa: F401  (a hook)

BROWSER_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that drive a browser, and keep them together where tests are spread over processes."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(BROWSER_SECONDS))


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Take back what a command called in this process does to its signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def brake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Brake:
    """A brake in the runs of this very process."""
    from vlm.runs import loop, worker

    brake = Brake(tmp_path / "brake.json")
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "tag_samples", braked(loop.tag_samples, brake.path))
    return brake


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the real architecture that answer in milliseconds, at random."""
    from tests.checkpoints import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def data_dir(tmp_path: Path, settings: object, checkpoint: Path) -> Iterator[Path]:
    """Give the test a store, thumbnails and a model of its own."""
    from vlm.jobs import stop_all
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
    stop_all()  # a test that failed may have left a run at work
    sample_store().close()
    sample_store.cache_clear()
    keeper.release()
