"""Calibrations: fitted on labels, shown with what they would change, in force if a user wants it, and taken back exactly."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from vlm.errors import Refusal
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.runs import calibrating as runs
from vlm.samples import calibrating
from vlm.samples.calibrating import Rescaled, Scaling
from vlm.services import accuracy
from vlm.services.who import edit_by
from vlm.statistics.calibration import Calibration, Refused


class NotCalibrated(Refusal):
    """There is no calibration to use, or none to take back; the message says what to do."""

    title = "No calibration"
    status = 409
    exit_code = 2


@dataclass(frozen=True)
class InForce:
    """A calibration in force: who wanted it, and when."""

    calibration: Calibration
    user_name: str
    created: datetime | None


def in_force(*, dataset: Dataset) -> dict[str, InForce]:
    """Return dimension → the calibration by which answers of a data set are decided now."""
    with sample_store().read() as cursor:
        found = calibrating.in_force(cursor, dataset.pk)
    return {dimension: _in_force(scaling) for dimension, scaling in found.items()}


def fitted(*, dataset: Dataset, dimension: str) -> Calibration:
    """Fit a calibration on the labels that are there.

    Raises:
        NotCalibrated: too few labels, none better than what is there, or answers of more than one model, format or detail.
        VocabularyError: there is no such dimension.
    """
    found = accuracy.evaluate(dataset=dataset, dimension=dimension)
    if isinstance(found.calibration, Calibration):
        return found.calibration
    raise NotCalibrated(_why(found.mixed, found.calibration))


def preview(*, dataset: Dataset, dimension: str) -> tuple[Calibration, Rescaled]:
    """Return the calibration that the labels give, and what it would change. Raises as :func:`fitted` does."""
    calibration = fitted(dataset=dataset, dimension=dimension)
    return calibration, runs.preview(dataset=dataset, dimension=dimension, calibration=calibration)


def preview_removal(*, dataset: Dataset, dimension: str) -> Rescaled:
    """Tell what :func:`remove` would change. Raises as it does."""
    _check(dataset, dimension)
    return runs.preview_end(dataset=dataset, dimension=dimension)


def apply(*, dataset: Dataset, dimension: str, user: User | None) -> tuple[Calibration, Rescaled]:
    """Decide a dimension's answers by calibrated probabilities from now on. Raises as :func:`fitted` does, and ``RunActive``."""
    calibration = fitted(dataset=dataset, dimension=dimension)
    return calibration, runs.apply(
        dataset=dataset, dimension=dimension, calibration=calibration, by=edit_by(user, "single")
    )


def remove(*, dataset: Dataset, dimension: str) -> Rescaled:
    """Go by what the model said itself again: tags, decisions and thresholds of the dimension are as they were.

    Raises:
        NotCalibrated: there is no calibration in force.
        RunActive: a run of the data set is active.
    """
    _check(dataset, dimension)
    return runs.end(dataset=dataset, dimension=dimension)


def to_json(
    dimension: str, calibration: Calibration | None, changes: Rescaled | None, *, in_force: bool
) -> dict[str, Any]:
    """Return what every door tells of a calibration and of what it changes."""
    return {
        "dimension": dimension,
        "in_force": in_force,
        "calibration": calibration and calibration.to_json(),
        "changes": changes and changes.to_json(),
    }


def _check(dataset: Dataset, dimension: str) -> None:
    accuracy.words_of(dimension)
    if dimension not in in_force(dataset=dataset):
        raise NotCalibrated(f"The answers to {dimension} are not calibrated.")


def _in_force(scaling: Scaling) -> InForce:
    return InForce(runs.calibration_of(scaling), scaling.user_name, scaling.created)


def _why(mixed: bool, refused: Refused | None) -> str:
    if mixed:
        return "The answers are of more than one model, number format, detail or question: a calibration holds for one alone."
    if refused is None:
        return "There is no label that counts yet. Review some images first; a calibration takes at least 30 labels."
    if refused.reason == "too few labels":
        return f"{refused.labels} labels count, and a calibration takes at least 30: label {refused.more} more."
    return (
        f"On labels that the fit had not seen, calibrated probabilities are no better than the model's own ({refused.labels} labels). "
        f"About {refused.more} more could show it."
    )
