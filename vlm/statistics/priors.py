"""What a model answers before it has looked: the prior of each word, and answers that do not need the picture.

Both come out of a run for free: sums over what is answered anyway, and the same questions once on a grey image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.statistics.distributions import FloatArray

SMALLEST = 1e-12
HARDLY_DEPENDS = 0.05  # nats between the answer and the answer to a grey image


@dataclass(frozen=True)
class Prior:
    """The prior of each word over a run, and how many answers hardly depended on their picture."""

    words: tuple[str, ...]
    answers: int
    prior: tuple[float, ...]
    blind: tuple[float, ...] | None  # the answer to a grey image
    hardly_depending: float | None  # share of the answers within HARDLY_DEPENDS of the blind one
    mean_divergence: float | None  # of the answers from the blind one, in nats

    def to_json(self) -> dict[str, Any]:
        return {
            "words": list(self.words),
            "answers": self.answers,
            "prior": [round(value, 6) for value in self.prior],
            "blind": self.blind and [round(value, 6) for value in self.blind],
            "hardly_depending": None if self.hardly_depending is None else round(self.hardly_depending, 6),
            "mean_divergence": None if self.mean_divergence is None else round(self.mean_divergence, 6),
        }


@dataclass(frozen=True)
class Tally:
    """Sums over the answers to one question so far; batches of answers are added, whole runs can be added to each other."""

    words: tuple[str, ...]
    answers: int
    sums: FloatArray
    blind: FloatArray | None
    hardly: int
    divergence: float

    @classmethod
    def empty(cls, words: tuple[str, ...], blind: FloatArray | None = None) -> "Tally":
        return cls(words, 0, np.zeros(len(words)), blind, 0, 0.0)

    def with_answers(self, probabilities: FloatArray) -> "Tally":
        """Add a batch (samples, words)."""
        probabilities = np.asarray(probabilities, dtype=np.float64)
        hardly, divergence = 0, 0.0
        if self.blind is not None:
            distances = divergence_from(probabilities, self.blind)
            hardly, divergence = int((distances < HARDLY_DEPENDS).sum()), float(distances.sum())
        return Tally(
            self.words,
            self.answers + len(probabilities),
            self.sums + probabilities.sum(axis=0),
            self.blind,
            self.hardly + hardly,
            self.divergence + divergence,
        )

    def result(self) -> Prior | None:
        """Return the prior; None before the first answer."""
        if not self.answers:
            return None
        seen = self.blind is not None
        return Prior(
            self.words,
            self.answers,
            tuple(float(value) for value in self.sums / self.answers),
            tuple(float(value) for value in self.blind) if self.blind is not None else None,
            self.hardly / self.answers if seen else None,
            self.divergence / self.answers if seen else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "words": list(self.words),
            "answers": self.answers,
            "sums": self.sums.tolist(),
            "blind": None if self.blind is None else self.blind.tolist(),
            "hardly": self.hardly,
            "divergence": self.divergence,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Tally":
        blind = record["blind"]
        return cls(
            tuple(record["words"]),
            int(record["answers"]),
            np.array(record["sums"], dtype=np.float64),
            None if blind is None else np.array(blind, dtype=np.float64),
            int(record["hardly"]),
            float(record["divergence"]),
        )


def divergence_from(probabilities: FloatArray, blind: FloatArray) -> FloatArray:
    """Return KL(answer || blind answer) of each row, in nats (Kullback & Leibler 1951): what looking at the picture changed."""
    p = np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST)
    divergence: FloatArray = np.maximum(0.0, (p * np.log(p / np.maximum(blind, SMALLEST))).sum(axis=1))
    return divergence


def without_prior(probabilities: FloatArray, prior: FloatArray, strength: float = 1.0) -> FloatArray:
    """Return probabilities with the prior taken out: p / prior ** strength, normalised.

    That is batch calibration (Zhou et al. 2023, "Batch calibration", eq. 4; strength is its γ) with the mean over unlabelled images as
    prior. It evens out words that are favoured for the question's sake, and wrongly evens out words that are in truth
    frequent: it is a proposal, to be used only where labels say that it helps (``calibration.log_loss``).
    """
    divided = np.asarray(probabilities, dtype=np.float64) / np.maximum(prior, SMALLEST) ** strength
    evened: FloatArray = divided / np.maximum(divided.sum(axis=1, keepdims=True), SMALLEST)
    return evened
