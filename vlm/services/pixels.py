"""What the pixels say: measuring the images of a data set without the model, and what was measured."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User

from vlm.datasets import measuring
from vlm.models import Dataset, MeasureJob
from vlm.process import sample_store
from vlm.samples import Measures, values
from vlm.samples.values import Spread


@dataclass(frozen=True, slots=True)
class Measured:
    """How far a data set is measured, and how what was measured is spread."""

    measured: int
    left: int
    spreads: tuple[Spread, ...]


@dataclass(frozen=True, slots=True)
class SamplePixels:
    """What was measured of a sample; ``above``: measure → the share of the data set's images that have less of it."""

    measures: Measures
    above: Mapping[str, float]


def measure_create(*, dataset: Dataset, user: User | None) -> MeasureJob:
    """Claim the data set for measuring what nobody measured. Raises ``MeasureActive``."""
    return measuring.create(dataset=dataset, user=user)


def measure_start(*, dataset: Dataset, user: User | None) -> MeasureJob:
    """Measure in a thread of this process what nobody measured. Raises ``MeasureActive``."""
    job = measuring.create(dataset=dataset, user=user)
    measuring.launch(job)
    return job


def measure_execute(*, job_id: int, stop: threading.Event) -> MeasureJob:
    """Work on a job in this thread until it ends, or until the images at hand are done after ``stop`` is set."""
    return measuring.execute(job_id=job_id, stop=stop)


def measure_cancel(*, job: MeasureJob) -> bool:
    """Ask a job to stop after the images at hand; returns whether it was active."""
    return measuring.cancel(job=job)


def measure_job(*, dataset: Dataset, job_id: int | None = None) -> MeasureJob | None:
    """Return the newest job of a data set, or the one of that number."""
    measuring.fail_stale()
    rows = MeasureJob.objects.filter(dataset=dataset)
    return (rows if job_id is None else rows.filter(pk=job_id)).first()


def measure_state(*, job: MeasureJob) -> dict[str, Any]:
    """Return a job as programs see it."""
    names = ("status", "done", "total", "failed", "problems", "error")
    return {"job": job.pk, "dataset": job.dataset_id} | {name: getattr(job, name) for name in names}


def measured(*, dataset: Dataset) -> Measured:
    with sample_store().read() as cursor:
        spreads, count = values.measures_spread(cursor, dataset.pk)
        return Measured(count, values.unmeasured_count(cursor, dataset.pk), spreads)


def is_measured(*, dataset: Dataset) -> bool:
    """Return whether any image of a data set is measured."""
    with sample_store().read() as cursor:
        return values.has_measures(cursor, dataset.pk)


def of_sample(*, dataset: Dataset, sample_id: int) -> SamplePixels | None:
    """Return what was measured of a sample, ``None`` where nobody measured it."""
    with sample_store().read() as cursor:
        found = values.measures_of(cursor, dataset.pk, ids=[sample_id]).get(sample_id)
        if found is None:
            return None
        return SamplePixels(found, values.measures_below(cursor, dataset.pk, found))
