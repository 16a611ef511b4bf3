"""What a model answers before it has looked: the prior of each word, and answers that do not need the picture.

Both come out of a run nearly for free: sums over what is answered anyway, and the same questions once on a grey image.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from vlm.statistics.distributions import FloatArray

SMALLEST = 1e-12
HARDLY_DEPENDS = 0.05  # nats between the answer and the answer to a grey image
MUCH = 0.3  # of the answers: a question that so often needs no picture does not fit these images, or the model


@dataclass(frozen=True)
class Prior:
    """The prior of each word over a run, and how many answers hardly depended on their picture.

    Attributes:
        prior: mean probability of each word.
        blind: the answer to a grey image, by word; ``None`` where none was asked.
        hardly_depending: share of the answers within ``HARDLY_DEPENDS`` of the blind one.
        mean_divergence: of the answers from the blind one, in nats.
    """

    words: tuple[str, ...]
    answers: int
    prior: tuple[float, ...]
    blind: tuple[float, ...] | None
    hardly_depending: float | None
    mean_divergence: float | None

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        answers: int,
        sums: Sequence[float],
        blind: Sequence[float] | None = None,
        hardly: int = 0,
        divergence: float = 0.0,
    ) -> Self:
        """Make it of sums over the answers, of which there is at least one."""
        return cls(
            tuple(words),
            answers,
            tuple(round(value / answers, 6) for value in sums),
            None if blind is None else tuple(round(value, 6) for value in blind),
            None if blind is None else round(hardly / answers, 6),
            None if blind is None else round(divergence / answers, 6),
        )

    @property
    def is_blind(self) -> bool:
        """Whether so many answers hardly depend on their picture that somebody should know."""
        return self.hardly_depending is not None and self.hardly_depending >= MUCH

    @property
    def rows(self) -> list[tuple[str, float, float | None]]:
        """Return each word with its prior and its probability on a grey image."""
        blind = self.blind or (None,) * len(self.words)
        return list(zip(self.words, self.prior, blind, strict=True))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        blind = record["blind"]
        return cls(
            tuple(record["words"]),
            record["answers"],
            tuple(record["prior"]),
            None if blind is None else tuple(blind),
            record["hardly_depending"],
            record["mean_divergence"],
        )


def divergence_from(probabilities: FloatArray, blind: FloatArray) -> FloatArray:
    """Return KL(answer || blind answer) of each row, in nats (Kullback & Leibler 1951): what looking at the picture changed."""
    p = np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST)
    divergence: FloatArray = np.maximum(0.0, (p * np.log(p / np.maximum(blind, SMALLEST))).sum(axis=1))
    return divergence
