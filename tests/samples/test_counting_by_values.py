"""Samples by their values, of one sorting, of two, and of two sets: in SQL against a count in Python."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from vlm.samples import Measures, SampleFilter, SampleStore, columns, distributions, values, where
from vlm.samples.cursor import Cursor
from vlm.samples.distributions import Axis
from vlm.samples.editing import tags_add
from vlm.samples.ingest import import_rows, staged
from vlm.samples.insights import Sorting, by_ranges
from vlm.samples.reading import count

from .conftest import copied, record

WORDS = {
    "lighting": ("dark", "bright"),
    "setting": ("indoor", "out of doors", "屋外"),
    "many": tuple(f"w{number}" for number in range(100)),
}
COUNT = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Samples with none, one and several words, own tags in two scripts, splits, categories, columns and measures."""
    store = copied(empty_store, tmp_path_factory.mktemp("made"))
    chance = np.random.default_rng(3)
    shows: list[tuple[str, ...]] = [(), ("car",), ("car", "dog"), ("a b", "car", "dog")]
    records = [
        record(
            f"{place:03}.jpg",
            split=("", "train", "val")[int(chance.integers(3))],
            categories=shows[int(chance.integers(4))],
        )
        for place in range(COUNT)
    ]
    with staged(records, store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    with staged([record("other.jpg", split="test")], store.path.parent) as source:
        import_rows(store, dataset_id=2, source=source)
    tags = [*WORDS["lighting"], *WORDS["setting"], "w3", "w7", "w99", "mine", "私の"]
    with store.write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples where dataset_id = 1 order by id").fetchall()]
        for tag in tags:
            chosen = [sample_id for sample_id in ids if chance.random() < 0.3]
            target = ("s.id in (select unnest(?::bigint[]))", [chosen])
            tags_add(cursor, dataset_id=1, target=target, tag=tag, dimension=None)
        some = ids[:90]
        for name, kind, made in (
            ("error", "number", chance.random(90)),
            ("missed", "boolean", chance.random(90) < 0.3),
            ("camera", "word", np.array([f"cam {place % 40}" for place in range(90)], dtype=object)),
        ):
            columns.column_put(cursor, dataset_id=1, name=name, kind=kind, ids=some, values=made)  # type: ignore[arg-type]
        values.measures_keep(
            cursor,
            dataset_id=1,
            measures={one: Measures(float(one), 0, 0, 0, 0, 0, 0, 1.5, 0) for one in ids[30:]},
        )
    store.close()
    return store.path


def axis(cursor: Cursor, name: str) -> Axis:
    if name in WORDS:
        kept = 5
        return Axis(Sorting("dimension", name, WORDS[name][:kept]), others=WORDS[name][kept:])
    if name == "own":
        return Axis(Sorting("own", "own tags", ("mine",)), ignored=tuple(word for of in WORDS.values() for word in of))
    if name in ("split", "category"):
        return Axis(Sorting(name, name, {"split": ("val",), "category": ("dog", "a b")}[name]))  # type: ignore[arg-type]
    if name == "luminance":
        return Axis(Sorting("measure", name, ("..<50", "50.."), None, (50.0,)))
    column = columns.column_named(cursor, 1, name)
    assert column is not None
    ids = (column.id,)
    if name == "error":
        return Axis(by_ranges(column, (0.25, 0.5)), column_ids=ids)
    listed = {"missed": ("yes", "no"), "camera": ("cam 1", "cam 2")}[name]
    return Axis(Sorting("column", name, listed, column), column_ids=ids)


def held(cursor: Cursor, name: str) -> dict[int, set[int]]:
    """Return sample id → the places of its values, one by one as the words of a filter or of a column say."""
    what = axis(cursor, name)
    rows = cursor.execute("select id, tags, split, categories from samples where dataset_id = 1").fetchall()
    measured = {one: found.luminance for one, found in values.measures_of(cursor, 1).items()}
    written = columns.column_values(cursor, 1, name) if what.column_ids else {}
    listed, found = what.sorting.values, {}
    for sample_id, tags, split, categories in rows:
        own: Sequence[str]
        if name in WORDS:
            own = [tag for tag in tags if tag in WORDS[name]]
        elif name == "own":
            own = [tag for tag in tags if not any(tag in of for of in WORDS.values())]
        elif name == "split":
            own = [split] if split else []
        elif name == "category":
            own = categories
        elif name == "luminance":
            own = [listed[measured[sample_id] >= 50]] if sample_id in measured else []
        elif name == "error":
            number = float(written.get(sample_id, -1))
            own = [listed[int(number >= 0.25) + int(number >= 0.5)]] if sample_id in written else []
        elif name == "missed":
            own = ["yes" if written[sample_id] else "no"] if sample_id in written else []
        else:
            own = [str(written[sample_id])] if sample_id in written else []
        places = {listed.index(value) if value in listed else what.place_of_others for value in own}
        found[sample_id] = places or {what.place_of_none}
    return found


NAMES = ["lighting", "setting", "many", "own", "split", "category", "error", "missed", "camera", "luminance"]


@pytest.mark.parametrize(
    "chosen", [SampleFilter(), SampleFilter(splits=("train",)), SampleFilter(has_value=("error",))]
)
def test_every_pair_is_counted_as_by_hand(filled: SampleStore, chosen: SampleFilter) -> None:
    with filled.read() as cursor:
        condition, given = where(1, chosen, WORDS)
        kept = {row[0] for row in cursor.execute(f"select s.id from samples s where {condition}", given).fetchall()}
        source = distributions.within(cursor, 1, chosen, WORDS)
        by_hand = {name: held(cursor, name) for name in NAMES}
        for first, second in product(NAMES, NAMES):
            if first == second:
                continue
            rows, others = axis(cursor, first), axis(cursor, second)
            found = distributions.count(cursor, source, rows, others)
            cells = Counter(pair for one in kept for pair in product(by_hand[first][one], by_hand[second][one]))
            told = {(i, j): int(n) for (i, j), n in np.ndenumerate(found.cells) if n}
            assert told == dict(cells), (first, second)
            assert found.total == len(kept)
            assert found.rows.tolist() == distributions.count(cursor, source, rows).rows.tolist()
            assert found.columns.tolist() == distributions.count(cursor, source, others).rows.tolist()
        grouped, measured = distributions.by_tags(cursor, source), distributions.with_measures(cursor, source)
        one = axis(cursor, "luminance")
        assert (distributions.count(cursor, measured, one).rows == distributions.count(cursor, source, one).rows).all()
        for name in (*WORDS, "own"):
            one = axis(cursor, name)
            assert (
                distributions.count(cursor, grouped, one).rows.tolist()
                == distributions.count(cursor, source, one).rows.tolist()
            )


def test_two_sets_are_told_apart(filled: SampleStore) -> None:
    first, second = SampleFilter(all_of=("dark",)), SampleFilter(splits=("val",), columns=("missed:no",))
    with filled.read() as cursor:
        source = distributions.side_by_side(cursor, where(1, first, WORDS), where(1, second, WORDS))
        ids: Callable[[SampleFilter], set[int]] = lambda chosen: {  # noqa: E731
            row[0]
            for condition, given in [where(1, chosen, WORDS)]
            for row in cursor.execute(f"select s.id from samples s where {condition}", given).fetchall()
        }
        ours, theirs = ids(first), ids(second)
        assert distributions.sides(cursor, source) == (len(ours - theirs), len(theirs - ours), len(ours & theirs))
        for name in NAMES:
            found, by_hand = distributions.count_sides(cursor, source, axis(cursor, name)), held(cursor, name)
            for column, kept in enumerate((ours - theirs, theirs - ours, ours & theirs)):
                cells = Counter(place for one in kept for place in by_hand[one])
                assert {i: int(n) for i, n in enumerate(found.cells[:, column]) if n} == dict(cells), name
        assert distributions.sides(
            cursor, distributions.side_by_side(cursor, where(1, first, WORDS), where(2, SampleFilter(), WORDS))
        )[1:] == (1, 0)


def test_nothing_is_counted_where_nothing_is(store: SampleStore) -> None:
    with store.read() as cursor:
        source = distributions.within(cursor, 1, SampleFilter(), WORDS)
        found = distributions.count(cursor, source, axis(cursor, "many"), axis(cursor, "split"))
        assert (found.total, found.rows.sum(), found.columns.sum(), found.cells.sum()) == (0, 0, 0, 0)
        assert distributions.size(cursor, source) == 0


@pytest.mark.parametrize(
    ("name", "place"), [("split", "split"), ("category", "category"), ("own", "own tag"), ("luminance", "measure")]
)
def test_what_has_no_value_can_be_filtered(filled: SampleStore, name: str, place: str) -> None:
    with filled.read() as cursor:
        source = distributions.within(cursor, 1, SampleFilter(), WORDS)
        lacking = int(distributions.count(cursor, source, axis(cursor, name)).rows[-1])
        assert lacking
        assert count(cursor, 1, SampleFilter.from_text(f"without={place.replace(' ', '+')}"), WORDS) == lacking


def test_values_of_several_lists_come_in_turn() -> None:
    assert distributions.in_turn([("a", "b", "c"), ("c", "d")], 3) == ("a", "c", "b")
    assert distributions.in_turn([(), ()], 3) == ()
