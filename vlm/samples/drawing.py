"""Samples that were drawn to be labelled: who has which at hand, and what is left."""

from collections.abc import Iterable

from .cursor import Cursor
from .deriving import changed
from .records import Drawn

CLAIM_SECONDS = 600  # a picture that somebody took and did not decide is anybody's again after this

_OPEN = "dataset_id = $dataset and dimension = $dimension and batch = $batch and not done"


def draws_put(cursor: Cursor, *, dataset_id: int, dimension: str, batch: str, drawn: Iterable[Drawn]) -> int:
    """Write a draw, in place of one of the same name; samples that have a label of the dimension are done already."""
    cursor.execute(
        "delete from draws where dataset_id = ? and dimension = ? and batch = ?", [dataset_id, dimension, batch]
    ).fetchall()
    rows = list(drawn)
    cursor.execute(
        "insert into draws select ?, ?, ?, d.sample_id, d.place, d.probability, d.stratum, null, null, exists ("
        "select 1 from labels l where l.dataset_id = ? and l.dimension = ? and l.sample_id = d.sample_id and l.ended_by is null) "
        "from (select unnest(?::bigint[]) as sample_id, unnest(?::bigint[]) as place, unnest(?::double[]) as probability, "
        "unnest(?::varchar[]) as stratum) d",
        [
            *(dataset_id, dimension, batch, dataset_id, dimension),
            *([getattr(row, name) for row in rows] for name in Drawn.__slots__),
        ],
    ).fetchall()
    changed(cursor, dataset_id)
    return len(rows)


def draws_claim(
    cursor: Cursor, *, dataset_id: int, dimension: str, batch: str, who: str, limit: int, seconds: float = CLAIM_SECONDS
) -> list[Drawn]:
    """Return the next samples to decide for ``who``, and keep everybody else from getting them meanwhile.

    Those that they had taken before come first.
    """
    names = {"dataset": dataset_id, "dimension": dimension, "batch": batch, "who": who}
    rows = cursor.execute(
        f"select sample_id, place, probability, stratum from draws where {_OPEN} and (claimed_by is null "
        "or claimed_by = $who or claimed_at <= current_timestamp::timestamp - to_milliseconds($milliseconds)) "
        "order by claimed_by is distinct from $who, place limit $limit",
        {**names, "milliseconds": round(seconds * 1000), "limit": limit},
    ).fetchall()
    if rows:
        cursor.execute(
            f"update draws set claimed_by = $who, claimed_at = current_timestamp::timestamp where {_OPEN} "
            "and sample_id in (select unnest($ids::bigint[]))",
            {**names, "ids": [row[0] for row in rows]},
        ).fetchall()
    return [Drawn(*row) for row in rows]


def draws_read(
    cursor: Cursor, *, dataset_id: int, dimension: str, batch: str, sample_id: int | None = None
) -> list[Drawn]:
    """Return a draw in its order: all of it, or one sample."""
    rows = cursor.execute(
        "select sample_id, place, probability, stratum from draws where dataset_id = $dataset and dimension = $dimension "
        "and batch = $batch and ($sample::bigint is null or sample_id = $sample) order by place",
        {"dataset": dataset_id, "dimension": dimension, "batch": batch, "sample": sample_id},
    ).fetchall()
    return [Drawn(*row) for row in rows]


def draws_return(cursor: Cursor, *, dataset_id: int, dimension: str, sample_id: int, who: str) -> None:
    """Put a sample before all others of its draws, for ``who``, if it is not decided."""
    cursor.execute(
        "update draws set claimed_by = ?, claimed_at = current_timestamp::timestamp, place = -1 where dataset_id = ? "
        "and dimension = ? and sample_id = ? and not done",
        [who, dataset_id, dimension, sample_id],
    ).fetchall()


def draws_count_known(cursor: Cursor, *, dataset_id: int, dimension: str, batch: str) -> None:
    """Let labels in force that were given without a chance, of samples of a draw, count with the chance of that draw."""
    cursor.execute(
        "update labels l set probability = d.probability, stratum = d.stratum, design = d.batch from draws d "
        "where d.dataset_id = $dataset and d.dimension = $dimension and d.batch = $batch and l.dataset_id = $dataset "
        "and l.dimension = $dimension and l.sample_id = d.sample_id and l.ended_by is null and l.probability is null",
        {"dataset": dataset_id, "dimension": dimension, "batch": batch},
    ).fetchall()


def draws_skip(cursor: Cursor, *, dataset_id: int, dimension: str, batch: str, sample_id: int) -> None:
    """Put a sample behind all others of its draw, for anybody."""
    cursor.execute(
        "update draws set claimed_by = null, claimed_at = null, place = (select max(place) + 1 from draws "
        "where dataset_id = $dataset and dimension = $dimension and batch = $batch) "
        f"where {_OPEN} and sample_id = $sample",
        {"dataset": dataset_id, "dimension": dimension, "batch": batch, "sample": sample_id},
    ).fetchall()


def draws_left(cursor: Cursor, dataset_id: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (dimension, batch) → how many samples were drawn, and how many of them are decided."""
    rows = cursor.execute(
        "select dimension, batch, count(*), count(*) filter (done) from draws where dataset_id = ? group by all order by 1, 2",
        [dataset_id],
    ).fetchall()
    return {(dimension, batch): (drawn, done) for dimension, batch, drawn, done in rows}


def draws_delete(cursor: Cursor, *, dataset_id: int, dimension: str, batch: str) -> None:
    cursor.execute(
        "delete from draws where dataset_id = ? and dimension = ? and batch = ?", [dataset_id, dimension, batch]
    ).fetchall()
