"""Who gave, confirmed and took away what, when and how: of the tags that stand, and of all that a sample has seen.

All inside ``SampleStore.read()``. The store writes times down in the zone of the process; here they are UTC.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from .cursor import Cursor
from .records import Event, SampleRow, Tag
from .schema import EDITED_TABLES

MOST = 100  # edits of a sample, and runs, that are looked up

_UTC = "({0}::timestamptz at time zone 'UTC')"


def with_givers(cursor: Cursor, samples: Sequence[SampleRow]) -> list[SampleRow]:
    """Return samples with who gave each of their tags, when, and by which way."""
    if not (ids := [sample.id for sample in samples if sample.tags]):
        return list(samples)
    rows = cursor.execute(
        f"select t.sample_id, t.tag, t.source, coalesce(e.user_name, ''), {_UTC.format('coalesce(e.created, t.created)')}, "
        "case when t.source = 'model' then 'run' else coalesce(e.way, '') end from sample_tags t "
        "left join edits e on e.id = t.edit_id and t.source = 'user' where t.sample_id between ? and ? "
        "and t.sample_id in (select unnest(?::bigint[])) and t.ended_by is null order by t.run_id, t.edit_id",
        [min(ids), max(ids), ids],
    ).fetchall()
    given = {row[:3]: row[3:] for row in rows}

    def told(sample: SampleRow, tag: Tag) -> Tag:
        user, time, way = given.get((sample.id, tag.tag, tag.source), ("", None, ""))
        return replace(tag, user=user, time=_utc(time), way=way)

    return [replace(sample, tags=tuple(told(sample, tag) for tag in sample.tags)) for sample in samples]


def events(cursor: Cursor, dataset_id: int, sample_id: int, *, limit: int = MOST) -> list[Event]:
    """Return the newest edits that a sample has seen, undone ones and those that undid them included, and what runs said of it.

    The last edit comes first, then the last run; ``time`` of a run's answer is that of its tag, and ``None`` where it made none.
    """
    own = "select {0} as id from {1} where dataset_id = $dataset and sample_id = $sample and {0} is not null"
    parts = [own.format(name, table) for table in EDITED_TABLES for name in ("edit_id", "ended_by")]
    edits = cursor.execute(
        f"with seen as ({' union '.join(parts)}), own as (select edit_id, min(word) as word, min(dimension) as dimension "
        "from labels where dataset_id = $dataset and sample_id = $sample group by edit_id) "
        f"select {_UTC.format('e.created')}, e.user_name, e.way, e.action, coalesce(o.dimension, e.dimension, ''), "
        "case when o.edit_id is not null then o.word else e.tag end, e.value, e.undone_by is not null, e.samples "
        "from edits e left join own o on o.edit_id = e.id where e.id in (from seen) "
        "or e.id in (select undone_by from edits where id in (from seen)) order by e.id desc limit $limit",
        {"dataset": dataset_id, "sample": sample_id, "limit": limit},
    ).fetchall()
    answers = cursor.execute(
        f"select {_UTC.format('t.created')}, a.dimension, case when a.text <> '' then a.text else a.word end, a.run_id, "
        "a.probability, a.accepted, a.current, h.source_id from answers a left join shares h on h.sample_id = a.sample_id "
        "and h.run_id = a.run_id left join (select run_id, tag, min(created) as created "
        "from sample_tags where sample_id = $sample and run_id is not null group by all) t on t.run_id = a.run_id and t.tag = a.word "
        "where a.dataset_id = $dataset and a.sample_id = $sample order by a.run_id desc, a.place limit $limit",
        {"dataset": dataset_id, "sample": sample_id, "limit": limit},
    ).fetchall()
    return [
        Event(_utc(time), action, dimension, word, user, way, value=value, undone=undone, samples=samples)
        for time, user, way, action, dimension, word, value, undone, samples in edits
    ] + [
        Event(
            _utc(time),
            "said",
            dimension,
            word,
            way="run",
            run=run,
            probability=sure,
            accepted=accepted,
            current=current,
            shared_from=shared,
        )
        for time, dimension, word, run, sure, accepted, current, shared in answers
    ]


def _utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None else None
