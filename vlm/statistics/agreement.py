"""How far two answers, or several wordings of one question, say the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from vlm.statistics.distributions import BoolArray, IntArray, normal_quantile
from vlm.statistics.intervals import CONFIDENCE, Estimate, share_of


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond what the two would have by chance: 1 is full agreement, 0 is chance, below is worse than chance."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True)
class Flip:
    """So many samples went from one word to another."""

    before: str
    after: str
    samples: int
    share: float  # of the samples that had ``before``

    def to_json(self) -> dict[str, Any]:
        return {"before": self.before, "after": self.after, "samples": self.samples, "share": round(self.share, 6)}


@dataclass(frozen=True)
class Agreement:
    """Two answers to one question on the same samples."""

    samples: int
    same: Estimate | None
    kappa: Kappa | None  # None where both always say the same one word: there is nothing to agree on
    table: tuple[tuple[int, ...], ...]  # first (row) against second (column)
    flips: tuple[Flip, ...]  # most frequent first

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "agreement": self.same and self.same.to_json(),
            "kappa": self.kappa and self.kappa.to_json(),
            "table": [list(row) for row in self.table],
            "flips": [flip.to_json() for flip in self.flips],
        }


@dataclass(frozen=True)
class Wordings:
    """Several wordings of one question on the same samples."""

    samples: int
    flipping: Estimate | None  # share of the samples on which not all wordings say the same
    pairs: tuple[tuple[int, int, Agreement], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "flip_rate": self.flipping and self.flipping.to_json(),
            "pairs": [{"first": first, "second": second} | pair.to_json() for first, second, pair in self.pairs],
        }


def cross_table(first: IntArray, second: IntArray, words: int) -> IntArray:
    """Count first against second; samples that either did not answer (negative) are left out."""
    both = (first >= 0) & (second >= 0)
    cells = first[both].astype(np.int64) * words + second[both]
    return np.bincount(cells, minlength=words * words).reshape(words, words)


def agreement(table: IntArray, words: Sequence[str], *, confidence: float = CONFIDENCE) -> Agreement:
    """Compare two answers by their table of counts, as one query of the store gives it.

    Agreement with Wilson's interval, Cohen's kappa with its own.
    """
    table = np.asarray(table, dtype=np.int64)
    total = int(table.sum())
    rows = table.sum(axis=1)
    flips = [
        Flip(words[i], words[j], int(table[i, j]), float(table[i, j] / rows[i]))
        for i, j in zip(*np.nonzero(table), strict=True)
        if i != j
    ]
    return Agreement(
        samples=total,
        same=share_of(int(np.trace(table)), total, confidence) if total else None,
        kappa=cohens_kappa(table, confidence=confidence),
        table=tuple(tuple(int(cell) for cell in row) for row in table),
        flips=tuple(sorted(flips, key=lambda flip: (-flip.samples, flip.before, flip.after))),
    )


def cohens_kappa(table: IntArray, *, confidence: float = CONFIDENCE) -> Kappa | None:
    """Return Cohen's kappa (1960), (p_o - p_e) / (1 - p_e), with the large-sample variance of Fleiss, Cohen & Everitt (1969, eq. 13)."""
    total = int(table.sum())
    if not total:
        return None
    p = np.asarray(table, dtype=np.float64) / total
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if expected >= 1.0:
        return None
    kappa = (observed - expected) / (1 - expected)
    mixed = columns[:, None] + rows[None, :]  # for the cell (i, j): p_.i + p_j.
    diagonal = float((np.diag(p) * (1 - np.diag(mixed) * (1 - kappa)) ** 2).sum())
    off = p * mixed**2
    others = (1 - kappa) ** 2 * float(off.sum() - np.trace(off))
    variance = (diagonal + others - (kappa - expected * (1 - kappa)) ** 2) / (total * (1 - expected) ** 2)
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(max(0.0, variance))
    return Kappa(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def flipping(answers: IntArray) -> BoolArray:
    """Return, of answers (samples, wordings), on which samples not all wordings that answered say the same."""
    answered = answers >= 0
    highest = np.where(answered, answers, -1).max(axis=1)
    lowest = np.where(answered, answers, np.iinfo(np.int64).max).min(axis=1)
    return np.asarray((answered.sum(axis=1) > 1) & (highest != lowest), dtype=np.bool_)


def disagreement(answers: IntArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return, for each sample, the share of the wordings that do not say the first one's word: a doubt for ``draws``."""
    others = answers[:, 1:]
    answered = (others >= 0) & (answers[:, :1] >= 0)
    differs = answered & (others != answers[:, :1])
    return np.asarray(differs.sum(axis=1) / np.maximum(answered.sum(axis=1), 1), dtype=np.float64)


def wordings(answers: IntArray, words: Sequence[str], *, confidence: float = CONFIDENCE) -> Wordings:
    """Compare all pairs of wordings; ``answers`` is (samples, wordings), negative where one did not answer."""
    total = len(answers)
    return Wordings(
        samples=total,
        flipping=share_of(int(flipping(answers).sum()), total, confidence) if total else None,
        pairs=tuple(
            (i, j, agreement(cross_table(answers[:, i], answers[:, j], len(words)), words, confidence=confidence))
            for i, j in combinations(range(answers.shape[1]), 2)
        ),
    )
