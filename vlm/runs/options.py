"""What to tag and how, as every door asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from django.conf import settings

from vlm.runs.errors import RunError
from vlm.samples import SampleFilter
from vlm.scoring.job import Mode
from vlm.scoring.places import Workers
from vlm.vocabulary import Vocabulary

Scope = Literal["missing", "all", "failed"]
RunDetail = Literal["full", "low", "auto"]

DETAILS: dict[RunDetail, str] = {
    "full": "full: all crops",
    "low": "low: one crop per image",
    "auto": "as needed: low, then full for the least certain",
}
FULL_SHARE = 0.3
NEVER = 2.0  # the least probability of a word that is not to become a tag


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to tag and how.

    Attributes:
        scope: ``missing`` takes samples that lack an answer of this vocabulary and model, ``failed`` those whose image could
            not be read (by the run ``failed_of``, or by the last run that tried).
        filter: within which the scope applies.
        limit: samples at most.
        dimensions: of the vocabulary; none means all.
        vocabulary: asked instead of the saved one.
        same_detail: an answer counts for ``missing`` only if it was made in the same detail and number format.
        detail: ``auto`` asks all images at low detail, and then those again at full whose answers are least certain.
        full_share: how large a share of the images that is.
        one_per_group: ask one image of each group that is nearly the same, and let the group's others take its answers over.
        model, device: empty for the settings'.
        batch_size: images per pass; 0 for what fits.
        workers: on which the run works; see :class:`~vlm.scoring.places.Workers`.
    """

    scope: Scope = "missing"
    filter: SampleFilter = field(default_factory=SampleFilter)
    limit: int | None = None
    dimensions: tuple[str, ...] = ()
    detail: RunDetail = field(default_factory=lambda: cast(RunDetail, settings.VLM_DETAIL))
    full_share: float = FULL_SHARE
    mode: Mode = "score"
    min_probability: float = field(default_factory=lambda: settings.VLM_MIN_PROBABILITY)
    min_mass: float = field(default_factory=lambda: settings.VLM_MIN_MASS)
    batch_size: int = field(default_factory=lambda: settings.VLM_BATCH_SIZE)
    model: str = ""
    device: str = ""
    failed_of: int | None = None
    vocabulary: Vocabulary | None = None
    same_detail: bool = False
    one_per_group: bool = False
    workers: str = field(default_factory=lambda: settings.WORKERS)

    def __post_init__(self) -> None:
        check_thresholds(self.min_probability, self.min_mass)
        Workers.parse(self.workers)
        if not 0 < self.full_share < 1:
            raise RunError("The share of images that are asked again at full detail lies between 0 and 1, such as 0.3.")
        if self.detail == "auto" and self.mode != "score":
            raise RunError("Detail as needed goes by probabilities, which the mode “generate” has not: choose “score”.")


def check_thresholds(min_probability: float, min_mass: float) -> None:
    if not (0 <= min_probability <= 1 and 0 <= min_mass <= 1):
        raise RunError("A threshold is a probability: give a number between 0 and 1.")
