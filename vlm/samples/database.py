"""One DuckDB file that several processes take turns to open.

DuckDB locks its file per process, for readers too. So a process keeps the file open while nobody else wants it, and
hands it over when somebody queues: whoever waits holds ``<file>.queue``, whoever has it open holds ``<file>.lock``. The
operating system drops both locks when their process dies. Within a process one connection is shared, one cursor per unit
of work, and one writer at a time: DuckDB loses an update silently when two transactions update the same row.
"""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from filelock import FileLock, Timeout

from .cursor import Cursor
from .errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreHeld, StoreReadOnly
from .schema import migrate

Taken = TypeVar("Taken")

# Nothing may reach for the network, whatever file somebody puts here.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

LOOK_SECONDS = 0.01  # how often a holder at work looks whether somebody queues
IDLE_SECONDS = 0.2  # how often one that nobody uses does
PRIVATE = 0o600  # what the store's files may be read and written by
COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"  # its last words say why it could not
RETRY_SECONDS = 0.5  # between the turns of somebody who would rather wait than give up


class SampleStore:
    """The samples, their tags and where these came from.

    Args:
        path: the DuckDB file; made on first use, its folder must exist.
        memory_limit: DuckDB's own, such as ``"2GB"``.
        threads: of DuckDB; 0 for one per core.
        wait: seconds to queue for the file before :class:`StoreBusy`.
        welcome: called with each connection to the file as it is opened; what it raises keeps the file closed.

    Never use a cursor outside its block, and never open one block inside another.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_limit: str = "2GB",
        threads: int = 0,
        wait: float = 15.0,
        welcome: Callable[[Cursor], None] = lambda _: None,
    ) -> None:
        self.path, self.wait, self._welcome = path, wait, welcome
        self._config = OFFLINE | {"memory_limit": memory_limit, "preserve_insertion_order": False}
        if threads:
            self._config["threads"] = threads
        self._owner = FileLock(f"{path}.lock", mode=PRIVATE, thread_local=False, poll_interval=0.004)
        self._queue = FileLock(f"{path}.queue", mode=PRIVATE, thread_local=False, poll_interval=0.004)
        self._changed = threading.Condition()
        self._writer = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._users = 0
        self._used = 0  # how often, ever
        self._draining = False
        self._opening = False
        self._attempts = 0  # to open the file, and the last one that failed, with its error
        self._failed: tuple[int, Exception] = (0, StoreError())
        self._process = os.getpid()
        self._watcher: threading.Thread | None = None

    @contextmanager
    def read(self, *, stop: threading.Event | None = None) -> Iterator[Cursor]:
        """Yield a cursor that sees one consistent state per statement.

        Args:
            stop: wait for a busy file until this is set, instead of giving up after ``wait`` seconds.

        Raises:
            StoreBusy, StoreCorrupt, StoreReadOnly: the file cannot be opened.
        """
        cursor = _persist(self._enter, stop)
        try:
            yield cursor
        except duckdb.Error as error:
            if isinstance(error, duckdb.FatalException):
                self._draining = True  # the instance is dead (the disk was full): the next user opens it anew
            raise explained(error, self.path) from error
        finally:
            self._leave(cursor)

    @contextmanager
    def write(self, *, stop: threading.Event | None = None) -> Iterator[Cursor]:
        """Yield a cursor inside a transaction that commits at the end of the block, or not at all.

        Args:
            stop: as for :meth:`read`.

        Raises:
            StoreBusy, StoreCorrupt, StoreFull, StoreReadOnly: nothing of the block was kept.
        """
        _persist(self._take_turn, stop)
        try:
            with self.read(stop=stop) as cursor:
                cursor.begin()
                try:
                    cursor.execute("update revision set number = number + 1").fetchall()
                    yield cursor
                except BaseException:
                    try:
                        cursor.rollback()
                    except duckdb.Error:
                        pass  # the transaction is gone already
                    raise
                cursor.commit()
                self._make_private()  # the log is made anew after each checkpoint
        finally:
            self._writer.release()

    @contextmanager
    def still(self) -> Iterator[tuple[Cursor, list[Path]]]:
        """Yield a cursor, and the files, which nobody writes to within the block: another process can copy them.

        Not by this one: to close a file that DuckDB has open drops its lock (POSIX), and others would come in.

        Raises:
            StoreBusy, StoreCorrupt, StoreReadOnly: the file cannot be opened.
        """
        self._take_turn()
        try:
            with self.read() as cursor:
                yield cursor, [path for path in (self.path, self._log) if path.exists()]
        finally:
            self._writer.release()

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield the file's path while no process has it open: what lies there at the end is the store from then on.

        Raises:
            StoreBusy: a process of this machine did not hand the file over.
        """
        self._take_turn()
        try:
            self.close()
            with self._changed:
                if not self._changed.wait_for(lambda: not self._opening and self._connection is None, self.wait):
                    raise _busy(self.path)
                try:
                    with self._queue.acquire(timeout=self.wait), self._owner.acquire(timeout=self.wait):
                        yield self.path
                except Timeout:
                    raise _busy(self.path) from None
        finally:
            self._writer.release()

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.wal")

    def close(self) -> None:
        """Close the file once nobody in this process uses it, so that another process gets it at once."""
        with self._changed:
            if self._connection is not None:
                self._draining = True
                if not self._users:
                    self._shut()
            watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join(1)  # it holds the connection until it looks

    def _take_turn(self) -> None:
        if not self._writer.acquire(timeout=self.wait):
            raise StoreBusy(f"{self.path.name} is being written to for long, by an import perhaps. Try again.")

    def _enter(self) -> Cursor:
        if os.getpid() != self._process:
            raise StoreError("A forked process must make a store of its own.")
        with self._changed:
            # Whoever comes while the file is being opened waits for that, and shares its outcome: waits do not add up.
            attempt = self._attempts + (not self._opening)
            if not self._changed.wait_for(lambda: self._is_settled(attempt), 2 * self.wait):
                raise _busy(self.path)
            if self._connection is not None and not self._draining:
                return self._cursor(self._connection)
            if self._failed[0] >= attempt:
                error = self._failed[1]
                raise type(error)(*error.args)
            self._opening, self._attempts = True, self._attempts + 1
        connection, failure = None, None
        try:
            connection = self._open()
        except Exception as error:
            failure = error
            raise
        finally:
            with self._changed:
                self._opening, self._connection = False, connection
                if failure is not None:
                    self._failed = (self._attempts, failure)
                if connection is not None:
                    self._watcher = threading.Thread(
                        target=self._watch, args=(connection,), name="store-watch", daemon=True
                    )
                    self._watcher.start()
                    cursor = self._cursor(connection)
                self._changed.notify_all()
        return cursor

    def _is_settled(self, attempt: int) -> bool:
        """Whether somebody who came before the ``attempt`` to open the file ended has nothing to wait for; condition held."""
        return (not self._opening and not self._draining) or self._failed[0] >= attempt

    def _cursor(self, connection: duckdb.DuckDBPyConnection) -> Cursor:
        cursor = Cursor(connection.cursor())
        self._users += 1
        self._used += 1
        return cursor

    def _leave(self, cursor: Cursor) -> None:
        try:
            cursor.close()  # drops an unread result, which would keep checkpoints waiting
        finally:
            with self._changed:
                self._users -= 1
                if self._draining and not self._users:
                    self._shut()

    def _open(self) -> duckdb.DuckDBPyConnection:
        folder = self.path.parent
        if not os.access(folder, os.W_OK) or (self.path.exists() and not os.access(self.path, os.W_OK)):
            raise StoreReadOnly(f"{folder} cannot be written to. Give this user the right, or set DATAVISOR_DATA_DIR.")
        deadline = time.monotonic() + self.wait
        try:
            with self._queue.acquire(timeout=self.wait):
                self._owner.acquire(timeout=max(0.0, deadline - time.monotonic()))
        except Timeout:
            raise _busy(self.path) from None
        except OSError as error:
            raise StoreReadOnly(f"No lock file can be made beside {self.path}: {error}.") from error
        connection = None
        try:
            connection = duckdb.connect(str(self.path), config=self._config)
            self._make_private()
            cursor = Cursor(connection)
            migrate(cursor, self.path)
            self._welcome(cursor)
            # From here on no statement reaches a file elsewhere, whatever finds its way into one.
            allowed = str(folder.resolve()).replace("'", "''")
            cursor.execute(f"set allowed_directories = ['{allowed}/']").fetchall()
            cursor.execute("set enable_external_access = false").fetchall()
        except BaseException as error:
            if connection is not None:
                connection.close()
            self._owner.release()
            if isinstance(error, duckdb.Error):
                raise explained(error, self.path) from error
            raise
        return connection

    def _make_private(self) -> None:
        """Let nobody but this user read the store."""
        for path in (self.path, self._log):
            with suppress(OSError):  # another user's, who gave us the right to write
                path.chmod(PRIVATE)

    def _watch(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Hand the file over as soon as another process queues for it; ends with the connection."""
        idle, pause, used = threading.Event(), LOOK_SECONDS, -1
        while True:
            idle.wait(pause)
            pause = next_pause(pause, at_work=used != self._used or self._users > 0)
            used = self._used
            with self._changed:
                if self._connection is not connection:
                    return
                if self._draining:
                    continue
                try:
                    self._queue.acquire(timeout=0)
                    self._queue.release()
                except Timeout:
                    self._draining = True
                    if not self._users:
                        self._shut()
                except OSError:
                    continue  # out of file handles, say: nobody can queue either

    def _shut(self) -> None:
        """Close; the caller holds the condition and knows that nobody uses the connection."""
        try:
            if self._connection is not None:
                self._connection.close()
        except duckdb.Error:
            pass  # a dead instance; what was committed is in the file and its log
        finally:
            self._connection, self._draining = None, False
            self._owner.release()
            self._changed.notify_all()


def copy_files(files: Iterable[Path], target: Path) -> None:
    """Copy the files of :meth:`SampleStore.still` to ``target``, the log beside it, in another process.

    Raises:
        OSError: it could not; the message says why.
    """
    for path in files:
        copy = target.with_name(target.name + (".wal" if path.suffix == ".wal" else ""))
        done = subprocess.run([sys.executable, "-c", COPY, str(path), str(copy)], check=False, capture_output=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(said[-1] if said else "the copying was killed")


def next_pause(pause: float, *, at_work: bool) -> float:
    """Return how long a holder rests before it looks again whether somebody queues: the longer, the longer it is idle."""
    return LOOK_SECONDS if at_work else min(IDLE_SECONDS, pause * 1.2)


def _persist(take: Callable[[], Taken], stop: threading.Event | None) -> Taken:
    """Return what ``take`` gives; with ``stop``, try again while the store is busy until it is set."""
    while True:
        try:
            return take()
        except StoreHeld:
            raise
        except StoreBusy:
            if stop is None or stop.wait(RETRY_SECONDS):
                raise


def _busy(path: Path) -> StoreBusy:
    return StoreBusy(f"{path.name} is in use by another process that did not hand it over in time. Try again.")


def explained(error: duckdb.Error, path: Path) -> Exception:
    """Return the error that says what to do, or ``error`` itself where the mistake is in our own statement."""
    text = str(error)
    if "has been invalidated" in text:
        return StoreBusy(f"{path.name} is opened anew after an error. Try again.")
    if any(sign in text for sign in ("No space left", "not enough space", "File too large", "quota exceeded")):
        return StoreFull(
            f"The disk of {path} is full: nothing of this step was kept, all before it is safe. Make room."
        )
    if "Read-only file system" in text or "Permission denied" in text or "read-only mode" in text:
        return StoreReadOnly(f"{path} cannot be written to: {text.splitlines()[0]}")
    if "newer version of DuckDB" in text:
        return StoreCorrupt(
            f"{path} was written by a newer DuckDB. Install the DataVisor release that wrote it, or newer."
        )
    damaged = (
        "not a valid DuckDB database",
        "Corrupt",
        "checksum",
        "not enough bytes",
        "read enough bytes",
        "replaying WAL",
    )
    if any(sign in text for sign in damaged) or "sqlite_scanner" in text:
        return StoreCorrupt(
            f"{path} is damaged or no DuckDB file: {text.splitlines()[0]} Move it away together with {path.name}.wal and "
            "put a backup in its place; without one, import the data sets again."
        )
    if "Could not set lock" in text:
        return StoreHeld(f"{path.name} is open in a program that does not hand it over. Close that program.")
    return error


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a copied file, by which it is known again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def literal(text: str) -> str:
    """Return ``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def number(cursor: Cursor, sql: str, values: list[Any]) -> int:
    """Return the one number of a query, or how many rows a statement wrote."""
    return int(cursor.execute(sql, values).fetchall()[0][0])


def column(cursor: Cursor, sql: str, values: list[Any]) -> set[Any]:
    """Return the different values of a query's one column."""
    return {row[0] for row in cursor.execute(sql, values).fetchall()}
