"""What is known of samples beside their tags: measures of the pixels, findings, slices. Columns are in ``columns``.

All inside ``SampleStore.write()``, the reading functions inside ``read()``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .columns import only_ids
from .conditions import MEASURES, Condition
from .cursor import Cursor
from .deriving import changed
from .records import Mark, Measures


@dataclass(frozen=True, slots=True)
class Spread:
    """How a measure is spread: the least and the greatest value, the median, and what 5 % and 95 % do not exceed."""

    name: str
    least: float
    low: float
    median: float
    high: float
    most: float


@dataclass(frozen=True, slots=True)
class SliceSample:
    """A sample of a frozen slice: where it is below the data set's root, and what its bytes are, if they were read."""

    id: int
    path: str
    split: str
    content_key: str
    sha256: str | None


def measures_keep(cursor: Cursor, *, dataset_id: int, measures: Mapping[int, Measures]) -> None:
    """Write what was measured of images, sample id → measures, in place of what was measured before."""
    if not measures:
        return
    cursor.execute(
        "delete from measures where dataset_id = ? and sample_id between ? and ? and sample_id in (select unnest(?::bigint[]))",
        [dataset_id, min(measures), max(measures), list(measures)],
    ).fetchall()
    appender = cursor.appender("measures")
    appender.append_rows(
        (
            dataset_id,
            sample_id,
            m.luminance,
            m.p05,
            m.p95,
            m.contrast,
            m.sharpness,
            m.noise,
            m.colourfulness,
            m.aspect,
            m.phash,
        )
        for sample_id, m in measures.items()
    )
    appender.flush()


def measures_of(cursor: Cursor, dataset_id: int, *, ids: Sequence[int] | None = None) -> dict[int, Measures]:
    """Return sample id → measures, of all samples that were measured or of those named."""
    only, given = only_ids(ids)
    rows = cursor.execute(
        f"select sample_id, {', '.join(Measures.__slots__)} from measures v where dataset_id = ?{only} order by sample_id",
        [dataset_id, *given],
    ).fetchall()
    return {row[0]: Measures(*row[1:]) for row in rows}


def has_measures(cursor: Cursor, dataset_id: int) -> bool:
    """Return whether any sample of a data set is measured."""
    return bool(cursor.execute("select 1 from measures where dataset_id = ? limit 1", [dataset_id]).fetchall())


def measures_below(cursor: Cursor, dataset_id: int, measures: Measures) -> dict[str, float]:
    """Return of how large a share of the data set's images each measure is lower; of images alike half counts."""
    columns = ", ".join(f"avg(case when {name} < ? then 1 when {name} = ? then 0.5 else 0 end)" for name in MEASURES)
    values = [getattr(measures, name) for name in MEASURES for _ in range(2)]
    rows = cursor.execute(f"select {columns} from measures where dataset_id = ?", [*values, dataset_id]).fetchall()
    return dict(zip(MEASURES, rows[0], strict=True))


def measures_spread(cursor: Cursor, dataset_id: int) -> tuple[tuple[Spread, ...], int]:
    """Return how each measure is spread over a data set, and how many samples are measured."""
    columns = ", ".join(f"quantile_cont({name}, [0, 0.05, 0.5, 0.95, 1])" for name in MEASURES)
    rows = cursor.execute(f"select count(*), {columns} from measures where dataset_id = ?", [dataset_id]).fetchall()
    count, *found = rows[0]
    if not count:
        return (), 0
    return tuple(Spread(name, *quantiles) for name, quantiles in zip(MEASURES, found, strict=True)), int(count)


def unmeasured(cursor: Cursor, dataset_id: int, *, after: int = -1, limit: int = 1000) -> list[tuple[int, str]]:
    """Return (id, path) of the next samples that nobody measured, gone files left out."""
    return cursor.execute(
        "select s.id, s.path from samples s where s.dataset_id = ? and s.id > ? and not s.missing and s.id not in "
        "(select sample_id from measures where dataset_id = ? and sample_id > ?) order by s.id limit ?",
        [dataset_id, after, dataset_id, after, limit],
    ).fetchall()


def unmeasured_count(cursor: Cursor, dataset_id: int) -> int:
    """Return how many samples nobody measured, gone files left out."""
    rows = cursor.execute(
        "select count(*) from samples s where s.dataset_id = ? and not s.missing "
        "and s.id not in (select sample_id from measures where dataset_id = ?)",
        [dataset_id, dataset_id],
    ).fetchall()
    return int(rows[0][0])


def present(cursor: Cursor, dataset_id: int, ids: Sequence[int]) -> list[int]:
    """Return which of these samples the data set has, in order."""
    only, given = only_ids(ids)
    rows = cursor.execute(
        f"select v.sample_id from (select id as sample_id, dataset_id from samples) v where v.dataset_id = ?{only} order by 1",
        [dataset_id, *given],
    ).fetchall()
    return [row[0] for row in rows]


def marks_put(cursor: Cursor, *, dataset_id: int, kind: str, marks: Iterable[Mark]) -> int:
    """Write what was found of one kind about the samples of a data set, in place of what was found before."""
    cursor.execute("delete from marks where dataset_id = ? and kind = ?", [dataset_id, kind]).fetchall()
    appender, count = cursor.appender("marks"), 0
    for mark in marks:
        appender.append_row(dataset_id, kind, mark.sample_id, mark.member_of, mark.value, mark.word, "")
        count += 1
    appender.flush()
    changed(cursor, dataset_id)
    return count


def marks(cursor: Cursor, dataset_id: int, kind: str, *, ids: Sequence[int] | None = None) -> list[Mark]:
    """Return what was found of one kind, of all samples or of those named, the highest value first."""
    only, given = only_ids(ids)
    rows = cursor.execute(
        f"select sample_id, member_of, value, word from marks v where dataset_id = ? and kind = ?{only} "
        "order by value desc nulls last, member_of, sample_id",
        [dataset_id, kind, *given],
    ).fetchall()
    return [Mark(*row) for row in rows]


def slice_freeze(cursor: Cursor, *, dataset_id: int, slice_id: int, target: Condition) -> int:
    """Keep the samples of a condition on ``samples s`` under a number, in place of what was kept under it; returns how many."""
    slice_forget(cursor, dataset_id=dataset_id, slice_id=slice_id)
    condition, values = target
    rows = cursor.execute(
        f"insert into slice_samples select s.dataset_id, ?, s.id from samples s where {condition} and s.dataset_id = ? "
        "order by s.id",
        [slice_id, *values, dataset_id],
    ).fetchall()
    return int(rows[0][0])


def slice_page(cursor: Cursor, dataset_id: int, slice_id: int, *, after: int, limit: int) -> list[SliceSample]:
    """Return the next samples of a slice by id."""
    rows = cursor.execute(
        "select s.id, s.path, s.split, s.content_key, s.digest from slice_samples v join samples s on s.id = v.sample_id "
        "where v.dataset_id = ? and v.slice_id = ? and s.id > ? order by s.id limit ?",
        [dataset_id, slice_id, after, limit],
    ).fetchall()
    return [SliceSample(*row) for row in rows]


def slice_forget(cursor: Cursor, *, dataset_id: int, slice_id: int) -> None:
    cursor.execute("delete from slice_samples where dataset_id = ? and slice_id = ?", [dataset_id, slice_id]).fetchall()


def slice_ids(cursor: Cursor, dataset_id: int, slice_id: int) -> list[int]:
    rows = cursor.execute(
        "select sample_id from slice_samples where dataset_id = ? and slice_id = ? order by 1", [dataset_id, slice_id]
    ).fetchall()
    return [row[0] for row in rows]
