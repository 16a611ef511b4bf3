"""What the statistics of insights need of the store: features of samples beside a score.

All inside ``SampleStore.read()``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .columns import ranges_of
from .conditions import Condition
from .cursor import Cursor
from .records import Column

SortingKind = Literal["dimension", "own", "split", "category", "column", "measure"]
MOST_VALUES = 50  # of a sorting that has many, the most frequent


@dataclass(frozen=True, slots=True)
class Sorting:
    """What sorts samples into values, and the values to look at, in their order.

    Attributes:
        kind: of the vocabulary, users' own tags, the data set's splits and categories, a column, or a measure of the pixels.
        name: of the dimension, column or measure.
        values: words; of flags “yes” and “no”; of numbers ranges as a filter spells them.
        column: with its kind, and
        edges: between the ranges of numbers.
    """

    kind: SortingKind
    name: str
    values: tuple[str, ...]
    column: Column | None = None
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Features:
    """Samples with a score: (n, features) what each has, and (n,) their scores."""

    has: NDArray[np.bool_]
    scores: NDArray[np.float64]


def values_there(cursor: Cursor, target: Condition, sorting: Sorting, *, limit: int = MOST_VALUES) -> tuple[str, ...]:
    """Return the values of splits, categories, own tags or a column of words in a filter, the most frequent first.

    Args:
        target: condition on ``samples s``.
        sorting: its ``values`` are left out.
    """
    condition, given = target
    where, also = "value <> ''", list(sorting.values)
    if sorting.kind == "column":
        rows = cursor.execute(
            "select v.word from column_values v join samples s on s.id = v.sample_id "
            f"where v.column_id = ? and {condition} group by 1 order by count(*) desc, 1 limit ?",
            [sorting.column and sorting.column.id, *given, limit],
        ).fetchall()
        return tuple(row[0] for row in rows)
    if sorting.kind == "own":
        where = "not list_contains(?::varchar[], value)"
    else:
        also = []
    expression = {"split": "s.split", "category": "unnest(s.categories)", "own": "unnest(s.tags)"}[sorting.kind]
    rows = cursor.execute(
        f"select value from (select {expression} as value from samples s where {condition}) where {where} "
        "group by 1 order by count(*) desc, 1 limit ?",
        [*given, *([also] if also or sorting.kind == "own" else []), limit],
    ).fetchall()
    return tuple(row[0] for row in rows)


def quarters(cursor: Cursor, target: Condition, column: Column) -> tuple[float, ...]:
    """Return what cuts the values of a column of numbers into quarters, of the samples of a filter."""
    condition, given = target
    rows = cursor.execute(
        "select quantile_disc(v.number, [0.25, 0.5, 0.75]) from column_values v join samples s on s.id = v.sample_id "
        f"where v.column_id = ? and {condition}",
        [column.id, *given],
    ).fetchall()
    return tuple(dict.fromkeys(rows[0][0] or ()))


def features(
    cursor: Cursor, target: Condition, score: Column, sortings: Sequence[Sorting], *, word: str = ""
) -> Features:
    """Return what the samples of a filter have that have a score, one feature for each value of each sorting.

    Args:
        word: of a column of words: the score is whether the sample has it.
    """
    condition, given = target
    parts: list[str] = []
    values: list[Any] = [word] if score.kind == "word" else []
    joins: list[str] = []
    joined: list[Any] = []
    for number, sorting in enumerate(sortings):
        if sorting.kind == "column" and sorting.column is not None:
            joins.append(f"left join column_values c{number} on c{number}.column_id = ? and c{number}.sample_id = s.id")
            joined.append(sorting.column.id)
        for place, value in enumerate(sorting.values):
            test, own = _test(sorting, place, value, f"c{number}")
            parts.append(f"coalesce({test}, false) as f{len(parts)}")
            values += own
    taken = "t.word = ?" if score.kind == "word" else "t.number"
    found = cursor.execute(
        f"select ({taken})::double as score{''.join(f', {part}' for part in parts)} from samples s "
        f"join column_values t on t.column_id = ? and t.sample_id = s.id {' '.join(joins)} where {condition}",
        [*values, score.id, *joined, *given],
    ).fetchnumpy()
    scores = np.asarray(found["score"], dtype=np.float64)
    has = np.empty((len(scores), len(parts)), dtype=np.bool_, order="F")
    for place in range(len(parts)):
        has[:, place] = found[f"f{place}"]
    return Features(has, scores)


def _test(sorting: Sorting, place: int, value: str, alias: str) -> tuple[str, list[Any]]:
    """Return SQL for whether a sample ``s`` has a value."""
    if sorting.kind in ("dimension", "own"):
        return "list_contains(s.tags, ?)", [value]
    if sorting.kind == "category":
        return "list_contains(s.categories, ?)", [value]
    if sorting.kind == "split":
        return "s.split = ?", [value]
    if sorting.column is not None and sorting.column.kind == "word":
        return f"{alias}.word = ?", [value]
    if sorting.column is not None and sorting.column.kind == "boolean":
        return f"{alias}.number = ?", [1.0 if value == "yes" else 0.0]
    edges = sorting.edges
    bounds = [f"{alias}.number >= ?"] if place else []
    bounds += [f"{alias}.number < ?"] if place < len(edges) else []
    given = ([edges[place - 1]] if place else []) + ([edges[place]] if place < len(edges) else [])
    return " and ".join(bounds) or f"{alias}.number is not null", given


def by_ranges(column: Column, edges: Sequence[float]) -> Sorting:
    """Return a column of numbers as ranges between ``edges``."""
    return Sorting("column", column.name, tuple(ranges_of(edges)), column, tuple(edges))
