"""How many samples have which value of a sorting: of one, of two together, and of two sets of samples side by side.

One statement per table. Samples are first counted by what they hold as a whole (their list of tags, say), of which there are
few; only then are the lists taken apart. All inside ``SampleStore.read()``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import bin_of
from .conditions import MEASURES, Condition, Words
from .cursor import Cursor
from .filters import SampleFilter, where
from .insights import Sorting

FIRST, SECOND, BOTH = range(3)  # sets that a sample is in: the first alone, the second alone, both
_KEPT = "s.id, s.dataset_id, s.split, s.categories, s.tags"


@dataclass(frozen=True, slots=True)
class Axis:
    """A sorting whose values are rows or columns of a table, with a place for all other values, and one for none.

    Attributes:
        sorting: with the values that have a place of their own.
        others: words of a dimension that share the place of the others.
        ignored: of own tags: the vocabulary's words, which are none.
        column_ids: of a column, in each of the data sets.
    """

    sorting: Sorting
    others: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    column_ids: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.sorting.values) + 2

    @property
    def place_of_others(self) -> int:
        return len(self.sorting.values)

    @property
    def place_of_none(self) -> int:
        return len(self.sorting.values) + 1


@dataclass(frozen=True, slots=True)
class Source:
    """What is counted.

    Attributes:
        table: of samples, whose rows are ``s``, or of groups of them that have the same tags.
        condition: what holds for those of its rows.
        number: how many samples rows are.
        sides: whether its rows say which of two sets they are in, and
        measured: what was measured of them.
    """

    table: str
    condition: Condition = ("true", [])
    number: str = "count(*)"
    sides: bool = False
    measured: bool = False


@dataclass(frozen=True)
class Counted:
    """Samples by the places of one axis, or of two.

    Attributes:
        rows: (size of the first axis,) samples with each value, then with another one, then with none.
        columns: the same of the second axis; (1,) without one.
        cells: (rows, columns) samples with both. A sample that has several values of an axis counts for each.
        total: all samples.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cells: NDArray[np.int64]
    total: int


def within(cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words) -> Source:
    """Return the samples of a filter; what is dear to evaluate is done once, however many tables are counted."""
    target = where(dataset_id, chosen, words)
    if chosen.in_two()[0].is_empty:
        return Source("samples", target)
    condition, values = target
    cursor.execute(
        f"create or replace temp table distributed as select {_KEPT} from samples s where {condition}", values
    ).fetchall()
    return Source("distributed")


def side_by_side(cursor: Cursor, first: Condition, second: Condition) -> Source:
    """Return the samples of two conditions on ``samples s``; the column ``side`` says which of them they meet."""
    cursor.execute(
        f"create or replace temp table distributed as select *, case when in_first and in_second then {BOTH} "
        f"when in_first then {FIRST} else {SECOND} end as side from (select {_KEPT}, coalesce(({first[0]}), false) as in_first, "
        f"coalesce(({second[0]}), false) as in_second from samples s) where in_first or in_second",
        [*first[1], *second[1]],
    ).fetchall()
    return Source("distributed", sides=True)


def by_tags(cursor: Cursor, source: Source) -> Source:
    """Return the samples grouped by their tags, which several dimensions are quickly counted of."""
    also = ", s.side" if source.sides else ""
    condition, values = source.condition
    cursor.execute(
        f"create or replace temp table grouped as select s.tags{also}, count(*) as n from {source.table} s where {condition} "
        "group by all",
        values,
    ).fetchall()
    return Source("grouped", number="sum(s.n)", sides=source.sides)


def with_measures(cursor: Cursor, source: Source) -> Source:
    """Return the samples with their measures beside them, which several of these are quickly counted of."""
    also = ", s.side" if source.sides else ""
    condition, values = source.condition
    cursor.execute(
        f"create or replace temp table measured as select {', '.join(f'm.{name}' for name in MEASURES)}{also} "
        f"from {source.table} s left join measures m on m.dataset_id = s.dataset_id and m.sample_id = s.id where {condition}",
        values,
    ).fetchall()
    return Source("measured", sides=source.sides, measured=True)


def size(cursor: Cursor, source: Source) -> int:
    """Return how many samples there are."""
    condition, values = source.condition
    return int(cursor.execute(f"select count(*) from {source.table} s where {condition}", values).fetchall()[0][0])


def sides(cursor: Cursor, source: Source) -> tuple[int, int, int]:
    """Return how many samples of :func:`side_by_side` are in the first set alone, in the second alone, and in both."""
    found = dict(cursor.execute(f"select side, count(*) from {source.table} group by 1").fetchall())
    return found.get(FIRST, 0), found.get(SECOND, 0), found.get(BOTH, 0)


def count(cursor: Cursor, source: Source, axis: Axis, other: Axis | None = None) -> Counted:
    """Count the samples by the values of an axis, or of two."""
    rows = _Expression.of(source, axis, "a")
    columns = _Expression.of(source, other, "b") if other is not None else _Expression("0", "", "", [], 1)
    if other is not None and columns.key == rows.key:  # two dimensions: one and the same list of tags
        columns = _Expression.of(source, other, "a")
    return _counted(cursor, source, rows, columns)


def count_sides(cursor: Cursor, source: Source, axis: Axis) -> Counted:
    """Count the samples of :func:`side_by_side` by the values of an axis (rows) and the sets that they are in (columns)."""
    return _counted(cursor, source, _Expression.of(source, axis, "a"), _Expression("s.side", "", "", [], 3))


def in_turn(several: Sequence[Sequence[str]], limit: int) -> tuple[str, ...]:
    """Join lists of values, each with the most frequent first, to one of ``limit`` values that takes of them in turn."""
    longest = max((len(values) for values in several), default=0)
    joined = [values[place] for place in range(longest) for values in several if place < len(values)]
    return tuple(dict.fromkeys(joined))[:limit]


# -- inside --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Expression:
    """SQL of an axis.

    Attributes:
        key: what is counted as a whole, of a sample ``s``.
        join: what ``key`` needs beside ``s``.
        places: rows (g, place) of ``groups``, whose column is named after the axis; empty where the key is a place itself.
        values: parameters of ``places``.
        size: number of places.
    """

    key: str
    join: str
    places: str
    values: list[Any]
    size: int

    @classmethod
    def of(cls, source: Source, axis: Axis, name: str) -> "_Expression":
        """Return the SQL of an axis whose column of ``groups`` is ``name``."""
        sorting, alias = axis.sorting, f"t{name}"
        if sorting.kind == "column":
            ids = ", ".join(map(str, axis.column_ids)) or "null"
            join = f"left join column_values {alias} on {alias}.column_id in ({ids}) and {alias}.sample_id = s.id"
            if sorting.column is not None and sorting.column.kind == "word":
                return cls(
                    f"{alias}.word", join, *_listed(axis, name, f"select g, {name} as value from groups"), axis.size
                )
            if sorting.column is not None and sorting.column.kind == "boolean":
                return cls(f"case {alias}.number when 1 then 0 when 0 then 1 end", join, "", [], axis.size)
            return cls(_binned(f"{alias}.number", sorting), join, "", [], axis.size)
        if sorting.kind == "measure" and source.measured:
            return cls(_binned(f"s.{sorting.name}", sorting), "", "", [], axis.size)
        if sorting.kind == "measure":
            join = f"left join measures {alias} on {alias}.dataset_id = s.dataset_id and {alias}.sample_id = s.id"
            return cls(_binned(f"{alias}.{sorting.name}", sorting), join, "", [], axis.size)
        if sorting.kind == "split":
            return cls("s.split", "", *_listed(axis, name, f"select g, {name} as value from groups"), axis.size)
        key = "s.categories" if sorting.kind == "category" else "s.tags"
        return cls(key, "", *_listed(axis, name, f"select g, unnest({name}) as value from groups"), axis.size)


def _listed(axis: Axis, name: str, values: str) -> tuple[str, list[Any]]:
    """Return SQL for the places of rows (g, value): of a dimension only its own words have one, of all else every value."""
    places = (
        list(range(len(axis.sorting.values))) + [axis.place_of_others] * len(axis.others) + [-1] * len(axis.ignored)
    )
    inner = "" if axis.sorting.kind == "dimension" else "left"
    return (
        f"select distinct g, place from (select v.g, coalesce(l.place, {axis.place_of_others}) as place from ({values}) v "
        f"{inner} join (select unnest(?::varchar[]) as value, unnest(?::integer[]) as place) l on l.value = v.value "
        f"where v.value <> '') where place >= 0",
        [[*axis.sorting.values, *axis.others, *axis.ignored], places],
    )


def _binned(value: str, sorting: Sorting) -> str:
    return f"case when {value} is not null then {bin_of(value, sorting.edges)} end"


def _counted(cursor: Cursor, source: Source, rows: _Expression, columns: _Expression) -> Counted:
    also = f", {columns.key} as b" if columns.key != rows.key else ""
    condition, values = source.condition
    found = cursor.execute(
        f"""
        with groups as materialized (
            select row_number() over () as g, * from (
                select {rows.key} as a{also}, {source.number} as n from {source.table} s {rows.join} {columns.join}
                where {condition} group by all)),
        of_rows as ({rows.places or "select g, a as place from groups where a is not null"}),
        of_columns as ({columns.places or "select g, b as place from groups where b is not null"})
        select 'cell', r.place, c.place, sum(n) from groups left join of_rows r using (g) left join of_columns c using (g)
        group by 2, 3
        union all select 'row', r.place, null, sum(n) from groups left join of_rows r using (g) group by 2
        union all select 'column', null, c.place, sum(n) from groups left join of_columns c using (g) group by 3
        union all select 'total', null, null, sum(n) from groups
        """,
        [*values, *rows.values, *columns.values],
    ).fetchall()
    counted = Counted(
        rows=np.zeros(rows.size, dtype=np.int64),
        columns=np.zeros(columns.size, dtype=np.int64),
        cells=np.zeros((rows.size, columns.size), dtype=np.int64),
        total=next(int(number or 0) for what, _, _, number in found if what == "total"),
    )
    for what, row, column, number in found:
        i, j = rows.size - 1 if row is None else row, columns.size - 1 if column is None else column
        if what == "cell" and number:
            counted.cells[i, j] += number
        elif what == "row":
            counted.rows[i] += number
        elif what == "column":
            counted.columns[j] += number
    return counted
