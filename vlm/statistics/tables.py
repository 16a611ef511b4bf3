"""Two questions against each other, and shares of one data set against those of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.statistics.distributions import IntArray, chi_square_upper, discovery_rates, normal_upper
from vlm.statistics.intervals import CONFIDENCE, Estimate, newcombe, share_of


@dataclass(frozen=True)
class CrossTable:
    """Counts of two dimensions, what independence would give, and how far each cell is from that."""

    counts: tuple[tuple[int, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    residuals: tuple[tuple[float, ...], ...]  # standardised: beyond ± 2 it is hardly chance, beyond ± 3 it is not
    chi_square: float
    freedom: int
    p_value: float
    cramers_v: float  # strength of the connection, from 0 to 1, whatever the number of samples

    def to_json(self) -> dict[str, Any]:
        return {
            "counts": [list(row) for row in self.counts],
            "expected": [[round(cell, 3) for cell in row] for row in self.expected],
            "residuals": [[round(cell, 3) for cell in row] for row in self.residuals],
            "chi_square": round(self.chi_square, 4),
            "freedom": self.freedom,
            "p_value": self.p_value,
            "cramers_v": round(self.cramers_v, 6),
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
        }


def cross(counts: IntArray) -> CrossTable:
    """Compare a table of counts with independence.

    Expected: row · column / total; chi-square of Pearson (1900); residuals standardised by Haberman (1973):
    (n - e) / √(e (1 - row share)(1 - column share)); Cramér's V (1946): √(chi² / (N · (fewer of rows and columns - 1))).
    Empty rows and columns count for nothing.
    """
    counts = np.asarray(counts, dtype=np.int64)
    total = int(counts.sum())
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    expected = np.outer(rows, columns) / max(1, total)
    filled = expected > 0
    safe = np.where(filled, expected, 1.0)
    chi_square = float((np.where(filled, counts - expected, 0.0) ** 2 / safe).sum())
    apart = np.outer(1 - rows / max(1, total), 1 - columns / max(1, total))
    spread = np.sqrt(safe * np.where(apart > 0, apart, 1.0))
    residuals = np.where(filled & (apart > 0), (counts - expected) / spread, 0.0)
    height, width = int((rows > 0).sum()), int((columns > 0).sum())
    freedom = max(0, (height - 1) * (width - 1))
    smaller = min(height, width) - 1
    return CrossTable(
        counts=tuple(tuple(int(cell) for cell in row) for row in counts),
        expected=tuple(tuple(float(cell) for cell in row) for row in expected),
        residuals=tuple(tuple(float(cell) for cell in row) for row in residuals),
        chi_square=chi_square,
        freedom=freedom,
        p_value=chi_square_upper(chi_square, freedom) if freedom else 1.0,
        cramers_v=float(np.sqrt(chi_square / (total * smaller))) if total and smaller > 0 else 0.0,
    )


def share_differences(
    first: IntArray, second: IntArray, words: Sequence[str], *, confidence: float = CONFIDENCE
) -> tuple[ShareDifference, ...]:
    """Compare the shares of words in two sets that have no image in common, by their counts; the largest difference first.

    Newcombe's interval (1998, method 10); two-sided z test with the pooled share; Benjamini & Hochberg (1995) over the words.
    """
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    totals = int(first.sum()), int(second.sum())
    if not all(totals):
        return ()
    pooled = (first + second) / sum(totals)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / totals[0] + 1 / totals[1]), 1e-300))
    z = np.abs(second / totals[1] - first / totals[0]) / spread
    p = np.minimum(1.0, 2 * normal_upper(np.where((pooled > 0) & (pooled < 1), z, 0.0)))
    rates = discovery_rates(p)
    found = []
    for place, word in enumerate(words):
        ours = share_of(int(first[place]), totals[0], confidence)
        theirs = share_of(int(second[place]), totals[1], confidence)
        difference, low, high = newcombe(ours, theirs)
        found.append(ShareDifference(word, ours, theirs, difference, low, high, float(p[place]), float(rates[place])))
    return tuple(sorted(found, key=lambda one: (-abs(one.difference), one.word)))
