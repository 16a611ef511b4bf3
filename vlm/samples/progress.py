"""Where a run stands: which samples wait for it and what they are to be asked, and what it has done so far.

All inside ``SampleStore.read()``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from .conditions import Condition, bounded, near
from .cursor import Cursor
from .database import number
from .outcomes import Discard, Failure, WordCount
from .records import Pending

WIDEST = 2**20  # ids that are looked through together

_ANSWERED_LIKE = (
    "s.id in (select a.sample_id from answers a join run_totals t on t.run_id = a.run_id "
    f"where a.question_id = ? and not a.stale and t.detail = ? and ? in ('', t.dtype) and {near('a.sample_id')})"
)
_UNTOUCHED = " and ".join(
    f"s.id not in (select sample_id from {table} where run_id = ? and {near('sample_id')})"
    for table in ("run_samples", "shares")
)
_ASKED = "s.id, s.path, s.answered"
Asked = Mapping[str, int | None]  # dimension → id of its question, None for one that nobody was asked yet


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which samples of a scope a run takes.

    Attributes:
        scope: condition on ``samples s``.
        asked: what the run asks.
        only_missing: take samples that lack an answer to one of the questions, and ask them those alone. A sample whose
            file could not be read counts as answered until its content changes.
        like: detail and number format in which an answer must have been made to count; an empty format is any, ``None`` any of both.
    """

    scope: Condition
    asked: Asked
    only_missing: bool = False
    like: tuple[str, str] | None = None


def pending(cursor: Cursor, wanted: Wanted, *, run_id: int, after: int, limit: int) -> list[Pending]:
    """Return the next samples that the run has to ask, each with the dimensions.

    Those that take another's answer over (see ``sharing``) are left out. Ids are looked through in ranges, and of all that is said
    about samples only what is said about a range is read: of a store of millions, a few blocks.
    """
    condition, values = _scope(wanted)
    condition, values = f"{condition} and {_UNTOUCHED}", [*values, run_id, run_id]
    found: list[Pending] = []
    low, width = after + 1, max(limit, 1)
    while len(found) < limit:
        high, left = low + width - 1, limit - len(found)
        here, given = bounded((condition, values), low, high)
        # To sort the few rows of a narrow range here takes half the time of having the store do it.
        few = f" order by s.id limit {left}" if width > 2 * left else ""
        rows = cursor.execute(f"select {_ASKED} from samples s where {here}{few}", given).fetchall()
        rows.sort(key=itemgetter(0))
        found += _pending(cursor, wanted, rows[:left])
        # A run that is resumed walks past what it has finished, and every one past the ids of other data sets.
        low, width = high + 1, min(2 * width, WIDEST)
        if not rows:
            ((following,),) = cursor.execute("select min(id) from samples where id >= ?", [low]).fetchall()
            if following is None:
                break
            low = following
    return found


def pending_spread(
    cursor: Cursor, wanted: Wanted, *, run_id: int, limit: int, among: Condition = ("true", [])
) -> list[Pending]:
    """Return ``limit`` pending samples from all over the scope, the same ones every time.

    Args:
        among: a condition on ``samples s`` that they meet besides.
    """
    condition, values = open_scope(wanted, run_id)
    also, more = among
    rows = cursor.execute(
        f"select {_ASKED} from samples s where {condition} and {also} order by hash(s.id), s.id limit ?",
        [*values, *more, limit],
    ).fetchall()
    return _pending(cursor, wanted, rows)


def pending_count(cursor: Cursor, wanted: Wanted, *, run_id: int) -> int:
    """Return how many samples the run has not finished, those that will take another's answer over included."""
    condition, values = open_scope(wanted, run_id)
    return number(cursor, f"select count(*) from samples s where {condition}", values)


def open_scope(wanted: Wanted, run_id: int) -> Condition:
    """Return the condition on ``samples s`` of what the run has not finished."""
    condition, values = _scope(wanted)
    condition += " and not exists (select 1 from run_samples r where r.run_id = ? and r.sample_id = s.id)"
    return condition, [*values, run_id]


def answered_each(wanted: Wanted) -> list[Condition]:
    """Return, for each question that was ever asked, the condition on ``samples s`` of those that have its answer."""
    has = _ANSWERED_LIKE if wanted.like else "list_contains(s.answered, ?)"
    return [
        (has, [question_id, *(wanted.like or ())]) for question_id in wanted.asked.values() if question_id is not None
    ]


def _scope(wanted: Wanted) -> Condition:
    condition, values = wanted.scope
    condition += " and not s.missing"
    values = [*values]
    if wanted.only_missing:
        condition += " and not s.failed"
        each = answered_each(wanted)
        if each and None not in wanted.asked.values():
            condition += f" and not ({' and '.join(has for has, _ in each)})"
            values += [value for _, given in each for value in given]
    return condition, values


def _pending(cursor: Cursor, wanted: Wanted, rows: Sequence[tuple[int, str, list[int]]]) -> list[Pending]:
    """Say of each sample what it is to be asked."""
    everything = tuple(wanted.asked)
    if not wanted.only_missing:
        return [Pending(sample_id, path, everything) for sample_id, path, _ in rows]
    has = {sample_id: answered for sample_id, _, answered in rows}
    if wanted.like and rows:
        has = {sample_id: [] for sample_id in has}
        found = cursor.execute(
            "select a.sample_id, a.question_id from answers a join run_totals t on t.run_id = a.run_id "
            "where a.sample_id between ? and ? and a.sample_id in (select unnest(?::bigint[])) and not a.stale "
            "and t.detail = ? and ? in ('', t.dtype)",
            [min(has), max(has), list(has), *wanted.like],
        ).fetchall()
        for sample_id, question_id in found:
            has[sample_id].append(question_id)
    lacking: dict[tuple[int, ...], tuple[str, ...]] = {}  # of the few lists of answers that there are
    for answered in map(tuple, has.values()):
        if answered not in lacking:
            lacking[answered] = tuple(name for name, of in wanted.asked.items() if of not in answered)
    return [Pending(sample_id, path, lacking[tuple(has[sample_id])]) for sample_id, path, _ in rows]


# -- done ---------------------------------------------------------------------------------------------------------------


def changes(cursor: Cursor, run_id: int, since: int, limit: int) -> list[tuple[int, int]]:
    """Return (change, sample id) of what a run finished after the change ``since``, the newest ``limit`` of them."""
    rows = cursor.execute(
        "select change, sample_id from run_samples where run_id = ? and change > ? order by change desc limit ?",
        [run_id, since, limit],
    ).fetchall()
    return rows[::-1]


def run_counts(cursor: Cursor, run_id: int) -> tuple[int, int, int, int]:
    """Return processed and tagged samples, discarded answers and failed samples of a run."""
    rows = cursor.execute(
        "select processed, tagged, discarded, failed from run_totals where run_id = ?", [run_id]
    ).fetchall()
    return rows[0] if rows else (0, 0, 0, 0)


def named_counts(cursor: Cursor, run_id: int) -> dict[str, int]:
    """Return the same by the names that a run's row has for them, and how many of the processed took another's answer."""
    counts = dict(zip(("processed", "tagged", "discarded", "failed"), run_counts(cursor, run_id), strict=True))
    shared = number(cursor, "select coalesce(sum(shared), 0) from run_totals where run_id = ?", [run_id])
    return counts | {"shared": shared}


def run_words(cursor: Cursor, run_id: int) -> list[WordCount]:
    rows = cursor.execute(
        "select dimension, word, count(*) filter (accepted), count(*) filter (not accepted) from answers where run_id = ? "
        "group by 1, 2 order by min(place), 3 desc, 4 desc, 2",
        [run_id],
    ).fetchall()
    return [WordCount(*row) for row in rows]


def run_failures(cursor: Cursor, run_id: int, limit: int) -> list[Failure]:
    rows = cursor.execute(
        "select s.id, s.file_name, r.error from run_samples r join samples s on s.id = r.sample_id "
        "where r.run_id = ? and r.status = 'failed' order by s.file_name, s.id limit ?",
        [run_id, limit],
    ).fetchall()
    return [Failure(*row) for row in rows]


def run_discards(cursor: Cursor, run_id: int, limit: int) -> list[Discard]:
    rows = cursor.execute(
        "select s.id, s.file_name, a.dimension, case when a.word = '' then a.text else a.word end, a.probability, a.mass, "
        "a.reason from answers a join samples s on s.id = a.sample_id where a.run_id = ? and not a.accepted "
        "order by s.file_name, s.id, a.place limit ?",
        [run_id, limit],
    ).fetchall()
    return [Discard(*row) for row in rows]
