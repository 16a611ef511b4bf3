"""Measuring the images of a data set without the model, in a thread of its own.

A job measures what nobody has measured, batch by batch, and commits each. So it goes on where it was stopped: whoever starts
the next one goes on with what is left. An image that cannot be read is reported, and tried again by the next job.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs
from vlm.datasets import finding
from vlm.datasets.heads import heads_read
from vlm.datasets.looking import look_at
from vlm.errors import Refusal
from vlm.imaging import read_picture
from vlm.measures import Measures
from vlm.models import Dataset, MeasureJob
from vlm.process import sample_store
from vlm.roots import Root, root_of
from vlm.samples import Cursor, Head, StoreBusy, values
from vlm.samples.deriving import changed
from vlm.samples.heads import heads_keep
from vlm.samples.merging import digests_keep

logger = logging.getLogger(__name__)

Status = MeasureJob.Status

BATCH = 256  # images that are read and committed together
KEPT_PROBLEMS = 200
REPORT_SECONDS = 0.5

STOPPED = "The process was stopped. Measure again to go on where it was."


@dataclass(frozen=True, slots=True)
class Seen:
    """What one read of an image told."""

    measures: Measures | None
    digest: str
    head: Head


class MeasureActive(Refusal):
    """The data set is being measured."""

    title = "This data set is being measured"
    status = 409

    def __init__(self) -> None:
        super().__init__("The images of this data set are being measured already. Wait for the end, or cancel that.")


def create(*, dataset: Dataset, user: User | None) -> MeasureJob:
    """Claim the data set for a job.

    Raises:
        MeasureActive: another job has it.
    """
    fail_stale()
    with sample_store().read() as cursor:
        left = values.unmeasured_count(cursor, dataset.pk)
    try:
        with transaction.atomic():
            return MeasureJob.objects.create(dataset=dataset, total=left, started_by=user, heartbeat=timezone.now())
    except IntegrityError:
        raise MeasureActive from None


def launch(job: MeasureJob) -> None:
    """Work on a job in a thread of this process."""
    jobs.launch(f"measure-{job.pk}", lambda stop: execute(job_id=job.pk, stop=stop))


def execute(*, job_id: int, stop: threading.Event) -> MeasureJob:
    """Work on a job in this thread until it ends, or until the images at hand are done after ``stop`` is set."""
    waiting = MeasureJob.objects.filter(pk=job_id, status=Status.RUNNING, worker=jobs.QUEUED)
    with jobs.claimed(waiting) as worker:
        job = MeasureJob.objects.select_related("dataset").get(pk=job_id)
        if worker:
            own = MeasureJob.objects.filter(pk=job_id, worker=worker)
            running = own.filter(status=Status.RUNNING)
            with jobs.beating(lambda: own, stop=stop, wanted=running.exists) as halt:
                ended = _work(job, own, halt)
            now = timezone.now()
            jobs.write_down(lambda: running.update(finished=now, heartbeat=now, **ended), stop)
            own.filter(status=Status.CANCELLING).update(status=Status.CANCELLED, finished=now)
            job.refresh_from_db()
    return job


def cancel(*, job: MeasureJob) -> bool:
    """Ask a job to stop after the images at hand; returns whether it was active. What was measured stays."""
    fail_stale()
    rows = MeasureJob.objects.filter(pk=job.pk, status=Status.RUNNING)
    idle = rows.filter(worker=jobs.QUEUED).update(status=Status.CANCELLED, finished=timezone.now())
    asked = idle or rows.update(status=Status.CANCELLING)
    job.refresh_from_db()
    return bool(asked) or job.status == Status.CANCELLING


def fail_stale() -> int:
    """End the jobs whose process died; returns how many."""
    return jobs.sweep(MeasureJob.objects.filter(status__in=MeasureJob.ACTIVE), _interrupt)


def _interrupt(rows: QuerySet[MeasureJob], heartbeat: datetime | None) -> int:
    return rows.update(status=Status.INTERRUPTED, error=STOPPED, finished=heartbeat or timezone.now())


def _work(job: MeasureJob, own: QuerySet[MeasureJob], halt: threading.Event) -> dict[str, Any]:
    """Measure what is left, and return what is to be written down about the end."""
    try:
        _measure_all(job, own, halt)
        if not halt.is_set():
            finding.find(dataset_id=job.dataset_id)
    except Exception as error:
        if (problem := jobs.foreseen(error)) is None:
            logger.exception("Measuring job %s failed", job.pk)
            return {"status": Status.FAILED, "error": "Measuring failed. The server's log has the details."}
        if not (halt.is_set() and isinstance(problem, StoreBusy)):
            return {"status": Status.FAILED, "error": problem.message}
    return {"status": Status.INTERRUPTED, "error": STOPPED} if halt.is_set() else {"status": Status.COMPLETED}


def _measure_all(job: MeasureJob, own: QuerySet[MeasureJob], halt: threading.Event) -> None:
    # Of files that were measured before heads were kept.
    heads_read(dataset=job.dataset, wanted=lambda: not halt.is_set(), halt=halt, seconds=settings.ROOT_WAIT)
    root, store = root_of(job.dataset.root), sample_store()
    done, failed, reported = 0, 0, 0.0
    problems: list[dict[str, str]] = []
    for batch in _batches(job.dataset_id, halt):
        seen, bad = look_at(root, batch, partial(_look, root), halt, seconds=settings.ROOT_WAIT)
        if seen:
            with store.write(stop=halt) as cursor:
                _keep(cursor, job.dataset_id, seen)
        done, failed = done + len(seen) + len(bad), failed + len(bad)
        problems += bad[: KEPT_PROBLEMS - len(problems)]
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            own.update(done=done, total=max(job.total, done), failed=failed, problems=problems)
    own.update(done=done, total=max(job.total, done), failed=failed, problems=problems)


def _keep(cursor: Cursor, dataset_id: int, seen: Mapping[int, Seen]) -> None:
    there = values.present(cursor, dataset_id, list(seen))  # the data set may have gone meanwhile
    measured = {sample: seen[sample].measures for sample in there}
    values.measures_keep(
        cursor,
        dataset_id=dataset_id,
        measures={sample: found for sample, found in measured.items() if found is not None},
    )
    digests_keep(cursor, {sample: seen[sample].digest for sample in there})
    heads_keep(cursor, dataset_id=dataset_id, heads={sample: seen[sample].head for sample in there})
    changed(cursor, dataset_id)


def _batches(dataset_id: int, halt: threading.Event) -> Iterator[list[tuple[int, str]]]:
    after = -1
    while not halt.is_set():
        with sample_store().read(stop=halt) as cursor:
            batch = values.unmeasured(cursor, dataset_id, after=after, limit=BATCH)
        if not batch:
            return
        yield batch
        after = batch[-1][0]


def _look(root: Root, path: str) -> Seen:
    source = root.source(path)
    picture = read_picture(
        source, max_pixels=settings.MAX_PIXELS, enough=lambda _: (1, 1), digested=True, measured=True
    )
    return Seen(picture.measures, picture.digest, Head.of(picture.size, picture.exif))
