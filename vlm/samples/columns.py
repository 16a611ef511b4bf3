"""Columns: values that users brought along, such as a detector's error, a flag or a camera.

All inside ``SampleStore.write()``, the reading functions inside ``read()``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conditions import Words, column_of
from .cursor import Cursor
from .deriving import changed
from .errors import FilterError
from .filters import SampleFilter, where
from .records import Column, ColumnFacet, ColumnKind, ColumnSpan, Count

MAX_NAME = 60
MAX_WORD = 120  # characters: with the column's name, a filter must hold it
MAX_COLUMNS = 200
MAX_DESCRIPTION = 1000
MAX_WORDS = 200  # of a column, that a facet lists

Value = float | bool | str


def check_name(name: str) -> str:
    """Return a column's name without what surrounds it. Raises ``FilterError`` for one that no filter could be written with."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or ":" in name or not name.isprintable():
        raise FilterError(
            f"A column's name has 1 to {MAX_NAME} characters, none of them a colon: “{name[:80]}” has not."
        )
    return name


def column_put(
    cursor: Cursor,
    *,
    dataset_id: int,
    name: str,
    kind: ColumnKind,
    ids: Sequence[int] | NDArray[np.int64],
    values: Sequence[Value] | NDArray[Any],
    source: str = "",
    user_name: str = "",
) -> Column:
    """Write a column, the value of each sample, in place of one of the same name, whose description stays.

    Samples of other data sets are left out; each sample may be named once.

    Raises:
        FilterError: a name that no filter could be written with, or too many columns.
    """
    name = check_name(name)
    there = columns(cursor, dataset_id)
    before = next((column for column in there if column.name == name), None)
    if before is None and len(there) >= MAX_COLUMNS:
        raise FilterError(f"A data set has at most {MAX_COLUMNS} columns. Remove one first.")
    if before is not None:
        cursor.execute("delete from column_values where column_id = ?", [before.id]).fetchall()
        cursor.execute("delete from columns where id = ?", [before.id]).fetchall()
    column_id = cursor.execute("select nextval('column_ids')").fetchall()[0][0]
    cursor.execute(
        "insert into columns (id, dataset_id, name, kind, description, source, user_name, created) "
        "values (?, ?, ?, ?, ?, ?, ?, current_timestamp::timestamp)",
        [column_id, dataset_id, name, kind, before.description if before else "", source, user_name],
    ).fetchall()
    given = {
        "sample_id": np.asarray(ids, dtype=np.int64),
        "value": np.asarray(values, dtype=object if kind == "word" else np.float64),
    }
    if len(given["sample_id"]):
        number, word = ("null", "g.value") if kind == "word" else ("g.value", "null")
        cursor.register("given_values", given)
        cursor.execute(
            f"insert into column_values select ?, ?, g.sample_id, {number}, {word} from given_values g "
            "where g.sample_id in (select id from samples where dataset_id = ?) order by g.sample_id",
            [dataset_id, column_id, dataset_id],
        ).fetchall()
        cursor.unregister("given_values")
    changed(cursor, dataset_id)
    return next(column for column in columns(cursor, dataset_id) if column.id == column_id)


def column_delete(cursor: Cursor, *, dataset_id: int, name: str) -> bool:
    """Forget a column; returns whether there was one."""
    found = column_named(cursor, dataset_id, name)
    if found is None:
        return False
    cursor.execute("delete from column_values where column_id = ?", [found.id]).fetchall()
    cursor.execute("delete from columns where id = ?", [found.id]).fetchall()
    changed(cursor, dataset_id)
    return True


def column_describe(cursor: Cursor, *, dataset_id: int, name: str, description: str) -> bool:
    """Say what a column is; returns whether there is one."""
    found = column_named(cursor, dataset_id, name)
    if found is None:
        return False
    cursor.execute(
        "update columns set description = ? where id = ?", [description.strip()[:MAX_DESCRIPTION], found.id]
    ).fetchall()
    changed(cursor, dataset_id)
    return True


def columns(cursor: Cursor, dataset_id: int) -> list[Column]:
    """Return the columns of a data set by name."""
    rows = cursor.execute(
        "select c.id, c.name, c.kind, count(v.sample_id), c.description, c.source, c.user_name, c.created from columns c "
        "left join column_values v on v.column_id = c.id and v.dataset_id = c.dataset_id "
        "where c.dataset_id = ? group by all order by c.name",
        [dataset_id],
    ).fetchall()
    return [Column(*row) for row in rows]


def column_named(cursor: Cursor, dataset_id: int, name: str) -> Column | None:
    return next((column for column in columns(cursor, dataset_id) if column.name == name), None)


def column_values(cursor: Cursor, dataset_id: int, name: str, *, ids: Sequence[int] | None = None) -> dict[int, Value]:
    """Return sample id → value of a column, of all samples or of those named."""
    only, given = only_ids(ids)
    rows = cursor.execute(
        "select v.sample_id, c.kind, v.number, v.word from column_values v join columns c on c.id = v.column_id "
        f"where v.dataset_id = ? and c.name = ?{only} order by v.sample_id",
        [dataset_id, name, *given],
    ).fetchall()
    return {sample_id: _value(kind, number, word) for sample_id, kind, number, word in rows}


def values_of(cursor: Cursor, dataset_id: int, ids: Sequence[int]) -> dict[int, dict[str, Value]]:
    """Return sample id → column → value: what an export writes beside the tags."""
    only, given = only_ids(ids)
    rows = cursor.execute(
        "select v.sample_id, c.name, c.kind, v.number, v.word from column_values v join columns c on c.id = v.column_id "
        f"where v.dataset_id = ?{only} order by c.name",
        [dataset_id, *given],
    ).fetchall()
    found: dict[int, dict[str, Value]] = {}
    for sample_id, name, kind, number, word in rows:
        found.setdefault(sample_id, {})[name] = _value(kind, number, word)
    return found


def span(cursor: Cursor, column: Column) -> ColumnSpan | None:
    """Return the range of a column of numbers; ``None`` where it has no value."""
    rows = cursor.execute(
        "select min(number), max(number), quantile_cont(number, 0.01), quantile_cont(number, 0.99) from column_values "
        "where column_id = ?",
        [column.id],
    ).fetchall()
    return None if rows[0][0] is None else ColumnSpan(*rows[0])


def facet(
    cursor: Cursor, dataset_id: int, column: Column, chosen: SampleFilter, words: Words, *, edges: Sequence[float] = ()
) -> ColumnFacet:
    """Count the values of a column among the samples of a filter; what the filter itself asks of the column is left out.

    Args:
        edges: rising; numbers are counted below the first, between each two (the upper one excluded), and from the last on.
    """
    others = replace(chosen, columns=tuple(part for part in chosen.columns if column_of(part) != column.name))
    others = replace(others, no_value=tuple(name for name in others.no_value if name != column.name))
    condition, values = where(dataset_id, others, words)
    within = "" if others.is_empty else f" and v.sample_id in (select s.id from samples s where {condition})"
    given = [] if others.is_empty else values
    value = {"word": "v.word", "boolean": "v.number::integer", "number": bin_of("v.number", edges)}[column.kind]
    rows = cursor.execute(
        f"select {value}, count(*) from column_values v where v.column_id = ?{within} group by 1 order by 2 desc, 1",
        [column.id, *given],
    ).fetchall()
    total = cursor.execute(f"select count(*) from samples s where {condition}", values).fetchall()[0][0]
    lacking = total - sum(row[1] for row in rows)
    if column.kind == "word":
        return ColumnFacet(column, tuple(Count(*row) for row in rows[:MAX_WORDS]), lacking)
    counted = dict(rows)
    if column.kind == "boolean":
        return ColumnFacet(column, (Count("yes", counted.get(1, 0)), Count("no", counted.get(0, 0))), lacking)
    there = None if edges else span(cursor, column)
    ranges = [f"{plain(there.low)}..{plain(there.high)}"] if there is not None else ranges_of(edges)
    bins = tuple(Count(text, counted.get(place, 0)) for place, text in enumerate(ranges))
    return ColumnFacet(column, bins, lacking, tuple(edges))


def ranges_of(edges: Sequence[float]) -> list[str]:
    """Return the ranges between ``edges`` as a filter spells them: ``..<0``, ``0..<5``, ``5..``."""
    told = [plain(edge) for edge in edges]
    return [f"{low}..{f'<{high}' if high else ''}" for low, high in zip(["", *told], [*told, ""], strict=True)]


def said(value: Value) -> str:
    """Return a value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:.6g}"


def plain(value: float) -> str:
    """Return a number in the fewest digits from which it comes back, whole ones without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def only_ids(ids: Sequence[int] | None) -> tuple[str, list[Any]]:
    """Return a condition on the samples of ``v``: all of them, or those named."""
    if ids is None:
        return "", []
    if not ids:
        return " and false", []
    return (
        " and v.sample_id between ? and ? and v.sample_id in (select unnest(?::bigint[]))",
        [min(ids), max(ids), list(ids)],
    )


def bin_of(value: str, edges: Sequence[float]) -> str:
    """Return SQL for the place of a value between ``edges``."""
    steps = " ".join(f"when {value} < {float(edge)!r}::double then {place}" for place, edge in enumerate(edges))
    return f"case {steps} else {len(edges)} end" if steps else "0"


def _value(kind: str, number: float | None, word: str | None) -> Value:
    if kind == "word":
        return word or ""
    return bool(number) if kind == "boolean" else float(number or 0)
