"""Real processes, real signals, real limits: what is committed stays, nobody starves, and messages say what to do."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from tests.children import PATIENCE, end, environment, finish, python
from tests.effort import examples
from tests.queueing import wait_for_a_queue
from vlm.samples import SampleStore, StoreBusy, StoreCorrupt, StoreError, merging, schema
from vlm.samples.checking import check_store

from .conftest import answer, fill, result

KILLS = examples(10)

# Imports everything once, then forks a worker whenever it is told to. A worker merges batches, and says after each commit
# which run it was, until the file beside the store is there.
WORKSHOP = """
import os, random, sys
from pathlib import Path
from tests.samples.conftest import answer, result
from vlm.samples import SampleStore, merging
path, run, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def work(run):
    store = SampleStore(path, memory_limit="256MB", threads=1, wait=200)
    while not path.with_name("enough").exists():
        with store.write() as cursor:
            ids = [row[0] for row in cursor.execute("select id from samples order by id limit ?", [size]).fetchall()]
            words = [random.choice(("dark", "bright")) for _ in ids]
            results = [result(i, answer(run, word), answer(run, "indoor")) for i, word in zip(ids, words)]
            merging.merge_batch(cursor, dataset_id=1, run_id=run, results=results)
        print(run, flush=True)
        run += 1
    store.close()

if run:
    work(run)
for line in sys.stdin if not run else ():
    child = os.fork()
    if not child:
        print(f"worker {os.getpid()}", flush=True)
        work(int(line))
        os._exit(0)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in a process that is gone when the test is over."""
    children: list[subprocess.Popen[str]] = []

    def spawn(script: str, *args: object) -> subprocess.Popen[str]:
        children.append(python("-c", script, *map(str, args), env=environment(tmp_path), stdin=subprocess.PIPE))
        return children[-1]

    yield spawn
    for child in children:
        end(child)


Spawn = Callable[..., subprocess.Popen[str]]


def line(child: subprocess.Popen[str]) -> str:
    """Return the next line that ``child`` writes; one that has ended instead is told."""
    assert child.stdout is not None
    return child.stdout.readline() or pytest.fail(f"{child.args!r} ended: {finish(child)[1]}")


def runs_in(store: SampleStore) -> dict[int, int]:
    with store.read() as cursor:
        return dict(cursor.execute("select run_id, count(*) from answers group by 1").fetchall())


@pytest.mark.processes
def test_a_killed_process_loses_nothing_that_it_committed(store: SampleStore, spawn: Spawn) -> None:
    size, chance = 40, random.Random(3)
    fill(store, size)
    store.close()
    workshop = spawn(WORKSHOP, store.path, 0, size)
    assert workshop.stdin is not None
    run, committed = 1, set()
    for _ in range(KILLS):
        workshop.stdin.write(f"{run}\n")
        workshop.stdin.flush()
        worker = int(line(workshop).removeprefix("worker "))
        committed.add(int(line(workshop)))  # it is at work
        time.sleep(chance.random() * 0.15)  # any moment will do: reading, committing, or between
        os.kill(worker, signal.SIGKILL)
        while (said := line(workshop)) != "ended\n":
            committed.add(int(said))
        there = runs_in(store)
        assert committed <= set(there)
        assert set(there.values()) == {2 * size}  # no batch in part
        with store.read() as cursor:
            assert check_store(cursor, datasets=[1]).is_sound
        run = max(there) + 1
        store.close()


@pytest.mark.processes
def test_several_processes_take_turns(store: SampleStore, spawn: Spawn) -> None:
    """Two write and one reads, each again and again, and nobody starves."""
    fill(store, 50)
    children = [spawn(WORKSHOP, store.path, 1000 * index, 50) for index in (1, 2)]
    commits = [0, 0]
    while min(commits) < 6:
        with store.read() as cursor:
            assert cursor.execute("select count(*) from samples").fetchall() == [(50,)]
            runs = [row[0] for row in cursor.execute("select distinct run_id from answers").fetchall()]
        commits = [sum(run // 1000 == index for run in runs) for index in (1, 2)]
        assert [child.poll() for child in children] == [None, None]
        time.sleep(0.005)
    store.path.with_name("enough").touch()
    for child in children:
        _, errors = finish(child)
        assert child.returncode == 0, errors
    with store.read() as cursor:
        assert check_store(cursor, datasets=[1]).is_sound


@pytest.mark.processes
def test_who_does_not_get_the_file_is_told(store: SampleStore, spawn: Spawn) -> None:
    fill(store, 1)
    store.close()
    holder = spawn(
        "import sys\n"
        "from filelock import FileLock\n"
        "lock = FileLock(sys.argv[1] + '.lock'); lock.acquire(); print('held', flush=True); sys.stdin.read()",
        store.path,
    )
    assert line(holder) == "held\n"
    impatient = SampleStore(store.path, wait=0.3)
    with pytest.raises(StoreBusy, match="Try again"), impatient.read():
        pass
    holder.kill()
    holder.wait()
    impatient.wait = PATIENCE
    with impatient.read() as cursor:  # the lock died with its process
        assert cursor.execute("select count(*) from samples").fetchall() == [(1,)]
    impatient.close()


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.samples.conftest import answer, result
from vlm.samples import SampleStore, StoreFull, merging
store = SampleStore(Path(sys.argv[1]), memory_limit="256MB", threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with store.read() as cursor:
    ids = [row[0] for row in cursor.execute("select id from samples order by id").fetchall()]
limit = 2_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
done = 0
try:
    for run in range(1, 500):
        with store.write() as cursor:
            merging.merge_batch(cursor, dataset_id=1, run_id=run, results=[result(i, answer(run, "dark")) for i in ids])
        done = run
except StoreFull as error:
    with store.read() as cursor:
        runs = cursor.execute("select count(distinct run_id) from answers").fetchall()[0][0]
    print(done, runs, "Make room" in str(error))
"""


@pytest.mark.processes
def test_a_full_disk_keeps_what_was_committed(store: SampleStore, spawn: Spawn) -> None:
    """The limit of a file's size stands in for the disk's: the same write fails in the same place."""
    fill(store, 500)
    store.close()
    child = spawn(FULL, store.path)
    out, errors = finish(child)
    assert out, errors
    done, readable, advised = out.split()
    assert int(done) >= 1
    assert int(readable) == int(done)  # it still reads
    assert advised == "True"
    assert len(runs_in(store)) == int(done)
    with store.write() as cursor:  # with room again it goes on
        merging.merge_batch(cursor, dataset_id=1, run_id=999, results=[result(1, answer(999, "dark"))])
        assert check_store(cursor, datasets=[1]).is_sound


READ_ONLY = """
import os, sys
from pathlib import Path
from vlm.samples import SampleStore, StoreReadOnly
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with SampleStore(Path(sys.argv[1])).write() as cursor:
        cursor.execute("delete from samples").fetchall()
except StoreReadOnly as error:
    print("DATAVISOR_DATA_DIR" in str(error))
"""


@pytest.mark.processes
def test_a_folder_without_rights_is_named(store: SampleStore, spawn: Spawn) -> None:
    fill(store, 1)
    store.close()
    folder = store.path.parent
    # The folder of the tests is private; the child must reach the file to be refused it.
    folder.chmod(0o555)
    parents = [parent for parent in folder.parents if parent.owner() == folder.owner() and parent != Path("/")][:3]
    before = {parent: parent.stat().st_mode for parent in parents}
    try:
        for parent in parents:
            parent.chmod(before[parent] | 0o111)
        child = spawn(READ_ONLY, store.path)
        out, errors = finish(child)
        assert out.strip() == "True", errors
    finally:
        folder.chmod(0o755)
        for parent, mode in before.items():
            parent.chmod(mode)


def expect_corrupt(path: Path, advice: str) -> None:
    store = SampleStore(path, wait=1)
    with pytest.raises(StoreCorrupt, match=advice), store.read() as cursor:
        cursor.execute("select sum(length(file_name)) from samples").fetchall()
    store.close()


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 500])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.duckdb"
    path.write_bytes(content)
    expect_corrupt(path, "Move it away")
    assert path.read_bytes() == content


def test_a_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "samples.duckdb"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    expect_corrupt(path, "Move it away")


def test_a_truncated_file(store: SampleStore) -> None:
    fill(store, 2000)
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(content[: len(content) // 3])
    expect_corrupt(store.path, "Move it away")


def test_a_file_of_a_newer_release(store: SampleStore) -> None:
    fill(store, 1)
    with store.write() as cursor:
        cursor.execute("update meta set version = 99").fetchall()
    store.close()
    expect_corrupt(store.path, "Install a newer release")


def test_the_tables_migrate_after_a_backup(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample_id,) = fill(store, 1)
    store.close()
    script, version = "alter table samples add column note varchar", len(schema.MIGRATIONS)
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, (script,)])
    with store.read() as cursor:
        assert cursor.execute("select id, note from samples").fetchall() == [(sample_id, None)]
        assert cursor.execute("select version from meta").fetchall() == [(version + 1,)]
    store.close()
    backup = store.path.with_name(f"samples.v{version}.duckdb")
    with duckdb.connect(str(backup), read_only=True) as connection:
        assert connection.execute("select id from samples").fetchall() == [(sample_id,)]


def test_a_migration_that_fails_changes_nothing(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 1)
    store.close()
    script = "alter table samples add column note varchar; select nonsense from nowhere"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, (script,)])
        with pytest.raises(duckdb.Error), store.read():
            pass
    with store.read() as cursor:
        assert cursor.execute("select version from meta").fetchall() == [(len(schema.MIGRATIONS),)]


def test_an_error_inside_a_transaction_commits_nothing(store: SampleStore) -> None:
    (sample_id,) = fill(store, 1)

    def merge_and_fail() -> None:
        with store.write() as cursor:
            merging.merge_batch(cursor, dataset_id=1, run_id=1, results=[result(sample_id, answer(1, "dark"))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        merge_and_fail()
    assert runs_in(store) == {}


def test_a_forked_process_is_refused(store: SampleStore) -> None:
    fill(store, 1)
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            with store.read():
                os._exit(1)
        except StoreError:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


@pytest.mark.processes
def test_signals_reach_a_waiting_process(store: SampleStore, spawn: Spawn) -> None:
    """Ctrl-C while queueing for the file ends the command at once."""
    fill(store, 1)
    with store.read():  # holds the file for as long as the block lasts
        # A background job of a shell inherits a deaf ear for Ctrl-C.
        listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        waiting = spawn(listening + WORKSHOP, store.path, 1, 1)
        wait_for_a_queue(store.path)
        waiting.send_signal(signal.SIGINT)
        _, errors = finish(waiting)
        assert waiting.returncode != 0
        assert "KeyboardInterrupt" in errors
    assert runs_in(store) == {}
