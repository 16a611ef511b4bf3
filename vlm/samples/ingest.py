"""Writing samples: an import, in one transaction, that leaves tags as they are."""

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

from .database import OFFLINE, Cursor, SampleStore, explained
from .errors import StoreError, StoreReadOnly
from .records import Importable, Imported, Records

CHUNK = 4096  # rows between two reports
STAGING = "import-"  # begins the name of a folder that holds what an import has read so far
IN_USE = "in-use"  # the file in it that a living import has locked
SWEPT_AFTER_SECONDS = 60.0
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
    _sweep(folder)
    with ExitStack() as stack:
        try:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=STAGING)))
            stack.enter_context(FileLock(place / IN_USE, thread_local=False))
        except OSError as error:
            raise StoreReadOnly(
                f"{folder} cannot be written to: {error.strerror}. Make room, or give this user the right."
            ) from error
        path = place / "staged.duckdb"
        try:
            with duckdb.connect(str(path), config=OFFLINE | {"memory_limit": "512MB", "threads": 1}) as connection:
                _stage(connection, records, report)
        except duckdb.Error as error:
            raise explained(error, path) from error
        yield path


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


def import_rows(store: SampleStore, *, dataset_id: int, source: Path) -> Imported:
    """Make the samples of a data set equal what :func:`staged` read into ``source``.

    New paths are added, known ones get their new sizes, splits, categories and annotations, absent ones are marked
    missing; tags and ids stay. A path that comes twice counts once and is listed.
    """
    incoming = f"incoming_{uuid4().hex}"  # all cursors of a process see what is attached, another import's too
    quoted = str(source).replace("'", "''")
    try:
        # What has been read took minutes: better to wait for the store than to read it again.
        with store.write(stop=threading.Event()) as cursor:
            cursor.execute(f"attach '{quoted}' as {incoming} (read_only)").fetchall()
            return _import(cursor, dataset_id, incoming)
    finally:
        try:
            with store.read() as cursor:  # not possible inside the transaction
                cursor.execute(f"detach database if exists {incoming}").fetchall()
        except StoreError:
            pass  # the file was handed over meanwhile, and what was attached went with it


def _import(cursor: Cursor, dataset_id: int, incoming: str) -> Imported:
    done = Imported()
    done.duplicates = [
        row[0]
        for row in cursor.execute(
            f"select path from {incoming}.staged group by path having count(*) > 1 order by 1 limit 1000"
        ).fetchall()
    ]
    cursor.execute(
        f"create or replace temp table arriving as select * from {incoming}.staged "
        "qualify row_number() over (partition by path order by place) = 1"
    ).fetchall()
    values = {"dataset": dataset_id}
    done.returned = _number(
        cursor,
        "select count(*) from samples s join arriving a on a.path = s.path where s.dataset_id = $dataset and s.missing",
        values,
    )
    done.updated = _number(
        cursor,
        "update samples s set file_name = a.file_name, split = a.split, width = coalesce(a.width, s.width), "
        "height = coalesce(a.height, s.height), content_key = a.content_key, external_id = a.external_id, "
        "categories = a.categories, missing = false from arriving a where s.dataset_id = $dataset and s.path = a.path and "
        "(s.missing or (s.file_name, s.split, s.content_key, s.external_id, s.categories) is distinct from "
        "(a.file_name, a.split, a.content_key, a.external_id, a.categories) or s.width is distinct from coalesce(a.width, s.width) "
        "or s.height is distinct from coalesce(a.height, s.height))",
        values,
    )
    done.added = _number(
        cursor,
        "insert into samples select nextval('sample_ids'), $dataset, path, file_name, split, width, height, content_key, "
        "external_id, categories, false, [], 0, null, 0, false from (select * from arriving a where not exists "
        "(select 1 from samples s where s.dataset_id = $dataset and s.path = a.path) order by place)",
        values,
    )
    _number(
        cursor,
        "update samples s set missing = true where s.dataset_id = $dataset and not s.missing "
        "and s.path not in (select path from arriving)",
        values,
    )
    done.missing = _number(cursor, "select count(*) from samples where dataset_id = $dataset and missing", values)
    done.total = _number(cursor, "select count(*) from samples where dataset_id = $dataset", values)
    cursor.execute("delete from annotations where dataset_id = ?", [dataset_id]).fetchall()
    cursor.execute(
        "insert into annotations select s.dataset_id, s.id, n.category, n.x, n.y, n.width, n.height "
        f"from {incoming}.annotations n join samples s on s.path = n.path where s.dataset_id = ? order by s.id",
        [dataset_id],
    ).fetchall()
    cursor.execute("drop table arriving").fetchall()
    return done


def _stage(cursor: Cursor, records: Records, report: Callable[[int], None]) -> None:
    cursor.execute(
        "create table staged (place bigint, path varchar, file_name varchar, split varchar, width integer, "
        "height integer, content_key varchar, external_id varchar, categories varchar[])"
    ).fetchall()
    cursor.execute(
        "create table annotations (path varchar, category varchar, x double, y double, width double, height double)"
    ).fetchall()
    samples, annotations = cursor.appender("staged"), cursor.appender("annotations")
    place = 0
    for chunk in _chunks(iter(records)):
        samples.append_rows(
            (place + index, r.path, r.file_name, r.split, r.width, r.height, r.content_key, r.external_id, r.categories)
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


def _number(cursor: Cursor, sql: str, values: dict[str, int]) -> int:
    """Return the one number of a count, or how many rows a statement wrote."""
    return int(cursor.execute(sql, values).fetchall()[0][0])
