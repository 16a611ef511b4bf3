"""Filters, pages, counts and facets against plain Python over the same samples."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from vlm.samples import Annotation, Count, FilterError, SampleFilter, SampleStore, editing, merging, where
from vlm.samples.counting import facets
from vlm.samples.ingest import import_rows, staged
from vlm.samples.names import sort_key
from vlm.samples.reading import count, export_page, neighbours, sample_detail, samples_page, tag_suggestions

from .conftest import WORDS, answer, copied, record, result

SPLITS = ("train", "val", "")
CATEGORIES = ("cat", "dog")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A hundred samples with everything that a filter can ask for, and another data set beside them."""
    store = copied(empty_store, tmp_path_factory.mktemp("made"))
    chance = random.Random(7)
    records = [
        record(
            f"{chance.randrange(10**6):06}_{'Night' if index % 4 == 0 else 'day'}.jpg",
            split=SPLITS[index % 3],
            categories=tuple(c for c in CATEGORIES if chance.random() < 0.4),
        )
        for index in range(100)
    ]
    for dataset_id in (1, 2):
        with staged(records, store.path.parent) as source:
            import_rows(store, dataset_id=dataset_id, source=source)
    with store.write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples where dataset_id = 1 order by id").fetchall()]
        results = []
        for sample_id in ids:
            draw = chance.random()
            if draw < 0.1:
                results.append(result(sample_id, error="broken"))
            elif draw < 0.9:
                light, place = chance.choice(WORDS["lighting"]), chance.choice(WORDS["setting"])
                sure = round(0.5 + chance.random() / 2, 3)
                results.append(result(sample_id, answer(1, light, sure, accepted=sure > 0.6), answer(1, place, 0.95)))
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=results)
        for tag in ("mine", "bright"):
            target = where(1, SampleFilter(ids=tuple(chance.sample(ids, 20))), WORDS)
            dimension = "lighting" if tag == "bright" else None
            editing.tags_add(cursor, dataset_id=1, target=target, tag=tag, dimension=dimension)
    store.close()
    return store.path


def rows(store: SampleStore) -> list[dict[str, object]]:
    names = (
        "id",
        "file_name",
        "split",
        "categories",
        "tags",
        "user_count",
        "certainty",
        "discarded",
        "failed",
        "missing",
    )
    with store.read() as cursor:
        found = cursor.execute(f"select {', '.join(names)} from samples where dataset_id = 1 order by id").fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def chosen_ids(store: SampleStore, chosen: SampleFilter, order: str = "added") -> list[int]:
    found, after = [], ""
    with store.read() as cursor:
        while True:
            page = samples_page(cursor, 1, chosen, WORDS, order=order, after=after, limit=7)
            found += [sample.id for sample in page.samples]
            if not (after := page.next):
                assert len(found) == count(cursor, 1, chosen, WORDS)
                return found


FILTERS = [
    (SampleFilter(), lambda r: True),
    (SampleFilter(text="night"), lambda r: "Night" in r["file_name"]),
    (SampleFilter(splits=("train", "val")), lambda r: r["split"] in ("train", "val")),
    (SampleFilter(categories=("cat",)), lambda r: "cat" in r["categories"]),
    (SampleFilter(all_of=("mine", "bright")), lambda r: {"mine", "bright"} <= set(r["tags"])),
    (SampleFilter(any_of=("dark", "mine")), lambda r: {"dark", "mine"} & set(r["tags"])),
    (SampleFilter(none_of=("dark", "indoor")), lambda r: not {"dark", "indoor"} & set(r["tags"])),
    (SampleFilter(lacking=("lighting",)), lambda r: not set(WORDS["lighting"]) & set(r["tags"])),
    (SampleFilter(state="untagged"), lambda r: not r["tags"]),
    (SampleFilter(state="discarded"), lambda r: r["discarded"] > 0),
    (SampleFilter(state="failed"), lambda r: r["failed"]),
    (SampleFilter(state="missing"), lambda r: r["missing"]),
    (SampleFilter(source="user"), lambda r: r["user_count"] > 0),
    (SampleFilter(source="model"), lambda r: len(r["tags"]) > r["user_count"]),
    (SampleFilter(max_probability=0.7), lambda r: r["certainty"] is not None and r["certainty"] <= 0.7),
    (SampleFilter(text="day", all_of=("mine",), none_of=("indoor",)), lambda r: "day" in r["file_name"] and "mine" in r["tags"] and "indoor" not in r["tags"]),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(FILTERS)))
def test_a_filter_takes_what_it_says(place: int, filled: SampleStore) -> None:
    chosen, holds = FILTERS[place]
    expected = [row["id"] for row in rows(filled) if holds(row)]
    assert chosen_ids(filled, chosen) == expected
    assert place in (0, 11) or 0 < len(expected) < 100
    assert SampleFilter.from_query(chosen.to_query()) == chosen


def test_filters_by_dimension_and_run(filled: SampleStore) -> None:
    with filled.read() as cursor:
        sure = cursor.execute(
            "select sample_id from answers where dimension = 'setting' and probability >= 0.9 order by 1"
        ).fetchall()
        bad = cursor.execute("select sample_id from run_samples where status = 'failed' order by 1").fetchall()
        off = cursor.execute("select distinct sample_id from answers where not accepted order by 1").fetchall()
        every = cursor.execute("select sample_id from run_samples order by 1").fetchall()
    assert chosen_ids(filled, SampleFilter(dimension="setting", min_probability=0.9)) == [row[0] for row in sure]
    assert chosen_ids(filled, SampleFilter(failed_in=1)) == [row[0] for row in bad]
    assert chosen_ids(filled, SampleFilter(discarded_in=1)) == [row[0] for row in off]
    assert chosen_ids(filled, SampleFilter(run=1)) == [row[0] for row in every]
    assert chosen_ids(filled, SampleFilter(run=99)) == []


@pytest.mark.parametrize("order", ["name", "added", "uncertain", "-name", "-added", "-uncertain", "split", "-split"])
def test_pages_and_neighbours_walk_every_order(order: str, filled: SampleStore) -> None:
    key = {
        "name": lambda r: (sort_key(str(r["file_name"])), r["id"]),
        "added": lambda r: r["id"],
        "uncertain": lambda r: (2 if r["certainty"] is None else r["certainty"], r["id"]),
        "-uncertain": lambda r: (2 if r["certainty"] is None else -r["certainty"], r["id"]),
        "split": lambda r: (r["split"] or "\U0010ffff", r["id"]),
    }
    falling = order in ("-name", "-added", "-split")
    by = key[order] if order in key else key[order[1:]]
    expected = [row["id"] for row in sorted(rows(filled), key=by, reverse=falling)]  # type: ignore[arg-type]
    if order == "-split":  # those without one come last all the same
        named = {row["id"] for row in rows(filled) if row["split"]}
        expected = [i for i in expected if i in named] + [i for i in expected if i not in named]
    assert chosen_ids(filled, SampleFilter(), order) == expected
    with filled.read() as cursor:
        for place in (0, 1, 50, 99):
            found = neighbours(
                cursor, 1, SampleFilter(), WORDS, order=order, sample_id=int(str(expected[place])), each=3
            )
            assert found == (expected[max(0, place - 3) : place], expected[place + 1 : place + 4])


@pytest.mark.parametrize(
    "chosen",
    [
        SampleFilter(),
        SampleFilter(all_of=("dark",)),
        SampleFilter(any_of=("bright", "dark"), splits=("train",)),
        SampleFilter(none_of=("indoor",), categories=("dog",)),
        SampleFilter(all_of=("mine",), state="discarded"),
        SampleFilter(lacking=("lighting",)),
    ],
)
def test_facets_count_as_shops_do(chosen: SampleFilter, filled: SampleStore) -> None:
    def having(**parts: object) -> list[dict[str, object]]:
        wanted = set(chosen_ids(filled, replace(chosen, **parts)))  # type: ignore[arg-type]
        return [row for row in rows(filled) if row["id"] in wanted]

    with filled.read() as cursor:
        found = facets(cursor, 1, chosen, WORDS)
    assert found.total == len(having())
    for facet in found.dimensions:
        mine = WORDS[facet.name]
        pool = having(
            all_of=tuple(t for t in chosen.all_of if t not in mine),
            any_of=() if set(chosen.any_of) & set(mine) else chosen.any_of,
            none_of=tuple(t for t in chosen.none_of if t not in mine),
            lacking=tuple(d for d in chosen.lacking if d != facet.name),
        )
        assert facet.words == tuple(Count(word, sum(word in row["tags"] for row in pool)) for word in mine)  # type: ignore[operator]
        assert facet.lacking == sum(not set(mine) & set(row["tags"]) for row in pool)  # type: ignore[call-overload]
    assert {c.value: c.count for c in found.user_tags}.get("mine", 0) == sum("mine" in row["tags"] for row in having())  # type: ignore[operator]
    splits = [row["split"] for row in having(splits=())]
    assert {c.value: c.count for c in found.splits} == {s: splits.count(s) for s in set(splits) if s}
    shown = [c for row in having(categories=()) for c in row["categories"]]  # type: ignore[attr-defined]
    assert {c.value: c.count for c in found.categories} == {c: shown.count(c) for c in set(shown)}
    states = {c.value: c.count for c in found.states}
    assert states["untagged"] == sum(not row["tags"] for row in having(state=""))
    assert states["failed"] == sum(bool(row["failed"]) for row in having(state=""))
    assert {c.value: c.count for c in found.sources}["user"] == sum(row["user_count"] > 0 for row in having(source=""))  # type: ignore[operator]


def test_two_words_of_a_dimension_are_counted_once(filled: SampleStore) -> None:
    with filled.write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples where dataset_id = 1 limit 3").fetchall()]
        for word in WORDS["lighting"]:
            target = where(1, SampleFilter(ids=tuple(ids)), WORDS)
            editing.tags_add(cursor, dataset_id=1, target=target, tag=word, dimension="lighting")
        (lighting, _) = facets(cursor, 1, SampleFilter(), WORDS).dimensions
    assert lighting.lacking == sum(not set(WORDS["lighting"]) & set(row["tags"]) for row in rows(filled))  # type: ignore[call-overload]


def test_one_sample_with_all_that_is_known(store: SampleStore) -> None:
    box = (1.0, 2.0, 30.0, 40.0)
    records = [record("a.jpg", categories=("cat",), annotations=(Annotation("cat", box), Annotation("dog", None)))]
    with staged(records, store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    with store.write() as cursor:
        (sample_id,) = cursor.execute("select id from samples").fetchall()[0]
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=[result(sample_id, answer(1, "dark", 0.8))])
        merging.merge_batch(cursor, dataset_id=1, run_id=2, results=[result(sample_id, answer(2, "bright", 0.7))])
        editing.tags_remove(cursor, dataset_id=1, target=where(1, SampleFilter(), WORDS), tag="bright")
        found = sample_detail(cursor, 1, sample_id)
        assert found is not None
        assert found.annotations == (Annotation("cat", box), Annotation("dog", None))
        assert [(a.run, a.word, round(a.probabilities[1], 3)) for a in found.answers] == [(2, "bright", 0.7)]
        assert found.rejected == ("bright",)
        assert found.sample.tags == ()
        assert sample_detail(cursor, 2, sample_id) is None
        ((item,), after) = export_page(cursor, 1, SampleFilter(), WORDS, after="")
        assert (item[1], item[4], after) == (("cat",), found.annotations, "")


def test_suggestions_are_the_frequent_ones_first(filled: SampleStore) -> None:
    with filled.read() as cursor:
        assert tag_suggestions(cursor, 1, "M", 5) == ["mine"]
        found = tag_suggestions(cursor, 1, "", 3)
    given = [tag for row in rows(filled) for tag in row["tags"]]  # type: ignore[attr-defined]
    assert found == sorted(set(given), key=lambda tag: (-given.count(tag), tag))[:3]


@pytest.mark.parametrize(
    "query",
    [
        "state=wrong",
        "source=nobody",
        "run=x",
        "pmin=2",
        "id=1,two",
        "run=-1",
        "id=" + ",".join(map(str, range(10_001))),
    ],
)
def test_a_bad_query_is_refused(query: str) -> None:
    with pytest.raises(FilterError):
        SampleFilter.from_query(query)


def test_a_slip_of_the_pen_is_not_the_whole_data_set() -> None:
    for text in ("al=dark", "all=dark&Q=x", "dark", "all=dark&zzz=", "ids=1,2"):
        with pytest.raises(FilterError, match="is no part of a filter; there are q, split, "):
            SampleFilter.from_text(text)
    assert SampleFilter.from_text("?all=dark&order=certainty&size=l&after=x") == SampleFilter(all_of=("dark",))
    assert SampleFilter.from_text(" ").is_empty


def test_a_foreign_cursor_is_refused(filled: SampleStore) -> None:
    with filled.read() as cursor:
        by_name = samples_page(cursor, 1, SampleFilter(), WORDS, limit=3).next
        for order, after in (("added", by_name), ("name", "rubbish"), ("name", "W10"), ("sideways", "")):
            with pytest.raises(FilterError):
                samples_page(cursor, 1, SampleFilter(), WORDS, order=order, after=after)
        with pytest.raises(FilterError):
            count(cursor, 1, SampleFilter(lacking=("smell",)), WORDS)


def test_chips_take_away_one_part_each() -> None:
    chosen = SampleFilter(
        text="cam", splits=("a", "b"), all_of=("dark",), any_of=("x", "y"), none_of=("z",), run=3, min_probability=0.5
    )
    chips = chosen.chips()
    assert len(chips) == 8
    assert all(chip.without != chosen for chip in chips)
    assert chosen.chips()[1].without.splits == ("b",)


def test_hostile_text_is_only_text(filled: SampleStore) -> None:
    for text in ("'; drop table samples; --", "%", "_", "\\"):
        assert chosen_ids(filled, SampleFilter(text=text, all_of=(text,))) == []
    assert len(rows(filled)) == 100
