"""Contents that change, files that move, and what a run is to ask of whom."""

import pytest

from vlm.samples import Imported, Question, Result, SampleFilter, SampleStore, StoreClaimLost, editing, merging, where
from vlm.samples.asking import question_ids
from vlm.samples.checking import check_store
from vlm.samples.ingest import import_rows, relocated, staged
from vlm.samples.progress import Wanted, pending, pending_count, pending_spread
from vlm.samples.reading import export_page

from .conftest import WORDS, Record, answer, record


def bring_in(store: SampleStore, *records: Record) -> Imported:
    with staged(records, store.path.parent) as source:
        return import_rows(store, dataset_id=1, source=source)


def files(store: SampleStore) -> dict[str, tuple[int, list[str], list[int], bool]]:
    with store.read() as cursor:
        rows = cursor.execute("select path, id, tags, answered, missing from samples order by path").fetchall()
    return {row[0]: row[1:] for row in rows}


def answered(store: SampleStore, *paths: str, run: int = 1) -> dict[str, int]:
    """Let a run answer about files, whose bytes it reads, and a user tag them; returns the ids."""
    asked = [Question.of(model="m", revision="1", mode="score", dimension="lighting", asked={})]
    with store.write() as cursor:
        questions = merging.run_begin(cursor, dataset_id=1, run_id=run, worker="", questions=asked)
        ids = dict(cursor.execute("select path, id from samples").fetchall())
        found = [Result(ids[path], (answer(run, "dark"),), digest=f"digest of {path}") for path in paths]
        merging.merge_batch(cursor, dataset_id=1, run_id=run, results=found, questions=questions)
        target = where(1, SampleFilter(ids=tuple(ids[path] for path in paths)), WORDS)
        editing.tags_add(cursor, dataset_id=1, target=target, tag="mine", dimension=None)
    return ids


def waiting(store: SampleStore) -> list[str]:
    asked = [Question.of(model="m", revision="1", mode="score", dimension="lighting", asked={})]
    with store.read() as cursor:
        wanted = Wanted(where(1, SampleFilter(), WORDS), question_ids(cursor, asked), only_missing=True)
        found = pending(cursor, wanted, run_id=0, after=-1, limit=100)
        assert pending_count(cursor, wanted, run_id=0) == len(found)
        assert check_store(cursor, datasets=[1]).is_sound
    return [sample.path for sample in found]


def test_another_picture_under_the_same_name_is_asked_again(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    answered(store, "a.jpg", "b.jpg")
    assert waiting(store) == []
    done = bring_in(store, record("a.jpg", content_key="11-3"), record("b.jpg", content_key="10-2"))
    assert (done.replaced, done.updated, done.moved) == (1, 1, 0)
    assert [files(store)[path][1] for path in ("a.jpg", "b.jpg")] == [["mine"], ["mine", "dark"]]
    assert waiting(store) == ["a.jpg"]
    with store.write() as cursor:
        merging.apply_thresholds(cursor, run_id=1, min_probability=0.1, min_mass=0.1)
        assert check_store(cursor, datasets=[1]).is_sound
    assert files(store)["a.jpg"][1] == ["mine"]  # what was said of the old picture stays away
    answered(store, "a.jpg", run=2)
    assert files(store)["a.jpg"][1] == ["mine", "dark"]


def test_a_file_that_failed_is_asked_again_once_it_changed(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"))
    with store.write() as cursor:
        ((sample_id,),) = cursor.execute("select id from samples").fetchall()
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=[Result(sample_id, error="damaged")])
    assert waiting(store) == []
    bring_in(store, record("a.jpg", content_key="12-2"))
    assert waiting(store) == ["a.jpg"]


def test_new_times_of_the_same_bytes_change_nothing(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    answered(store, "a.jpg", "b.jpg")
    looked: list[str] = []

    def digest(path: str) -> str:
        looked.append(path)
        return f"digest of {path}" if path == "a.jpg" else "another"

    records = [record("a.jpg", content_key="10-7"), record("b.jpg", content_key="10-8")]
    with staged(records, store.path.parent) as source:
        done = import_rows(store, dataset_id=1, source=source, digest=digest)
    assert (done.replaced, looked) == (1, ["a.jpg", "b.jpg"])
    assert waiting(store) == ["b.jpg"]


def test_a_copied_data_set_keeps_its_answers(store: SampleStore) -> None:
    """Its folder is another one, and copying gave the files new times."""
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    ids = answered(store, "a.jpg", "b.jpg")
    with staged(
        [record("a.jpg", content_key="10-7"), record("b.jpg", content_key="11-8")], store.path.parent
    ) as source:
        done = import_rows(store, dataset_id=1, source=source, relocated=True)
    assert done.replaced == 1
    assert {path: row[0] for path, row in files(store).items()} == ids
    assert waiting(store) == ["b.jpg"]


def test_a_data_set_that_was_pointed_elsewhere_keeps_its_answers(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    answered(store, "a.jpg", "b.jpg")
    with store.write() as cursor:
        relocated(cursor, dataset_id=1)
    records = [record("a.jpg", content_key="10-7"), record("b.jpg", content_key="11-8")]
    assert bring_in(store, *records).replaced == 1
    assert waiting(store) == ["b.jpg"]
    assert (
        bring_in(store, record("a.jpg", content_key="10-9"), records[1]).replaced == 1
    )  # from here on times count again


def test_a_renamed_file_is_found_again(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    ids = answered(store, "a.jpg", "b.jpg")
    done = bring_in(store, record("deep/c.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    assert (done.moved, done.added, done.missing, done.total) == (1, 0, 0, 2)
    assert files(store)["deep/c.jpg"][:2] == (ids["a.jpg"], ["mine", "dark"])
    assert waiting(store) == []


def test_what_may_be_two_files_is_not_one_that_moved(store: SampleStore) -> None:
    """Archives give all files one time; and where the bytes are known, they decide."""
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-1"))
    done = bring_in(store, record("b.jpg", content_key="10-1"), record("c.jpg", content_key="10-1"))
    assert (done.moved, done.added, done.missing) == (0, 1, 1)
    bring_in(store, record("d.jpg", content_key="10-9"))
    answered(store, "d.jpg")
    with staged([record("e.jpg", content_key="10-9")], store.path.parent) as source:
        done = import_rows(store, dataset_id=1, source=source, digest=lambda _: "other bytes")
    assert (done.moved, done.added) == (0, 1)


def test_files_that_are_gone_are_in_no_run_and_no_export(store: SampleStore) -> None:
    bring_in(store, record("a.jpg", content_key="10-1"), record("b.jpg", content_key="10-2"))
    bring_in(store, record("b.jpg", content_key="10-2"))
    assert waiting(store) == ["b.jpg"]
    with store.read() as cursor:
        asked = {"lighting": None}
        for chosen, expected in ((SampleFilter(), ["b.jpg"]), (SampleFilter(state="missing"), ["a.jpg"])):
            rows, _ = export_page(cursor, 1, chosen, WORDS, after="")
            assert [row[0].path for row in rows] == expected
        everything = Wanted(where(1, SampleFilter(), WORDS), asked)
        assert [sample.path for sample in pending(cursor, everything, run_id=0, after=-1, limit=9)] == ["b.jpg"]


def test_only_what_lacks_an_answer_is_asked(store: SampleStore) -> None:
    bring_in(store, *[record(f"{index}.jpg", content_key=f"10-{index}") for index in range(5)])
    first, second = (
        Question.of(model="m", revision="1", mode="score", dimension=name, asked={"words": words})
        for name, words in WORDS.items()
    )
    with store.write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples order by id").fetchall()]
        known = merging.run_begin(
            cursor, dataset_id=1, run_id=1, worker="w", questions=[first], detail="full", dtype="float32"
        )
        found = [Result(sample_id, (answer(1, "dark"),)) for sample_id in ids[:3]]
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=found, questions=known, worker="w")
        scope = where(1, SampleFilter(), WORDS)

        def lacking(*asked: Question, **options: object) -> list[tuple[str, ...]]:
            wanted = Wanted(scope, question_ids(cursor, asked), only_missing=True, **options)  # type: ignore[arg-type]
            rows = pending(cursor, wanted, run_id=0, after=-1, limit=10)
            assert pending_count(cursor, wanted, run_id=0) == len(rows)
            assert len(pending_spread(cursor, wanted, run_id=0, limit=2)) == min(2, len(rows))
            return [row.lacking for row in rows]

        assert lacking(first) == [("lighting",)] * 2
        assert lacking(first, second) == [("setting",)] * 3 + [("lighting", "setting")] * 2
        assert lacking(first, like=("full", "float32")) == [("lighting",)] * 2
        assert lacking(first, like=("low", "float32")) == [("lighting",)] * 5
        with pytest.raises(StoreClaimLost):
            merging.merge_batch(cursor, dataset_id=1, run_id=1, results=found, worker="somebody else")
        merging.revert_run(cursor, run_id=1)
        with pytest.raises(StoreClaimLost):
            merging.merge_batch(cursor, dataset_id=1, run_id=1, results=found, questions=known, worker="w")
        assert lacking(first) == [("lighting",)] * 5
