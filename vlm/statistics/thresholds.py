"""A promise: of what is tagged at least so much is right, with so much confidence; and what it costs in tags.

The threshold is the smallest whose accuracy is proven to reach the target. Choosing the best of several by the same labels
would break the promise, so the choice is a multiple test (Angelopoulos, Bates, Candès, Jordan & Lei 2021, "Learn then test"): thresholds
are fixed before the labels are looked at (they depend on the model's probabilities alone), and go through in a fixed order, each with
the error that its chain may spend, until one fails. The error is divided by the number of chains (Bonferroni).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlm.statistics.accuracy import Labels, ratio
from vlm.statistics.distributions import BoolArray, FloatArray, IntArray, beta_lower, normal_quantile
from vlm.statistics.intervals import CONFIDENCE, Estimate, round_up

CANDIDATES = 20  # at most so many thresholds are looked at
CHAINS = 2


@dataclass(frozen=True)
class Kept:
    """The promise can be given: tag from this probability on."""

    threshold: float
    tagged: float  # share of the samples that it tags
    accuracy: Estimate  # of what it tags
    target: float
    confidence: float
    labels: int  # at or above the threshold

    def to_json(self) -> dict[str, Any]:
        return {
            "reachable": True,
            "threshold": round(self.threshold, 6),
            "tagged": round(self.tagged, 6),
            "accuracy": self.accuracy.to_json(),
            "target": self.target,
            "confidence": self.confidence,
            "labels": self.labels,
        }


@dataclass(frozen=True)
class NotReachable:
    """These labels cannot give the promise. ``more`` is about how many would; None if more of the same would not help either."""

    reason: Literal["too few labels", "not so right"]
    more: int | None
    best: float | None  # the highest accuracy seen at any threshold
    target: float
    confidence: float
    labels: int

    def to_json(self) -> dict[str, Any]:
        return {
            "reachable": False,
            "reason": self.reason,
            "more": self.more,
            "best": None if self.best is None else round(self.best, 6),
            "target": self.target,
            "confidence": self.confidence,
            "labels": self.labels,
        }


@dataclass(frozen=True)
class Point:
    """One point of the curve: tagging from this threshold on, so much is tagged and so much of it is right."""

    threshold: float
    tagged: float
    accuracy: Estimate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "threshold": round(self.threshold, 6),
            "tagged": round(self.tagged, 6),
            "accuracy": self.accuracy and self.accuracy.to_json(),
        }


@dataclass(frozen=True)
class Spread:
    """How the probabilities of the said words are spread over all samples: edges, and the share at or above each."""

    edges: FloatArray  # rising
    above: FloatArray

    @classmethod
    def of(cls, said_probability: FloatArray, candidates: int = CANDIDATES) -> "Spread":
        """Take thresholds that cut the samples into equal parts: one that tags all of them, then 95 %, then 90 % and so on."""
        edges = np.unique(np.quantile(said_probability, np.arange(candidates) / candidates, method="lower"))
        below = np.searchsorted(np.sort(said_probability), edges, side="left")
        return cls(edges, 1.0 - below / max(1, len(said_probability)))

    @classmethod
    def of_steps(
        cls, step: IntArray, probability: FloatArray, samples: IntArray, candidates: int = CANDIDATES
    ) -> "Spread":
        """Do the same from counts: so many ``samples`` are in each ``step``, from the lowest ``probability`` in it on."""
        steps, place = np.unique(step, return_inverse=True)
        edges = np.full(len(steps), np.inf)
        np.minimum.at(edges, place, probability)
        counts = np.bincount(place, weights=samples, minlength=len(steps))
        above = counts[::-1].cumsum()[::-1] / max(1.0, counts.sum())
        # For each part the last step at or above which all of it still lies.
        parts = 1.0 - np.arange(candidates) / candidates - 1e-12
        chosen = np.unique(np.searchsorted(-above, -parts, side="right") - 1) if len(steps) else steps
        return cls(edges[chosen], above[chosen])


def promise(
    labels: Labels,
    said_probability: FloatArray,
    spread: Spread,
    *,
    target: float = 0.95,
    confidence: float = CONFIDENCE,
) -> Kept | NotReachable:
    """Find the smallest threshold from which on at least ``target`` is right, with ``confidence``.

    ``said_probability`` is that of the said word, of each label. For one word, give its labels and the spread within it.

    A threshold passes if the exact binomial tail (Clopper & Pearson 1934) of its effective numbers (Korn & Graubard 1998) rules
    out that less than ``target`` is right. One chain starts where a faultless sample would just do, the other half-way from
    there to tagging everything; each goes down until a threshold fails.
    """
    told = labels.truth >= 0
    right = told & (labels.truth == labels.said)
    error = (1.0 - confidence) / CHAINS
    tests = [_test(labels, right, told & (said_probability >= edge), target) for edge in spread.edges]
    enough = math.log(error) / math.log(target)  # labels that prove it if all of them are right
    able = [place for place, (_, _, effective) in enumerate(tests) if effective >= enough]
    passed = _chains(able, [tail <= error for tail, _, _ in tests])
    labelled = int(told.sum())
    if passed is not None:
        chosen = told & (said_probability >= spread.edges[passed])
        accuracy = _estimate(labels, right, chosen, confidence)
        assert accuracy is not None  # noqa: S101 - it passed, so it has labels enough
        return Kept(
            float(spread.edges[passed]),
            float(spread.above[passed]),
            accuracy,
            target,
            confidence,
            int(chosen.sum()),
        )
    more, best = _wanted(tests, labelled, error, target, enough)
    reason: Literal["too few labels", "not so right"] = "not so right" if more is None else "too few labels"
    return NotReachable(reason, more, best, target, confidence, labelled)


def _test(labels: Labels, right: BoolArray, chosen: BoolArray, target: float) -> tuple[float, float, float]:
    """Return the p-value of "less than ``target`` is right", the share that is right, and the effective number of labels.

    The effective number is Kish's (Σ w)² / Σ w² of groups of near-duplicates. Where wrong labels weigh more than right ones, their
    squared weight counts: n = θ(1-θ) / V with V = Σ w² (y - θ)², if that is less.
    """
    weight = np.where(chosen, labels.weight, 0.0)
    residual = weight * right
    if labels.group is not None:
        grouped = labels.group >= 0
        own = np.where(grouped, labels.group, labels.group.max(initial=0) + 1 + np.arange(len(labels)))
        place: IntArray = np.unique(own, return_inverse=True)[1]
        weight, residual = np.bincount(place, weights=weight), np.bincount(place, weights=residual)
    total = float(weight.sum())
    if total <= 0:
        return 1.0, 0.0, 0.0
    share = float(residual.sum()) / total
    effective = total**2 / float((weight**2).sum())
    variance = float(((residual - share * weight) ** 2).sum()) / total**2
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    wrong = effective * (1 - share)
    # P(at most so many wrong | exactly the target is right), the number of wrong ones being at least one whole label's weight
    return 1.0 - beta_lower(1.0 - target, wrong + 1, effective - wrong), share, effective


def _chains(able: list[int], passes: list[bool]) -> int | None:
    """Return the lowest threshold that any chain reaches; ``able`` are the places that could pass at all, rising."""
    if not able:
        return None
    reached = []
    for chain in range(CHAINS):
        place = able[-1 - (len(able) - 1) * chain // CHAINS]
        if passes[place]:
            while place > 0 and passes[place - 1]:
                place -= 1
            reached.append(place)
    return min(reached) if reached else None


def _wanted(
    tests: list[tuple[float, float, float]], labelled: int, error: float, target: float, enough: float
) -> tuple[int | None, float | None]:
    """Return about how many more labels would do at the threshold that needs fewest, and the best accuracy seen.

    With θ right where more than the target τ is: n = (z √(τ(1-τ)) / (θ - τ))², the normal size of a one-sided test, and never below
    what a faultless sample needs. Labels come in the same proportions as so far.
    """
    if not labelled:
        return round_up(2 * enough), None
    z = -normal_quantile(error)
    needs, best = [], 0.0
    for _, share, effective in tests:
        if effective < 5:
            continue
        best = max(best, share)
        # What few labels say is drawn towards the target: one success and one failure more (Laplace).
        careful = (share * effective + 1) / (effective + 2)
        if share < 1 and share <= target:
            continue
        margin = max(careful - target, (1 - target) / 4)
        needed = max(enough, (z * math.sqrt(target * (1 - target)) / margin) ** 2)
        needs.append(labelled * needed / effective - labelled)
    if not needs:
        return (None, best) if best > 0 else (round_up(2 * enough), None)
    return round_up(max(1.0, min(needs))), best


def curve(
    labels: Labels, said_probability: FloatArray, spread: Spread, *, confidence: float = CONFIDENCE
) -> tuple[Point, ...]:
    """Return accuracy against share tagged as the threshold rises; without a figure where labels are too few."""
    told = labels.truth >= 0
    right = told & (labels.truth == labels.said)
    return tuple(
        Point(float(edge), float(above), _estimate(labels, right, told & (said_probability >= edge), confidence))
        for edge, above in zip(spread.edges, spread.above, strict=True)
    )


def _estimate(labels: Labels, right: BoolArray, chosen: BoolArray, confidence: float) -> Estimate | None:
    kept = labels.where(chosen)
    return ratio(kept, right[chosen], np.ones(len(kept), dtype=np.bool_), None, 0.0, confidence)
