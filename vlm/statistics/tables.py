"""Two questions against each other, and shares of one set of images against those of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.statistics.distributions import (
    BoolArray,
    FloatArray,
    IntArray,
    chi_square_upper,
    discovery_rates,
    hypergeometric_upper,
    normal_upper,
)
from vlm.statistics.intervals import CONFIDENCE, Estimate, share_of

FALSE_DISCOVERIES = 0.05
FEW = 5.0  # expected images of a cell below which chi-square is not to be trusted (Cochran 1954)
MANY_SPARSE = 0.2  # of the cells


@dataclass(frozen=True)
class CrossTable:
    """Counts of two sortings, what independence would give, and how far each cell is from that.

    Attributes:
        counts: (rows, columns) images that have both values.
        rows, columns: images that have the value, and total: all of them.
        residuals: standardised: how many standard deviations a cell is from independence.
        discovery_rates: of each cell, corrected for having tried them all.
        chi_square, freedom, p_value: of the whole table, and cramers_v, the strength of the connection from 0 to 1, whatever the
            number of images. ``None`` where an image can have several values of a sorting: the cells then are no parts of a whole.
        sparse: whether chi-square rests on too few images to be trusted.
    """

    counts: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    total: int
    expected: tuple[tuple[float, ...], ...]
    residuals: tuple[tuple[float, ...], ...]
    discovery_rates: tuple[tuple[float, ...], ...]
    chi_square: float | None
    freedom: int | None
    p_value: float | None
    cramers_v: float | None
    sparse: bool

    def sign(self, row: int, column: int) -> int:
        """Return 1 for a cell with more images than independence and chance would give, -1 for one with fewer, else 0."""
        if self.discovery_rates[row][column] > FALSE_DISCOVERIES:
            return 0
        return 1 if self.counts[row][column] > self.expected[row][column] else -1

    def to_json(self) -> dict[str, Any]:
        return {
            "counts": [list(row) for row in self.counts],
            "rows": list(self.rows),
            "columns": list(self.columns),
            "total": self.total,
            "expected": [[round(cell, 3) for cell in row] for row in self.expected],
            "residuals": [[round(cell, 3) for cell in row] for row in self.residuals],
            "discovery_rates": [list(row) for row in self.discovery_rates],
            "signs": [[self.sign(i, j) for j in range(len(self.columns))] for i in range(len(self.rows))],
            "chi_square": None if self.chi_square is None else round(self.chi_square, 4),
            "freedom": self.freedom,
            "p_value": self.p_value,
            "cramers_v": None if self.cramers_v is None else round(self.cramers_v, 6),
            "sparse": self.sparse,
        }


@dataclass(frozen=True)
class ShareDifference:
    """The share of one word in two sets. ``discovery_rate`` is corrected for all the words compared."""

    word: str
    first: Estimate
    second: Estimate
    difference: float  # second - first
    low: float
    high: float
    p_value: float
    discovery_rate: float

    @property
    def sign(self) -> int:
        """1 where the second share is higher beyond chance, -1 where it is lower, else 0.

        Both must say so: the corrected test, whose normal approximation is too bold for a handful of images, and the interval.
        """
        if self.discovery_rate > FALSE_DISCOVERIES or self.low <= 0 <= self.high:
            return 0
        return 1 if self.difference > 0 else -1

    def to_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": round(self.difference, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "p_value": self.p_value,
            "discovery_rate": self.discovery_rate,
            "sign": self.sign,
        }


def cross(
    counts: IntArray, *, rows: IntArray | None = None, columns: IntArray | None = None, total: int | None = None
) -> CrossTable:
    """Compare a table of counts with independence.

    Expected: row · column / total; residuals standardised by Haberman (1973): (n - e) / √(e (1 - row share)(1 - column share));
    each cell against the rest by Fisher's exact test (1935), both tails as twice the smaller, corrected over all cells by
    Benjamini & Hochberg (1995); chi-square of Pearson (1900); Cramér's V (1946): √(chi² / (N · (fewer of rows and columns - 1))).
    Empty rows and columns count for nothing.

    Args:
        rows, columns, total: images with each value, and all images, where they are not the sums of the cells since an image
            can have several values.
    """
    counts = np.asarray(counts, dtype=np.int64)
    ours = counts.sum(axis=1) if rows is None else np.asarray(rows, dtype=np.int64)
    theirs = counts.sum(axis=0) if columns is None else np.asarray(columns, dtype=np.int64)
    whole = int(counts.sum()) if total is None else total
    expected = np.outer(ours, theirs) / max(1, whole)
    filled = expected > 0
    safe = np.where(filled, expected, 1.0)
    apart = np.outer(1 - ours / max(1, whole), 1 - theirs / max(1, whole))
    tested = filled & (apart > 0)
    residuals = np.where(tested, (counts - expected) / np.sqrt(safe * np.where(apart > 0, apart, 1.0)), 0.0)
    rates = np.ones(counts.shape)
    rates[tested] = discovery_rates(_fisher(counts, ours, theirs, whole)[tested])
    is_whole = int(counts.sum()) == int(ours.sum()) == int(theirs.sum()) == whole
    chi_square, freedom, p_value, strength, sparse = (
        _chi_square(counts, expected, filled, safe) if is_whole else (None, None, None, None, False)
    )
    return CrossTable(
        counts=tuple(tuple(int(cell) for cell in row) for row in counts),
        rows=tuple(int(cell) for cell in ours),
        columns=tuple(int(cell) for cell in theirs),
        total=whole,
        expected=tuple(tuple(float(cell) for cell in row) for row in expected),
        residuals=tuple(tuple(float(cell) for cell in row) for row in residuals),
        discovery_rates=tuple(tuple(float(cell) for cell in row) for row in rates),
        chi_square=chi_square,
        freedom=freedom,
        p_value=p_value,
        cramers_v=strength,
        sparse=sparse,
    )


def share_differences(
    first: IntArray,
    second: IntArray,
    words: Sequence[str],
    *,
    totals: tuple[int, int] | None = None,
    common: IntArray | None = None,
    common_total: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[ShareDifference, ...]:
    """Compare the shares of words in two sets by their counts, in the order of the words.

    What lies in both sets cannot tell them apart. So a difference is taken as what it is, a sum over three sets that have no
    image in common (both, the first alone, the second alone): Σ w·p with w = n₂/N₂ - n₁/N₁ of each part. Its interval joins
    those of the parts, d ± √Σ (w · distance of the part's bound)² (Zou, Huang & Zhang 2009), which is Newcombe's (1998, method
    10) where nothing is common, and his for “within” against “the rest”, made smaller in proportion, where one set lies in the
    other. Two-sided z test with the pooled share; Benjamini & Hochberg (1995) over the words.

    Args:
        totals: images of both sets, where the words are not their parts; by default the sums.
        common: counts of the words among the ``common_total`` images that lie in both sets.
    """
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    shared = np.zeros_like(first) if common is None else np.asarray(common, dtype=np.int64)
    one, other = totals or (int(first.sum()), int(second.sum()))
    if not (one and other):
        return ()
    hits = np.stack([shared, first - shared, second - shared])  # (3, words)
    sizes = np.array([common_total, one - common_total, other - common_total])
    weights = np.array([common_total, 0, sizes[2]]) / other - np.array([common_total, sizes[1], 0]) / one
    pooled = hits.sum(axis=0) / sizes.sum()
    spread = np.sqrt(pooled * (1 - pooled) * float((weights**2 / np.maximum(sizes, 1)).sum()))
    apart = second / other - first / one
    p = np.minimum(1.0, 2 * normal_upper(np.where(spread > 0, np.abs(apart) / np.where(spread > 0, spread, 1.0), 0.0)))
    rates = discovery_rates(p)
    found = []
    for place, word in enumerate(words):
        parts = [share_of(int(hits[part, place]), int(sizes[part]), confidence) for part in range(3)]
        low, high = _contrast(parts, weights)
        found.append(
            ShareDifference(
                word,
                share_of(int(first[place]), one, confidence),
                share_of(int(second[place]), other, confidence),
                float(apart[place]),
                max(-1.0, float(apart[place]) - low),
                min(1.0, float(apart[place]) + high),
                float(p[place]),
                float(rates[place]),
            )
        )
    return tuple(found)


# -- inside --------------------------------------------------------------------------------------------------------------
def _fisher(counts: IntArray, rows: IntArray, columns: IntArray, total: int) -> FloatArray:
    """Return the two-sided p-value of each cell, given how many images have its row's value and how many its column's."""
    height, width = counts.shape
    ours = np.broadcast_to(rows[:, None], (height, width))
    theirs = np.broadcast_to(columns[None, :], (height, width))
    more = hypergeometric_upper(counts, ours, theirs, total)
    fewer = hypergeometric_upper(ours - counts, ours, total - theirs, total)  # as many lack the column's value
    p: FloatArray = np.minimum(1.0, 2 * np.minimum(more, fewer))
    return p


def _chi_square(
    counts: IntArray, expected: FloatArray, filled: BoolArray, safe: FloatArray
) -> tuple[float, int, float, float, bool]:
    """Return chi-square with its degrees of freedom and p-value, Cramér's V, and whether it rests on too few images."""
    value = float((np.where(filled, counts - expected, 0.0) ** 2 / safe).sum())
    height, width = int(filled.any(axis=1).sum()), int(filled.any(axis=0).sum())
    freedom, smaller = max(0, height - 1) * max(0, width - 1), min(height, width) - 1
    p_value = chi_square_upper(value, freedom) if freedom else 1.0
    strength = float(np.sqrt(value / (counts.sum() * smaller))) if smaller > 0 else 0.0
    sparse = bool(freedom and (expected[filled] < FEW).mean() > MANY_SPARSE)
    return value, freedom, p_value, strength, sparse


def _contrast(parts: Sequence[Estimate], weights: FloatArray) -> tuple[float, float]:
    """Return how far a weighted sum of independent shares reaches below and above its value."""
    down = up = 0.0
    for part, weight in zip(parts, weights, strict=True):
        below, above = weight * (part.value - part.low), weight * (part.high - part.value)
        down += (below if weight > 0 else above) ** 2
        up += (above if weight > 0 else below) ** 2
    return float(np.sqrt(down)), float(np.sqrt(up))
