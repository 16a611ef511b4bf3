"""Columns, measures, findings, slices, labels and draws: written, read, filtered by, sorted by, replaced and forgotten."""

import pytest

from vlm.samples import (
    Column,
    Drawn,
    Edit,
    FilterError,
    Label,
    Mark,
    Measures,
    Result,
    SampleFilter,
    SampleStore,
    editing,
    ingest,
    merging,
    values,
    where,
)
from vlm.samples.checking import check_store
from vlm.samples.columns import (
    column_delete,
    column_describe,
    column_named,
    column_put,
    column_values,
    columns,
    facet,
    ranges_of,
    span,
    values_of,
)
from vlm.samples.conditions import Condition
from vlm.samples.cursor import Cursor
from vlm.samples.drawing import draws_claim, draws_left, draws_put, draws_skip
from vlm.samples.history import events
from vlm.samples.reading import count, edits, labels, neighbours, samples_page
from vlm.samples.schema import DATASET_TABLES
from vlm.samples.values import (
    marks,
    marks_put,
    measures_of,
    slice_freeze,
    slice_ids,
    unmeasured,
)

from .conftest import WORDS, answer, fill, result

ADA = Edit(7, "ada", "review")


def ids_of(cursor: Cursor, chosen: SampleFilter, order: str = "added") -> list[int]:
    found, after = [], ""
    while True:
        page = samples_page(cursor, 1, chosen, WORDS, order=order, after=after, limit=2)
        found += [sample.id for sample in page.samples]
        if not (after := page.next):
            assert count(cursor, 1, chosen, WORDS) == len(found)
            return found


def chosen(*ids: int) -> Condition:
    return where(1, SampleFilter(ids=ids), WORDS)


def measured(luminance: float, phash: int = 1) -> Measures:
    return Measures(luminance, 0.1, 0.9, 0.5, 12.0, 0.01, 3.0, 1.5, phash)


def test_columns_are_filters_and_orders(store: SampleStore) -> None:
    a, b, c, d = fill(store, 4)
    (other,) = fill(store, 1, dataset_id=2)
    with store.write() as cursor:
        done = column_put(
            cursor, dataset_id=1, name="error", kind="number", ids=[a, b, c, other], values=[0.5, 2.0, -1, 9]
        )
        assert (done.name, done.kind, done.values) == ("error", "number", 3)
        column_put(cursor, dataset_id=1, name="flag", kind="boolean", ids=[a, d], values=[True, False])
        column_put(cursor, dataset_id=1, name="camera", kind="word", ids=[a, b], values=["front: left", "rear"])
        assert [column.name for column in columns(cursor, 1)] == ["camera", "error", "flag"]
        assert ids_of(cursor, SampleFilter(columns=("error:0..1",))) == [a]
        assert ids_of(cursor, SampleFilter(columns=("error:..0.5",))) == [a, c]
        assert ids_of(cursor, SampleFilter(columns=("flag:yes",))) == [a]
        assert ids_of(cursor, SampleFilter(columns=("flag:no",))) == [d]
        assert ids_of(cursor, SampleFilter(columns=("camera:front: left", "error:0..9"))) == [a]
        assert ids_of(cursor, SampleFilter(columns=("nothing:1..2",))) == []
        assert ids_of(cursor, SampleFilter(), "column:error") == [c, a, b, d]
        assert ids_of(cursor, SampleFilter(), "-column:error") == [b, a, c, d]
        assert ids_of(cursor, SampleFilter(), "column:camera") == [a, b, c, d]
        assert neighbours(cursor, 1, SampleFilter(), WORDS, order="-column:error", sample_id=a) == ([b], [c])
        assert column_values(cursor, 1, "flag", ids=[a, b, d]) == {a: True, d: False}
        assert values_of(cursor, 1, [a]) == {a: {"camera": "front: left", "error": 0.5, "flag": True}}
        column_put(cursor, dataset_id=1, name="error", kind="number", ids=[d], values=[1.0])  # in place of the first
        assert column_values(cursor, 1, "error") == {d: 1.0}
        assert column_delete(cursor, dataset_id=1, name="flag")
        assert not column_delete(cursor, dataset_id=1, name="flag")
        for bad in ("", "a:b", "x" * 61, "a\nb"):
            with pytest.raises(FilterError):
                column_put(cursor, dataset_id=1, name=bad, kind="number", ids=[], values=[])
        for chosen in (SampleFilter(columns=("error",)), SampleFilter(measures=("smell:0..1",))):
            with pytest.raises(FilterError):
                count(cursor, 1, chosen, WORDS)
        with pytest.raises(FilterError):
            ids_of(cursor, SampleFilter(), "column:nothing")


def test_ranges_without_their_end_alternatives_and_no_value(store: SampleStore) -> None:
    a, b, c, d = fill(store, 4)
    with store.write() as cursor:
        column_put(cursor, dataset_id=1, name="error", kind="number", ids=[a, b, c], values=[0.0, 0.5, 1.0])
        column_put(cursor, dataset_id=1, name="camera", kind="word", ids=[a, b, d], values=["front", "rear", "left"])
        assert ids_of(cursor, SampleFilter(columns=("error:0..0.5",))) == [a, b]
        assert ids_of(cursor, SampleFilter(columns=("error:0..<0.5",))) == [a]
        assert ids_of(cursor, SampleFilter(columns=("error:..<1e0",))) == [a, b]
        assert ids_of(cursor, SampleFilter(columns=("error:..<0.5", "error:1..", "camera:front", "camera:left"))) == [a]
        assert ids_of(cursor, SampleFilter(columns=("camera:front", "camera:left"))) == [a, d]
        assert ids_of(cursor, SampleFilter(no_value=("error",))) == [d]
        assert ids_of(cursor, SampleFilter(no_value=("error", "camera"))) == []
        assert SampleFilter.from_query(SampleFilter(no_value=("error",)).to_query()).no_value == ("error",)


def test_a_column_is_counted_without_its_own_choice(store: SampleStore) -> None:
    a, b, c, d = fill(store, 4)
    with store.write() as cursor:
        put = {"error": ("number", [0.0, 0.5, 1.0]), "flag": ("boolean", [True, False, True])}
        for name, (kind, values) in put.items():
            column_put(cursor, dataset_id=1, name=name, kind=kind, ids=[a, b, c], values=values)  # type: ignore[arg-type]
        column_put(cursor, dataset_id=1, name="camera", kind="word", ids=[a, b, d], values=["x", "x", "y"])
        error, flag, camera = (column_named(cursor, 1, name) for name in ("error", "flag", "camera"))
        assert error
        assert flag
        assert camera
        found = span(cursor, error)
        assert found is not None
        assert (found.low, found.high) == (0.0, 1.0)
        chosen = SampleFilter(columns=("flag:yes", "error:0..<0.5"))

        def counts(column: Column, edges: tuple[float, ...] = ()) -> tuple[list[tuple[str, int]], int]:
            got = facet(cursor, 1, column, chosen, WORDS, edges=edges)
            return [(one.value, one.count) for one in got.counts], got.lacking

        assert counts(error, (0.5, 1.0)) == ([("..<0.5", 1), ("0.5..<1", 0), ("1..", 1)], 0)
        assert counts(flag) == ([("yes", 1), ("no", 0)], 0)
        assert counts(camera) == ([("x", 1)], 0)
        everything = facet(cursor, 1, camera, SampleFilter(), WORDS)
        assert ([(one.value, one.count) for one in everything.counts], everything.lacking) == ([("x", 2), ("y", 1)], 1)
        for part, counted in zip(ranges_of((0.5, 1.0)), (1, 1, 1), strict=True):
            assert count(cursor, 1, SampleFilter(columns=(f"error:{part}",)), WORDS) == counted


def test_a_column_keeps_its_description_when_it_is_replaced(store: SampleStore) -> None:
    a, *_ = fill(store, 2)
    with store.write() as cursor:
        put = {"dataset_id": 1, "name": "error", "kind": "number", "ids": [a]}
        column_put(cursor, **put, values=[1.0], source="one.csv", user_name="ada")  # type: ignore[arg-type]
        assert column_describe(cursor, dataset_id=1, name="error", description=" of the detector ")
        column_put(cursor, **put, values=[2.0], source="two.csv")  # type: ignore[arg-type]
        (found,) = columns(cursor, 1)
        assert (found.description, found.source, found.user_name) == ("of the detector", "two.csv", "")
        assert found.created is not None
        assert not column_describe(cursor, dataset_id=1, name="nothing", description="x")


def test_measures_come_with_results_and_are_filters_and_orders(store: SampleStore) -> None:
    a, b, c, _ = fill(store, 4)
    with store.write() as cursor:
        found = [Result(a, measures=measured(0.2)), Result(b, measures=measured(0.7, 2**64 - 1))]
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=found)
        values.measures_keep(cursor, dataset_id=1, measures={a: measured(0.3)})
        assert measures_of(cursor, 1) == {a: measured(0.3), b: measured(0.7, 2**64 - 1)}
        assert ids_of(cursor, SampleFilter(measures=("luminance:0.5..",))) == [b]
        assert ids_of(cursor, SampleFilter(), "-measure:luminance")[:2] == [b, a]
        assert [row[0] for row in unmeasured(cursor, 1, limit=1)] == [c]


def test_findings_and_slices_are_filters(store: SampleStore) -> None:
    a, b, c, d = fill(store, 4)
    with store.write() as cursor:
        marks_put(cursor, dataset_id=1, kind="near", marks=[Mark(a, 5), Mark(b, 5), Mark(c, 6)])
        marks_put(cursor, dataset_id=1, kind="contradiction", marks=[Mark(d, value=0.99, word="dark")])
        editing.tags_add(cursor, dataset_id=1, target=chosen(d), tag="dark", dimension="lighting")
        assert ids_of(cursor, SampleFilter(group=5)) == [a, b]
        assert ids_of(cursor, SampleFilter(marks=("contradiction:dark",))) == [d]
        assert ids_of(cursor, SampleFilter(marks=("contradiction:bright",))) == []
        assert marks(cursor, 1, "near", ids=[c, d]) == [Mark(c, 6)]
        assert slice_freeze(cursor, dataset_id=1, slice_id=3, target=chosen(a, d, 999)) == 2
        assert ids_of(cursor, SampleFilter(slice=3)) == slice_ids(cursor, 1, 3) == [a, d]


def test_two_runs_differ_where_they_do(store: SampleStore) -> None:
    a, b, c, _ = fill(store, 4)
    with store.write() as cursor:
        for run, words in ((1, ("dark", "dark", "bright")), (2, ("dark", "bright", "dark"))):
            found = [result(i, answer(run, word)) for i, word in zip((a, b, c), words, strict=True)]
            merging.merge_batch(cursor, dataset_id=1, run_id=run, results=found)
        assert ids_of(cursor, SampleFilter(flip="1,2,lighting")) == [b, c]
        assert ids_of(cursor, SampleFilter(flip="1,2,lighting,dark,bright")) == [b]
        with pytest.raises(FilterError):
            ids_of(cursor, SampleFilter(flip="x,2,lighting"))


def test_labels_keep_the_chance_of_their_draw(store: SampleStore) -> None:
    a, b, *_ = fill(store, 4)
    with store.write() as cursor:
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=[result(a, answer(1, "dark"))])
        first = editing.labels_add(
            cursor,
            dataset_id=1,
            labels=[Label(a, "lighting", "bright", 0.25, "dark", "mix"), Label(999, "lighting", "bright")],
            by=ADA,
            give_tags=True,
        )
        assert first.samples == 1
        assert [tag.tag for tag in samples_page(cursor, 1, SampleFilter(ids=(a,)), WORDS).samples[0].tags] == ["bright"]
        second = editing.labels_add(
            cursor, dataset_id=1, labels=[Label(a, "lighting", ""), Label(b, "lighting", "dark")]
        )
        (kept, other) = labels(cursor, 1, dimension="lighting")
        assert (kept.sample_id, kept.word, kept.probability, kept.stratum, kept.design) == (a, "", 0.25, "dark", "mix")
        assert (other.sample_id, other.probability) == (b, None)
        assert ids_of(cursor, SampleFilter(labelled=("lighting",))) == [a, b]
        assert ids_of(cursor, SampleFilter(labelled=("lighting:",))) == [a]
        assert len(ids_of(cursor, SampleFilter(unlabelled=("lighting",)))) == 2
        assert ids_of(cursor, SampleFilter(edited_by="ada")) == [a]
        assert ids_of(cursor, SampleFilter(edit=second.id)) == [a, b]
        editing.undo(cursor, second.id or 0, ADA)
        assert [(label.word, label.user_name, label.way) for label in labels(cursor, 1)] == [
            ("bright", "ada", "review")
        ]
        editing.undo(cursor, first.id or 0, ADA)
        assert labels(cursor, 1) == []
        assert [tag.tag for tag in samples_page(cursor, 1, SampleFilter(ids=(a,)), WORDS).samples[0].tags] == ["dark"]
        assert [(event.action, event.user) for event in events(cursor, 1, a) if event.run is None][-1] == (
            "label",
            "ada",
        )
        assert [edit.action for edit in edits(cursor, 1)] == ["undo", "undo", "label", "label"]
        assert edits(cursor, 1, undoable=True) == []


def test_two_people_never_get_the_same_picture(store: SampleStore) -> None:
    ids = fill(store, 6)
    draw = {"dataset_id": 1, "dimension": "lighting", "batch": "today"}
    with store.write() as cursor:
        assert draws_put(cursor, **draw, drawn=[Drawn(i, place, 0.5, "") for place, i in enumerate(reversed(ids))]) == 6  # type: ignore[arg-type]
        ada = [row.sample_id for row in draws_claim(cursor, **draw, who="ada", limit=2)]  # type: ignore[arg-type]
        bob = [row.sample_id for row in draws_claim(cursor, **draw, who="bob", limit=2)]  # type: ignore[arg-type]
        assert (ada, bob) == (ids[5:3:-1], ids[3:1:-1])
        assert [row.sample_id for row in draws_claim(cursor, **draw, who="ada", limit=3)] == [*ada, ids[1]]  # type: ignore[arg-type]
        edit = editing.labels_add(cursor, dataset_id=1, labels=[Label(ada[0], "lighting", "dark", 0.5)], by=ADA)
        assert draws_left(cursor, 1) == {("lighting", "today"): (6, 1)}
        draws_skip(cursor, **draw, sample_id=ada[1])  # type: ignore[arg-type]
        late = draws_claim(cursor, **draw, who="carl", limit=9, seconds=0)  # type: ignore[arg-type]
        assert [row.sample_id for row in late] == [*bob, ids[1], ids[0], ada[1]]
        editing.undo(cursor, edit.id or 0)
        assert draws_left(cursor, 1) == {("lighting", "today"): (6, 0)}


def test_everything_goes_with_the_data_set(store: SampleStore) -> None:
    a, b, *_ = fill(store, 4)
    fill(store, 2, dataset_id=2)
    with store.write() as cursor:
        merging.run_begin(cursor, dataset_id=1, run_id=1, worker="w", questions=[])
        found = [Result(a, (answer(1, "dark"),), measures=measured(0.2))]
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=found, worker="w")
        editing.labels_add(cursor, dataset_id=1, labels=[Label(a, "lighting", "dark")])
        editing.tags_remove(cursor, dataset_id=1, target=where(1, SampleFilter(ids=(a,)), WORDS), tag="dark")
        column_put(cursor, dataset_id=1, name="error", kind="number", ids=[b], values=[1])
        marks_put(cursor, dataset_id=1, kind="near", marks=[Mark(a, 5)])
        slice_freeze(cursor, dataset_id=1, slice_id=1, target=chosen(a))
        draws_put(cursor, dataset_id=1, dimension="lighting", batch="x", drawn=[Drawn(b, 1, 0.5, "")])
        assert check_store(cursor, datasets=[1, 2]).is_sound
        ingest.dataset_delete(cursor, dataset_id=1)
        for table in DATASET_TABLES:
            assert cursor.execute(f"select count(*) from {table} where dataset_id = 1").fetchall() == [(0,)], table
        assert check_store(cursor, datasets=[2]).is_sound
