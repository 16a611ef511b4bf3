"""Probabilities that mean what they say: a temperature and a bias per word, fitted on labels.

With the raw probabilities p of k words the calibrated ones are softmax(β log p + b): β = 1/temperature, b a bias per word.
That is vector scaling with one shared temperature (Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks",
section 4.2), here with an L2 penalty towards changing nothing. In (β, b) the log loss is convex, so Newton's method finds it.

A calibration is used only if it makes the cross-validated log loss better, and never from fewer than 30 labels. Raw
probabilities stay stored; a calibration belongs to one model, revision, number format, detail and question, and is refused
under any other.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from vlm.errors import Refusal
from vlm.statistics.accuracy import FEWEST, Labels, Population, accuracy_of
from vlm.statistics.distributions import FloatArray, IntArray
from vlm.statistics.intervals import CONFIDENCE, Estimate

FEWEST_LABELS = 30
FOLDS = 5
BINS = 10
SMALLEST = 1e-7  # a probability of zero says nothing about how unlikely it is

_TEMPERATURE_PENALTY = 1.0  # in labels: so much does one label's worth of evidence weigh against leaving things alone
_BIAS_PENALTY = 2.0


class CalibrationMismatch(Refusal):
    """A calibration was to be applied to answers that it was not fitted for."""

    title = "Calibrated for other answers"
    status = 409


@dataclass(frozen=True)
class Key:
    """Whose probabilities they are. Anything that changes them is part of it."""

    model: str
    revision: str
    dtype: str
    detail: str
    question: str  # the key of the question: its wording, words and spellings

    def differs_from(self, other: "Key") -> list[str]:
        return [name for name, value in asdict(self).items() if value != asdict(other)[name]]


@dataclass(frozen=True)
class Quality:
    """How good probabilities are on the labels; lower is better."""

    log_loss: float
    ece: float

    def to_json(self) -> dict[str, float]:
        return {"log_loss": round(self.log_loss, 6), "ece": round(self.ece, 6)}


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration and what it was worth, both figures of labels that the fit had not seen."""

    key: Key
    words: tuple[str, ...]
    temperature: float
    bias: tuple[float, ...]
    labels: int
    before: Quality
    after: Quality

    def apply(self, probabilities: FloatArray, key: Key) -> FloatArray:
        """Return calibrated probabilities (samples, words) for raw ones of the same key."""
        different = key.differs_from(self.key)
        if different:
            raise CalibrationMismatch(
                f"This calibration was fitted for another {' and '.join(different)}. Calibrate anew with labels of these answers."
            )
        return scaled(probabilities, 1 / self.temperature, np.array(self.bias))

    @property
    def has_bias(self) -> bool:
        return any(self.bias)

    @property
    def biases(self) -> list[tuple[str, float]]:
        return list(zip(self.words, self.bias, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "key": asdict(self.key),
            "words": list(self.words),
            "temperature": self.temperature,
            "bias": list(self.bias),
            "labels": self.labels,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Calibration":
        return cls(
            Key(**record["key"]),
            tuple(record["words"]),
            float(record["temperature"]),
            tuple(float(bias) for bias in record["bias"]),
            int(record["labels"]),
            Quality(**record["before"]),
            Quality(**record["after"]),
        )


@dataclass(frozen=True)
class Refused:
    """Why there is no calibration, and about how many labels more could change that."""

    reason: Literal["too few labels", "no better"]
    labels: int
    more: int
    before: Quality | None = None
    after: Quality | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "labels": self.labels,
            "more": self.more,
            "before": self.before and self.before.to_json(),
            "after": self.after and self.after.to_json(),
        }


@dataclass(frozen=True)
class Bin:
    """One bar of the reliability curve: what the model said and what was so."""

    said: float  # mean probability of the best word
    right: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"said": round(self.said, 6), "right": self.right.to_json()}


def scaled(probabilities: FloatArray, slope: float, bias: FloatArray) -> FloatArray:
    """Return softmax(slope · log p + bias) by rows."""
    logits = slope * np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST)) + bias
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    calibrated: FloatArray = logits / logits.sum(axis=1, keepdims=True)
    return calibrated


def calibrate(
    probabilities: FloatArray,
    truth: IntArray,
    weight: FloatArray | None,
    words: tuple[str, ...],
    key: Key,
    *,
    group: IntArray | None = None,
    seed: int = 0,
) -> Calibration | Refused:
    """Fit a temperature alone and one with biases, and keep what does better on labels that the fit had not seen.

    ``probabilities`` (labels, words) are raw, ``truth`` the labelled word's place, ``weight`` the labels' weights (see
    ``accuracy.design_weights``; None counts all alike). Labels that share a number >= 0 in ``group``, such as near-duplicates, are
    seen together or not at all.
    """
    count = len(truth)
    if count < FEWEST_LABELS:
        return Refused("too few labels", count, FEWEST_LABELS - count)
    weight = np.ones(count) if weight is None else weight
    weight = weight * (count / weight.sum())
    before = quality(probabilities, truth, weight)
    trials = {with_bias: _unseen(probabilities, truth, weight, with_bias, group, seed) for with_bias in (False, True)}
    after = {with_bias: quality(unseen, truth, weight) for with_bias, unseen in trials.items()}
    best = after[True].log_loss < after[False].log_loss
    if not after[best].log_loss < before.log_loss:
        return Refused("no better", count, count, before, after[best])
    slope, bias = fit(probabilities, truth, weight, with_bias=best)
    return Calibration(key, words, 1 / slope, tuple(float(value) for value in bias), count, before, after[best])


def _unseen(
    probabilities: FloatArray,
    truth: IntArray,
    weight: FloatArray,
    with_bias: bool,
    group: IntArray | None,
    seed: int,
) -> FloatArray:
    """Return calibrated probabilities of each label from a fit on the other folds; words are spread evenly over the folds."""
    order = np.random.default_rng(seed).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    fold = np.empty(len(truth), dtype=np.int64)
    fold[order] = np.arange(len(truth)) % FOLDS
    if group is not None:
        own = np.where(group >= 0, group, group.max(initial=0) + 1 + np.arange(len(group)))
        _, first, unit = np.unique(own, return_index=True, return_inverse=True)
        fold = fold[first[unit]]
    unseen = np.empty_like(probabilities, dtype=np.float64)
    for place in range(FOLDS):
        held, rest = fold == place, fold != place
        slope, bias = fit(probabilities[rest], truth[rest], weight[rest], with_bias=with_bias)
        unseen[held] = scaled(probabilities[held], slope, bias)
    return unseen


def fit(
    probabilities: FloatArray, truth: IntArray, weight: FloatArray, *, with_bias: bool = True
) -> tuple[float, FloatArray]:
    """Return slope (1/temperature) and biases that minimise the penalised log loss, by Newton's method with halved steps.

    Loss: Σ w (-log q(truth)) + penalties · ((β - 1)², |b|²) / 2. With x = log p its gradient is Σ w (q - 1[truth]) · x for β and
    Σ w (q - 1[truth]) for b; the Hessian is that of multinomial logistic regression (Böhning 1992). The penalty on b
    makes the biases, which could all be shifted alike, unique.
    """
    x = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST))
    words = x.shape[1]
    start = np.zeros(1 + words if with_bias else 1)  # the slope, then the biases
    start[0] = 1.0
    penalty = np.full(len(start), _BIAS_PENALTY)
    penalty[0] = _TEMPERATURE_PENALTY
    rows = np.arange(len(x))

    def loss(at: FloatArray) -> tuple[float, FloatArray]:
        logits = x * at[0] + at[1:] if with_bias else x * at[0]
        logits -= logits.max(axis=1, keepdims=True)
        log_q = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-(weight * log_q[rows, truth]).sum() + 0.5 * (penalty * (at - start) ** 2).sum()), np.exp(log_q)

    def sums(each: FloatArray) -> FloatArray:
        """Return, from what each word's logit adds (labels, words), what each parameter adds."""
        slope = (each * x).sum()
        return np.concatenate([[slope], each.sum(axis=0)]) if with_bias else np.array([slope])

    at = start.copy()
    value, q = loss(at)
    for _ in range(50):
        wrong = q.copy()
        wrong[rows, truth] -= 1.0
        gradient = sums(wrong * weight[:, None]) + penalty * (at - start)
        # Σ w (Σ_k q d dᵀ - mean meanᵀ), where the logit of word k changes with the slope by x and with its own bias by 1
        weighted = q * weight[:, None]
        mean = (q * x).sum(axis=1)[:, None]
        if with_bias:
            mean = np.concatenate([mean, q], axis=1)
        hessian = np.diag(sums(weighted) + penalty)
        hessian[0, 0] = (weighted * x * x).sum() + penalty[0]
        if with_bias:
            hessian[0, 1:] = hessian[1:, 0] = (weighted * x).sum(axis=0)
        hessian -= mean.T @ (mean * weight[:, None])
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while True:
            trial = at - length * step
            trial[0] = max(trial[0], 0.01)  # a temperature stays positive and below 100
            new_value, new_q = loss(trial)
            if new_value <= value or length < 1e-6:
                break
            length /= 2
        moved = float(np.abs(trial - at).max())
        at, value, q = trial, new_value, new_q
        if moved < 1e-8:
            break
    return float(at[0]), at[1:] if with_bias else np.zeros(words)


def quality(probabilities: FloatArray, truth: IntArray, weight: FloatArray) -> Quality:
    return Quality(log_loss(probabilities, truth, weight), calibration_error(probabilities, truth, weight))


def log_loss(probabilities: FloatArray, truth: IntArray, weight: FloatArray) -> float:
    """Return the weighted mean of -log p(truth) (Good 1952): it rewards nothing but honest probabilities."""
    given = np.maximum(probabilities[np.arange(len(truth)), truth], SMALLEST)
    return float((weight * -np.log(given)).sum() / weight.sum())


def calibration_error(probabilities: FloatArray, truth: IntArray, weight: FloatArray, bins: int = BINS) -> float:
    """Return the expected calibration error of the best word: Σ share of the bin · |right - said| (Naeini, Cooper & Hauskrecht 2015).

    Bins hold equally much weight (Nixon et al. 2019), since most probabilities lie close to one. With few labels it is above zero even
    for perfect probabilities: compare it, do not test it.
    """
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    total = float(weight.sum())
    place = _bins(top, weight, bins)
    gap = np.bincount(place, weights=weight * (right - top), minlength=bins)
    return float(np.abs(gap).sum() / total)


def _bins(top: FloatArray, weight: FloatArray, bins: int) -> IntArray:
    """Return each label's bin by rising probability, equally much weight in each; equal probabilities stay together."""
    order = np.argsort(top, kind="stable")
    before = np.cumsum(weight[order]) - weight[order] / 2
    place = np.empty(len(top), dtype=np.int64)
    place[order] = np.minimum((before * (bins / weight.sum())).astype(np.int64), bins - 1)
    _, same = np.unique(top, return_inverse=True)
    first = np.full(int(same.max()) + 1 if len(same) else 0, bins)
    np.minimum.at(first, same, place)
    together: IntArray = first[same]
    return together


def reliability(labels: Labels, *, bins: int = BINS, confidence: float = CONFIDENCE) -> tuple[Bin, ...]:
    """Return the reliability curve: by rising probability of the said word, what was said and what is right, with intervals.

    Bins hold equally much weight and at least ``accuracy.FEWEST`` labels each.
    """
    told = labels.where(labels.truth >= 0)
    if told.scores is None or len(told) < FEWEST:
        return ()
    top = told.scores[np.arange(len(told)), told.said]
    nothing = Population(np.zeros(told.scores.shape[1], dtype=np.int64))
    for number in range(min(bins, len(told) // FEWEST), 0, -1):
        place = _bins(top, told.weight, number)
        if np.bincount(place)[np.unique(place)].min() >= FEWEST:
            break
    curve = []
    for one in np.unique(place):
        chosen = place == one
        right = accuracy_of(told.where(chosen), nothing, confidence=confidence)
        if right is not None:
            said = float((told.weight * top)[chosen].sum() / told.weight[chosen].sum())
            curve.append(Bin(said, right))
    return tuple(curve)
