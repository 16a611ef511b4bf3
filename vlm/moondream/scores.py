"""From the likelihoods of spellings to the probabilities of words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 1e-30  # of a probability whose logarithm is taken


@dataclass(frozen=True, slots=True)
class DimensionScore:
    """What the model thinks of one dimension of one image.

    Attributes:
        words: the allowed words.
        probabilities: their probabilities given that the answer is one of them; they sum to 1.
        mass: the probability, 0 … 1, that the answer begins with an allowed word at all. Where one allowed word begins
            with another (“sun”, “sunny”), the answer counts for the longest that fits, and once.
        wordings: the scores of the question and its other wordings, whose mean this is; empty for a single question.
    """

    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    mass: float
    wordings: tuple["DimensionScore", ...] = ()

    @property
    def best(self) -> tuple[str, float]:
        """The most probable word and its probability."""
        index = max(range(len(self.words)), key=self.probabilities.__getitem__)
        return self.words[index], self.probabilities[index]


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write an allowed word, as the model would.

    Attributes:
        word: the word's index in its dimension.
        continues: the index of the longest other spelling that this one begins with, token by token (“sun” in
            “sunny”); ``None`` where there is none.
    """

    word: int
    continues: int | None


def spellings(word: str) -> tuple[str, ...]:
    """Return the ways in which a model may write ``word``: with or without a leading space, capitalised or not."""
    capitalised = word[:1].upper() + word[1:]
    return tuple(dict.fromkeys((word, f" {word}", capitalised, f" {capitalised}")))


def longest_prefix(ids: tuple[int, ...], places: dict[tuple[int, ...], int]) -> int | None:
    """Return the place of the longest sequence in ``places`` that ``ids`` begins with and goes on from."""
    shorter = (places.get(ids[:length]) for length in range(len(ids) - 1, 0, -1))
    return next((place for place in shorter if place is not None), None)


def mean_score(scores: Sequence[DimensionScore]) -> DimensionScore:
    """Join the scores of a question's wordings: the mean of the log probabilities, made to sum to 1, and of the masses.

    The mean of logarithms (the normalised geometric mean) is the distribution nearest to all wordings in the sense of the
    Kullback–Leibler divergence from it (Heskes, Selecting weighting factors in logarithmic opinion pools, 1998).
    """
    if len(scores) == 1:
        return scores[0]
    columns = list(zip(*(score.probabilities for score in scores), strict=True))
    logs = [sum(math.log(max(value, LEAST)) for value in column) / len(scores) for column in columns]
    weights = [math.exp(value - max(logs)) for value in logs]
    probabilities = tuple(weight / sum(weights) for weight in weights)
    mass = sum(score.mass for score in scores) / len(scores)
    return DimensionScore(scores[0].words, probabilities, mass, tuple(scores))


def dimension_score(
    words: tuple[str, ...], log_likelihoods: Sequence[float], spelled: Sequence[Spelling]
) -> DimensionScore:
    """Turn the log-likelihoods of a dimension's spellings into its words' probabilities and the mass on the list.

    A spelling's likelihood is that of every answer which begins with it. What goes on to a longer allowed spelling
    belongs to that one, so it is taken off the shorter.
    """
    highest = max(log_likelihoods)
    likelihoods = [math.exp(value - highest) for value in log_likelihoods]
    own, mass = list(likelihoods), 0.0
    for likelihood, spelling in zip(likelihoods, spelled, strict=True):
        if spelling.continues is None:
            mass += likelihood
        else:
            own[spelling.continues] -= likelihood
    weights = [0.0] * len(words)
    for likelihood, spelling in zip(own, spelled, strict=True):
        weights[spelling.word] += max(likelihood, 0.0)  # rounding may leave a trace below zero
    total = sum(weights)
    probabilities = tuple(weight / total for weight in weights)
    return DimensionScore(words, probabilities, min(mass * math.exp(highest), 1.0))
