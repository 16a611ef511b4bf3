"""How many samples of a data set have which value of a facet, kept: of ten million nobody counts to draw a page.

``tallies`` says it of whole data sets. Whoever changes samples that a facet counts does so within :func:`tallied`, which counts just these
before and after; an import, which goes through all of them, lets :func:`tally` count anew. All inside ``SampleStore.write()``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .ranges import FILE_SIZE_RANGES, MEGAPIXEL_RANGES, MEGAPIXELS, Span, span_of, span_of_bytes

if TYPE_CHECKING:
    from .conditions import Condition
    from .cursor import Cursor

Named = tuple[str, dict[str, Any]]  # a condition whose parameters have names

BYTES = "s.bytes"


def place(value: str, among: Sequence[str], span: Span) -> str:
    """Return SQL for the place of a value of ``samples s`` among ranges that follow one another, each beginning where one ends."""
    highs = [(span(text) or (0.0, 0.0))[1] for text in among[:-1]]
    # A sum of comparisons takes a fifth of the time of a case with texts; whole numbers are compared as such.
    steps = [f"({value} > {int(high) if value == BYTES else repr(high) + '::double'})::integer" for high in highs]
    return " + ".join(steps)


# Facet → the values that a sample ``s`` has of it, and which samples have one.
FLAGS = {
    ("state", "untagged"): "len(s.tags) = 0",
    ("state", "discarded"): "s.discarded > 0",
    ("state", "missing"): "s.missing",
    ("state", "failed"): "s.failed",
    ("source", "user"): "s.user_count > 0",
    ("source", "model"): "len(s.tags) > s.user_count",
}
_LISTS = {"tag": "s.tags", "category": "s.categories"}
_VALUES = {  # null where there is none
    "split": "nullif(s.split, '')",
    "camera": "nullif(s.camera, '')",
    "year": "lpad(date_part('year', s.taken)::varchar, 4, '0')",
    "megapixels": f"({place(MEGAPIXELS, MEGAPIXEL_RANGES, span_of)})::varchar",
    "bytes": f"({place(BYTES, FILE_SIZE_RANGES, span_of_bytes)})::varchar",
}
DERIVED = ("tag", "state", "source")  # what ``deriving`` writes,
READ = ("camera", "year", "megapixels")  # and what the heads of files say

FACETS = ("all", *dict.fromkeys(facet for facet, _ in FLAGS), *_LISTS, *_VALUES)

_names, _conditions = list(FLAGS), list(FLAGS.values())
# How many samples ``s`` there are, then how many in each state, then of each source.
COUNTS = ", ".join(["count(*)", *(f"count(*) filter ({condition})" for condition in _conditions)])
_WHOLE = "\nunion all ".join(
    [
        f"select unnest({['all', *(facet for facet, _ in _names)]}) as facet, unnest({['', *(value for _, value in _names)]}) as value, "
        f"unnest(counts) as number from (select [{COUNTS}] as counts from samples s where s.dataset_id = $dataset)",
        *(
            f"select '{facet}', value, count(*) from (select {value} as value from samples s where s.dataset_id = $dataset) "
            "where value <> '' group by value"
            for facet, value in [*((facet, f"unnest({of})") for facet, of in _LISTS.items()), *_VALUES.items()]
        ),
    ]
)
WHOLE = f"select facet, value, number from ({_WHOLE}) where number <> 0"  # what the tallies of $dataset should say


def tally(cursor: Cursor, dataset_id: int) -> None:
    """Count a data set anew."""
    cursor.execute("delete from tallies where dataset_id = ?", [dataset_id]).fetchall()
    cursor.execute(f"insert into tallies select $dataset, * from ({WHOLE})", {"dataset": dataset_id}).fetchall()


@contextmanager
def tallied(cursor: Cursor, facets: Sequence[str], target: Condition | Named) -> Iterator[None]:
    """Bring the tallies of some facets up to date with what is done within the block to the samples of ``target``.

    The condition on ``samples s`` must mean the same samples at the end as at the beginning.
    """
    before = _count(cursor, facets, target)
    yield
    changes = _count(cursor, facets, target)
    changes.subtract(before)
    rows = [(*key, number) for key, number in changes.items() if number]
    if rows:
        cursor.execute(
            "merge into tallies t using (select unnest(?::bigint[]) as dataset_id, unnest(?::varchar[]) as facet, "
            "unnest(?::varchar[]) as value, unnest(?::bigint[]) as number) c "
            "on c.dataset_id = t.dataset_id and c.facet = t.facet and c.value = t.value "
            "when matched then update set number = t.number + c.number "
            "when not matched then insert values (c.dataset_id, c.facet, c.value, c.number)",
            [[row[place] for row in rows] for place in range(4)],
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


def _count(cursor: Cursor, facets: Sequence[str], target: Condition | Named) -> Counter[tuple[int, str, str]]:
    """Return how many of the samples of a condition have which value: (data set, facet, value) → number.

    Samples are counted by all that they hold, of which there are few; that is taken apart here.
    """
    condition, values = target
    flags = [(name, having) for name, having in FLAGS.items() if name[0] in facets]
    lists = [(facet, column) for facet, column in _LISTS.items() if facet in facets]
    single = [(facet, value) for facet, value in _VALUES.items() if facet in facets]
    columns = ", ".join(sql for _, sql in [*flags, *lists, *single])
    found: Counter[tuple[int, str, str]] = Counter()
    for dataset_id, number, *row in cursor.execute(
        f"select s.dataset_id, count(*), {columns} from samples s where {condition} group by all", values
    ).fetchall():
        held = iter(row)
        for (facet, value), _ in flags:
            if next(held):
                found[dataset_id, facet, value] += number
        for facet, _ in lists:
            for value in next(held):
                found[dataset_id, facet, value] += number
        for facet, _ in single:
            if (value := next(held)) is not None:
                found[dataset_id, facet, value] += number
    return found
