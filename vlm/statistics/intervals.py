"""Intervals of shares, and the figure with bounds in which all results speak."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from vlm.statistics.distributions import beta_quantile, normal_quantile

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A share with its interval, and what it rests on."""

    value: float
    low: float
    high: float
    labels: int  # the labels that speak about it
    effective: float  # as many uniformly drawn labels would say as much
    confidence: float = CONFIDENCE

    def more_for(self, half_width: float = 0.05) -> int:
        """Return about how many more labels of the same kind narrow the interval to ± ``half_width``; 0 if it is so narrow.

        n = z² p(1-p) / h² (Cochran, *Sampling Techniques*, 1977, 4.4) counted in effective labels, at the share that would need
        most within the present interval: the bound next to one half, so that too few labels do not promise too much.
        """
        if (self.high - self.low) / 2 <= half_width:
            return 0
        z = normal_quantile(0.5 + self.confidence / 2)
        worst = min(max(0.5, self.low), self.high)
        # A share near 0 or 1 has a lopsided interval, and p(1-p) vanishes: Wilson's own width at this share is never below.
        variance = max(worst * (1 - worst), half_width * (1 - half_width))
        worth = self.labels / self.effective if self.effective > 0 else 1.0
        return round_up(max(1.0, z * z * variance / half_width**2 * worth - self.labels))

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self).items()}


def labels_for(half_width: float = 0.05, confidence: float = CONFIDENCE) -> int:
    """Return how many uniform labels give ± ``half_width`` when nothing is known yet: Cochran's formula at one half."""
    z = normal_quantile(0.5 + confidence / 2)
    return round_up(z * z * 0.25 / half_width**2)


def round_up(count: float) -> int:
    """Round a number of labels up to what one would say: 7, 20, 130, 1,300."""
    if count <= 10:
        return math.ceil(count)
    step: int = 10 ** max(1, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / step - 1e-9) * step)


def wilson(share: float, labels: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4); ``labels`` may be an effective number.

    It is sane at the ends: 0 of n gives [0, z²/(n+z²)]. Without labels it is everything.
    """
    if labels <= 0:
        return 0.0, 1.0
    share = min(max(share, 0.0), 1.0)
    scale = 1 / (1 + z * z / labels)
    middle = (share + z * z / (2 * labels)) * scale
    half = z * scale * math.sqrt(share * (1 - share) / labels + z * z / (4 * labels * labels))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return (0.0 if share == 0.0 else low), (1.0 if share == 1.0 else high)


def exact_low(right: float, labels: float, error: float) -> float:
    """Return the one-sided lower bound of a share that is wrong with a chance of at most ``error`` (Clopper & Pearson 1934).

    Numbers need not be whole: with effective ones it is the bound of Korn & Graubard (1998).
    """
    return 0.0 if right <= 0 else beta_quantile(error, right, labels - right + 1)


def newcombe(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """Return the difference second - first of two independent shares with its interval: Newcombe (1998), method 10.

    d ± √(distance of the one's bound² + distance of the other's bound²), from their own (Wilson) bounds.
    """
    difference = second.value - first.value
    down = math.hypot(second.value - second.low, first.high - first.value)
    up = math.hypot(second.high - second.value, first.value - first.low)
    return difference, max(-1.0, difference - down), min(1.0, difference + up)


def share_of(hits: int, labels: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return a share of independent trials with Wilson's interval."""
    value = hits / labels if labels else 0.0
    low, high = wilson(value, labels, normal_quantile(0.5 + confidence / 2))
    return Estimate(value, low, high, labels, float(labels), confidence)


def _plain(value: float | int) -> float | int | None:
    return value if isinstance(value, int) else (round(value, 6) if math.isfinite(value) else None)
