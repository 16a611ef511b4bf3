"""Importing again adds, updates and marks; an import that fails leaves nothing."""

import os
from collections.abc import Iterator

import pytest
from filelock import FileLock

from vlm.samples import Annotation, Imported, SampleFilter, SampleStore, editing, where
from vlm.samples.ingest import IN_USE, STAGING, import_rows, staged

from .conftest import WORDS, Record, record


def bring_in(store: SampleStore, *records: Record) -> Imported:
    with staged(records, store.path.parent) as source:
        return import_rows(store, dataset_id=1, source=source)


def paths(store: SampleStore, condition: str = "true") -> list[str]:
    with store.read() as cursor:
        return [
            row[0] for row in cursor.execute(f"select path from samples where {condition} order by path").fetchall()
        ]


def test_importing_again_keeps_tags_and_marks_what_is_gone(store: SampleStore) -> None:
    first = bring_in(store, record("a.jpg"), record("b.jpg"), record("c.jpg"))
    assert (first.added, first.updated, first.missing, first.total) == (3, 0, 0, 3)
    with store.write() as cursor:
        editing.tags_add(cursor, dataset_id=1, target=where(1, SampleFilter(), WORDS), tag="keep", dimension=None)
    second = bring_in(store, record("b.jpg", split="val"), record("c.jpg"), record("d.jpg"))
    assert (second.added, second.updated, second.missing, second.total) == (1, 1, 1, 4)
    assert paths(store, "missing") == ["a.jpg"]
    assert paths(store, "list_contains(tags, 'keep')") == ["a.jpg", "b.jpg", "c.jpg"]
    third = bring_in(store, record("a.jpg"), record("b.jpg"), record("c.jpg"), record("d.jpg"))
    assert (third.returned, third.missing, third.total) == (1, 0, 4)


def test_sizes_and_objects_follow_the_newest_import(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", annotations=(Annotation("cat", (0, 0, 1, 1)),)))
    bring_in(store, record("a.jpg", width=None, height=None, annotations=(Annotation("dog", None),)))
    with store.read() as cursor:
        assert cursor.execute("select width, height from samples").fetchall() == [(640, 480)]
        assert cursor.execute("select category, x from annotations").fetchall() == [("dog", None)]


def test_a_path_that_comes_twice_counts_once(store: SampleStore) -> None:
    done = bring_in(store, record("a.jpg", split="train"), record("a.jpg", split="val"))
    assert (done.total, done.duplicates) == (1, ["a.jpg"])
    assert paths(store, "split = 'train'") == ["a.jpg"]


def test_an_import_that_fails_leaves_nothing(store: SampleStore) -> None:
    bring_in(store, record("a.jpg"))

    def broken() -> Iterator[Record]:
        yield from (record(f"{index}.jpg") for index in range(5000))
        raise ValueError("the JSON ends here")

    with pytest.raises(ValueError, match="ends here"), staged(broken(), store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    assert paths(store) == ["a.jpg"]
    assert [path.name for path in store.path.parent.iterdir() if path.name.startswith(STAGING)] == []


def test_what_a_killed_import_has_read_is_swept_up(store: SampleStore) -> None:
    """The next import removes it, and leaves alone what another import is at work on or has only just begun."""
    folder = store.path.parent
    killed, young, alive = (folder / f"{STAGING}{name}" for name in ("killed", "young", "alive"))
    for place in (killed, young, alive):
        place.mkdir()
        (place / "staged.duckdb").write_bytes(b"rows")
    for place in (killed, alive):
        os.utime(place, (0, 0))
    with FileLock(alive / IN_USE):
        os.utime(alive, (0, 0))
        bring_in(store, record("a.jpg"))
    assert sorted(path for path in folder.iterdir() if path.name.startswith(STAGING)) == [alive, young]
    assert (alive / "staged.duckdb").exists()


def test_hostile_names_are_only_names(store: SampleStore) -> None:
    names = ["'; drop table samples; --.jpg", "<script>.jpg", "été 🚀.jpg", "a\tb.jpg"]
    bring_in(store, *[record(name) for name in names])
    assert paths(store) == sorted(names)


def test_many_arrive_in_order(store: SampleStore) -> None:
    bring_in(store, *[record(f"{index:05}.jpg") for index in range(9000)])
    with store.read() as cursor:
        rows = cursor.execute("select path from samples order by id").fetchall()
    assert rows == [(f"{index:05}.jpg",) for index in range(9000)]
