"""Calibrations in force: runs' answers decided by calibrated probabilities, and what comes in meanwhile calibrated as it comes.

``vlm.statistics.calibration`` fits one, ``vlm.samples.calibrating`` keeps it; here it meets the runs, whose thresholds decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from vlm import errands
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.errors import Unchangeable
from vlm.runs.state import check_idle, notify
from vlm.samples import Cursor, Edit, calibrating
from vlm.samples.calibrating import Decisions, Rescaled, Scaling
from vlm.scoring.job import Job, least_of
from vlm.statistics.calibration import SMALLEST, Calibration, Key, Quality


def scaling_of(calibration: Calibration, dimension: str, runs: Iterable[TaggingRun] = ()) -> Scaling:
    """Return a calibration as the store keeps it, with what the thresholds of ``runs`` are before it is in force."""
    key = calibration.key
    return Scaling(
        dimension=dimension,
        question=key.question,
        model=key.model,
        revision=key.revision,
        dtype=key.dtype,
        detail=key.detail,
        slope=1 / calibration.temperature,
        bias=calibration.bias,
        least=SMALLEST,
        record={
            "words": list(calibration.words),
            "labels": calibration.labels,
            "before": calibration.before.to_json(),
            "after": calibration.after.to_json(),
        },
        before={run.pk: _own(run, dimension) | {"": run.min_probability} for run in runs},
    )


def calibration_of(scaling: Scaling) -> Calibration:
    """Return what the store keeps as the calibration that it is."""
    record = scaling.record
    return Calibration(
        Key(scaling.model, scaling.revision, scaling.dtype, scaling.detail, scaling.question),
        tuple(record["words"]),
        1 / scaling.slope,
        scaling.bias,
        record["labels"],
        Quality(**record["before"]),
        Quality(**record["after"]),
    )


def for_job(cursor: Cursor, job: Job, *, dtype: str, detail: str) -> dict[str, Calibration]:
    """Return dimension → the calibration in force that is for the answers of a job; others are for other answers."""
    found = {}
    for dimension, scaling in calibrating.in_force(cursor, job.dataset_id).items():
        calibration = calibration_of(scaling)
        for question in job.questions:
            key = Key(question.model, question.revision, dtype, detail, question.key)
            if question.dimension == dimension and not key.differs_from(calibration.key):
                found[dimension] = calibration
    return found


def preview(*, dataset: Dataset, dimension: str, calibration: Calibration) -> Rescaled:
    """Tell what :func:`apply` would change."""
    with sample_store().read() as cursor:
        scaling = scaling_of(calibration, dimension)
        runs = _runs(calibrating.runs_scaled(cursor, dataset.pk, scaling))
        return calibrating.preview(cursor, dataset.pk, scaling, _decisions(runs, dimension, calibration.words))


def preview_end(*, dataset: Dataset, dimension: str) -> Rescaled:
    """Tell what :func:`end` would change."""
    with sample_store().read() as cursor:
        return calibrating.preview_end(cursor, dataset.pk, dimension)


def apply(*, dataset: Dataset, dimension: str, calibration: Calibration, by: Edit) -> Rescaled:
    """Let a calibration be in force, and decide the answers that it is for by the thresholds that their runs have.

    Raises:
        RunActive: a run of the data set would go on with uncalibrated answers.
        ChangeUnderWay: somebody else changes a calibration of the data set.
    """
    with sample_store().read() as cursor:
        runs = _runs(calibrating.runs_scaled(cursor, dataset.pk, scaling_of(calibration, dimension)))

    def change() -> dict[str, Any]:
        check_idle(dataset.pk)
        return {
            "dataset": dataset.pk,
            "dimension": dimension,
            "scaling": asdict(scaling_of(calibration, dimension, runs)),
            "decisions": _decisions(runs, dimension, calibration.words),
            "by": asdict(by),
        }

    return _carried_out("calibrate", dataset, change)


def end(*, dataset: Dataset, dimension: str) -> Rescaled:
    """Take a calibration back: answers, decisions and runs' thresholds of the dimension are as they were before it.

    Raises:
        RunActive: a run of the data set is active.
        Unchangeable: there is no calibration in force.
        ChangeUnderWay: somebody else changes a calibration of the data set.
    """

    def change() -> dict[str, Any]:
        check_idle(dataset.pk)
        if (dataset.pk, dimension) not in calibrated([dimension]):
            raise Unchangeable(f"The answers to {dimension} are not calibrated.")
        return {"dataset": dataset.pk, "dimension": dimension}

    return _carried_out("end calibration", dataset, change)


def calibrated(dimensions: Iterable[str]) -> list[tuple[int, str]]:
    """Return which of some dimensions are calibrated in which data sets."""
    with sample_store().read() as cursor:
        return calibrating.datasets_calibrated(cursor, list(dimensions))


# -- inside --------------------------------------------------------------------------------------------------------------
def _runs(ids: list[int]) -> list[TaggingRun]:
    return list(TaggingRun.objects.filter(pk__in=ids).order_by("pk"))


def _own(run: TaggingRun, dimension: str) -> dict[str, float]:
    """Return a run's own thresholds of a dimension and of its words."""
    return {key: least for key, least in run.thresholds.items() if key.partition(":")[0] == dimension}


def _decisions(runs: Iterable[TaggingRun], dimension: str, words: Iterable[str]) -> Decisions:
    words = tuple(words)
    return {
        run.pk: (
            {word: least_of(run.thresholds, dimension, word, otherwise=run.min_probability) for word in words},
            run.min_mass,
        )
        for run in runs
    }


def _carried_out(what: str, dataset: Dataset, change: Callable[[], dict[str, Any]]) -> Rescaled:
    result = errands.carry_out(what, about=errands.calibrations_of(dataset.pk), change=change, undo=lambda: None)
    notify(dataset.pk)
    return Rescaled.from_json(result["done"])
