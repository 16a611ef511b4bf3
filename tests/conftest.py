"""What all tests share: a data folder of their own, and an end that leaves nothing to the next test."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_django
from django.test import TransactionTestCase

from tests.brake import Brake, braked
from tests.database import cut_off, kept
from tests.outcome import pytest_runtest_makereport  # noqa: F401  (a hook)

# The time limit of tests that start browsers, processes and servers, each of which a busy machine takes a while for.
LONG_SECONDS = 600
SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text().split())  # written by tools/slow_tests.py
OTHERS = {"postgres", "redis", "bucket_server"}  # fixtures that start servers of other makers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that drive a browser or start others' servers, and begin with the files that take longest.

    Where tests are spread over processes, a file's stay together; one that takes minutes and came last would keep a process
    busy while the others have nothing left to do.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        if (
            "servers" in item.path.parts
            or item.get_closest_marker("ray")
            or OTHERS & {*getattr(item, "fixturenames", ())}
        ):
            item.add_marker(pytest.mark.servers)
        if item.nodeid.partition("[")[0] in SLOW:
            item.add_marker(pytest.mark.slow)
        others = any(item.get_closest_marker(name) for name in ("browser", "processes", "servers"))
        if others and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
    long = {item.path for item in items if item.get_closest_marker("browser") or item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Take back what a command called in this process does to its signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[None]:
    """Keep the fresh database, and put it back whole after each test that commits."""
    with django_db_blocker.unblock():
        put_back = kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: put_back())
        yield
    with django_db_blocker.unblock():
        cut_off()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without samples; its copies are ready at once, where a new one is brought up to date from version 1."""
    from vlm.samples import SampleStore

    store = SampleStore(tmp_path_factory.mktemp("store") / "samples.duckdb", memory_limit="512MB", threads=1)
    with store.read():
        pass
    store.close()
    return store.path


@pytest.fixture
def brake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Brake]:
    """A brake in the runs of this very process."""
    from vlm.runs import loop, worker

    brake = Brake(tmp_path / "brake.json")
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "tag_samples", braked(loop.tag_samples, brake.path))
    yield brake
    brake.release()  # a test that failed may have left a run that stands still


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the real architecture that answer in milliseconds, at random."""
    from tests.checkpoints import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def data_dir(tmp_path: Path, settings: object, checkpoint: Path, empty_store: Path) -> Iterator[Path]:
    """Give the test a store, thumbnails and a model of its own."""
    from vlm.jobs import stop_all
    from vlm.process import keeper, sample_store

    folder = tmp_path / "data"
    folder.mkdir()
    settings.DATA_DIR = folder  # type: ignore[attr-defined]
    settings.DUCKDB_PATH = shutil.copy(empty_store, folder / "samples.duckdb")  # type: ignore[attr-defined]
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
