"""The second pass of a run with detail as needed: the samples whose answers are least certain, asked again.

``run_samples.detail`` tells which pass answered: empty for the first, ``full`` for the second, ``kept`` where the second
could not read the image and the first one's answers stay.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .cursor import Cursor
from .deriving import changed, derive, touch
from .merging import accepted_keep, answers_keep, check_claim
from .outcomes import Merged
from .records import Pending, Result
from .sharing import taken_over

LEAST = 1e-30  # of a probability whose logarithm is taken
ASKED_ITSELF = "sample_id not in (select sample_id from shares where run_id = ?)"


def uncertain(cursor: Cursor, *, run_id: int, share: float) -> NDArray[np.int64]:
    """Return the ids of the samples that the second pass has still to ask, the least certain first.

    They are the ``share`` of all samples that the run asked whose words have the lowest product of probabilities.
    """
    rows = cursor.execute(
        "select count(*), count(*) filter (detail <> '') from run_samples where run_id = ? and status = 'done' "
        f"and {ASKED_ITSELF}",
        [run_id, run_id],
    ).fetchall()
    answered, again = rows[0]
    left = int(share * answered + 1e-9) - again
    if left <= 0:
        return np.empty(0, dtype=np.int64)
    found = cursor.execute(
        "select s.id from (select sample_id, sum(ln(greatest(probability, ?))) as certainty from answers "
        "where run_id = ? and probability is not null "
        "group by sample_id) a join run_samples r on r.run_id = ? and r.sample_id = a.sample_id "
        "join samples s on s.id = a.sample_id where r.status = 'done' and r.detail = '' and not coalesce(r.stale, false) "
        f"and not s.missing and a.{ASKED_ITSELF} order by a.certainty, s.id limit ?",
        [LEAST, run_id, run_id, run_id, left],
    ).fetchnumpy()
    return np.asarray(found["id"], dtype=np.int64)


def asked_again(cursor: Cursor, *, run_id: int, ids: Sequence[int]) -> list[Pending]:
    """Return some samples in the order of ``ids``, each with the dimensions that the second pass asks."""
    rows = cursor.execute(
        "select s.id, s.path, a.dimensions from (select sample_id, list(dimension order by place) as dimensions from answers "
        "where run_id = ? and probability is not null and sample_id in (select unnest(?::bigint[])) group by sample_id) a "
        "join samples s on s.id = a.sample_id",
        [run_id, list(ids)],
    ).fetchall()
    found = {row[0]: Pending(row[0], row[1], tuple(row[2])) for row in rows}
    return [found[sample_id] for sample_id in ids if sample_id in found]


def refine_batch(
    cursor: Cursor,
    *,
    dataset_id: int,
    run_id: int,
    results: Sequence[Result],
    questions: Mapping[str, int],
    worker: str,
) -> Merged:
    """Put the second pass's answers in place of the first one's, also where these were taken over (see ``sharing``).

    Samples that it has answered already are left alone.

    Returns:
        By how much tagged samples and discarded answers grew; no sample is processed twice.

    Raises:
        StoreClaimLost: the run was reverted, or another worker goes on with it.
    """
    check_claim(cursor, run_id, worker)
    results = [*results, *taken_over(cursor, run_id=run_id, results=results)]
    ids = [result.sample_id for result in results]
    rows = cursor.execute(
        "select sample_id from run_samples where run_id = ? and detail = '' and status = 'done' "
        "and sample_id in (select unnest(?::bigint[]))",
        [run_id, ids],
    ).fetchall()
    waiting = {row[0] for row in rows}
    fresh = {result.sample_id: result for result in results if result.sample_id in waiting}
    if not fresh:
        return Merged()
    answered = [sample_id for sample_id, result in fresh.items() if not result.error]
    before = _tagged_and_discarded(cursor, run_id, answered)
    for table in ("answers", "sample_tags"):
        cursor.execute(
            f"delete from {table} where run_id = ? and sample_id in (select unnest(?::bigint[]))", [run_id, answered]
        ).fetchall()
    answers = [(sample_id, answer) for sample_id in answered for answer in fresh[sample_id].answers]
    answers_keep(cursor, dataset_id, run_id, answers, questions)
    cursor.execute(
        "update run_samples r set detail = f.detail, change = nextval('changes') from (select "
        "unnest(?::bigint[]) as id, unnest(?::varchar[]) as detail) f where r.run_id = ? and r.sample_id = f.id",
        [list(fresh), ["kept" if result.error else "full" for result in fresh.values()], run_id],
    ).fetchall()
    touch(cursor, ("s.id in (select unnest(?::bigint[]))", [answered]))
    accepted_keep(cursor, run_id)
    derive(cursor, check_current=True)
    after = _tagged_and_discarded(cursor, run_id, answered)
    merged = Merged(tagged=after[0] - before[0], discarded=after[1] - before[1])
    cursor.execute(
        "update run_totals set tagged = tagged + ?, discarded = discarded + ? where run_id = ?",
        [merged.tagged, merged.discarded, run_id],
    ).fetchall()
    changed(cursor, dataset_id)
    return merged


def _tagged_and_discarded(cursor: Cursor, run_id: int, ids: Sequence[int]) -> tuple[int, int]:
    rows = cursor.execute(
        "select count(distinct sample_id) filter (accepted), count(*) filter (not accepted) from answers "
        "where run_id = ? and sample_id in (select unnest(?::bigint[]))",
        [run_id, list(ids)],
    ).fetchall()
    return rows[0]
