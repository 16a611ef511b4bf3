"""Which tags, and pairs and triples of tags, go with a flag or a number: against the base rate, and corrected for having tried many.

All slices of up to three features with enough support are tested, so the p-values are corrected for all of them. Every
length of slice gets the same share of the budget, so that a triple, one of thousands, must be far clearer than a single word.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from vlm.statistics.distributions import (
    BoolArray,
    FloatArray,
    IntArray,
    discovery_rates,
    hypergeometric_upper,
    normal_quantile,
    normal_upper,
)
from vlm.statistics.intervals import CONFIDENCE, newcombe, share_of

SUPPORT = 30
LONGEST = 3
LEVELS = 4_096  # steps of the ranks of a number
FALSE_DISCOVERIES = 0.05

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class TagQuality:
    """How right a tag is where accuracy was measured: the share of its images that are it, and of what is it, that has it."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Slice:
    """Images that have all of ``features``, against all the others."""

    features: tuple[int, ...]
    samples: int
    value: float  # mean of the flag or number in the slice
    rest: float  # mean outside of it
    base: float  # mean over all
    low: float  # interval of value - rest
    high: float
    p_value: float
    discovery_rate: float  # corrected for all slices tried
    corrected: float | None  # the value with misclassified tags taken into account; None where accuracy is not known
    folded: tuple["Slice", ...] = field(default=())  # longer slices that say nothing beyond this one

    @property
    def difference(self) -> float:
        return self.value - self.rest

    @property
    def lift(self) -> float | None:
        return self.value / self.base if self.base > 0 else None

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "features": [names[place] for place in self.features],
            "samples": self.samples,
            "value": round(self.value, 6),
            "rest": round(self.rest, 6),
            "lift": None if self.lift is None else round(self.lift, 4),
            "difference": round(self.difference, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "p_value": self.p_value,
            "discovery_rate": self.discovery_rate,
            "corrected": None if self.corrected is None else round(self.corrected, 6),
            "folded": [other.to_json(names) for other in self.folded],
        }


@dataclass(frozen=True)
class Explanation:
    """What raises a flag or a number. ``slices`` are those that hold after correction, most telling first."""

    samples: int
    base: float
    tested: int
    slices: tuple[Slice, ...]

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "base": round(self.base, 6),
            "tested": self.tested,
            "slices": [found.to_json(names) for found in self.slices],
        }


@dataclass(frozen=True)
class Counted:
    """All slices with support: features (-1 fills up shorter ones), samples, and the sum of the scores of their samples."""

    features: IntArray  # (slices, LONGEST)
    samples: IntArray
    sums: IntArray

    @property
    def lengths(self) -> IntArray:
        lengths: IntArray = (self.features >= 0).sum(axis=1)
        return lengths


def explain(
    features: BoolArray,
    target: BoolArray | FloatArray,
    *,
    support: int = SUPPORT,
    longest: int = LONGEST,
    discoveries: float = FALSE_DISCOVERIES,
    most: int = 100,
    lower: bool = False,
    quality: dict[int, TagQuality] | None = None,
    confidence: float = CONFIDENCE,
) -> Explanation:
    """Find what raises a flag (boolean) or a number; with ``lower`` what lowers it.

    ``features`` is (samples, features): words, splits, categories, values of columns. ``target`` has no gaps: leave out samples
    that have no value. At most ``most`` slices are reported, the clearest.

    A flag is tested by Fisher's exact test (1935). A number is tested by the mean of its ranks, which no outlier can
    carry: over all ways to place a slice of n among N, that mean is normal with variance s² (1/n - 1/N) (Wilcoxon 1945;
    with ties Kruskal & Wallis 1952). Both p-values are doubled, since either direction may be asked for.
    """
    flag = target.dtype == np.bool_
    scores = target.astype(np.int64) if flag else _levels(np.asarray(target, dtype=np.float64))
    if lower:
        scores = (1 if flag else LEVELS - 1) - scores
    total, base = len(target), float(target.mean()) if len(target) else 0.0
    counted = count_slices(features, scores, support=support, longest=longest)
    if not len(counted.samples):
        return Explanation(total, base, 0, ())
    test = _Test(total, int(scores.sum()), float(scores.var(ddof=1)), flag)
    p = np.minimum(1.0, 2 * test.p_values(counted.samples, counted.sums))
    lengths = counted.lengths
    tests = np.bincount(lengths, minlength=longest + 1)
    rates = discovery_rates(p, len(p) / (np.count_nonzero(tests) * tests[lengths]))
    found = np.flatnonzero(rates <= discoveries)
    found = found[np.argsort(p[found], kind="stable")][:most]
    places = {tuple(int(member) for member in counted.features[place] if member >= 0): int(place) for place in found}
    slices = {}
    for members, place in places.items():
        made = _measured(members, features, target, base, confidence)
        made = replace(made, p_value=float(p[place]), discovery_rate=float(rates[place]))
        slices[members] = replace(made, corrected=_corrected(made, total, quality, flag))
    return Explanation(total, base, len(p), _fold(slices, places, counted, test, features.shape[1]))


def work(groups: Sequence[int], samples: int, *, flag: bool, longest: int) -> int:
    """Return about how many words of 64 samples :func:`explain` goes through for all slices of up to ``longest`` features.

    Args:
        groups: sizes of the groups of features of which a sample has one at most, so that they are not extended together.
    """
    single, together = sum(groups), [1, 0, 0, 0]  # ways to take one feature of each of so many groups
    for size in groups:
        for length in (3, 2, 1):
            together[length] += size * together[length - 1]
    slices = (single, single + comb(single, 2), single + comb(single, 2) + together[3])[longest - 1]
    return slices * -(-samples // 64) * (2 if flag else 1 + (LEVELS - 1).bit_length())


def _levels(values: FloatArray) -> IntArray:
    """Return each value's rank in LEVELS steps: fine enough for any test, and few enough to be held in twelve planes of bits."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts + 1) / 2
    levels: IntArray = (middles * (LEVELS / max(1, len(values)))).astype(np.int64)[place]
    return levels


def count_slices(features: BoolArray, scores: IntArray, *, support: int = SUPPORT, longest: int = LONGEST) -> Counted:
    """Count all slices of up to ``longest`` (at most 3) features, and sum the ``scores`` (whole, >= 0) of their samples.

    A feature is a row of bits, one per sample; a slice is their conjunction, 64 samples at a time, and its size the bits set.
    Scores are held in planes, one per binary digit, so that their sum is one more conjunction and count per digit. What
    has too little support is not extended.
    """
    width = features.shape[1]
    bits = _packed(features)
    planes = _packed((scores[:, None] >> np.arange(max(1, int(scores.max(initial=0)).bit_length()))) & 1 == 1)
    found: list[tuple[int, int, int]] = []
    samples: list[IntArray] = []
    sums: list[IntArray] = []

    def count(rows: Words, names: list[tuple[int, int, int]]) -> BoolArray:
        """Count slices whose bits are ``rows``; return which of them have support."""
        sizes = _counts(rows)
        enough = (sizes >= support) & (len(features) - sizes >= support)
        for row in np.flatnonzero(enough):
            found.append(names[row])
        kept = rows[enough]
        samples.append(sizes[enough])
        sums.append(
            sum((_counts(kept & plane) << digit for digit, plane in enumerate(planes)), np.zeros(len(kept), np.int64))
        )
        return sizes >= support

    alive = np.flatnonzero(count(bits, [(j, -1, -1) for j in range(width)]))
    if longest >= 2:
        for place, i in enumerate(alive):
            partners = alive[place + 1 :]
            pairs = bits[i] & bits[partners]
            supported = count(pairs, [(int(i), int(j), -1) for j in partners])
            if longest >= 3:
                partners, pairs = partners[supported], pairs[supported]
                for nth, j in enumerate(partners[:-1]):
                    count(
                        pairs[nth] & bits[partners[nth + 1 :]], [(int(i), int(j), int(k)) for k in partners[nth + 1 :]]
                    )
    return Counted(np.array(found, dtype=np.int64).reshape(-1, LONGEST), np.concatenate(samples), np.concatenate(sums))


def _packed(columns: BoolArray) -> Words:
    """Return each column as a row of 64-bit words, one bit per sample."""
    packed = np.packbits(columns, axis=0)
    words = np.zeros((columns.shape[1], -(-len(packed) // 8) * 8), dtype=np.uint8)
    words[:, : len(packed)] = packed.T
    return words.view(np.uint64)


def _counts(rows: Words) -> IntArray:
    counts: IntArray = np.bitwise_count(rows).sum(axis=1, dtype=np.int64)
    return counts


@dataclass(frozen=True)
class _Test:
    """The test of a slice against the whole, or against a shorter slice that it lies in."""

    total: int
    sum: int
    variance: float
    flag: bool

    def p_values(self, samples: IntArray, sums: IntArray) -> FloatArray:
        return self.within(samples, sums, self.total, self.sum)

    def within(self, samples: IntArray, sums: IntArray, total: int, whole: int) -> FloatArray:
        if self.flag:
            return hypergeometric_upper(sums, samples, whole, total)
        spread = np.sqrt(self.variance * np.maximum(1 / samples - 1 / total, 0.0))
        distance = sums / samples - whole / total
        return normal_upper(np.where(spread > 0, distance / np.where(spread > 0, spread, 1.0), 0.0))


def _measured(
    members: tuple[int, ...], features: BoolArray, target: BoolArray | FloatArray, base: float, confidence: float
) -> Slice:
    """Return means inside and outside and the interval of their difference: Newcombe's (1998) of flags, Welch's (1947) of numbers."""
    chosen = features[:, members[0]]
    for member in members[1:]:
        chosen = chosen & features[:, member]
    inside, outside = target[chosen], target[~chosen]
    value, rest = float(inside.mean()), float(outside.mean())
    if target.dtype == np.bool_:
        ours = share_of(int(inside.sum()), len(inside), confidence)
        _, low, high = newcombe(share_of(int(outside.sum()), len(outside), confidence), ours)
    else:
        spread = float(np.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside)))
        half = normal_quantile(0.5 + confidence / 2) * spread
        low, high = value - rest - half, value - rest + half
    return Slice(members, len(inside), value, rest, base, low, high, 1.0, 1.0, None)


def _corrected(found: Slice, total: int, quality: dict[int, TagQuality] | None, flag: bool) -> float | None:
    """Return the mean among images that truly have all features, if the accuracy of each is known; else None.

    The tagged are a mix of what is so (precision P) and what is not, the untagged hold what was missed, a share f of them: with recall R,
    f = n P (1-R)/R / (N-n). If tags err regardless of the target, then tagged mean = P·r1 + (1-P)·r0 and untagged mean =
    f·r1 + (1-f)·r0, which is solved for r1: the matrix method with predictive values (Barron 1977; Marshall 1990). Errors
    of several tags are taken as independent, so their precisions and recalls multiply.
    """
    if quality is None or any(feature not in quality for feature in found.features):
        return None
    precision = float(np.prod([quality[feature].precision for feature in found.features]))
    recall = float(np.prod([quality[feature].recall for feature in found.features]))
    if recall <= 0:
        return None
    missed = min(1.0, found.samples * precision * (1 - recall) / recall / (total - found.samples))
    if precision - missed < 0.05:  # the tag says next to nothing
        return None
    value = ((1 - missed) * found.value - (1 - precision) * found.rest) / (precision - missed)
    return min(max(value, 0.0), 1.0) if flag else value


def _fold(
    slices: dict[tuple[int, ...], Slice],
    places: dict[tuple[int, ...], int],
    counted: Counted,
    test: _Test,
    features: int,
) -> tuple[Slice, ...]:
    """Fold each longer slice under a shorter one that it adds nothing to: within the shorter one it is not clearly above the rest.

    The level of that test is 0.05 over all features that could be added (Bonferroni), since the best of many extensions looks
    better by chance.
    """
    heads: dict[tuple[int, ...], list[Slice]] = {}
    for members in sorted(slices, key=lambda key: (len(key), slices[key].p_value, key)):
        own = places[members]
        parents = []
        for shorter in (part for length in range(1, len(members)) for part in combinations(members, length)):
            if shorter in heads:
                parent = places[shorter]
                p = test.within(
                    counted.samples[[own]], counted.sums[[own]], int(counted.samples[parent]), int(counted.sums[parent])
                )
                if p[0] > FALSE_DISCOVERIES / max(1, features - 1):
                    parents.append(shorter)
        if parents:
            heads[min(parents, key=lambda key: slices[key].p_value)].append(slices[members])
        else:
            heads[members] = []
    order = sorted(heads, key=lambda key: (slices[key].p_value, len(key), key))
    return tuple(replace(slices[key], folded=tuple(heads[key])) for key in order)
