"""How right the tags are: figures from labels whose chance of having been drawn is known, calibration, promised thresholds.

The statistics are ``vlm.statistics``; here they meet the store. A figure that would not be valid is not given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlm.errors import Refusal
from vlm.models import Dataset, TaggingRun, words_by_dimension
from vlm.process import sample_store
from vlm.runs.calibrating import calibration_of
from vlm.samples import Cursor, SampleFilter, calibrating, drawing, trust
from vlm.samples.trust import AnswerKey, Decided, Floats, Steps
from vlm.services import known
from vlm.statistics import accuracy, agreement, calibration, thresholds
from vlm.statistics.accuracy import Evaluation, Labels, Population
from vlm.statistics.agreement import Agreement
from vlm.statistics.calibration import Bin, Calibration, Key, Quality
from vlm.statistics.calibration import Refused as NotCalibrated
from vlm.statistics.thresholds import Kept, NotReachable, Point, Spread
from vlm.vocabulary import VocabularyError

TARGET = 0.95  # of a promise, where nothing else is asked


class NotComparable(Refusal):
    """Two runs that have nothing to compare."""

    title = "These runs cannot be compared"
    status = 409
    exit_code = 2


@dataclass(frozen=True)
class Accuracy:
    """What the labels of one dimension say about a data set.

    Attributes:
        samples: samples with a current answer of the model.
        labels: labels in force, and
        random_labels: those drawn with a known probability, on which every figure rests.
        evaluation: accuracy, words, confusion; ``None`` without any such label.
        quality: log loss and expected calibration error of the probabilities; calibrated ones are rated by labels that the fit
            had not seen.
        mixed: the current answers are of more than one model, format or detail, so that there is no calibration.
        promise: the threshold from which on a share of the tags is right, or why there is none.
        word_promises: word → the same for the tags that are this word; each holds by itself.
        runs: whose answers the current ones are.
        applied: the calibration in force, by which answers are decided and all figures are made.
    """

    dimension: str
    words: tuple[str, ...]
    samples: int
    labels: int
    random_labels: int
    evaluation: Evaluation | None
    quality: Quality | None
    reliability: tuple[Bin, ...]
    calibration: Calibration | NotCalibrated | None
    mixed: bool
    promise: Kept | NotReachable | None
    curve: tuple[Point, ...]
    runs: tuple[int, ...]
    word_promises: Mapping[str, Kept | NotReachable]
    applied: Calibration | None = None

    @property
    def any_word_kept(self) -> bool:
        return any(isinstance(one, Kept) for one in self.word_promises.values())

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "dimension": self.dimension,
            "samples": self.samples,
            "labels": self.labels,
            "random_labels": self.random_labels,
            "accuracy": None,
            "low": None,
            "high": None,
            "words": [],
        }
        if self.evaluation is not None:
            found |= {key: value for key, value in self.evaluation.to_json().items() if key != "labels"}
            for word in found["words"]:
                promise = self.word_promises.get(word["word"])
                word["threshold_for"] = promise and promise.to_json()
        return found | {
            "log_loss": self.quality and self.quality.log_loss,
            "ece": self.quality and self.quality.ece,
            "reliability": [one.to_json() for one in self.reliability],
            "calibration": self.calibration and self.calibration.to_json(),
            "calibrated": self.applied is not None,
            "threshold_for": self.promise and self.promise.to_json(),
            "curve": [one.to_json() for one in self.curve],
        }


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side: per dimension that both asked, how far they agree."""

    first: TaggingRun
    second: TaggingRun
    dimensions: Mapping[str, tuple[tuple[str, ...], Agreement]]

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first.pk,
            "second": self.second.pk,
            "dimensions": {
                name: {"words": list(words)} | found.to_json() for name, (words, found) in self.dimensions.items()
            },
        }


def evaluate(*, dataset: Dataset, dimension: str, target: float = TARGET) -> Accuracy:
    """Return what the labels of a dimension say. Raises ``VocabularyError`` for an unknown dimension."""
    words = words_of(dimension)
    with sample_store().read() as cursor:
        kept = known.of(cursor, dataset.pk)
        if (result := kept.results.get((dimension, words, target))) is not None:
            return result  # type: ignore[no-any-return]
        if (answers := kept.answers.get((dimension, words))) is None:
            answers = kept.answers[dimension, words] = _Answers.of(cursor, dataset.pk, dimension, words)
        found = trust.decided(cursor, dataset.pk, dimension, words)
        drawn = {
            batch: number
            for (of, batch), (number, _) in drawing.draws_left(cursor, dataset.pk).items()
            if of == dimension
        }
        scaled = answers.applied is not None
        raw = trust.raw_scores(cursor, dataset.pk, dimension, words, found.ids) if scaled else found.scores
    result = kept.results[dimension, words, target] = _evaluated(dimension, words, answers, found, raw, drawn, target)
    return result


@dataclass(frozen=True)
class _Answers:
    """What follows from the answers of a dimension, whatever the labels are."""

    population: Population
    steps: Steps
    keys: list[AnswerKey]
    runs: list[int]
    applied: Calibration | None

    @classmethod
    def of(cls, cursor: Cursor, dataset_id: int, dimension: str, words: tuple[str, ...]) -> "_Answers":
        runs = trust.runs_of(cursor, dataset_id, dimension)
        counts, sums, steps = trust.totals(cursor, dataset_id, dimension, words, runs)
        keys = trust.answer_keys(cursor, dataset_id, dimension)
        scaling = calibrating.in_force(cursor, dataset_id).get(dimension)
        applied = calibration_of(scaling) if scaling is not None else None
        return cls(Population(counts, sums), steps, keys, runs, applied)


def _evaluated(
    dimension: str,
    words: tuple[str, ...],
    answers: _Answers,
    found: Decided,
    raw: Floats,
    drawn: Mapping[str, int],
    target: float,
) -> Accuracy:
    population, steps, keys = answers.population, answers.steps, answers.keys
    labels, said_probability = random_labels(found, drawn)
    told = labels.where(labels.truth >= 0)
    any_told = len(told) > 0
    said_itself = random_labels(replace(found, scores=raw), drawn)[0]
    calibrated = _calibrate(said_itself.where(labels.truth >= 0), words, keys) if any_told else None
    spread = Spread.of_steps(steps.step, steps.probability, steps.samples)
    reached = len(spread.edges) > 0
    return Accuracy(
        dimension=dimension,
        words=words,
        samples=population.total,
        labels=len(found.ids),
        random_labels=len(labels),
        evaluation=accuracy.evaluate(labels, population, words) if any_told else None,
        quality=_quality(told, answers.applied),
        reliability=calibration.reliability(labels) if any_told else (),
        calibration=calibrated,
        mixed=len(keys) > 1,
        promise=thresholds.promise(labels, said_probability, spread, target=target) if reached else None,
        curve=thresholds.curve(labels, said_probability, spread) if any_told and reached else (),
        runs=tuple(answers.runs),
        word_promises=_word_promises(labels, said_probability, steps, words, target) if any_told else {},
        applied=answers.applied,
    )


def overview(*, dataset: Dataset, target: float = TARGET) -> list[Accuracy]:
    """Return :func:`evaluate` for every dimension that the model has answered."""
    found = [evaluate(dataset=dataset, dimension=name, target=target) for name in words_by_dimension()]
    return [one for one in found if one.samples]


def random_labels(found: Decided, drawn: Mapping[str, int]) -> tuple[Labels, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the labels that were drawn by chance, with their weights, and the probability of each one's said word.

    Args:
        drawn: name of a draw → how many samples it held.
    """
    chosen = ~np.isnan(found.probability)
    names = [name for name, wanted in zip(found.batch, chosen, strict=True) if wanted]
    order = {name: place for place, name in enumerate(sorted(set(names), key=batch_order))}
    batch = np.array([order[name] for name in names], dtype=np.int64)
    weight = accuracy.design_weights(
        found.probability[chosen], batch, {order[name]: number for name, number in drawn.items() if name in order}
    )
    labels = Labels(
        said=found.said[chosen],
        truth=found.truth[chosen],
        weight=weight,
        scores=found.scores[chosen],
        stratum=found.stratum[chosen],
        group=accuracy.units(found.group, found.source)[chosen],
    )
    return labels, found.top[chosen]


def batch_order(name: str) -> tuple[int, str]:
    """Return when a draw was made among others, from its name (see ``services.review.draw``)."""
    number = name.rsplit("-", 1)[-1]
    return (int(number) if number.isdecimal() else 0, name)


def compare(*, first: TaggingRun, second: TaggingRun) -> Comparison:
    """Compare the answers of two runs to the questions that both asked of the same samples.

    Raises:
        NotComparable: they are of different data sets, or have no answer in common.
    """
    if first.dataset_id != second.dataset_id:
        raise NotComparable("The two runs are of different data sets. Choose two of the same.")
    with sample_store().read() as cursor:
        found = trust.flips(cursor, first.pk, second.pk)
    if not found:
        raise NotComparable(
            f"Runs {first.pk} and {second.pk} have no answer about the same image and dimension. Choose two that overlap."
        )
    dimensions = {}
    for name, rows in found.items():
        words = tuple(dict.fromkeys([*(row[0] for row in rows), *(row[1] for row in rows)]))
        table = np.zeros((len(words), len(words)), dtype=np.int64)
        for before, after, count in rows:
            table[words.index(before), words.index(after)] += count
        dimensions[name] = (words, agreement.agreement(table, words))
    return Comparison(first, second, dimensions)


def comparable(*, run: TaggingRun, limit: int = 5) -> list[int]:
    """Return the numbers of the latest other runs of the data set that have answers."""
    others = TaggingRun.objects.filter(dataset_id=run.dataset_id, reverted=None, processed__gt=0).exclude(pk=run.pk)
    return list(others.values_list("pk", flat=True)[:limit])


def flips_filter(comparison: Comparison, dimension: str, before: str = "", after: str = "") -> SampleFilter:
    """Return the filter that shows what two runs answered differently, all of it or one kind."""
    parts = [
        str(comparison.first.pk),
        str(comparison.second.pk),
        dimension,
        *([before, after] if before or after else []),
    ]
    return SampleFilter(flip=",".join(parts))


def words_of(dimension: str) -> tuple[str, ...]:
    """Return the answers of a dimension as they are kept: its words, and “” for a no."""
    found = words_by_dimension().get(dimension)
    if found is None:
        raise VocabularyError(f"There is no dimension “{dimension}”. There are: {', '.join(words_by_dimension())}.")
    return (*found, "") if len(found) == 1 else found


def _word_promises(
    labels: Labels, said_probability: Floats, steps: Steps, words: tuple[str, ...], target: float
) -> dict[str, Kept | NotReachable]:
    """Find each word's own promise, from the labels of the samples that were given it and the spread within them."""
    found = {}
    for place, word in enumerate(words):
        mine, of = labels.said == place, steps.said == place
        if of.any():
            spread = Spread.of_steps(steps.step[of], steps.probability[of], steps.samples[of])
            found[word] = thresholds.promise(labels.where(mine), said_probability[mine], spread, target=target)
    return found


def _quality(labels: Labels, applied: Calibration | None) -> Quality | None:
    if applied is not None:
        return applied.after
    if len(labels) < accuracy.FEWEST:
        return None
    return calibration.quality(_scores(labels), labels.truth, labels.weight)


def _scores(labels: Labels) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.zeros((len(labels), 0)) if labels.scores is None else labels.scores


def _calibrate(labels: Labels, words: tuple[str, ...], keys: list[AnswerKey]) -> Calibration | NotCalibrated | None:
    """Fit a calibration, if all answers are of one model, format, detail and question: another's would be another."""
    if len(keys) != 1:
        return None
    own = keys[0]
    key = Key(own.model, own.revision, own.dtype, own.detail, own.question)
    return calibration.calibrate(_scores(labels), labels.truth, labels.weight, words, key, group=labels.group)
