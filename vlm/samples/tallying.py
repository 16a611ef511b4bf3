"""How many samples of a data set have which value of a facet, kept: of ten million nobody counts to draw a page.

``tallies`` says it of whole data sets. Whoever changes samples that a facet counts does so within :func:`tallied`, which counts just these
before and after; an import, which goes through all of them, lets :func:`tally` count anew. All inside ``SampleStore.write()``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .ranges import FILE_SIZE_RANGES, MEGAPIXEL_RANGES, MEGAPIXELS, Span, span_of, span_of_bytes

if TYPE_CHECKING:
    from .conditions import Condition
    from .database import Cursor

BYTES = "s.bytes"


def place(value: str, among: Sequence[str], span: Span) -> str:
    """Return SQL for the place of a value of ``samples s`` among ranges that follow one another, each beginning where one ends."""
    highs = [(span(text) or (0.0, 0.0))[1] for text in among[:-1]]
    # A sum of comparisons takes a fifth of the time of a case with texts; whole numbers are compared as such.
    steps = [f"({value} > {int(high) if value == BYTES else repr(high) + '::double'})::integer" for high in highs]
    return " + ".join(steps)


# Facet → the values that a sample ``s`` has of it, and which samples have one.
_FLAGS = {
    ("state", "untagged"): "len(s.tags) = 0",
    ("state", "discarded"): "s.discarded > 0",
    ("state", "missing"): "s.missing",
    ("state", "failed"): "s.failed",
    ("source", "user"): "s.user_count > 0",
    ("source", "model"): "len(s.tags) > s.user_count",
}
_VALUES = {
    "tag": ("unnest(s.tags)", "true"),
    "split": ("s.split", "s.split <> ''"),
    "category": ("unnest(s.categories)", "true"),
    "camera": ("s.camera", "s.camera <> ''"),
    "year": ("lpad(date_part('year', s.taken)::varchar, 4, '0')", "s.taken is not null"),
    "megapixels": (f"({place(MEGAPIXELS, MEGAPIXEL_RANGES, span_of)})::varchar", f"{MEGAPIXELS} is not null"),
    "bytes": (f"({place(BYTES, FILE_SIZE_RANGES, span_of_bytes)})::varchar", f"{BYTES} is not null"),
}
DERIVED = ("tag", "state", "source")  # what ``deriving`` writes,
READ = ("camera", "year", "megapixels")  # and what the heads of files say

_names, _conditions = list(_FLAGS), list(_FLAGS.values())
_COUNTS = ", ".join(["count(*)", *(f"count(*) filter ({condition})" for condition in _conditions)])
_WHOLE = "\nunion all ".join(
    [
        f"select unnest({['all', *(facet for facet, _ in _names)]}) as facet, unnest({['', *(value for _, value in _names)]}) as value, "
        f"unnest(counts) as number from (select [{_COUNTS}] as counts from samples s where s.dataset_id = $dataset)",
        *(
            f"select '{facet}', value, count(*) from (select {value} as value from samples s where s.dataset_id = $dataset and {having}) "
            "where value <> '' group by value"
            for facet, (value, having) in _VALUES.items()
        ),
    ]
)
WHOLE = f"select facet, value, number from ({_WHOLE}) where number <> 0"  # what the tallies of $dataset should say


def tally(cursor: Cursor, dataset_id: int) -> None:
    """Count a data set anew."""
    cursor.execute("delete from tallies where dataset_id = ?", [dataset_id]).fetchall()
    cursor.execute(f"insert into tallies select $dataset, * from ({WHOLE})", {"dataset": dataset_id}).fetchall()


@contextmanager
def tallied(cursor: Cursor, facets: Sequence[str], target: Condition | tuple[str, dict[str, Any]]) -> Iterator[None]:
    """Bring the tallies of some facets up to date with what is done within the block to the samples of ``target``.

    The condition on ``samples s`` must mean the same samples at the end as at the beginning.
    """
    cursor.execute(
        "create or replace temp table tally_changes (dataset_id bigint, facet varchar, value varchar, number bigint)"
    ).fetchall()
    _count(cursor, facets, target, -1)
    yield
    _count(cursor, facets, target, 1)
    cursor.execute(
        "create or replace temp table tally_changes as select dataset_id, facet, value, sum(number)::bigint as number from tally_changes "
        "group by all having sum(number) <> 0"
    ).fetchall()
    matching = "c.dataset_id = t.dataset_id and c.facet = t.facet and c.value = t.value"
    cursor.execute(
        f"update tallies t set number = t.number + c.number from tally_changes c where {matching}"
    ).fetchall()
    cursor.execute(
        f"insert into tallies select * from tally_changes c where not exists (select 1 from tallies t where {matching})"
    ).fetchall()


def tallies(cursor: Cursor, dataset_id: int, *facets: str) -> dict[str, dict[str, int]]:
    """Return facet → value → how many samples of a data set have it; those that none has are left out."""
    rows = cursor.execute(
        "select facet, value, number from tallies where dataset_id = ? and number <> 0 and facet in (select unnest(?::varchar[]))",
        [dataset_id, list(facets)],
    ).fetchall()
    found: dict[str, dict[str, int]] = {facet: {} for facet in facets}
    for facet, value, number in rows:
        found[facet][value] = number
    return found


def wrong_tallies(cursor: Cursor, *, repair: bool = False) -> list[int]:
    """Return the data sets whose tallies are not what their samples say; with ``repair`` they are counted anew."""
    datasets = cursor.execute(
        "select dataset_id from tallies union select dataset_id from samples order by 1"
    ).fetchall()
    wrong = []
    for (dataset_id,) in datasets:
        kept = "select facet, value, number from tallies where dataset_id = $dataset and number <> 0"
        rows = cursor.execute(
            f"(({kept}) except all ({WHOLE})) union all (({WHOLE}) except all ({kept})) limit 1",
            {"dataset": dataset_id},
        ).fetchall()
        if rows:
            wrong.append(dataset_id)
            if repair:
                tally(cursor, dataset_id)
    return wrong


def _count(cursor: Cursor, facets: Sequence[str], target: Condition | tuple[str, dict[str, Any]], sign: int) -> None:
    condition, values = target
    parts = [
        f"select s.dataset_id, '{facet}' as facet, {value} as value from these s where {having}"
        for facet, (value, having) in _VALUES.items()
        if facet in facets
    ]
    parts += [
        f"select s.dataset_id, '{facet}' as facet, '{value}' as value from these s where {having}"
        for (facet, value), having in _FLAGS.items()
        if facet in facets
    ]
    cursor.execute(
        f"insert into tally_changes with these as materialized (select s.* from samples s where {condition}) "
        f"select dataset_id, facet, value, {sign} * count(*) from ({' union all '.join(parts)}) where value <> '' group by all",
        values,
    ).fetchall()
