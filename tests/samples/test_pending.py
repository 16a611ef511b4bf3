"""What a run asks next, read in ranges of ids, is what one query over the whole store says."""

from collections.abc import Iterator

import pytest

from tests.effort import examples
from vlm.runs.ahead import LEAST, MOST, next_size
from vlm.samples import Pending, SampleFilter, SampleStore, where
from vlm.samples.asking import question_ids
from vlm.samples.conditions import bounded
from vlm.samples.cursor import Cursor
from vlm.samples.filters import PARTS
from vlm.samples.progress import Wanted, open_scope, pending, pending_count
from vlm.samples.refining import asked_again, uncertain

from .conftest import WORDS
from .worlds import ASKED, FILTERS, NEW, held, world

seeds = pytest.mark.parametrize("seed", range(examples(2)))


def in_parts(cursor: Cursor, wanted: Wanted, run_id: int, limit: int) -> Iterator[Pending]:
    after = -1
    while found := pending(cursor, wanted, run_id=run_id, after=after, limit=limit):
        yield from found
        after = found[-1].id
        if len(found) < limit:
            return


def answered(cursor: Cursor, like: tuple[str, str] | None) -> set[tuple[int, int]]:
    rows = cursor.execute(
        "select a.sample_id, a.question_id, t.detail, t.dtype from answers a join run_totals t on t.run_id = a.run_id "
        "where not a.stale"
    ).fetchall()
    return {(row[0], row[1]) for row in rows if like is None or (row[2] == like[0] and like[1] in ("", row[3]))}


@seeds
def test_ranges_of_ids_say_what_the_whole_says(store: SampleStore, seed: int) -> None:
    chance = world(store, seed).chance
    seen = 0
    with store.read() as cursor:
        for query in FILTERS:
            only_missing, like = chance.choice(
                ((False, None), (True, None), (True, ("low", "")), (True, ("full", "int8")))
            )
            asked, run = chance.choice((ASKED, [*ASKED, NEW], [NEW])), chance.choice((0, 2, 3))
            scope = where(1, SampleFilter.from_query(query), WORDS)
            wanted = Wanted(scope, question_ids(cursor, asked), only_missing=only_missing, like=like)
            condition, values = open_scope(wanted, run)
            assert pending_count(cursor, wanted, run_id=run) == len(held(cursor, (condition, values)))
            taken = "s.id not in (select sample_id from shares where run_id = ?)"
            ids = held(cursor, (f"{condition} and {taken}", [*values, run]))
            found = list(in_parts(cursor, wanted, run, chance.choice((5, 100))))
            assert [one.id for one in found] == ids, query
            has = answered(cursor, like)
            for one in found:
                names = [name for name, of in wanted.asked.items() if not only_missing or (one.id, of) not in has]
                assert one.lacking == tuple(names), query
            seen += len(ids)
    assert seen > 100


@seeds
def test_every_part_of_a_filter_can_be_confined_to_a_range(store: SampleStore, seed: int) -> None:
    made = world(store, seed)
    named = {its.key for _, its in PARTS} - {"edit", "group", "id"}
    assert named <= {part.partition("=")[0] for query in FILTERS for part in query.split("&")}
    queries = [*FILTERS, f"edit={made.edits[0]}", f"group={made.ids[1][0]}", f"id={made.ids[1][3]},{made.ids[1][9]}"]
    low, high = made.ids[1][4], made.ids[2][-9]
    with store.read() as cursor:
        for query in queries:
            condition = where(1, SampleFilter.from_query(query), WORDS)
            confined = bounded(condition, low, high)
            assert held(cursor, confined) == [one for one in held(cursor, condition) if low <= one <= high], query
            # Whatever is looked up beside the samples is confined, too.
            lookups = confined[0].count("sample_id from ") + confined[0].count("sample_id in (select")
            assert confined[0].count(f" between {low} and {high}") > bool(lookups), query
            assert "/* near" not in confined[0]


def test_another_data_sets_ids_are_walked_past(store: SampleStore) -> None:
    world(store, 5)
    with store.write() as cursor:
        cursor.execute("update samples set id = id + 10000000000 where dataset_id = 1 and id > 40").fetchall()
        wanted = Wanted(where(1, SampleFilter(), WORDS), question_ids(cursor, ASKED))
        ids = held(cursor, open_scope(wanted, 0))
        assert [one.id for one in in_parts(cursor, wanted, 0, 2)] == ids
        assert ids[0] <= 40 < ids[-1]


@seeds
def test_the_second_pass_reads_the_least_certain_in_parts(store: SampleStore, seed: int) -> None:
    made = world(store, seed)
    made.merge(1, 0.9)
    run = made.runs[-1]
    with store.read() as cursor:
        ids = uncertain(cursor, run_id=run, share=0.7).tolist()
        rows = cursor.execute(
            "select sample_id, list(dimension order by place), sum(ln(probability)) from answers where run_id = ? group by 1",
            [run],
        ).fetchall()
        sums = {row[0]: round(row[2], 9) for row in rows}
        assert len(ids) > 6
        assert [sums[one] for one in ids] == sorted(sums[one] for one in ids)
        parts = [asked_again(cursor, run_id=run, ids=ids[start : start + 3]) for start in range(0, len(ids), 3)]
        found = [one for part in parts for one in part]
        assert [one.id for one in found] == ids
        assert {one.id: one.lacking for one in found} == {row[0]: tuple(row[1]) for row in rows if row[0] in ids}


def test_a_fast_run_reads_thousands_together_and_a_slow_one_few() -> None:
    assert next_size(256, 256 / 400, least=LEAST) == 4000
    assert next_size(256, 0.0, least=LEAST) == MOST
    assert next_size(256, 2560.0, least=LEAST) == LEAST
