"""Samples of a group take one answer over: planned, taken in one transaction, broken by another content, gone with the run."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from vlm.samples import Question, SampleFilter, SampleStore, schema, where
from vlm.samples.asking import question_ids, questions_keep
from vlm.samples.checking import check_store
from vlm.samples.cursor import Cursor
from vlm.samples.deriving import touch
from vlm.samples.editing import set_aside
from vlm.samples.finding import groups_put
from vlm.samples.merging import merge_batch, revert_run, run_begin
from vlm.samples.progress import Wanted, named_counts, pending, pending_count
from vlm.samples.reading import answers_of, sample_detail, samples_by_id
from vlm.samples.reading import count as counted
from vlm.samples.sharing import asked_itself, shares_plan, takers_count

from .conftest import WORDS, answer, fill, result

ASKED = [
    Question.of(model="m", revision="r", mode="score", dimension=name, asked={"words": words})
    for name, words in WORDS.items()
]
RUN = 7


def group(cursor: Cursor, ids: list[int], *groups: tuple[int, ...]) -> None:
    """Let the samples at these places be nearly the same."""
    places = np.full(len(ids), -1, dtype=np.int64)
    for members in groups:
        places[list(members)] = members[0]
    groups_put(cursor, dataset_id=1, ids=np.array(ids, dtype=np.int64), groups=places, distance=4)


def wanted(cursor: Cursor, *, only_missing: bool = True) -> Wanted:
    scope = where(1, SampleFilter(), WORDS)
    return Wanted(scope, question_ids(cursor, ASKED), only_missing=only_missing)


def plan(cursor: Cursor, *, run: int = RUN, limit: int | None = None, only_missing: bool = True) -> int:
    return shares_plan(cursor, wanted(cursor, only_missing=only_missing), dataset_id=1, run_id=run, limit=limit)


def asked(cursor: Cursor, *, run: int = RUN) -> list[int]:
    return [one.id for one in pending(cursor, wanted(cursor), run_id=run, after=-1, limit=100)]


def merge(
    cursor: Cursor, *ids: int, run: int = RUN, words: tuple[str, ...] = ("dark", "indoor"), error: str = ""
) -> None:
    questions = questions_keep(cursor, ASKED)
    results = [result(one, *(() if error else [answer(run, word) for word in words]), error=error) for one in ids]
    merge_batch(cursor, dataset_id=1, run_id=run, results=results, questions=questions)


def test_one_of_each_group_is_asked_and_the_others_take_its_answer(store: SampleStore) -> None:
    ids = fill(store, 6)
    with store.write() as cursor:
        group(cursor, ids, (0, 3, 4), (1, 5))
        assert takers_count(cursor, wanted(cursor), dataset_id=1, run_id=0) == 3
        assert plan(cursor) == 3
        assert asked(cursor) == ids[:3]
        assert pending_count(cursor, wanted(cursor), run_id=RUN) == 6
        merge(cursor, ids[0])
        merge(cursor, ids[0])  # a worker that was killed before it heard of the commit does so again
        assert named_counts(cursor, RUN) == {"processed": 3, "tagged": 3, "discarded": 0, "failed": 0, "shared": 2}
        assert pending_count(cursor, wanted(cursor), run_id=RUN) == 3
        merge(cursor, ids[1], ids[2], words=("bright", "outdoor"))
        assert asked(cursor) == []
        rows = {row.id: row for row in samples_by_id(cursor, 1, ids)}
        assert {place: [tag.tag for tag in rows[one].tags] for place, one in enumerate(ids)} == {
            **{place: ["dark", "indoor"] for place in (0, 3, 4)},
            **{place: ["bright", "outdoor"] for place in (1, 2, 5)},
        }
        sources = {place: {tag.shared_from for tag in rows[one].tags} for place, one in enumerate(ids)}
        assert sources == {0: {None}, 1: {None}, 2: {None}, 3: {ids[0]}, 4: {ids[0]}, 5: {ids[1]}}
        detail = sample_detail(cursor, 1, ids[5])
        assert detail is not None
        assert {one.shared_from for one in detail.answers} == {ids[1]}
        assert counted(cursor, 1, SampleFilter(shared_in=RUN), WORDS) == 3
        assert pending_count(cursor, wanted(cursor), run_id=0) == 0  # a shared answer is an answer
        assert check_store(cursor, datasets=[1]).is_sound


def test_what_lacks_other_answers_is_asked_itself(store: SampleStore) -> None:
    ids = fill(store, 4)
    with store.write() as cursor:
        group(cursor, ids, (0, 1, 2, 3))
        merge(cursor, ids[1], run=1, words=("dark",))
        merge(cursor, ids[2], run=1)
        assert takers_count(cursor, wanted(cursor), dataset_id=1, run_id=0) == 1
        assert takers_count(cursor, wanted(cursor, only_missing=False), dataset_id=1, run_id=0) == 3
        condition, values = asked_itself(wanted(cursor), dataset_id=1)
        scope = where(1, SampleFilter(), WORDS)
        found = cursor.execute(
            f"select id from samples s where {scope[0]} and {condition} order by 1", [*scope[1], *values]
        )
        assert found.fetchall() == [(ids[0],), (ids[1],), (ids[2],)]
        assert plan(cursor) == 1
        assert [(one.id, one.lacking) for one in pending(cursor, wanted(cursor), run_id=RUN, after=-1, limit=9)] == [
            (ids[0], ("lighting", "setting")),
            (ids[1], ("setting",)),
        ]


def test_another_one_is_asked_where_the_first_cannot_be_read(store: SampleStore) -> None:
    ids = fill(store, 4)
    with store.write() as cursor:
        group(cursor, ids, (0, 1, 3))
        assert plan(cursor) == 2
        merge(cursor, ids[0], error="truncated")
        assert asked(cursor) == [ids[2]]
        assert plan(cursor) == 1
        assert asked(cursor) == ids[1:3]
        merge(cursor, ids[1])
        assert {one.shared_from for one in answers_of(cursor, ids[3])} == {ids[1]}
        assert named_counts(cursor, RUN)["shared"] == 1


def test_a_limit_counts_those_that_take_an_answer(store: SampleStore) -> None:
    ids = fill(store, 6)
    with store.write() as cursor:
        group(cursor, ids, (0, 2, 5), (1, 4))
        assert plan(cursor, limit=3) == 1
        assert asked(cursor)[:2] == ids[:2]
        assert plan(cursor, limit=5) == 2
        assert plan(cursor, limit=0) == 0


@pytest.mark.parametrize("changed", [0, 1])
def test_another_content_breaks_what_is_not_taken_yet(store: SampleStore, changed: int) -> None:
    ids = fill(store, 3)
    with store.write() as cursor:
        group(cursor, ids, (0, 1, 2))
        assert plan(cursor) == 2
        touch(cursor, ("s.id = ?", [ids[changed]]))
        set_aside(cursor, dataset_id=1)
        merge(cursor, ids[0])
        taken = {place for place in (1, 2) if answers_of(cursor, ids[place])}
        assert taken == (set() if changed == 0 else {2})
        plan(cursor)
        assert asked(cursor) == ([ids[1]])


def test_a_file_with_another_content_lacks_answers_again_and_others_keep_theirs(store: SampleStore) -> None:
    ids = fill(store, 3)
    with store.write() as cursor:
        group(cursor, ids, (0, 1, 2))
        plan(cursor)
        merge(cursor, ids[0])
        touch(cursor, ("s.id = ?", [ids[1]]))
        set_aside(cursor, dataset_id=1)
        assert pending_count(cursor, wanted(cursor), run_id=0) == 1
        assert answers_of(cursor, ids[1]) == ()
        touch(cursor, ("s.id = ?", [ids[0]]))
        set_aside(cursor, dataset_id=1)
        assert [one.word for one in answers_of(cursor, ids[2])] == ["dark", "indoor"]  # it looks as it did
        assert check_store(cursor, datasets=[1]).is_sound


def test_taking_a_run_back_takes_shared_answers_back(store: SampleStore) -> None:
    ids = fill(store, 3)
    tables = ("samples", "sample_tags", "answers", "run_samples", "run_totals", "shares")

    def state(cursor: Cursor) -> list[list[tuple[object, ...]]]:
        return [cursor.execute(f"select * from {table} order by all").fetchall() for table in tables]

    with store.write() as cursor:
        group(cursor, ids, (0, 1))
        merge(cursor, ids[1], run=1, words=("bright", "outdoor"))
        before = state(cursor)
        run_begin(cursor, dataset_id=1, run_id=RUN, worker="w", questions=ASKED)
        plan(cursor, only_missing=False)
        merge(cursor, ids[0], ids[2])
        assert [tag.tag for tag in samples_by_id(cursor, 1, [ids[1]])[0].tags] == ["dark", "indoor"]
        revert_run(cursor, run_id=RUN)
        assert state(cursor) == before


def test_a_store_of_the_version_before_opens_with_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = next(at for at, steps in enumerate(schema.MIGRATIONS) if steps == (schema.VERSION_10,))
    path = tmp_path / "samples.duckdb"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:place])
        store = SampleStore(path, memory_limit="256MB", threads=1)
        with store.write() as cursor:
            cursor.execute("insert into run_totals values (3, 1, 'low', 'float32', 9, 8, 7, 1)").fetchall()
        store.close()
    store = SampleStore(path, memory_limit="256MB", threads=1)
    with store.read() as cursor:
        assert named_counts(cursor, 3) == {"processed": 9, "tagged": 8, "discarded": 7, "failed": 1, "shared": 0}
    store.close()
    with duckdb.connect(str(path.with_name(f"samples.v{place}.duckdb")), read_only=True) as connection:
        assert connection.execute("select run_id from run_totals").fetchall() == [(3,)]


@pytest.mark.parametrize(("detail", "takers"), [("", 0), ("low", 1)])
def test_answers_of_another_detail_do_not_count_where_the_run_says_so(
    store: SampleStore, detail: str, takers: int
) -> None:
    ids = fill(store, 2)
    with store.write() as cursor:
        group(cursor, ids, (0, 1))
        merge(cursor, ids[1], run=1)
        asked = replace(wanted(cursor), like=(detail, ""))
        assert shares_plan(cursor, asked, dataset_id=1, run_id=RUN) == takers
        assert [one.id for one in pending(cursor, asked, run_id=RUN, after=-1, limit=9)] == ids[:1]
