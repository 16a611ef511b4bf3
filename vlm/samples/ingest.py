"""Writing samples: an import, in one transaction, that leaves users' tags as they are."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from uuid import uuid4

import duckdb
from filelock import FileLock, Timeout

from .cursor import Cursor
from .database import OFFLINE, SampleStore, explained
from .deriving import changed, touch
from .editing import set_aside
from .errors import StoreError, StoreReadOnly
from .names import search_key, sort_key
from .records import COMMAND, Edit, Importable, Imported, Records
from .schema import DATASET_TABLES
from .tallying import tally

CHUNK = 4096  # rows between two reports
STAGING = "import-"  # begins the name of a folder that holds what an import has read so far
STAGED = "staged.duckdb"
IN_USE = "in-use"  # the file in it that a living import has locked
SWEPT_AFTER_SECONDS = 60.0
RELOCATED = "relocated"  # stands for the time of change in a content key when that is not to be gone by
NO_BOX = (None, None, None, None)


@contextmanager
def staged(records: Records, folder: Path, *, report: Callable[[int], None] = lambda _: None) -> Iterator[Path]:
    """Read ``records`` into a database of their own in ``folder``, and yield its path.

    Reading a million files takes minutes; only then does :func:`import_rows` take the store's writer for seconds.

    Args:
        report: called with how many records were read so far.

    Raises:
        StoreFull, StoreReadOnly: ``folder`` takes no more.
    """
    with staging_place(folder) as place:
        path = place / STAGED
        try:
            with duckdb.connect(str(path), config=OFFLINE | {"memory_limit": "512MB", "threads": 1}) as connection:
                _stage(Cursor(connection), records, report)
        except duckdb.Error as error:
            raise explained(error, path) from error
        yield path


@contextmanager
def staging_place(folder: Path) -> Iterator[Path]:
    """Yield a folder of one's own in ``folder``, for what is read before the store takes it; it goes, also if this process is killed.

    Raises:
        StoreReadOnly: ``folder`` takes no more.
    """
    _sweep(folder)
    with ExitStack() as stack:
        try:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=STAGING)))
            stack.enter_context(FileLock(place / IN_USE, thread_local=False))
        except OSError as error:
            raise StoreReadOnly(
                f"{folder} cannot be written to: {error.strerror}. Make room, or give this user the right."
            ) from error
        yield place


def _sweep(folder: Path) -> None:
    """Remove what imports that were killed have left in ``folder``."""
    for place in folder.glob(f"{STAGING}*"):
        try:
            if time.time() - place.stat().st_mtime < SWEPT_AFTER_SECONDS:
                continue  # it may be about to lock it
            with FileLock(place / IN_USE, timeout=0, thread_local=False):
                shutil.rmtree(place, ignore_errors=True)
        except (OSError, Timeout):
            continue  # alive, or gone meanwhile, or not ours


Report = Callable[[int], None]  # takes how many records were read so far
Digest = Callable[[str], str | None]  # path below the root → SHA-256 of the file's bytes, None where it cannot be read


def import_rows(
    store: SampleStore,
    *,
    dataset_id: int,
    source: Path,
    by: Edit = COMMAND,
    digest: Digest | None = None,
    relocated: bool = False,
) -> Imported:
    """Make the samples of a data set equal what :func:`staged` read into ``source``.

    New paths are added, known ones get their new sizes, splits, categories and annotations, absent ones are marked
    missing; users' tags and ids stay. A path that comes twice counts once and is listed. A file that is gone and one that is new,
    alone with their content key, are one file that was moved. What the model said about a content that changed counts no more.

    Args:
        by: who imports.
        digest: asked about files that changed or moved and whose contents were known: where the bytes are the same,
            nothing has changed.
        relocated: the data set's folder is another one, to which the files were copied: only a new size is a new content.
    """
    patient = threading.Event()  # never set: what has been read took minutes, so better wait for the store
    with incoming(store, source) as (name, attach):
        same: dict[str, str] = {}
        if digest is not None:
            with store.read(stop=patient) as cursor:
                cursor.execute(attach).fetchall()
                doubtful = _doubtful(cursor, dataset_id, name)
            # Files are read while nobody waits for the store's writer.
            same = {path: found for path in doubtful if (found := digest(path)) is not None}
        with store.write(stop=patient) as cursor:
            cursor.execute(attach).fetchall()
            return _Import(cursor, dataset_id, name, by, same, relocated).run()


@contextmanager
def incoming(store: SampleStore, source: Path) -> Iterator[tuple[str, str]]:
    """Yield a name for a database that was staged, and the statement that attaches it; it is detached in the end."""
    name = f"incoming_{uuid4().hex}"  # all cursors of a process see what is attached, another import's too
    quoted = str(source).replace("'", "''")
    try:
        yield name, f"attach if not exists '{quoted}' as {name} (read_only)"
    finally:
        try:
            with store.read() as cursor:  # not possible inside the transaction
                cursor.execute(f"detach database if exists {name}").fetchall()
        except StoreError:
            pass  # the file was handed over meanwhile, and what was attached went with it


class _Previewed(Exception):
    """Ends the transaction of a preview, so that nothing of it stays."""

    def __init__(self, done: Imported) -> None:
        super().__init__()
        self.done = done


def preview_rows(store: SampleStore, *, dataset_id: int, source: Path) -> Imported:
    """Return what :func:`import_rows` would do, by doing it in a transaction that is taken back."""
    try:
        with incoming(store, source) as (name, attach), store.write(stop=threading.Event()) as cursor:
            cursor.execute(attach).fetchall()
            raise _Previewed(_Import(cursor, dataset_id, name, COMMAND, {}, relocated=False).run())
    except _Previewed as previewed:
        return previewed.done


def _doubtful(cursor: Cursor, dataset_id: int, incoming: str) -> list[str]:
    """Return the paths of files that may only seem to be changed, or may have been moved, where the old content is known."""
    rows = cursor.execute(
        f"""
        select a.path from {incoming}.staged a join samples s on s.path = a.path
        where s.dataset_id = $dataset and s.digest is not null and s.content_key <> a.content_key
          and split_part(s.content_key, '-', 1) = split_part(a.content_key, '-', 1)
        union
        select a.path from {incoming}.staged a
        where a.path not in (select path from samples where dataset_id = $dataset) and a.content_key in (
            select content_key from samples where dataset_id = $dataset and digest is not null
              and path not in (select path from {incoming}.staged)
        )
        order by 1
        """,
        {"dataset": dataset_id},
    ).fetchall()
    return [row[0] for row in rows]


def relocated(cursor: Cursor, *, dataset_id: int) -> None:
    """Say that the data set's folder is another one: copies have new times, so that the next import goes by sizes alone."""
    cursor.execute(
        "update samples set content_key = split_part(content_key, '-', 1) || ? where dataset_id = ?",
        [f"-{RELOCATED}", dataset_id],
    ).fetchall()
    changed(cursor, dataset_id)


def dataset_delete(cursor: Cursor, *, dataset_id: int) -> None:
    """Forget a data set: its samples, annotations, tags, answers and finished work, and whatever else belongs to it."""
    for table in DATASET_TABLES:
        cursor.execute(f"delete from {table} where dataset_id = ?", [dataset_id]).fetchall()


class _Import:
    """One import, inside its transaction."""

    def __init__(
        self, cursor: Cursor, dataset_id: int, incoming: str, by: Edit, same: dict[str, str], relocated: bool
    ) -> None:
        self._cursor, self._incoming, self._by, self._same = cursor, incoming, by, same
        self._dataset_id, self._relocated = dataset_id, relocated
        self._values = {"dataset": dataset_id}

    def run(self) -> Imported:
        done = Imported()
        rows = self._cursor.execute(
            f"select path from {self._incoming}.staged group by path having count(*) > 1 order by 1 limit 1000"
        ).fetchall()
        done.duplicates = [row[0] for row in rows]
        self._read()
        if self._number("select count(*) from samples where dataset_id = $dataset"):
            self._meet(done)
        done.added = self._number(ADD)
        done.missing = self._number("select count(*) from samples where dataset_id = $dataset and missing")
        done.total = self._number("select count(*) from samples where dataset_id = $dataset")
        self._annotate()
        tally(self._cursor, self._dataset_id)
        for table in ("arriving", "hashed"):
            self._cursor.execute(f"drop table {table}").fetchall()
        changed(self._cursor, self._dataset_id)
        return done

    def _meet(self, done: Imported) -> None:
        """Bring the samples that the data set has already up to date; a first import has none to compare with."""
        done.moved = self._move()
        done.replaced = self._replace()
        done.returned = self._number(
            "select count(*) from samples s join arriving a on a.path = s.path where s.dataset_id = $dataset and s.missing"
        )
        done.updated = self._number(UPDATE)
        self._number(
            "update samples s set missing = true where s.dataset_id = $dataset and not s.missing "
            "and s.path not in (select path from arriving)"
        )

    def _read(self) -> None:
        self._cursor.execute(
            "create or replace temp table arriving as select *, try_cast(split_part(content_key, '-', 1) as bigint) as bytes "
            f"from {self._incoming}.staged "
            "qualify row_number() over (partition by path order by place) = 1"
        ).fetchall()
        self._cursor.execute(
            "create or replace temp table hashed as select unnest(?::varchar[]) as path, unnest(?::varchar[]) as digest",
            [list(self._same), list(self._same.values())],
        ).fetchall()

    def _move(self) -> int:
        """Let samples whose file is gone follow it to its new path.

        The content key must be nobody else's: archives and copies give many files one time, and some one size, too.
        """
        return self._number(
            """
            update samples s set path = n.path, missing = false from (
                select a.path, a.content_key, h.digest
                from (select * from arriving qualify count(*) over (partition by content_key) = 1) a
                left join hashed h on h.path = a.path
                where a.path not in (select path from samples where dataset_id = $dataset)
            ) n
            where s.dataset_id = $dataset and s.content_key = n.content_key
              and (s.digest is null or n.digest is null or s.digest = n.digest)
              and s.path not in (select path from arriving)
              and s.content_key in (
                select content_key from samples where dataset_id = $dataset group by content_key having count(*) = 1
              )
            """
        )

    def _replace(self) -> int:
        """Set aside what runs said about contents that files no longer have; returns how many files that are."""
        condition = (
            "s.id in (select s.id from samples s join arriving a on a.path = s.path left join hashed h on h.path = a.path "
            "where s.dataset_id = ? and s.content_key <> a.content_key and s.digest is distinct from coalesce(h.digest, '') "
            "and not ((? or s.content_key like ?) and split_part(s.content_key, '-', 1) = split_part(a.content_key, '-', 1)))"
        )
        count = touch(self._cursor, (condition, [self._dataset_id, self._relocated, f"%-{RELOCATED}"]))
        set_aside(self._cursor, dataset_id=self._dataset_id, by=self._by)
        self._cursor.execute(
            "update samples set digest = null where dataset_id = ? and id in (select id from touched) and digest is not null",
            [self._dataset_id],
        ).fetchall()
        return count

    def _annotate(self) -> None:
        self._cursor.execute("delete from annotations where dataset_id = ?", [self._dataset_id]).fetchall()
        self._cursor.execute(
            "insert into annotations select s.dataset_id, s.id, n.category, n.x, n.y, n.width, n.height "
            f"from {self._incoming}.annotations n join samples s on s.path = n.path where s.dataset_id = ? order by s.id",
            [self._dataset_id],
        ).fetchall()

    def _number(self, sql: str) -> int:
        """Return the one number of a count, or how many rows a statement wrote."""
        return int(self._cursor.execute(sql, self._values).fetchall()[0][0])


# What an import says of a known sample anew.
FOLLOWS = ("file_name", "split", "content_key", "external_id", "categories", "source_file", "search", "sort", "bytes")
_mine, _theirs = (", ".join(f"{side}.{name}" for name in FOLLOWS) for side in "sa")
# Of another content nothing is known that its file's head says (see ``heads``).
_same = "s.content_key = a.content_key"
_size = ", ".join(f"{side} = coalesce(a.{side}, case when {_same} then s.{side} end)" for side in ("width", "height"))
UPDATE = f"""
update samples s set {", ".join(f"{name} = a.{name}" for name in FOLLOWS)}, {_size}, missing = false,
    taken = case when {_same} then s.taken end, camera = case when {_same} then s.camera end
from arriving a where s.dataset_id = $dataset and s.path = a.path
  and (s.missing or ({_mine}) is distinct from ({_theirs}) or s.width is distinct from coalesce(a.width, s.width)
       or s.height is distinct from coalesce(a.height, s.height))
"""
ADD = f"""
insert into samples (id, dataset_id, path, width, height, {", ".join(FOLLOWS)},
    missing, tags, user_count, certainty, discarded, failed, answered)
select nextval('sample_ids'), $dataset, path, width, height, {", ".join(FOLLOWS)}, false, [], 0, null, 0, false, []
from (select * from arriving a where not exists
      (select 1 from samples s where s.dataset_id = $dataset and s.path = a.path) order by place)
"""


def _stage(cursor: Cursor, records: Records, report: Callable[[int], None]) -> None:
    cursor.execute(
        "create table staged (place bigint, path varchar, file_name varchar, split varchar, width integer, "
        "height integer, content_key varchar, external_id varchar, categories varchar[], source_file varchar, "
        "search varchar, sort varchar)"
    ).fetchall()
    cursor.execute(
        "create table annotations (path varchar, category varchar, x double, y double, width double, height double)"
    ).fetchall()
    samples, annotations = cursor.appender("staged"), cursor.appender("annotations")
    place = 0
    for chunk in _chunks(iter(records)):
        samples.append_rows(
            (
                *(place + index, r.path, r.file_name, r.split, r.width, r.height, r.content_key, r.external_id),
                *(r.categories, r.source_file, search_key(r.file_name), sort_key(r.file_name)),
            )
            for index, r in enumerate(chunk)
        )
        annotations.append_rows(
            (r.path, annotation.category, *(annotation.box or NO_BOX)) for r in chunk for annotation in r.annotations
        )
        place += len(chunk)
        report(place)
    samples.flush()
    annotations.flush()


def _chunks(records: Iterator[Importable]) -> Iterator[list[Importable]]:
    while chunk := list(islice(records, CHUNK)):
        yield chunk
