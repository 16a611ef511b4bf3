"""How the file is held: waits do not add up, an idle holder hardly looks, and nothing of it is anybody else's."""

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from vlm.samples import SampleStore, StoreBusy, database
from vlm.samples.database import IDLE_SECONDS, LOOK_SECONDS, next_pause

from .conftest import fill

WAITING = 6
PATIENCE = 60.0


class Counting(threading.Condition):
    """A condition that says how many wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        if not predicate():
            self.waiting.release()
        return super().wait_for(predicate, timeout)


def test_who_waits_together_waits_once(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = Counting()
    monkeypatch.setattr(store, "_changed", condition)
    begun, give_up = threading.Event(), threading.Event()
    opened: list[int] = []

    def never_opens() -> None:
        opened.append(1)
        begun.set()
        assert give_up.wait(PATIENCE)
        raise StoreBusy("Try again.")

    monkeypatch.setattr(store, "_open", never_opens)
    outcomes: list[str] = []

    def ask() -> None:
        try:
            with store.read():
                outcomes.append("read")
        except StoreBusy as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(WAITING)]
    threads[0].start()
    assert begun.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert condition.waiting.acquire(timeout=PATIENCE)
    give_up.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes == ["Try again."] * WAITING
    assert len(opened) == 1  # one wait for all of them


def test_who_waits_together_reads_together(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    condition, really_open = Counting(), store._open
    monkeypatch.setattr(store, "_changed", condition)
    begun, go_on = threading.Event(), threading.Event()

    def opens_late() -> object:
        begun.set()
        assert go_on.wait(PATIENCE)
        return really_open()

    monkeypatch.setattr(store, "_open", opens_late)
    outcomes: list[object] = []

    def ask() -> None:
        with store.read() as cursor:
            outcomes.append(cursor.execute("select count(*) from samples").fetchall())

    threads = [threading.Thread(target=ask) for _ in range(WAITING)]
    threads[0].start()
    assert begun.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert condition.waiting.acquire(timeout=PATIENCE)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes == [[(0,)]] * WAITING


def test_a_failed_wait_is_not_remembered(store: SampleStore) -> None:
    fill(store, 1)
    store.close()
    impatient = SampleStore(store.path, wait=0.05)
    with FileLock(f"{store.path}.lock"), pytest.raises(StoreBusy), impatient.read():
        pass
    with impatient.read() as cursor:
        assert cursor.execute("select count(*) from samples").fetchall() == [(1,)]
    impatient.close()


def test_an_idle_holder_looks_less_and_less() -> None:
    pauses = [LOOK_SECONDS]
    while pauses[-1] < IDLE_SECONDS:
        pauses.append(next_pause(pauses[-1], at_work=False))
    assert len(pauses) < 30
    assert next_pause(pauses[-1], at_work=False) == IDLE_SECONDS
    assert next_pause(pauses[-1], at_work=True) == LOOK_SECONDS


def test_the_files_are_their_users_alone(store: SampleStore) -> None:
    fill(store, 1)
    made = [path for path in store.path.parent.iterdir() if path.name.startswith("samples.")]
    assert len(made) >= 3
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_no_statement_reaches_another_file(store: SampleStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere: Path = tmp_path_factory.mktemp("elsewhere") / "secret.csv"
    elsewhere.write_text("a,b\n1,2\n")
    for statement in (
        f"select * from read_csv('{elsewhere}')",
        f"copy (select 1) to '{elsewhere}'",
        f"attach '{elsewhere.with_suffix('.duckdb')}' as other",
        "set enable_external_access = true",
    ):
        with pytest.raises(database.duckdb.Error), store.read() as cursor:
            cursor.execute(statement).fetchall()
    assert elsewhere.read_text() == "a,b\n1,2\n"
