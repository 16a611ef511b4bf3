"""Tables as Parquet files and back: the very same in an empty store, the same under new numbers among others."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.effort import examples
from vlm.samples import SampleFilter, SampleStore, editing, merging, reading, where
from vlm.samples.archive import TABLES, ArchiveUnfit, Numbers, Shift, archive_stage, archive_write, opened, take_over
from vlm.samples.checking import check_store
from vlm.samples.counting import facets
from vlm.samples.cursor import Cursor
from vlm.samples.database import copy_files
from vlm.samples.ingest import STAGED, incoming, staging_place
from vlm.samples.progress import named_counts
from vlm.samples.schema import MIGRATIONS

from .conftest import WORDS, copied
from .worlds import FILTERS, World, world

seeds = pytest.mark.parametrize("seed", range(examples(1)))
VERSION = len(MIGRATIONS)


@pytest.fixture
def other(tmp_path: Path, empty_store: Path) -> Iterator[SampleStore]:
    """Another store, empty."""
    (tmp_path / "other").mkdir()
    store = copied(empty_store, tmp_path / "other")
    yield store
    store.close()


def written(store: SampleStore, folder: Path, datasets: list[int]) -> dict[str, int]:
    folder.mkdir()
    copy = folder / "copy.duckdb"
    with store.still() as (_, files):
        copy_files(files, copy)
    with opened(copy, memory_limit="512MB", threads=1) as connection:
        counts = archive_write(connection, folder, datasets)
    copy.unlink()
    return counts


def taken(store: SampleStore, folder: Path, counts: dict[str, int], numbers: Numbers, version: int = VERSION) -> Shift:
    known = {"runs": list(numbers.runs), "slices": list(numbers.slices)}
    with staging_place(store.path.parent) as place:
        staged = place / STAGED
        with opened(staged, memory_limit="512MB", threads=1) as connection:
            archive_stage(connection, staged, folder, version=version, files=counts, **known)
        with incoming(store, staged) as (name, attach), store.write() as cursor:
            cursor.execute(attach).fetchall()
            return take_over(cursor, name, numbers)


def tables(store: SampleStore, *, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    with store.read() as cursor:
        names = [*TABLES, "questions", "conditions"]
        found = {
            name: cursor.execute(f"select * from {name} order by all").fetchall() for name in names if name not in but
        }
    return found


def numbered(made: World, *, runs: int = 0, datasets: int = 0) -> Numbers:
    return Numbers(
        datasets={one: one + datasets for one in (1, 2)},
        runs={run: run + runs for run in made.runs},
        slices={1: 1},
        users={"ada": 7},
    )


@seeds
def test_an_empty_store_then_holds_the_very_same(
    store: SampleStore, other: SampleStore, tmp_path: Path, seed: int
) -> None:
    made = world(store, seed)
    for _ in range(6):
        made.change()
    counts = written(store, tmp_path / "archive", [1, 2])
    assert {name.partition("/")[2] for name in counts} >= {"samples.parquet", "answers.parquet", "shares.parquet"}
    before = tables(store)
    taken(other, tmp_path / "archive", counts, numbered(made))
    assert tables(other) == before
    with other.read() as cursor:
        assert check_store(cursor, datasets=[1, 2]).is_sound
    # Life goes on with numbers of its own: nothing that comes is taken for what was there.
    there = World(other, made.chance, made.ids, made.runs, made.edits, made.imported)
    for _ in range(12):
        there.change()
        with other.read() as cursor:
            assert check_store(cursor, datasets=[1, 2]).is_sound


@seeds
def test_among_others_everything_means_the_same(
    store: SampleStore, other: SampleStore, tmp_path: Path, seed: int
) -> None:
    made, there = world(store, seed), world(other, seed + 100)
    counts = written(store, tmp_path / "archive", [1, 2])
    before = tables(other)
    shift = taken(other, tmp_path / "archive", counts, numbered(made, runs=1000, datasets=10))
    assert shift.samples > 0
    assert shift.edits > 0
    after = tables(other)
    for name, rows in before.items():
        assert [row for row in after[name] if row in rows] == rows, name  # what was there stays
    for name, rows in tables(store, but=("questions", "conditions")).items():
        assert len(after[name]) == len(rows) + len(before[name]), name
    with store.read() as cursor, other.read() as moved:
        assert check_store(moved, datasets=[1, 2, 11, 12]).is_sound
        for dataset_id in (1, 2):
            for query in FILTERS:
                own = its = SampleFilter.from_query(query)
                if "flip" in query:
                    its = SampleFilter.from_query(query.replace("1,2,", "1001,1002,"))
                if any(name in query for name in ("run=", "failed_in", "discarded_in", "shared_in")):
                    its = SampleFilter.from_query(query.replace("=", "=100"))
                mine = [row.path for row in all_rows(cursor, dataset_id, own)]
                assert [row.path for row in all_rows(moved, dataset_id + 10, its)] == mine, query
                if own == its:
                    assert facets(cursor, dataset_id, own, WORDS) == facets(moved, dataset_id + 10, own, WORDS)
            for row, its in zip(
                all_rows(cursor, dataset_id, SampleFilter()),
                all_rows(moved, dataset_id + 10, SampleFilter()),
                strict=True,
            ):
                assert its.id == row.id + shift.samples
                assert [(tag.tag, tag.source, tag.probability) for tag in its.tags] == [
                    (tag.tag, tag.source, tag.probability) for tag in row.tags
                ]
                said = [(a.run + 1000, a.word, a.probability, a.accepted) for a in reading.answers_of(cursor, row.id)]
                assert [(a.run, a.word, a.probability, a.accepted) for a in reading.answers_of(moved, its.id)] == said
        for run in made.runs:
            assert named_counts(moved, run + 1000) == named_counts(cursor, run)
    # Edits can be taken back, and runs be reverted, in both with the same outcome.
    with store.write() as cursor, other.write() as moved:
        for edit in made.edits:
            editing.undo(cursor, edit)
            editing.undo(moved, edit + shift.edits)
        merging.revert_run(cursor, run_id=2)
        merging.revert_run(moved, run_id=1002)
        assert [[tag.tag for tag in row.tags] for row in all_rows(cursor, 1, SampleFilter())] == [
            [tag.tag for tag in row.tags] for row in all_rows(moved, 11, SampleFilter())
        ]
        assert check_store(moved, datasets=[1, 2, 11, 12]).is_sound
    for _ in range(6):
        there.change()


def all_rows(cursor: Cursor, dataset_id: int, chosen: SampleFilter) -> list[Any]:
    return reading.samples_page(cursor, dataset_id, chosen, WORDS, order="added", limit=1000).samples


def test_other_conditions_of_the_vocabulary_hold_for_what_comes(
    store: SampleStore, other: SampleStore, tmp_path: Path
) -> None:
    made = world(store, 1)
    with other.write() as cursor:
        cursor.execute("insert into conditions values ('setting', ['dark'])").fetchall()
    counts = written(store, tmp_path / "archive", [1])
    numbers = Numbers({1: 1}, {run: run for run in made.runs}, {1: 1})
    taken(other, tmp_path / "archive", counts, numbers)
    with other.read() as cursor:
        assert check_store(cursor, datasets=[1]).is_sound
        without_dark = where(1, SampleFilter(none_of=("dark",), source="model", any_of=("indoor",)), WORDS)
        rows = cursor.execute(
            f"select tags, user_count from samples s where {without_dark[0]}", without_dark[1]
        ).fetchall()
    assert all("indoor" in tags[:count] for tags, count in rows)


def test_an_archive_of_an_older_version_is_brought_to_this_one(other: SampleStore, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    (folder / "3").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (select 5 as id, 3 as dataset_id, 'Ä1.jpg' as path, 'Ä1.jpg' as file_name, '' as split, '10-7' as content_key, "
            "'' as external_id, []::varchar[] as categories, false as missing, []::varchar[] as tags, 0 as user_count, 0 as discarded, "
            f"false as failed) to '{folder}/3/samples.parquet'"
        )
    taken(other, folder, {"3/samples.parquet": 1}, Numbers({3: 1}), version=1)
    with other.read() as cursor:
        assert cursor.execute("select id, dataset_id, search, bytes, answered from samples").fetchall() == [
            (5, 1, "ä1.jpg", 10, [])
        ]
    with other.write() as cursor:
        assert cursor.execute("select nextval('sample_ids')").fetchall() == [(6,)]


def rewrite(sql: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"copy ({sql.format(path=path)}) to '{path}.new' (format parquet)")
        Path(f"{path}.new").replace(path)

    return change


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Path, dict[str, int], Numbers]:
    """An archive of data set 1, with the rows of its files and what it is to be called; tests change copies of it."""
    folder = tmp_path_factory.mktemp("archived")
    store = copied(empty_store, folder)
    made = world(store, 2)
    counts = written(store, folder / "archive", [1])
    store.close()
    return folder / "archive", counts, numbered(made)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("1/samples.parquet", lambda path: path.write_bytes(b"PAR1 no more"), "is no table"),
        ("1/samples.parquet", rewrite("select * exclude (path) from '{path}'"), "is no table"),
        ("1/samples.parquet", rewrite("select *, 1 as more from '{path}'"), "is no table"),
        ("1/samples.parquet", rewrite("select * from '{path}' limit 3"), "rows of its own"),
        ("1/samples.parquet", rewrite("select * replace (2 as dataset_id) from '{path}'"), "rows of its own"),
        ("1/samples.parquet", rewrite("select * replace (['x'] as tags) from '{path}'"), "do not fit together"),
        ("1/answers.parquet", rewrite("select * replace (99 as run_id) from '{path}'"), "do not fit together"),
        ("1/answers.parquet", rewrite("select * replace (99 as question_id) from '{path}'"), "do not fit together"),
        (
            "1/sample_tags.parquet",
            rewrite("select * replace (99999 as sample_id) from '{path}'"),
            "do not fit together",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(
    archived: tuple[Path, dict[str, int], Numbers],
    other: SampleStore,
    tmp_path: Path,
    name: str,
    change: Callable[[Path], None],
    reason: str,
) -> None:
    made, counts, numbers = archived
    folder = shutil.copytree(made, tmp_path / "archive")
    change(folder / name)
    before = tables(other)
    with pytest.raises(ArchiveUnfit, match=reason):
        taken(other, folder, counts, numbers)
    assert tables(other) == before
    assert [path.name for path in other.path.parent.iterdir() if path.name.startswith("import-")] == []
