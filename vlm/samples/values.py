"""What is known of samples beside their tags: columns that users brought along, measures of the pixels, findings, slices.

All inside ``SampleStore.write()``, the reading functions inside ``read()``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .database import Cursor
from .errors import FilterError
from .merging import changed
from .records import Column, ColumnKind, Mark, Measures

MAX_NAME = 60
MAX_COLUMNS = 200

Value = float | bool | str


def column_put(cursor: Cursor, *, dataset_id: int, name: str, kind: ColumnKind, values: Mapping[int, Value]) -> Column:
    """Write a column, sample id → value, in place of one of the same name. Samples of other data sets are left out.

    Raises:
        FilterError: a name that no filter could be written with, or too many columns.
    """
    name = name.strip()
    if not name or len(name) > MAX_NAME or ":" in name or not name.isprintable():
        raise FilterError(f"A column's name has 1 to {MAX_NAME} characters, none of them a colon.")
    column_delete(cursor, dataset_id=dataset_id, name=name)
    if len(columns(cursor, dataset_id)) >= MAX_COLUMNS:
        raise FilterError(f"A data set has at most {MAX_COLUMNS} columns.")
    column_id = cursor.execute("select nextval('column_ids')").fetchall()[0][0]
    cursor.execute("insert into columns values (?, ?, ?, ?)", [column_id, dataset_id, name, kind]).fetchall()
    cursor.execute("create or replace temp table given (sample_id bigint, number double, word varchar)").fetchall()
    appender = cursor.appender("given")
    appender.append_rows(
        (sample_id, None, str(value)) if kind == "word" else (sample_id, float(value), None)
        for sample_id, value in values.items()
    )
    appender.flush()
    cursor.execute(
        "insert into column_values select ?, ?, g.sample_id, g.number, g.word from given g "
        "where g.sample_id in (select id from samples where dataset_id = ?) order by g.sample_id",
        [dataset_id, column_id, dataset_id],
    ).fetchall()
    cursor.execute("drop table given").fetchall()
    changed(cursor, dataset_id)
    return next(column for column in columns(cursor, dataset_id) if column.id == column_id)


def column_delete(cursor: Cursor, *, dataset_id: int, name: str) -> bool:
    """Forget a column; returns whether there was one."""
    known = {column.name: column.id for column in columns(cursor, dataset_id)}
    if name not in known:
        return False
    cursor.execute("delete from column_values where column_id = ?", [known[name]]).fetchall()
    cursor.execute("delete from columns where id = ?", [known[name]]).fetchall()
    changed(cursor, dataset_id)
    return True


def columns(cursor: Cursor, dataset_id: int) -> list[Column]:
    """Return the columns of a data set by name."""
    rows = cursor.execute(
        "select c.id, c.name, c.kind, count(v.sample_id) from columns c "
        "left join column_values v on v.column_id = c.id and v.dataset_id = c.dataset_id "
        "where c.dataset_id = ? group by all order by c.name",
        [dataset_id],
    ).fetchall()
    return [Column(*row) for row in rows]


def column_values(cursor: Cursor, dataset_id: int, name: str, *, ids: Sequence[int] | None = None) -> dict[int, Value]:
    """Return sample id → value of a column, of all samples or of those named."""
    only, given = _only(ids)
    rows = cursor.execute(
        "select v.sample_id, c.kind, v.number, v.word from column_values v join columns c on c.id = v.column_id "
        f"where v.dataset_id = ? and c.name = ?{only} order by v.sample_id",
        [dataset_id, name, *given],
    ).fetchall()
    return {sample_id: _value(kind, number, word) for sample_id, kind, number, word in rows}


def values_of(cursor: Cursor, dataset_id: int, ids: Sequence[int]) -> dict[int, dict[str, Value]]:
    """Return sample id → column → value: what an export writes beside the tags."""
    only, given = _only(ids)
    rows = cursor.execute(
        "select v.sample_id, c.name, c.kind, v.number, v.word from column_values v join columns c on c.id = v.column_id "
        f"where v.dataset_id = ?{only} order by c.name",
        [dataset_id, *given],
    ).fetchall()
    found: dict[int, dict[str, Value]] = {}
    for sample_id, name, kind, number, word in rows:
        found.setdefault(sample_id, {})[name] = _value(kind, number, word)
    return found


def measures_of(cursor: Cursor, dataset_id: int, *, ids: Sequence[int] | None = None) -> dict[int, Measures]:
    """Return sample id → measures, of all samples that were measured or of those named."""
    only, given = _only(ids)
    rows = cursor.execute(
        f"select sample_id, {', '.join(Measures.__slots__)} from measures v where dataset_id = ?{only} order by sample_id",
        [dataset_id, *given],
    ).fetchall()
    return {row[0]: Measures(*row[1:]) for row in rows}


def unmeasured(cursor: Cursor, dataset_id: int, *, after: int = -1, limit: int = 1000) -> list[tuple[int, str]]:
    """Return (id, path) of the next samples that nobody measured, gone files left out."""
    return cursor.execute(
        "select s.id, s.path from samples s where s.dataset_id = ? and s.id > ? and not s.missing and not exists "
        "(select 1 from measures m where m.sample_id = s.id) order by s.id limit ?",
        [dataset_id, after, limit],
    ).fetchall()


def marks_put(cursor: Cursor, *, dataset_id: int, kind: str, marks: Iterable[Mark]) -> int:
    """Write what was found of one kind about the samples of a data set, in place of what was found before."""
    cursor.execute("delete from marks where dataset_id = ? and kind = ?", [dataset_id, kind]).fetchall()
    appender, count = cursor.appender("marks"), 0
    for mark in marks:
        appender.append_row(dataset_id, kind, mark.sample_id, mark.member_of, mark.value, mark.word)
        count += 1
    appender.flush()
    changed(cursor, dataset_id)
    return count


def marks(cursor: Cursor, dataset_id: int, kind: str, *, ids: Sequence[int] | None = None) -> list[Mark]:
    """Return what was found of one kind, of all samples or of those named, the highest value first."""
    only, given = _only(ids)
    rows = cursor.execute(
        f"select sample_id, member_of, value, word from marks v where dataset_id = ? and kind = ?{only} "
        "order by value desc nulls last, member_of, sample_id",
        [dataset_id, kind, *given],
    ).fetchall()
    return [Mark(*row) for row in rows]


def slice_freeze(cursor: Cursor, *, dataset_id: int, slice_id: int, ids: Sequence[int]) -> int:
    """Keep these samples under a number, in place of what was kept under it; returns how many are the data set's."""
    slice_forget(cursor, dataset_id=dataset_id, slice_id=slice_id)
    rows = cursor.execute(
        "insert into slice_samples select dataset_id, ?, id from samples where dataset_id = ? "
        "and id in (select unnest(?::bigint[])) order by id",
        [slice_id, dataset_id, list(ids)],
    ).fetchall()
    return int(rows[0][0])


def slice_forget(cursor: Cursor, *, dataset_id: int, slice_id: int) -> None:
    cursor.execute("delete from slice_samples where dataset_id = ? and slice_id = ?", [dataset_id, slice_id]).fetchall()


def slice_ids(cursor: Cursor, dataset_id: int, slice_id: int) -> list[int]:
    rows = cursor.execute(
        "select sample_id from slice_samples where dataset_id = ? and slice_id = ? order by 1", [dataset_id, slice_id]
    ).fetchall()
    return [row[0] for row in rows]


def _only(ids: Sequence[int] | None) -> tuple[str, list[Any]]:
    if ids is None:
        return "", []
    if not ids:
        return " and false", []
    return (
        " and v.sample_id between ? and ? and v.sample_id in (select unnest(?::bigint[]))",
        [min(ids), max(ids), list(ids)],
    )


def _value(kind: str, number: float | None, word: str | None) -> Value:
    if kind == "word":
        return word or ""
    return bool(number) if kind == "boolean" else float(number or 0)
