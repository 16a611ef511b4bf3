"""What a run is to do, as far as whoever scores needs it, and as far as the loop does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from vlm.moondream.crops import Detail
from vlm.roots import Root
from vlm.samples import Question
from vlm.samples.merging import BELOW_THRESHOLD, OFF_THE_LIST
from vlm.samples.progress import Wanted
from vlm.statistics.calibration import Calibration
from vlm.vocabulary import Vocabulary

Mode = Literal["score", "generate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked about each image, and what becomes a tag. It travels to workers, by value.

    Attributes:
        root: of the data set.
        batch_size: images per pass; 0 for what fits.
        root_wait: seconds that a root which is away is waited for.
        thresholds: dimension, or ``dimension:word``, → its own least probability.
        calibrations: dimension → the one in force for just these answers.
    """

    run_id: int
    root: Root
    vocabulary: Vocabulary
    mode: Mode
    detail: Detail
    min_probability: float
    min_mass: float
    batch_size: int
    max_pixels: int
    root_wait: float = 0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    def decided(self, dimension: str, word: str, probability: float, mass: float) -> str:
        """Return why an answer does not become a tag, or an empty text if it does."""
        least = least_of(self.thresholds, dimension, word, otherwise=self.min_probability)
        return decide(probability, mass, min_probability=least, min_mass=self.min_mass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Asking):
    """What a run is to do.

    Attributes:
        worker: who may commit for the run.
        wanted: which samples to ask, and what.
        questions: what is asked, as the store writes it down.
        full_share: of the samples, how many are asked again, in a second pass at full detail; 0 for one pass.
        limit: samples at most; ``None`` for all.
        one_per_group: of samples that are nearly the same one is asked, and the others take its answer over.
    """

    dataset_id: int
    worker: str
    wanted: Wanted
    questions: tuple[Question, ...]
    limit: int | None
    full_share: float = 0
    one_per_group: bool = False

    def asking(self) -> Asking:
        """Return what a worker needs to know of it."""
        return Asking(**{part.name: getattr(self, part.name) for part in fields(Asking)})


def decide(probability: float, mass: float, *, min_probability: float, min_mass: float) -> str:
    """Return why the best word does not become a tag, or an empty text if it does."""
    if mass < min_mass:
        return OFF_THE_LIST
    return BELOW_THRESHOLD if probability < min_probability else ""


def least_of(thresholds: Mapping[str, float], dimension: str, word: str, *, otherwise: float) -> float:
    """Return from which probability on a word becomes a tag: the word's own threshold, else its dimension's, else ``otherwise``."""
    return thresholds.get(f"{dimension}:{word}", thresholds.get(dimension, otherwise))
