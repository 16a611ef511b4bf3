"""Working on a run: in a thread of this process, claimed in the row, alive as long as its heart beats."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs
from vlm.datasets import finding
from vlm.errors import Refusal, RootAway
from vlm.models import TaggingRun
from vlm.moondream import ModelUnavailable
from vlm.process import sample_store
from vlm.runs import scope
from vlm.runs.blind import LEAST_IMAGES, grey_answers, run_priors
from vlm.runs.calibrating import for_job
from vlm.runs.engines import engine_of
from vlm.runs.loop import tag_samples
from vlm.runs.state import notify
from vlm.samples import Merged, SampleStore, StoreBusy, StoreError, progress
from vlm.samples.refining import uncertain
from vlm.scoring.errors import WorkersLost
from vlm.scoring.member import WorkerState

if TYPE_CHECKING:
    from vlm.moondream import LoadProgress

logger = logging.getLogger(__name__)

Status = TaggingRun.Status

RATE_SECONDS = 20.0  # the rate is that of this long


def launch(run: TaggingRun) -> None:
    """Work on a run in a thread of this process."""
    jobs.launch(f"run-{run.pk}", lambda stop: execute(run_id=run.pk, stop=stop))


def execute(
    *,
    run_id: int,
    stop: threading.Event,
    waited: Callable[[str, float], None] = lambda _, __: None,
) -> TaggingRun:
    """Work on a queued run until it ends, and return it; its ``cause`` is what it failed for.

    ``stop`` interrupts it after the batch at hand. Whatever goes wrong ends up in the row: this raises only when the
    database itself is gone.
    """
    queued = TaggingRun.objects.filter(pk=run_id, status=Status.QUEUED, worker=jobs.QUEUED)
    with jobs.claimed(queued) as worker:
        run = TaggingRun.objects.select_related("dataset").get(pk=run_id)
        if worker:
            _execute(run, stop, waited)
    return run


def _execute(run: TaggingRun, stop: threading.Event, waited: Callable[[str, float], None]) -> None:
    status, error, halted = Status.COMPLETED, "", False
    cause: Refusal | None = None
    wanted = (Status.QUEUED, Status.LOADING, Status.RUNNING)
    with jobs.beating(
        lambda: _own(run).filter(status__in=TaggingRun.ACTIVE),
        stop=stop,
        wanted=lambda: _own(run).filter(status__in=wanted).exists(),
    ) as halt:
        try:
            halted = _work(run, halt, waited)
        except _GivenUp:
            halted = True
        except Exception as problem:
            cause = jobs.foreseen(problem)
            # Whoever is halted while fetching the model or waiting for workers or the store finds none.
            if halt.is_set() and isinstance(cause, (ModelUnavailable, StoreBusy, WorkersLost)):
                halted, cause = True, None
            else:
                logger.error(
                    "Run %s failed: %s", run.pk, problem, exc_info=not isinstance(cause, (ModelUnavailable, RootAway))
                )
                unforeseen = f"The model failed: {problem or type(problem).__name__}. The server's log has the details."
                status, error = Status.FAILED, cause.message if cause is not None else unforeseen
    if halted and _own(run).filter(status=Status.CANCELLING).exists():
        status = Status.CANCELLED
    elif halted:
        status = Status.INTERRUPTED
        why = "The process was stopped" if stop.is_set() else "The process was taken for dead"
        error = f"{why}. Resume to go on where it was."
    jobs.write_down(lambda: _finish(run, status, error), stop)
    run.cause = cause
    notify(run.dataset_id)


class _GivenUp(Exception):
    """Stopped before the model was at hand."""


def _own(run: TaggingRun) -> QuerySet[TaggingRun]:
    """Return the row of a run while this execution is the one that works on it."""
    return TaggingRun.objects.filter(pk=run.pk, worker=run.worker)


def _work(run: TaggingRun, halt: threading.Event, waited: Callable[[str, float], None]) -> bool:
    """Load the model and tag; returns whether it was halted before the end."""
    store = sample_store()

    def check() -> None:
        if halt.is_set():
            raise _GivenUp

    def loading() -> None:
        _own(run).filter(status=Status.QUEUED).update(status=Status.LOADING)
        notify(run.dataset_id)

    report_at = 0.0

    def tell(loaded: LoadProgress) -> None:
        nonlocal report_at
        check()
        if loaded.stage == "download" and time.monotonic() - report_at > 0.5:
            report_at = time.monotonic()
            _tell(run, download_done=loaded.done, download_total=loaded.total)
            notify(run.dataset_id)

    def tell_crew(states: list[WorkerState]) -> None:
        _tell(run, crew=[state.to_json() for state in states])
        notify(run.dataset_id)

    def tell_away(why: str) -> None:
        """Show what is waited for where an error would stand; the run's end writes over it. A thread that decodes calls this."""
        _tell(run, error=why)
        connections.close_all()
        notify(run.dataset_id)

    spec = scope.spec(run)
    check()
    with engine_of(run, spec, waiting=check, loading=loading, progress=tell, tell=tell_crew, away=tell_away) as engine:
        job = scope.job(run, halt)
        with store.read(stop=halt) as cursor:
            job = replace(job, calibrations=for_job(cursor, job, dtype=engine.dtype, detail=run.detail))
            done = progress.named_counts(cursor, run.pk)
            left = progress.pending_count(cursor, job.wanted, run_id=run.pk)
        for name, count in done.items():
            setattr(run, name, count)
        if job.limit is not None:
            left = min(left, job.limit)
        run.total = run.processed + left
        _own(run).update(
            revision=engine.revision,
            device=engine.device,
            dtype=engine.dtype,
            total=run.total,
            **done,
            started=run.started or timezone.now(),
        )
        _own(run).filter(status__in=(Status.QUEUED, Status.LOADING)).update(status=Status.RUNNING)
        notify(run.dataset_id)
        run.blind = grey_answers(run, engine)
        _own(run).update(blind=run.blind)
        meter = _Meter(run)
        tag_samples(job, store, engine, stop=halt, publish=meter.count, waited=waited)
    if not halt.is_set():
        finding.look_again(dataset_id=run.dataset_id)
    return halt.is_set() and (meter.done.processed < left or _has_doubts(run, store))


def _has_doubts(run: TaggingRun, store: SampleStore) -> bool:
    """Whether the second pass of a run with detail as needed has something left to ask."""
    if run.full_share is None:
        return False
    with store.read() as cursor:
        return uncertain(cursor, run_id=run.pk, share=run.full_share).size > 0


def _tell(run: TaggingRun, **figures: object) -> None:
    """Write figures for the viewers into a run's row. A database that is locked for long must not end the run."""
    try:
        _own(run).update(**figures)
    except DatabaseError:
        logger.warning("The figures of run %s could not be written this time", run.pk, exc_info=True)


class _Meter:
    """Writes counts, rate and elapsed time of a run into its row after each commit."""

    def __init__(self, run: TaggingRun) -> None:
        self.run, self.done = run, Merged()
        self._kept = Merged(run.processed, run.tagged, run.discarded, run.failed, run.shared)  # before this execution
        self._began, self._before = time.monotonic(), run.seconds
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._looks_at = max(LEAST_IMAGES, 2 * run.processed)  # so many images: see ``blind``

    def count(self, merged: Merged) -> None:
        now = time.monotonic()
        self.done += merged
        self._marks.append((now, self.done.processed))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        total = self._kept + self.done
        more: dict[str, object] = {}
        if total.processed >= self._looks_at:
            self._looks_at = 2 * total.processed
            with suppress(StoreError), sample_store().read() as cursor:
                more["priors"] = run_priors(cursor, self.run)
        _tell(
            self.run,
            **more,
            total=max(self.run.total, total.processed),  # an import may have brought more
            processed=total.processed,
            tagged=total.tagged,
            discarded=total.discarded,
            failed=total.failed,
            shared=total.shared,
            rate=(self.done.processed - before) / max(now - since, 1e-6),
            seconds=self._before + now - self._began,
            heartbeat=timezone.now(),
        )
        notify(self.run.dataset_id)


def _finish(run: TaggingRun, status: str, error: str) -> None:
    """Write down the end, with counts from the store: they are what was kept. Nothing, if the run is another's by now."""
    counts: dict[str, object] = {}
    try:
        with sample_store().read() as cursor:
            counts |= progress.named_counts(cursor, run.pk)
            counts["priors"] = run_priors(cursor, run)
    except Refusal:
        logger.exception("The counts of run %s could not be read", run.pk)
    own = _own(run)
    try:
        run.refresh_from_db()
    except TaggingRun.DoesNotExist:
        logger.warning("Run %s was deleted with its data set while it worked", run.pk)
        return
    rate = run.processed / run.seconds if run.seconds else 0.0
    own.update(status=status, error=error, finished=timezone.now(), heartbeat=timezone.now(), rate=rate, **counts)
    run.refresh_from_db()
