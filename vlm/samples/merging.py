"""Writing tags. The ledger and the answers say what happened; ``derive`` makes ``samples`` say what follows from them.

What follows: users' tags in the order in which they were given, then per dimension the word of the newest run that has
one, unless a user took that word away or has a tag of that dimension. Everything here runs inside
``SampleStore.write()``, and every function derives exactly the samples that it touched.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .database import Cursor
from .errors import TagError
from .filters import Condition
from .records import Answer, Merged, Reapplied, Result

BELOW_THRESHOLD = "below threshold"
OFF_THE_LIST = "off the list"
REJECTED = "rejected by a user"

MAX_TAG = 200


def clean_tag(text: str) -> str:
    """Return ``text`` as tags are stored: NFC-normalised, trimmed.

    Raises:
        TagError: it is empty, too long, or has control characters.
    """
    tag = unicodedata.normalize("NFC", text).strip()
    if not tag:
        raise TagError("A tag needs at least one character.")
    if len(tag) > MAX_TAG:
        raise TagError(f"A tag has at most {MAX_TAG} characters.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in tag):
        raise TagError("A tag cannot hold line breaks or other control characters.")
    return tag


def merge_batch(cursor: Cursor, *, dataset_id: int, run_id: int, results: Sequence[Result]) -> Merged:
    """Keep what a run found out about some samples. Samples that the run has finished already are left alone."""
    if not results:
        return Merged()
    ids = [result.sample_id for result in results]
    known = _column(
        cursor,
        "select s.id from samples s where s.dataset_id = ? and s.id between ? and ? and s.id in (select unnest(?)) "
        "and s.id not in (select sample_id from run_samples where run_id = ? and sample_id between ? and ?)",
        [dataset_id, min(ids), max(ids), ids, run_id, min(ids), max(ids)],
    )
    fresh = [
        result for result in {result.sample_id: result for result in results}.values() if result.sample_id in known
    ]
    if not fresh:
        return Merged()
    rejected = {
        (row[0], row[1])
        for row in cursor.execute(
            "select sample_id, tag from rejections where dataset_id = ? and sample_id in (select unnest(?))",
            [dataset_id, ids],
        ).fetchall()
    }
    answers = [
        (result.sample_id, _checked(answer, result.sample_id, rejected))
        for result in fresh
        for answer in result.answers
    ]
    accepted = [(sample_id, answer) for sample_id, answer in answers if answer.accepted]
    _insert_answers(cursor, dataset_id, run_id, answers)
    cursor.execute(
        "insert into run_samples select ?, sample_id, ?, status, error, nextval('changes') from (select "
        "unnest(?::bigint[]) sample_id, unnest(?::varchar[]) status, unnest(?::varchar[]) error)",
        [
            run_id,
            dataset_id,
            [result.sample_id for result in fresh],
            ["failed" if result.error else "done" for result in fresh],
            [result.error for result in fresh],
        ],
    ).fetchall()
    touch(cursor, ("s.id in (select unnest(?::bigint[]))", [[result.sample_id for result in fresh]]))
    _note_accepted(cursor, run_id)
    derive(cursor, check_current=True)
    return Merged(
        processed=len(fresh),
        tagged=len({sample_id for sample_id, _ in accepted}),
        discarded=len(answers) - len(accepted),
        failed=sum(bool(result.error) for result in fresh),
    )


def revert_run(cursor: Cursor, *, run_id: int) -> int:
    """Take back what a run added, and show again what it had replaced. Returns how many samples it had finished."""
    count = touch(cursor, ("s.id in (select sample_id from run_samples where run_id = ?)", [run_id]))
    for table in ("sample_tags", "answers", "run_samples"):
        cursor.execute(f"delete from {table} where run_id = ?", [run_id]).fetchall()
    derive(cursor, check_current=True)
    return count


def apply_thresholds(cursor: Cursor, *, run_id: int, min_probability: float, min_mass: float) -> Reapplied:
    """Decide a run's answers anew. Generated answers carry no probabilities and stay as they are."""
    cursor.execute(
        f"create or replace temp table decided as {DECIDE}",
        {"run": run_id, "probability": min_probability, "mass": min_mass},
    ).fetchall()
    changed = touch(cursor, ("s.id in (select sample_id from decided where accepted <> now_accepted)", []))
    cursor.execute(
        "update answers a set accepted = d.now_accepted, reason = d.now_reason from decided d where a.run_id = ? "
        "and a.sample_id = d.sample_id and a.dimension = d.dimension "
        "and (a.accepted <> d.now_accepted or a.reason <> d.now_reason)",
        [run_id],
    ).fetchall()
    cursor.execute(
        "delete from sample_tags where run_id = ? and sample_id in (select id from touched)", [run_id]
    ).fetchall()
    _note_accepted(cursor, run_id)
    derive(cursor)
    return _reapplied(cursor, changed)


def preview_thresholds(cursor: Cursor, *, run_id: int, min_probability: float, min_mass: float) -> Reapplied:
    """Tell what :func:`apply_thresholds` would do, without doing it."""
    cursor.execute(
        f"create or replace temp table decided as {DECIDE}",
        {"run": run_id, "probability": min_probability, "mass": min_mass},
    ).fetchall()
    changed = cursor.execute("select count(distinct sample_id) from decided where accepted <> now_accepted").fetchall()
    return _reapplied(cursor, changed[0][0])


def tags_add(cursor: Cursor, *, dataset_id: int, target: Condition, tag: str, dimension: str | None) -> int:
    """Give a user's tag to all samples of ``target`` that a user has not given it yet; undoes a removal.

    Args:
        target: condition on ``samples s`` (see ``filters.where``).
        dimension: of which ``tag`` is a word, if it is one; the user's word then stands against the model's.
    """
    condition, values = target
    mine = "select sample_id from sample_tags where dataset_id = ? and source = 'user' and tag = ?"
    count = touch(cursor, (f"{condition} and s.id not in ({mine})", [*values, dataset_id, tag]))
    cursor.execute(
        "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place) "
        "select ?, id, ?, ?, 'user', nextval('edits') from (select id from touched order by id)",
        [dataset_id, tag, dimension],
    ).fetchall()
    cursor.execute(
        "delete from rejections where dataset_id = ? and tag = ? and sample_id in (select id from touched)",
        [dataset_id, tag],
    ).fetchall()
    derive(cursor)
    return count


def tags_confirm(cursor: Cursor, *, dataset_id: int, target: Condition, tag: str, dimension: str | None) -> int:
    """Make a model's tag the user's own, wherever ``target`` has it."""
    condition, values = target
    return tags_add(
        cursor,
        dataset_id=dataset_id,
        target=(f"{condition} and list_contains(s.tags, ?)", [*values, tag]),
        tag=tag,
        dimension=dimension,
    )


def tags_remove(cursor: Cursor, *, dataset_id: int, target: Condition, tag: str) -> int:
    """Take a tag away from all samples of ``target`` that have it, and keep models from giving it again."""
    condition, values = target
    count = touch(cursor, (f"{condition} and list_contains(s.tags, ?)", [*values, tag]))
    cursor.execute(
        "delete from sample_tags where dataset_id = ? and source = 'user' and tag = ? "
        "and sample_id in (select id from touched)",
        [dataset_id, tag],
    ).fetchall()
    cursor.execute("insert into rejections select ?, id, ? from touched", [dataset_id, tag]).fetchall()
    derive(cursor)
    return count


def dataset_delete(cursor: Cursor, *, dataset_id: int) -> None:
    """Forget a data set: its samples, annotations, tags, answers and finished work."""
    for table in ("samples", "annotations", "sample_tags", "rejections", "answers", "run_samples"):
        cursor.execute(f"delete from {table} where dataset_id = ?", [dataset_id]).fetchall()


def touch(cursor: Cursor, target: Condition) -> int:
    """Choose the samples that the next :func:`derive` is about; returns how many."""
    condition, values = target
    cursor.execute(
        f"create or replace temp table touched as select s.id from samples s where {condition}",
        values,
    ).fetchall()
    return int(cursor.execute("select count(*) from touched").fetchall()[0][0])


def derive(cursor: Cursor, *, check_current: bool = False) -> None:
    """Make the touched samples say what the ledger and the answers say.

    The range of ids lets DuckDB skip whole blocks of the big tables.

    Args:
        check_current: whether answers came or went, so that older ones may have become stale or current.
    """
    if (span := _span(cursor)) is None:
        return
    if check_current:
        cursor.execute(CURRENT, span).fetchall()
    cursor.execute(DERIVE, span).fetchall()


IN_TOUCH = "sample_id between $low and $high and sample_id in (select id from touched)"

CURRENT = f"""
update answers a set current = not a.current
from (select sample_id, dimension, max(run_id) as newest from answers where {IN_TOUCH} group by all) l
where a.sample_id between $low and $high and a.sample_id = l.sample_id and a.dimension = l.dimension
  and a.current <> (a.run_id = l.newest)
"""

# One row per touched sample with the values that its columns should have.
EXPECTED = f"""
with ledger as (
    select sample_id, tag, dimension, source, run_id, place from sample_tags where {IN_TOUCH}
), refused as (
    select sample_id, tag from rejections where {IN_TOUCH}
), users as (
    select sample_id, list(tag order by place) as tags, list(dimension) as dimensions
    from ledger where source = 'user' group by all
), newest as (
    select sample_id, dimension, max(run_id) as run_id from ledger where source = 'model' group by all
), models as (
    select l.sample_id, list(l.tag order by l.run_id, l.place) as tags
    from ledger l
    join newest n on n.sample_id = l.sample_id and n.dimension = l.dimension and n.run_id = l.run_id
    left join users u on u.sample_id = l.sample_id
    where l.source = 'model'
      and (u.tags is null or not (list_contains(u.tags, l.tag) or list_contains(u.dimensions, l.dimension)))
      and not exists (select 1 from refused r where r.sample_id = l.sample_id and r.tag = l.tag)
    group by all
), asked as (
    select sample_id, min(probability) as certainty, count(*) filter (not accepted) as discarded
    from answers where {IN_TOUCH} and current group by all
), finished as (
    select sample_id, arg_max(status, run_id) = 'failed' as failed from run_samples where {IN_TOUCH} group by all
)
select t.id,
    list_concat(coalesce(u.tags, []), list_filter(coalesce(m.tags, []), lambda x, i: list_position(m.tags, x) = i)) as tags,
    coalesce(len(u.tags), 0) as user_count, a.certainty, coalesce(a.discarded, 0) as discarded,
    coalesce(f.failed, false) as failed
from touched t
left join users u on u.sample_id = t.id
left join models m on m.sample_id = t.id
left join asked a on a.sample_id = t.id
left join finished f on f.sample_id = t.id
"""

DERIVE = f"""
update samples s set tags = e.tags, user_count = e.user_count, certainty = e.certainty, discarded = e.discarded,
    failed = e.failed
from ({EXPECTED}) e
where s.id = e.id and s.id between $low and $high
"""

DECIDE = f"""
select a.sample_id, a.dimension, a.accepted,
    r.tag is null and a.probability >= $probability and a.mass >= $mass as now_accepted,
    case when r.tag is not null then '{REJECTED}' when a.mass < $mass then '{OFF_THE_LIST}'
         when a.probability < $probability then '{BELOW_THRESHOLD}' else '' end as now_reason
from answers a
left join (select distinct dataset_id, sample_id, tag from rejections) r
  on r.dataset_id = a.dataset_id and r.sample_id = a.sample_id and r.tag = a.word
where a.run_id = $run and a.mass is not null
"""


def _checked(answer: Answer, sample_id: int, rejected: set[tuple[int, str]]) -> Answer:
    if not answer.accepted or (sample_id, answer.word) not in rejected:
        return answer
    return replace(answer, accepted=False, reason=REJECTED)


def _insert_answers(cursor: Cursor, dataset_id: int, run_id: int, answers: Sequence[tuple[int, Answer]]) -> None:
    """Append the answers; an appender takes nested lists twice as fast as parameters do. Columns as in the schema."""
    appender = cursor.appender("answers")
    appender.append_rows(
        (
            dataset_id,
            run_id,
            sample_id,
            answer.dimension,
            answer.place,
            answer.words,
            answer.probabilities,
            answer.mass,
            answer.word,
            answer.probability,
            answer.accepted,
            answer.reason,
            answer.text,
            True,
        )
        for sample_id, answer in answers
    )
    appender.flush()


def _note_accepted(cursor: Cursor, run_id: int) -> None:
    """Write the accepted answers that a run gave about the touched samples into the ledger."""
    if (span := _span(cursor)) is not None:
        cursor.execute(
            "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, probability, run_id, place) "
            "select dataset_id, sample_id, word, dimension, 'model', probability, run_id, place from answers "
            f"where run_id = $run and accepted and {IN_TOUCH}",
            {"run": run_id, **span},
        ).fetchall()


def _span(cursor: Cursor) -> dict[str, int] | None:
    """Return the lowest and the highest touched id, ``None`` if nothing is touched."""
    low, high = cursor.execute("select min(id), max(id) from touched").fetchall()[0]
    return None if low is None else {"low": low, "high": high}


def _column(cursor: Cursor, sql: str, values: list[Any]) -> set[Any]:
    return {row[0] for row in cursor.execute(sql, values).fetchall()}


def _reapplied(cursor: Cursor, changed: int) -> Reapplied:
    rows = cursor.execute(
        "select count(*) filter (now_accepted), count(*) filter (not now_accepted) from decided"
    ).fetchall()
    return Reapplied(accepted=rows[0][0], discarded=rows[0][1], changed=changed)
