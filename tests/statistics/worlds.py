"""Simulated data sets, on which the truth is known."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlm.statistics.accuracy import Labels, Population, design_weights
from vlm.statistics.distributions import BoolArray, FloatArray, IntArray
from vlm.statistics.draws import Design, Drawn, draw

WORDS = ("bright", "dim", "dark", "night")


@dataclass(frozen=True)
class World:
    """A model that says 0.82 on average and is right 0.70 of the time, on images with common and rare words."""

    said: IntArray
    truth: IntArray
    scores: FloatArray  # as the model says them
    right: BoolArray
    doubts: FloatArray

    @cached_property
    def population(self) -> Population:
        return Population.of(self.said, self.scores)

    def draw(self, size: int, design: Design, seed: int) -> Drawn:
        return draw(size, words=self.said, doubts=self.doubts, design=design, seed=seed)

    def labels(self, drawn: Drawn, *, control: bool = True) -> Labels:
        place = drawn.place
        return Labels(
            said=self.said[place],
            truth=self.truth[place],
            weight=design_weights(drawn.probability),
            scores=self.scores[place] if control else None,
            stratum=None if drawn.design is Design.UNIFORM else self.said[place],
        )


def world(samples: int = 10_000, *, seed: int = 5, honesty: float = 0.625, words: int = len(WORDS)) -> World:
    """Make one: a model that says c is right in 0.5 + honesty · (c - 0.5) of such cases; with 1 it is calibrated."""
    chance = np.random.default_rng(seed)
    frequency = np.array([0.55, 0.3, 0.1, 0.05])[:words]
    said = chance.choice(words, samples, p=frequency / frequency.sum())
    sure = 0.5 + 0.5 * chance.beta(3.2, 1.8, samples)
    scores = np.repeat(((1 - sure) / (words - 1))[:, None], words, axis=1)
    scores[np.arange(samples), said] = sure
    right = chance.random(samples) < 0.5 + honesty * (sure - 0.5)
    other = (said + chance.integers(1, words, samples)) % words
    return World(said, np.where(right, said, other), scores, right, 1 - sure)
