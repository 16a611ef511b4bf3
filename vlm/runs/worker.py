"""Working on a run: in a thread of this process, claimed in the row, alive as long as its heart beats."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections
from django.db.models import QuerySet
from django.utils import timezone

from vlm.models import TaggingRun
from vlm.moondream import EngineError, ModelUnavailable
from vlm.process import keeper, sample_store
from vlm.runs import scope
from vlm.runs.errors import ModelMismatch
from vlm.runs.loop import tag_samples
from vlm.runs.state import notify
from vlm.samples import Merged, StoreBusy, StoreError, reading

if TYPE_CHECKING:
    from vlm.moondream import LoadProgress

logger = logging.getLogger(__name__)

Status = TaggingRun.Status

HEARTBEAT_SECONDS = 2.0
RATE_SECONDS = 20.0  # the rate is that of this long
STOP_SECONDS = 60.0  # how long a stopping process waits for the batch at hand

_lock = threading.Lock()
_working: dict[threading.Thread, threading.Event] = {}


def launch(run: TaggingRun) -> None:
    """Work on a run in a thread of this process."""
    stop = threading.Event()

    def work() -> None:
        try:
            execute(run_id=run.pk, stop=stop)
        except Exception:
            logger.exception("Run %s ended badly", run.pk)
        finally:
            connections.close_all()
            with _lock:
                _working.pop(thread, None)

    thread = threading.Thread(target=work, name=f"run-{run.pk}", daemon=True)
    with _lock:
        _working[thread] = stop
    thread.start()


def execute(
    *,
    run_id: int,
    stop: threading.Event,
    waited: Callable[[str, float], None] = lambda _, __: None,
) -> TaggingRun:
    """Work on a queued run until it ends, and return it.

    ``stop`` interrupts it after the batch at hand. Whatever goes wrong ends up in the row: this raises only when the
    database itself is gone.
    """
    # Of this execution alone: a run that was taken for dead may have gone on elsewhere, even in this process.
    worker = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
    claimed = TaggingRun.objects.filter(pk=run_id, status=Status.QUEUED, worker="").update(
        worker=worker, heartbeat=timezone.now()
    )
    run = TaggingRun.objects.select_related("dataset").get(pk=run_id)
    if not claimed:
        return run
    halt = threading.Event()  # set by ``stop`` or by a cancellation, seen by the loop
    if stop.is_set():
        halt.set()
    over = threading.Event()
    pulse = threading.Thread(target=_heartbeat, args=(run, stop, halt, over), name=f"pulse-{run_id}", daemon=True)
    pulse.start()
    status, error, halted = Status.COMPLETED, "", False
    try:
        halted = _work(run, halt, waited)
    except _GivenUp:
        halted = True
    except (EngineError, ModelMismatch, StoreError) as problem:
        # Whoever is halted while fetching the model or waiting for the store finds neither.
        if halt.is_set() and isinstance(problem, (ModelUnavailable, StoreBusy)):
            halted = True
        else:
            logger.error("Run %s failed: %s", run_id, problem, exc_info=not isinstance(problem, ModelUnavailable))
            status, error = Status.FAILED, str(problem)
    except Exception as problem:
        logger.exception("Run %s failed", run_id)
        status = Status.FAILED
        error = f"The model failed: {problem or type(problem).__name__}. The server's log has the details."
    finally:
        over.set()
        pulse.join()
    if halted and _own(run).filter(status=Status.CANCELLING).exists():
        status = Status.CANCELLED
    elif halted:
        status = Status.INTERRUPTED
        why = "The process was stopped" if stop.is_set() else "The process was taken for dead"
        error = f"{why}. Resume to go on where it was."
    _finish(run, status, error)
    notify(run.dataset_id)
    return run


@atexit.register
def stop_all() -> None:
    """Let every run of this process finish its batch. At exit daemon threads would die in mid-image."""
    with _lock:
        working = dict(_working)
    for stop in working.values():
        stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in working:
        thread.join(max(0.0, deadline - time.monotonic()))


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

    def progress(loaded: LoadProgress) -> None:
        nonlocal report_at
        check()
        if loaded.stage == "download" and time.monotonic() - report_at > 0.5:
            report_at = time.monotonic()
            _tell(run, download_done=loaded.done, download_total=loaded.total)
            notify(run.dataset_id)

    spec = scope.spec(run)
    check()
    with keeper.use(spec, waiting=check, loading=loading, progress=progress) as tagger:
        job = scope.job(run, halt)
        with store.read(stop=halt) as cursor:
            done = reading.run_counts(cursor, run.pk)
            left = reading.pending_count(cursor, job.wanted, run_id=run.pk)
        run.processed, run.tagged, run.discarded, run.failed = done
        if job.limit is not None:
            left = min(left, job.limit)
        run.total = run.processed + left
        _own(run).update(
            revision=tagger.revision,
            device=tagger.device,
            dtype=tagger.dtype,
            total=run.total,
            processed=run.processed,
            tagged=run.tagged,
            discarded=run.discarded,
            failed=run.failed,
            started=run.started or timezone.now(),
        )
        _own(run).filter(status__in=(Status.QUEUED, Status.LOADING)).update(status=Status.RUNNING)
        notify(run.dataset_id)
        meter = _Meter(run)
        tag_samples(job, store, tagger, stop=halt, publish=meter.count, waited=waited)
    return halt.is_set() and meter.done.processed < left


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
        self._kept = Merged(run.processed, run.tagged, run.discarded, run.failed)  # before this execution
        self._began, self._before = time.monotonic(), run.seconds
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])

    def count(self, merged: Merged) -> None:
        now = time.monotonic()
        self.done += merged
        self._marks.append((now, self.done.processed))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        total = self._kept + self.done
        _tell(
            self.run,
            total=max(self.run.total, total.processed),  # an import may have brought more
            processed=total.processed,
            tagged=total.tagged,
            discarded=total.discarded,
            failed=total.failed,
            rate=(self.done.processed - before) / max(now - since, 1e-6),
            seconds=self._before + now - self._began,
            heartbeat=timezone.now(),
        )
        notify(self.run.dataset_id)


def _heartbeat(run: TaggingRun, stop: threading.Event, halt: threading.Event, over: threading.Event) -> None:
    """Show that the process lives, and look whether somebody cancelled the run in another one."""
    beat_at = 0.0
    try:
        while not over.wait(0.1):
            if stop.is_set():
                halt.set()
            if time.monotonic() - beat_at < HEARTBEAT_SECONDS / 4:
                continue
            beat_at = time.monotonic()
            try:
                _own(run).filter(status__in=TaggingRun.ACTIVE).update(heartbeat=timezone.now())
                if not _own(run).filter(status__in=(Status.QUEUED, Status.LOADING, Status.RUNNING)).exists():
                    halt.set()
            except DatabaseError:  # locked for long, or gone for a moment: the next beat tells
                logger.warning("Run %s could not show that it lives", run.pk, exc_info=True)
                connections.close_all()
    finally:
        connections.close_all()


def _finish(run: TaggingRun, status: str, error: str) -> None:
    """Write down the end, with counts from the store: they are what was kept. Nothing, if the run is another's by now."""
    counts: dict[str, int] = {}
    try:
        with sample_store().read() as cursor:
            done = reading.run_counts(cursor, run.pk)
        counts = dict(zip(("processed", "tagged", "discarded", "failed"), done, strict=True))
    except StoreError:
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
