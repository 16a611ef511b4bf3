"""The files of a data set in a bucket: one listing per import, kept on disk, answers what a folder's entries would.

A request for each image of a million would take hours; the listing takes one for a thousand. It lies in a temporary database that
has no name and goes with its connection, so memory stays flat.
"""

import io
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import Any, TextIO

from vlm.errors import Unwritable
from vlm.formats.files import FILE, FOLDER, Done, Entry, Files, Item, Refused, Status
from vlm.imaging import ImageUnreadable, Source
from vlm.roots import ObjectRoot
from vlm.roots.objects import HEAD_BYTES, WINDOW, Listed

_CACHE = 16_000  # KiB of the listing that are held in memory
_KNOWN_FOLDERS = 100_000  # whose names are held in memory while the listing is made
_AHEAD = 4  # items for each thread that are worked on before they are wanted


class ObjectFiles(Files):
    """Files below a prefix of a bucket. There are no links, and a folder is what a key has before a slash."""

    root: ObjectRoot
    # A request for each small picture would take hours, too; what a run cannot read, the run says.
    small = 0

    def __init__(self, root: ObjectRoot) -> None:
        super().__init__(root, prefix=f"{root}/")

    @cached_property
    def _listing(self) -> "Listing":
        return Listing(self.root.listing())

    def relative(self, base: str, path: str) -> str:
        if path.startswith(self._prefix):
            return super().relative("", f"./{path.removeprefix(self._prefix)}")
        return super().relative(base, path)

    def status(self, path: str) -> Status | None:
        return self._listing.status(path)

    def now(self, path: str) -> Status | None:
        try:
            found = self.root.status(path)
        except ImageUnreadable as error:
            raise Refused(error.message) from None
        return None if found is None else Status(found.size, found.key, found.modified)

    def entries(self, folder: str) -> Iterator[Entry]:
        return self._listing.entries(folder)

    def is_folder(self, path: str) -> bool:
        return self._listing.is_folder(path)

    def is_link(self, path: str) -> bool:
        return False

    def read_head(self, path: str, size: int) -> bytes:
        status = self.status(path)
        if status is not None and not status.size:  # a store refuses to give a part of nothing
            return b""
        try:
            return self.root.part(path, 0, size)[0]
        except ImageUnreadable as error:
            raise Refused(error.message) from None

    def open_text(self, path: str, *, errors: str = "strict") -> TextIO:
        return io.TextIOWrapper(self.root.open(path, window=WINDOW), encoding="utf-8-sig", errors=errors)

    def picture(self, path: str) -> Source:
        return self.root.open(path, window=HEAD_BYTES)

    def each(self, items: Iterable[Item], work: Callable[[Item], Done]) -> Iterator[Done]:
        waiting: deque[Future[Done]] = deque()
        with ThreadPoolExecutor(self.root.at_once, thread_name_prefix="objects") as threads:
            try:
                for item in items:
                    waiting.append(threads.submit(work, item))
                    if len(waiting) >= _AHEAD * self.root.at_once:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


class Listing:
    """What lies below a prefix, by folder and name."""

    def __init__(self, found: Iterable[list[Listed]]) -> None:
        # Without a name: a temporary database on disk, that goes with its connection.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        run = self._database.execute
        for pragma in (f"cache_size=-{_CACHE}", "journal_mode=off", "synchronous=off"):
            run(f"pragma {pragma}").fetchall()
        run(
            "create table files (folder text, name text, size int, key text, modified real, primary key (folder, name)) "
            "without rowid"
        )
        run("create table folders (parent text, name text, primary key (parent, name)) without rowid")
        try:
            self._fill(found)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise Unwritable("The disk of temporary files is full. Make room, and try again.") from error
            raise

    def _fill(self, found: Iterable[list[Listed]]) -> None:
        run = self._database
        known: set[str] = {""}
        run.execute("begin")
        for chunk in found:
            rows = []
            for entry in chunk:
                folder, _, name = entry.path.rpartition("/")
                if not name:
                    continue
                rows.append((folder, name, entry.size, entry.key, entry.modified))
                if folder not in known:
                    if len(known) > _KNOWN_FOLDERS:
                        known = {""}
                    run.executemany("insert or ignore into folders values (?, ?)", _new_folders(folder, known))
            run.executemany("insert or replace into files values (?, ?, ?, ?, ?)", rows)
        # Consoles make empty objects in place of folders.
        run.execute(
            "delete from files where size = 0 and exists "
            "(select 1 from folders where parent = files.folder and name = files.name)"
        )
        run.execute("commit")

    def status(self, path: str) -> Status | None:
        folder, _, name = path.rpartition("/")
        row = self._one("select size, key, modified from files where folder = ? and name = ?", folder, name)
        if row is None and self.is_folder(path):
            raise Refused("It is no regular file.")
        return None if row is None else Status._make(row)

    def is_folder(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        return not path or self._one("select 1 from folders where parent = ? and name = ?", parent, name) is not None

    def entries(self, folder: str) -> Iterator[Entry]:
        rows = self._database.execute(
            "select name, ? from files where folder = ? union all select name, ? from folders where parent = ? order by 1",
            (FILE, folder, FOLDER, folder),
        )
        return chain.from_iterable(iter(lambda: rows.fetchmany(1000), []))

    def _one(self, sql: str, *values: str) -> tuple[Any, ...] | None:
        try:
            with self._lock:
                row: tuple[Any, ...] | None = self._database.execute(sql, values).fetchone()
                return row
        except UnicodeEncodeError:  # bytes that are no text are no key either
            return None


def _new_folders(folder: str, known: set[str]) -> Iterator[tuple[str, str]]:
    """Yield parent and name of a folder and of those around it that are not known yet, and note them."""
    while folder not in known:
        known.add(folder)
        parent, _, name = folder.rpartition("/")
        yield parent, name
        folder = parent
