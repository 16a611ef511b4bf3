"""One answer for samples that are nearly the same: a run asks one of each group, and the others of its scope take the answer over.

``shares`` says whose answer a sample takes in a run. It is planned when the run begins, and anew for what is left whenever it goes on or
one that was asked could not be read. The copies are made in the transaction that keeps the answers themselves, so a sample has
both or none, whatever ends the process. A row whose sample the run has finished is the mark of a shared answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .conditions import TAKEN_OVER, Condition
from .cursor import Cursor
from .database import number
from .deriving import touched_span
from .progress import Wanted, answered_each, open_scope
from .records import Result

UNFINISHED = f"not {TAKEN_OVER}"


def shares_plan(cursor: Cursor, wanted: Wanted, *, dataset_id: int, run_id: int, limit: int | None = None) -> int:
    """Plan, for what a run has not finished, whose answers are taken over; returns how many samples take one.

    Of the samples of a group that lack the same answers the first is asked. Samples that lack others are asked what they lack.

    Args:
        limit: of the run: only of its first so many samples.
    """
    cursor.execute(f"delete from shares where run_id = ? and {UNFINISHED}", [run_id]).fetchall()
    takers, values = _takers(wanted, dataset_id, run_id, limit)
    return number(
        cursor,
        f"insert into shares (dataset_id, run_id, sample_id, source_id) select ?, ?, id, source from ({takers}) order by id",
        [dataset_id, run_id, *values],
    )


def takers_count(cursor: Cursor, wanted: Wanted, *, dataset_id: int, run_id: int, limit: int | None = None) -> int:
    """Return how many samples :func:`shares_plan` would let take another's answer."""
    takers, values = _takers(wanted, dataset_id, run_id, limit)
    return number(cursor, f"select count(*) from ({takers})", values)


def asked_itself(wanted: Wanted, *, dataset_id: int) -> Condition:
    """Return the condition on ``samples s`` of those that a run which has not begun would ask."""
    takers, values = _takers(wanted, dataset_id, 0, None)
    return f"s.id not in (select id from ({takers}))", values


def shares_break(cursor: Cursor) -> None:
    """Let no answer be taken over by or from the touched samples that is not yet: their files have another content.

    Such a sample then stands for itself until the run plans anew.
    """
    if touched_span(cursor) is not None:
        cursor.execute(
            "update shares set source_id = sample_id where (sample_id in (select id from touched) "
            f"or source_id in (select id from touched)) and {UNFINISHED}"
        ).fetchall()


def taken_over(cursor: Cursor, *, run_id: int, results: Sequence[Result]) -> list[Result]:
    """Return what other samples take over of some results: the same answers, for samples whose files are there."""
    answered = {result.sample_id: result for result in results if result.answers and not result.error}
    if not answered:
        return []
    rows = cursor.execute(
        "select h.sample_id, h.source_id from shares h join samples s on s.id = h.sample_id where h.run_id = ? "
        "and h.source_id <> h.sample_id and h.source_id in (select unnest(?::bigint[])) and not s.missing order by 1",
        [run_id, list(answered)],
    ).fetchall()
    return [Result(taker, answered[source].answers) for taker, source in rows]  # all else is each file's own


def shared_from(cursor: Cursor, ids: Sequence[int]) -> Mapping[tuple[int, int], int]:
    """Return (run, sample) → the sample whose answer it is, of some samples, where it is another's."""
    if not ids:
        return {}
    rows = cursor.execute(
        "select run_id, sample_id, source_id from shares where sample_id between ? and ? and sample_id in (select unnest(?::bigint[])) "
        "and source_id <> sample_id",
        [min(ids), max(ids), list(ids)],
    ).fetchall()
    return {(run, sample): source for run, sample, source in rows}


def _takers(wanted: Wanted, dataset_id: int, run_id: int, limit: int | None) -> tuple[str, list[Any]]:
    """Return a query of (id, source), and its parameters: the samples that are not the first of their group that lacks the same."""
    condition, scope = open_scope(wanted, run_id)
    values = [*scope]
    if limit is not None:
        condition += (
            f" and s.id <= (select max(id) from (select s.id from samples s where {condition} order by s.id limit ?))"
        )
        values += [*scope, limit]
    each = answered_each(wanted) if wanted.only_missing else []
    has = "".join(f", {one} as has_{place}" for place, (one, _) in enumerate(each))
    alike = "".join(f", has_{place}" for place in range(len(each)))
    return (
        f"select id, source from (select id, min(id) over (partition by member_of{alike}) as source from (select s.id, n.member_of{has} "
        "from samples s join (select sample_id, min(member_of) as member_of from marks where dataset_id = ? and kind = 'near' "
        f"group by sample_id) n on n.sample_id = s.id where {condition})) where id <> source",
        [*(value for _, given in each for value in given), dataset_id, *values],
    )
