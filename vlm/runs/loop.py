"""The loop of a run: read, have it scored, commit. It joins store and model and knows nothing above them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from vlm.errors import RootAway
from vlm.moondream import EngineError
from vlm.runs import ahead
from vlm.runs.errors import ModelMismatch
from vlm.samples import Merged, Pending, Result, SampleStore
from vlm.samples.merging import check_claim, merge_batch, run_begin
from vlm.samples.refining import refine_batch
from vlm.samples.sharing import shares_plan
from vlm.scoring.engine import Engine, Waited, timed
from vlm.scoring.job import Job

COMMIT_SECONDS = 0.5  # batches that are quicker than this are committed together

# A model whose tokenizer is another's answers outside the list nearly always, with hardly any mass on it.
MISMATCH_ANSWERS = 20  # of four images: at 22 s each on a small CPU, the page should not wait for more
MISMATCH_SHARE = 0.95
MISMATCH_MASS = 0.02


Merge: TypeAlias = Callable[..., Merged]  # ``merge_batch`` or ``refine_batch``


def tag_samples(
    job: Job,
    store: SampleStore,
    engine: Engine,
    *,
    stop: threading.Event,
    publish: Callable[[Merged], None] = lambda _: None,
    waited: Waited = lambda _, __: None,
) -> Merged:
    """Tag the pending samples of a job, committing as it goes, until none is left or ``stop`` is set.

    Args:
        stop: looked at between batches; what the model has at hand is finished and kept.
        publish: called after each commit with what it did.
        waited: called with ``"decode"``, ``"model"`` or ``"store"`` and the seconds spent there.

    Returns:
        What this call did, in sum.

    Raises:
        ModelMismatch: no answer of it became a tag.
        EngineError: the model failed; what it answered before is kept.
        StoreError: what was committed before is kept. A busy store is waited for, until ``stop`` is set.
        StoreClaimLost: the run was reverted, or goes on elsewhere.
    """
    with store.write(stop=stop) as cursor:
        questions = run_begin(
            cursor,
            dataset_id=job.dataset_id,
            run_id=job.run_id,
            worker=job.worker,
            questions=job.questions,
            detail="auto" if job.full_share else job.detail,
            dtype=engine.dtype,
        )

    def go(job: Job, samples: Iterator[Pending], merge: Merge, *, held_back: bool) -> Merged:
        keep = partial(merge, dataset_id=job.dataset_id, run_id=job.run_id, questions=questions, worker=job.worker)
        return _pass(job, samples, keep, store, engine, stop, publish, waited, held_back=held_back)

    done = Merged()
    while True:
        limit = None if job.limit is None else job.limit - done.processed
        limit, takers = _plan_shares(job, limit, store, stop) if job.one_per_group else (limit, 0)
        # Answers are held back until the first ones show that the model fits.
        held_back = job.min_mass > 0 and not done.processed
        samples = ahead.waiting(store, job.wanted, run_id=job.run_id, limit=limit, stop=stop)
        part = go(job, samples, merge_batch, held_back=held_back)
        done += part
        # Where the one that was asked could not be read, another one of its group is.
        if stop.is_set() or not part.processed or part.shared == takers:
            break
    if job.full_share and not stop.is_set():
        again = ahead.doubtful(store, run_id=job.run_id, share=job.full_share, stop=stop)
        done += go(replace(job, detail="full"), again, refine_batch, held_back=False)
    return done


def _pass(
    job: Job,
    samples: Iterator[Pending],
    merge: Merge,
    store: SampleStore,
    engine: Engine,
    stop: threading.Event,
    publish: Callable[[Merged], None],
    waited: Waited,
    *,
    held_back: bool,
) -> Merged:
    done = Merged()
    unsaved: list[Result] = []
    saved_at = time.monotonic()

    def save() -> None:
        nonlocal done, saved_at
        if unsaved:
            with timed("store", waited), store.write(stop=stop) as cursor:
                merged = merge(cursor, results=unsaved)
            unsaved.clear()
            done += merged
            publish(merged)
        saved_at = time.monotonic()

    with closing(engine.results(samples, job.asking(), stop=stop, waited=waited)) as batches:
        try:
            for results in batches:
                unsaved += results
                if held_back:
                    if sum(len(result.answers) for result in unsaved) >= MISMATCH_ANSWERS:
                        check_fit(unsaved)
                        held_back = False
                    elif len(unsaved) < MISMATCH_ANSWERS:  # a folder full of unreadable images never answers
                        continue
                if time.monotonic() - saved_at >= COMMIT_SECONDS:
                    save()
        except (EngineError, RootAway):
            if not held_back:
                save()  # what was answered before the device failed, or the bucket went away
            raise
    save()
    return done


def check_fit(results: Sequence[Result]) -> None:
    """Raise :class:`ModelMismatch` if nearly all answers lie outside the list."""
    answers = [answer for result in results for answer in result.answers]
    outside = [not answer.accepted if answer.mass is None else answer.mass < MISMATCH_MASS for answer in answers]
    if sum(outside) > MISMATCH_SHARE * len(answers):
        raise ModelMismatch(
            f"{sum(outside)} of the first {len(answers)} answers are none of the allowed words: these weights and this tokenizer "
            "do not belong together, so nothing was tagged. Use the pinned model (leave DATAVISOR_VLM_MODEL and "
            "DATAVISOR_VLM_REVISION empty), or a folder whose weights and tokenizer.json come from one release."
        )


def _plan_shares(job: Job, limit: int | None, store: SampleStore, stop: threading.Event) -> tuple[int | None, int]:
    """Plan whose answers are taken over; returns how many samples at most are asked, and how many take an answer."""
    with store.write(stop=stop) as cursor:
        check_claim(cursor, job.run_id, job.worker)
        takers = shares_plan(cursor, job.wanted, dataset_id=job.dataset_id, run_id=job.run_id, limit=limit)
    return None if limit is None else limit - takers, takers
