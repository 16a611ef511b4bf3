"""Data sets as Parquet files, table by table, and back again among others, under new numbers where theirs are taken.

Files are written from a copy of the store, so that nobody waits for them. They are read into a store of their own, of the version
that wrote them, which is brought to the present one and checked; only then :func:`take_over` brings its rows in, in one transaction.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from .asking import questions_keep
from .checking import check_store
from .cursor import Cursor
from .database import OFFLINE, explained, literal, number
from .deriving import derive, touch
from .errors import StoreError
from .records import Question
from .rewording import conditions_kept
from .schema import DATASET_TABLES, MIGRATIONS, build, migrate

VERSION = len(MIGRATIONS)  # of the tables

# Who works on a run is no part of what it found out.
TABLES = tuple(table for table in DATASET_TABLES if table != "run_claims")
COMMON = ("questions", "conditions")  # of all data sets
NO_TABLE = (
    duckdb.InvalidInputException,
    duckdb.BinderException,
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.CatalogException,
)
_FILE = re.compile(r"(?:(\d{1,18})/)?([a-z_]+)\.parquet")

# Columns of which kind of number: of all tables, and of one where the name means another elsewhere.
_KINDS = {
    "dataset_id": "dataset",
    "run_id": "run",
    "question_id": "question",
    "slice_id": "slice",
    "sample_id": "sample",
    "member_of": "sample",
    "source_id": "sample",
    "edit_id": "edit",
    "ended_by": "edit",
    "undone_by": "edit",
    "column_id": "column",
}
_OWN = {("samples", "id"): "sample", ("edits", "id"): "edit", ("labels", "id"): "label", ("columns", "id"): "column"}
_OWN |= {("run_samples", "change"): "change", ("sample_tags", "place"): "place"}

# Kinds that a sequence counts, with the column that holds them all. The place of a model's tag is that of its dimension.
_SEQUENCES = {
    "sample": ("sample_ids", "id", "samples"),
    "edit": ("edit_ids", "id", "edits"),
    "label": ("label_ids", "id", "labels"),
    "column": ("column_ids", "id", "columns"),
    "change": ("changes", "change", "run_samples"),
    "place": ("edits", "place", "sample_tags where source = 'user'"),
}


class ArchiveUnfit(StoreError):
    """What was read is no part of a store, or does not fit into this one; nothing has changed."""

    title = "This archive cannot be read"
    status = 409


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that Django's database gives, old → new, and users' by their names."""

    datasets: Mapping[int, int]
    runs: Mapping[int, int] = field(default_factory=dict)
    slices: Mapping[int, int] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """What was read of an archive.

    Attributes:
        datasets: that have rows.
        counts: run → its processed and tagged samples, discarded answers and failed samples.
        users: names of those who edited.
    """

    datasets: frozenset[int]
    counts: Mapping[int, tuple[int, int, int, int]]
    users: frozenset[str]


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much the numbers of samples and edits grew."""

    samples: int
    edits: int


@contextmanager
def opened(path: Path, *, memory_limit: str, threads: int) -> Iterator[Cursor]:
    """Yield a connection to a store that belongs to nobody else. Its errors say what to do."""
    config = OFFLINE | {"memory_limit": memory_limit, "temp_directory": str(path.parent)}
    if threads:
        config["threads"] = threads
    try:
        with duckdb.connect(str(path), config=config) as connection:
            yield Cursor(connection)
    except duckdb.Error as error:
        raise explained(error, path) from error


def archive_write(connection: Cursor, folder: Path, datasets: Sequence[int]) -> dict[str, int]:
    """Write the tables of data sets into ``folder``, bounded in memory; returns path below it → rows. Empty tables have no file."""
    wanted = [(f"{table}.parquet", f"select * from {table}") for table in COMMON]
    for dataset_id in datasets:
        (folder / str(dataset_id)).mkdir()
        wanted += [
            (f"{dataset_id}/{table}.parquet", f"select * from {table} where dataset_id = {dataset_id:d}")
            for table in TABLES
        ]
    files = {}
    for name, rows in wanted:
        count = number(
            connection, f"copy ({rows}) to {literal(str(folder / name))} (format parquet, compression zstd)", []
        )
        if count:
            files[name] = count
        else:
            (folder / name).unlink(missing_ok=True)
    return files


def archive_stage(
    connection: Cursor,
    path: Path,
    folder: Path,
    *,
    version: int,
    files: Mapping[str, int],
    runs: Sequence[int],
    slices: Sequence[int],
) -> Staged:
    """Read the files of an archive into an empty database at ``path``, and prove that they are sound.

    Args:
        version: of the tables, when the archive was written.
        files: path below ``folder`` → rows, as it says.
        runs, slices: that rows may belong to.

    Raises:
        ArchiveUnfit: they are not what an archive of that version holds.
    """
    build(connection, version)
    datasets = set()
    for name, count in files.items():
        dataset_id, table = table_of(name)
        rows = f"read_parquet({literal(str(folder / name))})"
        try:
            read = number(connection, f"insert into {table} by name select * from {rows}", [])
            if dataset_id is not None:
                datasets.add(dataset_id)
                strange = number(connection, f"select count(*) from {rows} where dataset_id <> {dataset_id}", [])
                read -= strange
        except NO_TABLE as error:
            raise ArchiveUnfit(f"{name} is no table of an archive: {str(error).splitlines()[0]}") from error
        if read != count:
            raise ArchiveUnfit(
                f"{name} has {read:,} rows of its own, and not {count:,}. Take another copy of the archive."
            )
    migrate(connection, path)
    report = check_store(connection, datasets=datasets)
    known = {"run_id": list(runs), "slice_id": list(slices)}
    lost = sum(
        number(
            connection,
            f"select count(*) from {table} where {column} is not null and {column} not in (select unnest(?::bigint[]))",
            [known[column]],
        )
        for table in TABLES
        for column in _columns(connection, table)
        if column in known
    )
    lost += number(connection, "select count(*) from answers where question_id not in (select id from questions)", [])
    if lost or not report.is_sound:
        raise ArchiveUnfit(
            "Its tables do not fit together: some rows belong to nothing, or tags are not what the ledger says."
        )
    counts = connection.execute("select run_id, processed, tagged, discarded, failed from run_totals").fetchall()
    names = " union ".join(f"select user_name from {table}" for table in ("edits", "labels", "calibrations"))
    return Staged(
        frozenset(datasets),
        {row[0]: row[1:] for row in counts},
        frozenset(row[0] for row in connection.execute(names).fetchall() if row[0]),
    )


def table_of(name: str) -> tuple[int | None, str]:
    """Return the data set and the table of a file's path below the archive. Raises ``ArchiveUnfit``: there is no such file."""
    found = _FILE.fullmatch(name)
    if found is None or found[2] not in (COMMON if found[1] is None else TABLES):
        raise ArchiveUnfit(f"“{name[:100]}” is no file of an archive.")
    return (None if found[1] is None else int(found[1])), found[2]


def take_over(cursor: Cursor, incoming: str, numbers: Numbers) -> Shift:
    """Bring the rows of a store that is attached as ``incoming`` into this one. Inside ``SampleStore.write()``.

    Numbers stay where they are free, and keep their order where they do not.

    Raises:
        ArchiveUnfit: the questions were first asked in another order here, and a word was taken out in between.
    """
    questions = _questions(cursor, incoming)
    kept = {
        "dataset": numbers.datasets,
        "run": numbers.runs,
        "slice": numbers.slices,
        "question": questions,
    }
    rows = [(kind, old, new) for kind, of in kept.items() for old, new in of.items()]
    cursor.execute(
        "create or replace temp table numbered as select unnest(?::varchar[]) as kind, unnest(?::bigint[]) as old, "
        "unnest(?::bigint[]) as new",
        [[row[place] for row in rows] for place in range(3)],
    ).fetchall()
    cursor.execute(
        "create or replace temp table named as select unnest(?::varchar[]) as name, unnest(?::bigint[]) as id",
        [list(numbers.users), list(numbers.users.values())],
    ).fetchall()
    shifts = {kind: _reserve(cursor, incoming, *of) for kind, of in _SEQUENCES.items()}
    for table in TABLES:
        cursor.execute(_insert(cursor, incoming, table, shifts, questions)).fetchall()
    _keep_thresholds(cursor, numbers)
    if conditions_kept(cursor) != _conditions(cursor, incoming):
        for dataset_id in numbers.datasets.values():
            touch(cursor, ("s.dataset_id = ?", [dataset_id]))
            derive(cursor)
    return Shift(shifts["sample"], shifts["edit"])


# -- inside --------------------------------------------------------------------------------------------------------------
def _columns(cursor: Cursor, table: str) -> list[str]:
    return [row[0] for row in cursor.execute(f"select column_name from (describe {table})").fetchall()]


def _conditions(cursor: Cursor, incoming: str) -> dict[str, tuple[str, ...]]:
    rows = cursor.execute(f"select dimension, only_words from {incoming}.conditions").fetchall()
    return {row[0]: tuple(row[1]) for row in rows}


def _questions(cursor: Cursor, incoming: str) -> dict[int, int]:
    """Give the questions numbers, the known ones those that they have; returns old → new."""
    rows = cursor.execute(
        f"select id, key, model, revision, mode, dimension, asked from {incoming}.questions order by id"
    ).fetchall()
    found = {}
    for old, key, model, revision, mode, dimension, asked in rows:
        question = Question(key, model, revision, mode, dimension, json.loads(asked))
        found[old] = questions_keep(cursor, [question])[dimension]
    edits = cursor.execute(
        f"select distinct questions from {incoming}.edits where action = 'remove word' and undone_by is null"
    ).fetchall()
    for (until,) in edits:
        before, after = [n for q, n in found.items() if q <= until], [n for q, n in found.items() if q > until]
        if before and after and max(before) > min(after):
            raise ArchiveUnfit(
                "A word was taken out of its vocabulary, and here the questions of before and after were asked in another order. "
                "Read it into an installation of its own (DATAVISOR_DATA_DIR)."
            )
    return found


def _reserve(cursor: Cursor, incoming: str, sequence: str, column: str, rows: str) -> int:
    """Take as many numbers of a sequence as there may be in a column; returns by how much those grow."""
    low, high = cursor.execute(f"select min({column}), max({column}) from {incoming}.{rows}").fetchall()[0]
    if low is None:
        return 0
    first = number(cursor, f"select nextval('{sequence}')", [])
    shift: int = max(0, first - low)
    cursor.execute(f"select max(nextval('{sequence}')) from range(?)", [high + shift - first]).fetchall()
    return shift


def _insert(cursor: Cursor, incoming: str, table: str, shifts: Mapping[str, int], questions: Mapping[int, int]) -> str:
    columns = _columns(cursor, table)
    values, joins = [], []
    for name in columns:
        kind = _OWN.get((table, name)) or _KINDS.get(name)
        if kind == "place":
            values.append(f"case when t.source = 'user' then t.place + {shifts[kind]} else t.place end")
        elif kind is not None and kind in shifts:
            values.append(f"t.{name} + {shifts[kind]}")
        elif kind is not None:
            values.append(f"{name}_of.new")
            joins.append(f"left join numbered {name}_of on {name}_of.kind = '{kind}' and {name}_of.old = t.{name}")
        elif name == "user_id":
            values.append("by_name.id")
            joins.append("left join named by_name on by_name.name = t.user_name and t.user_id is not null")
        elif (table, name) == ("samples", "answered"):
            values.append(f"list_sort(list_transform(t.answered, lambda q: {_map(questions)}[q]))")
        elif (table, name) == ("edits", "questions"):
            values.append("(select coalesce(max(new), 0) from numbered where kind = 'question' and old <= t.questions)")
        else:
            values.append(f"t.{name}")
    return f"insert into {table} ({', '.join(columns)}) select {', '.join(values)} from {incoming}.{table} t {' '.join(joins)}"


def _map(numbers: Mapping[int, int]) -> str:
    return f"map {{{', '.join(f'{old:d}: {new:d}' for old, new in numbers.items())}}}" if numbers else "map([], [])"


def _keep_thresholds(cursor: Cursor, numbers: Numbers) -> None:
    """Let what calibrations know of runs' thresholds follow the runs to their new numbers."""
    for dataset_id in numbers.datasets.values():
        rows = cursor.execute(
            "select dimension, before from calibrations where dataset_id = ?", [dataset_id]
        ).fetchall()
        for dimension, before in rows:
            kept = {
                str(numbers.runs[int(run)]): least
                for run, least in json.loads(before).items()
                if int(run) in numbers.runs
            }
            cursor.execute(
                "update calibrations set before = ? where dataset_id = ? and dimension = ?",
                [json.dumps(kept), dataset_id, dimension],
            ).fetchall()
