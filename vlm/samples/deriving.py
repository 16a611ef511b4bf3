"""What follows from the ledger and the answers: ``derive`` makes the rows of ``samples`` say it.

What follows: users' tags in the order in which they were given, then per dimension the word of the newest run that has
one, unless a user took that word away or has a tag of that dimension. Nothing of a content that the file no longer has.

Whoever writes the ledger or the answers chooses the samples by :func:`touch`, writes, and derives exactly these.
"""

from .conditions import Condition
from .cursor import Cursor
from .tallying import DERIVED, tallied

STEP = 100_000  # samples that are derived together


def touch(cursor: Cursor, target: Condition) -> int:
    """Choose the samples that the next :func:`derive` is about; returns how many."""
    condition, values = target
    cursor.execute(
        f"create or replace temp table touched as select s.id from samples s where {condition}",
        values,
    ).fetchall()
    return int(cursor.execute("select count(*) from touched").fetchall()[0][0])


def held(cursor: Cursor, target: Condition) -> Condition:
    """Return a condition that goes on to mean the samples that ``target`` means now, however their tags change."""
    condition, values = target
    cursor.execute(
        f"create or replace temp table held as select s.id from samples s where {condition}", values
    ).fetchall()
    return "s.id in (select id from held)", []


def derive(cursor: Cursor, *, check_current: bool = False) -> None:
    """Make the touched samples say what the ledger and the answers say, a bounded number at a time.

    The range of ids lets DuckDB skip whole blocks of the big tables.

    Args:
        check_current: whether answers came or went, so that older ones may have become stale or current.
    """
    if (span := touched_span(cursor)) is None:
        return
    cuts = cursor.execute(
        "select id from (select id, row_number() over (order by id) as place from touched) where place % ? = 0 order by id",
        [STEP],
    ).fetchall()
    low = span["low"]
    for high in [*(row[0] for row in cuts), span["high"]]:
        if low <= high:
            part = {"low": low, "high": high}
            if check_current:
                cursor.execute(CURRENT, part).fetchall()
            with tallied(cursor, DERIVED, (TOUCHED, part)):
                cursor.execute(DERIVE, part).fetchall()
        low = high + 1


def touched_span(cursor: Cursor) -> dict[str, int] | None:
    """Return the lowest and the highest touched id, ``None`` if nothing is touched."""
    low, high = cursor.execute("select min(id), max(id) from touched").fetchall()[0]
    return None if low is None else {"low": low, "high": high}


def changed(cursor: Cursor, dataset_id: int) -> None:
    """Count one more change of a data set, so that whoever keeps figures of it knows that they are old."""
    cursor.execute(
        "insert into dataset_revisions values (?, 1) on conflict do update set number = number + 1", [dataset_id]
    ).fetchall()


def in_touch(alias: str) -> str:
    return f"{alias}.sample_id between $low and $high and {alias}.sample_id in (select id from touched)"


TOUCHED = "s.id between $low and $high and s.id in (select id from touched)"
IN_TOUCH = "sample_id between $low and $high and sample_id in (select id from touched)"

CURRENT = f"""
update answers a set current = not a.current
from (
    select sample_id, dimension, max(run_id) filter (not stale) as newest from answers where {IN_TOUCH} group by all
) l
where a.sample_id between $low and $high and a.sample_id = l.sample_id and a.dimension = l.dimension
  and a.current <> coalesce(a.run_id = l.newest and not a.stale, false)
"""

# One row per touched sample with the values that its columns should have.
EXPECTED = f"""
with ledger as (
    select sample_id, tag, dimension, source, run_id, place, coalesce(edit_id, 0) as edit_id
    from sample_tags where {IN_TOUCH} and ended_by is null
), refused as (
    select sample_id, tag, max(coalesce(edit_id, 0)) as edit_id
    from rejections where {IN_TOUCH} and ended_by is null group by all
), given as (
    -- After an undo out of order a tag may stand twice, or beside a removal: then the later edit says what holds.
    select l.sample_id, l.tag, max(l.dimension) as dimension, min(l.place) as place
    from ledger l left join refused r on r.sample_id = l.sample_id and r.tag = l.tag
    where l.source = 'user' and (r.tag is null or r.edit_id < l.edit_id) group by l.sample_id, l.tag
), users as (
    select sample_id, list(tag order by place) as tags, list(dimension) as dimensions from given group by all
), newest as (
    select sample_id, dimension, max(run_id) as run_id from ledger where source = 'model' group by all
), models as (
    select l.sample_id, list(struct_pack(tag := l.tag, needs := c.only_words) order by l.run_id, l.place) as said,
        bool_or(c.only_words is not null) as conditional
    from ledger l
    left join conditions c on c.dimension = l.dimension
    join newest n on n.sample_id = l.sample_id and n.dimension = l.dimension and n.run_id = l.run_id
    left join users u on u.sample_id = l.sample_id
    where l.source = 'model'
      and (u.tags is null or not (list_contains(u.tags, l.tag) or list_contains(u.dimensions, l.dimension)))
      and not exists (select 1 from refused r where r.sample_id = l.sample_id and r.tag = l.tag)
    group by l.sample_id
), plain as (
    -- A condition looks at users' words, at words without a condition, and at those whose own condition these meet.
    select m.sample_id, case when not m.conditional then list_transform(m.said, lambda x: x.tag) else
        list_transform(list_filter(m.said, lambda x: x.needs is null or list_has_any(list_concat(
            coalesce(u.tags, []), list_transform(list_filter(m.said, lambda y: y.needs is null or list_has_any(list_concat(
                coalesce(u.tags, []), list_transform(list_filter(m.said, lambda z: z.needs is null), lambda z: z.tag)
            ), y.needs)), lambda y: y.tag)
        ), x.needs)), lambda x: x.tag) end as tags
    from models m left join users u on u.sample_id = m.sample_id
), asked as (
    select sample_id, min(probability) filter (current) as certainty,
        count(*) filter (current and not accepted) as discarded,
        list_sort(list(distinct question_id) filter (question_id is not null)) as answered
    from answers where {IN_TOUCH} and not stale group by all
), finished as (
    select sample_id, arg_max(status, run_id) = 'failed' as failed
    from run_samples where {IN_TOUCH} and not stale group by all
)
select t.id,
    list_concat(coalesce(u.tags, []), list_filter(coalesce(m.tags, []), lambda x, i: list_position(m.tags, x) = i)) as tags,
    coalesce(len(u.tags), 0) as user_count, a.certainty, coalesce(a.discarded, 0) as discarded,
    coalesce(f.failed, false) as failed, coalesce(a.answered, []) as answered
from touched t
left join users u on u.sample_id = t.id
left join plain m on m.sample_id = t.id
left join asked a on a.sample_id = t.id
left join finished f on f.sample_id = t.id
where t.id between $low and $high
"""

DERIVE = f"""
update samples s set tags = e.tags, user_count = e.user_count, certainty = e.certainty, discarded = e.discarded,
    failed = e.failed, answered = e.answered
from ({EXPECTED}) e
where s.id = e.id and s.id between $low and $high
"""
