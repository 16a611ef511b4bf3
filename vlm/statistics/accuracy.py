"""How right the model is on these images, from labels whose chance of having been drawn is known.

All figures are ratios of population totals, estimated with inverse-probability weights (Horvitz & Thompson 1952) normalised by
their sum (Hájek 1971), with the model's own probabilities as control variate: their mean over all images is known, so what
the labelled ones miss of it is corrected. That is the difference estimator of survey sampling (Särndal, Swensson &
Wretman, *Model Assisted Survey Sampling*, 1992, ch. 6), known for predictions as prediction-powered inference (Angelopoulos et al.
2023; its weight λ: PPI++, Angelopoulos, Duchi & Zrnic 2023). The control need not be calibrated for the interval to hold;
the better it is, the narrower the interval.

Labels without a known probability have no place here, and no naive figure is ever given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.statistics.distributions import BoolArray, FloatArray, IntArray, normal_quantile
from vlm.statistics.intervals import CONFIDENCE, Estimate, labels_for, wilson

FEWEST = 10  # labels below which no figure is given at all
CANNOT_TELL = -1
_PRIOR_EVENTS = 3


@dataclass(frozen=True)
class Labels:
    """What people said about drawn samples of one dimension, aligned arrays; words are places in the vocabulary."""

    said: IntArray  # the model's word
    truth: IntArray  # the label; CANNOT_TELL where a person could not
    weight: FloatArray  # inverse of the probability of having been drawn: see design_weights
    scores: FloatArray | None = None  # (labels, words): the model's probabilities, calibrated or not
    stratum: IntArray | None = None  # the word by which the draw was stratified; None for a uniform draw
    group: IntArray | None = None  # near-duplicates share a number >= 0; negative numbers stand for themselves alone

    def __len__(self) -> int:
        return len(self.said)

    def where(self, chosen: BoolArray) -> "Labels":
        return Labels(
            self.said[chosen],
            self.truth[chosen],
            self.weight[chosen],
            None if self.scores is None else self.scores[chosen],
            None if self.stratum is None else self.stratum[chosen],
            None if self.group is None else self.group[chosen],
        )


@dataclass(frozen=True)
class Population:
    """All samples that could have been drawn, as one query counts them: by the model's word."""

    counts: IntArray  # (words,): samples with this word
    scores: FloatArray | None = (
        None  # (words, words): over the samples with word s, the sum of the probabilities of word t
    )

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @classmethod
    def of(cls, said: IntArray, scores: FloatArray) -> "Population":
        words = scores.shape[1]
        sums = np.stack(
            [np.bincount(said, weights=scores[:, word], minlength=words) for word in range(words)], axis=1
        ).astype(np.float64)
        return cls(np.bincount(said, minlength=words), sums)


@dataclass(frozen=True)
class WordAccuracy:
    """One word. Precision: of what was given it, the share that is right; recall: of what is it, the share that was given it.

    ``share`` is the corrected share of the word in the whole data set, ``said`` the share to which the model gave it.
    """

    word: str
    labels: int  # labelled as this word
    said: float
    precision: Estimate | None
    recall: Estimate | None
    share: Estimate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "labels": self.labels,
            "said": round(self.said, 6),
            "precision": self.precision and self.precision.to_json(),
            "recall": self.recall and self.recall.to_json(),
            "prevalence": self.share and self.share.to_json(),
        }


@dataclass(frozen=True)
class Evaluation:
    """What the labels of one dimension say. Without enough of them ``accuracy`` is None, and ``more`` says how many to add."""

    labels: int  # with known probability and a word
    cannot_tell: int
    accuracy: Estimate | None
    words: tuple[WordAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]  # labels: said (row) against truth (column)
    confusion_shares: tuple[tuple[float, ...], ...]  # the same as corrected shares of the whole data set
    more: int  # about so many more labels for ± 5 %

    def to_json(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "cannot_tell": self.cannot_tell,
            "accuracy": self.accuracy and self.accuracy.value,
            "low": self.accuracy and self.accuracy.low,
            "high": self.accuracy and self.accuracy.high,
            "effective": self.accuracy and self.accuracy.effective,
            "words": [word.to_json() for word in self.words],
            "confusion": [list(row) for row in self.confusion],
            "confusion_shares": [[round(share, 6) for share in row] for row in self.confusion_shares],
            "more_for_5_percent": self.more,
        }


def units(near: IntArray, source: IntArray) -> IntArray:
    """Return (n,) what is one draw: samples that are nearly the same, or have the answer of one sample, share a number; else -1.

    Args:
        near: (n,) near-duplicates share a number >= 0.
        source: (n,) whose answer it is.
    """
    count = len(near)
    keys = [np.where(near >= 0, near, -1 - np.arange(count)), source]
    shared = [np.unique(key, return_inverse=True)[1] for key in keys]
    root = np.arange(count)
    while True:  # each takes the lowest number among those that share a key with it, until nothing moves
        before = root
        for place in shared:
            lowest = np.full(count, count)
            np.minimum.at(lowest, place, root)
            root = lowest[place]
        if np.array_equal(root, before):
            return np.where(np.bincount(root, minlength=count)[root] > 1, root, -1)


def design_weights(
    probability: FloatArray, batch: IntArray | None = None, drawn: dict[int, int] | None = None
) -> FloatArray:
    """Return how many samples of the population each label stands for.

    ``probability`` is that of its own draw, ``batch`` the number of the draw, growing with time; each draw left out what had been
    labelled before it. ``drawn`` says how many a draw held: with m of n labelled the probability is m/n as great, since
    batches are shown in random order.

    One batch: 1/probability. Several: each batch b gives an unbiased total of its own (what was labelled before, which is known,
    plus the inverse-weighted rest: Des Raj 1956), and these are averaged by their numbers of labels λ. So a label of batch b
    weighs λ_b/probability + Σ λ of later batches, in which it is certain.
    """
    probability = np.asarray(probability, dtype=np.float64)
    if batch is None:
        batch = np.zeros(len(probability), dtype=np.int64)
    batches, place, counts = np.unique(batch, return_inverse=True, return_counts=True)
    held = np.array(
        [max((drawn or {}).get(int(number), 0), count) for number, count in zip(batches, counts, strict=True)]
    )
    if not len(batches):
        return np.zeros(0)
    shares = counts / counts.sum()
    later = shares[::-1].cumsum()[::-1] - shares
    effective = probability * (counts / held)[place]
    weights: FloatArray = shares[place] / effective + later[place]
    return weights


def evaluate(
    labels: Labels, population: Population, words: Sequence[str], *, confidence: float = CONFIDENCE
) -> Evaluation:
    """Return all figures of one dimension, each with its interval."""
    count = len(words)
    told = labels.truth != CANNOT_TELL
    known = labels.where(told)
    counts = np.zeros((count, count), dtype=np.int64)
    np.add.at(counts, (known.said, known.truth), 1)
    accuracy = accuracy_of(labels, population, confidence=confidence)
    return Evaluation(
        labels=int(told.sum()),
        cannot_tell=int((~told).sum()),
        accuracy=accuracy,
        words=tuple(
            WordAccuracy(
                word=word,
                labels=int(counts[:, place].sum()),
                said=float(population.counts[place] / max(1, population.total)),
                precision=precision_of(labels, population, place, confidence=confidence),
                recall=recall_of(labels, population, place, confidence=confidence),
                share=share_of_word(labels, population, place, confidence=confidence),
            )
            for place, word in enumerate(words)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in counts),
        confusion_shares=_confusion_shares(known, population),
        more=accuracy.more_for(0.05) if accuracy else max(1, labels_for(0.05, confidence) - int(told.sum())),
    )


def accuracy_of(labels: Labels, population: Population, *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Return the share of samples whose word is right. Control: the probability of the word that was said."""
    told = labels.truth != CANNOT_TELL
    control, mean = None, 0.0
    if labels.scores is not None and population.scores is not None:
        control = labels.scores[np.arange(len(labels)), labels.said]
        mean = float(np.trace(population.scores)) / max(1, population.total)
    return ratio(labels, told & (labels.truth == labels.said), told, control, mean, confidence)


def precision_of(
    labels: Labels, population: Population, word: int, *, confidence: float = CONFIDENCE
) -> Estimate | None:
    """Return, of the samples that were given ``word``, the share that is it: the accuracy within these samples."""
    counts = np.zeros_like(population.counts)
    counts[word] = population.counts[word]
    scores = None
    if population.scores is not None:
        scores = np.zeros_like(population.scores)
        scores[word] = population.scores[word]
    return accuracy_of(labels.where(labels.said == word), Population(counts, scores), confidence=confidence)


def share_of_word(
    labels: Labels, population: Population, word: int, *, confidence: float = CONFIDENCE
) -> Estimate | None:
    """Return the share of the data set that truly is ``word``. Control: the probability of this word, whatever was said."""
    told = labels.truth != CANNOT_TELL
    control, mean = None, 0.0
    if labels.scores is not None and population.scores is not None:
        control = labels.scores[:, word]
        mean = float(population.scores[:, word].sum()) / max(1, population.total)
    return ratio(
        labels, told & (labels.truth == word), told, control, mean, confidence, unseen=told & (labels.said != word)
    )


def recall_of(labels: Labels, population: Population, word: int, *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Return, of the samples that truly are ``word``, the share that was given it.

    A ratio of two estimated totals, linearised (Woodruff 1971). The residual is [truth = word] · ([said = word] - recall),
    so its control is the probability of the word times ([said = word] - recall), with the recall that weights alone give.
    """
    is_word = labels.truth == word
    control, mean = None, 0.0
    weight = labels.weight[is_word].sum()
    if labels.scores is not None and population.scores is not None and weight > 0:
        first = float(labels.weight[is_word & (labels.said == word)].sum() / weight)
        control = labels.scores[:, word] * ((labels.said == word) - first)
        sums = population.scores[:, word]
        mean = float(sums[word] - first * sums.sum()) / max(1, population.total)
    given = labels.said == word
    return ratio(labels, is_word & given, is_word, control, mean, confidence, unseen=~given)


def ratio(
    labels: Labels,
    numerator: BoolArray,
    denominator: BoolArray,
    control: FloatArray | None,
    control_mean: float,
    confidence: float = CONFIDENCE,
    *,
    unseen: BoolArray | None = None,
) -> Estimate | None:
    """Return the estimated Σ numerator / Σ denominator over the population, with an interval; None below ``FEWEST`` labels.

    With weights w normalised to 1 and a control c of known mean C:  θ = [Σ w a - λ (Σ w c - C)] / Σ w b.

    The variance is that of the linearised residuals e = (a - θ b - λ (c - C)) / Σ w b, by the approximation of Deville (1999)
    for fixed size without replacement, within strata h:  V = Σ_h n_h/(n_h - 1) Σ f (w e - mean)², f = 1 - inclusion probability;
    near-duplicates are added up first, so that a group is one draw (the ultimate cluster of Hansen, Hurwitz &
    Madow 1953). λ is the covariance of a and c over the variance of c in the same sense, within [0, 1] (PPI++, section 6).

    V becomes an effective number of labels, θ(1-θ)/V, and that a Wilson interval, as Korn & Graubard (1998) do with
    Clopper and Pearson's: so it stays within [0, 1] and is sane where all or none are right. A variance that rests on a
    handful of residuals (their number: (Σ r²)² / Σ r⁴, Kish 1965) is itself a guess. It is pulled, with the weight of
    ``_PRIOR_EVENTS`` of them, towards what weights alone say: Σ w b over the mean weight with which one more of the rarer kind
    would turn up, among the counted labels or among ``unseen`` ones, since the missed images of a rare word carry the
    weight of the common words that they were given.
    """
    counted = int(denominator.sum())
    if counted < FEWEST:
        return None
    weight = labels.weight / labels.weight.sum()
    base = float(weight[denominator].sum())
    a, b = numerator.astype(np.float64), denominator.astype(np.float64)
    share = plain = float((weight * a).sum() / base)
    left_out = np.clip(1.0 - 1.0 / np.maximum(labels.weight, 1.0), 0.0, 1.0)
    scale = weight * np.sqrt(left_out) / base
    units = _Units.of(labels)

    residual = units.within(scale * (a - plain * b))
    freedom = units.count - units.strata
    if control is not None:
        moved = units.within(scale * (control - control_mean))
        square = units.product(moved, moved)
        slope = min(max(units.product(moved, residual) / square, 0.0), 1.0) if square > 0 else 0.0
        slope *= _trust(residual)
        share = plain - slope * (float((weight * control).sum()) - control_mean) / base
        residual = residual - slope * moved
        freedom -= slope > 0
    share = min(max(share, 0.0), 1.0)
    variance = units.product(residual, residual) * (units.count - units.strata) / max(1, freedom)

    z = normal_quantile(0.5 + confidence / 2)
    if control is None and units.strata == 1 and units.alone and np.ptp(labels.weight) <= 1e-9 * labels.weight.max():
        effective = counted / max(float(left_out.mean()), 1e-12)  # Wilson's own interval, with the finite population
    else:
        guess = max(units.mean_weight(scale, where) for where in (denominator, unseen) if where is not None)
        trust = _trust(residual)
        binomial = plain * (1.0 - plain)
        relative = trust * variance / binomial + (1 - trust) * guess if binomial > 0 else guess
        effective = 1.0 / max(relative, 1e-12)
    low, high = wilson(share, effective, z)
    return Estimate(share, low, high, counted, effective, confidence)


@dataclass(frozen=True)
class _Units:
    """The draws behind the labels: groups of near-duplicates are one, all else is itself; strata of one draw are put together."""

    unit: IntArray  # of each label
    stratum: IntArray  # of each unit
    sizes: IntArray  # of each stratum
    alone: bool  # every label is a unit of its own

    @property
    def count(self) -> int:
        return len(self.stratum)

    @property
    def strata(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, labels: Labels) -> "_Units":
        count = len(labels)
        unit, units = np.arange(count), count
        if labels.group is not None and (labels.group >= 0).any():
            own = np.where(labels.group >= 0, labels.group, labels.group.max() + 1 + np.arange(count))
            names, unit = np.unique(own, return_inverse=True)
            units = len(names)
        stratum = np.zeros(units, dtype=np.int64)
        if labels.stratum is not None:
            stratum[unit[::-1]] = labels.stratum[::-1]  # a group belongs where its first label does
            _, stratum, sizes = np.unique(stratum, return_inverse=True, return_counts=True)
            lonely = sizes[stratum] < 2
            if lonely.sum() == 1:  # it joins the smallest of the others
                lonely |= stratum == np.argmin(np.where(sizes < 2, count + 1, sizes))
            _, stratum = np.unique(np.where(lonely, len(sizes), stratum), return_inverse=True)
        return cls(unit, stratum, np.bincount(stratum), units == count)

    def sums(self, parts: FloatArray) -> FloatArray:
        if self.alone:
            return parts
        return np.bincount(self.unit, weights=parts, minlength=self.count).astype(np.float64)

    def mean_weight(self, scale: FloatArray, where: BoolArray) -> float:
        """Return the weight with which one more unit would turn up: their mean by weight, Σ w² / Σ w."""
        parts = self.sums(np.where(where, scale, 0.0))
        total = float(parts.sum())
        return float((parts**2).sum()) / total if total > 0 else 0.0

    def within(self, parts: FloatArray) -> FloatArray:
        """Return each unit's sum less the mean of its stratum."""
        sums = self.sums(parts)
        return sums - (np.bincount(self.stratum, weights=sums) / self.sizes)[self.stratum]

    def product(self, first: FloatArray, second: FloatArray) -> float:
        """Return Σ_h n_h/(n_h - 1) Σ first · second: the covariance of two totals."""
        factor = self.sizes / np.maximum(self.sizes - 1, 1)
        return float((first * second * factor[self.stratum]).sum())


def _trust(residual: FloatArray) -> float:
    squares = residual**2
    fourth = float((squares**2).sum())
    events = float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0
    return events / (events + _PRIOR_EVENTS)


def _confusion_shares(known: Labels, population: Population) -> tuple[tuple[float, ...], ...]:
    """Return shares of the whole data set by said and truth: rows add up to what the model said, which is known exactly.

    Post-stratification (Holt & Smith 1979): within a row the weights decide. A row without labels is left at zero.
    """
    count = len(population.counts)
    table = np.zeros((count, count))
    np.add.at(table, (known.said, known.truth), known.weight)
    rows = table.sum(axis=1, keepdims=True)
    shares = table / np.where(rows > 0, rows, 1.0) * (population.counts / max(1, population.total))[:, None]
    return tuple(tuple(float(cell) for cell in row) for row in shares)
