"""Trying a question: asking it of some images with all its wordings, and comparing what comes, without keeping anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm.models import Dataset, words_by_dimension
from vlm.process import keeper, sample_store
from vlm.runs import scope
from vlm.runs.options import RunOptions
from vlm.samples import Pending, SampleFilter, SampleRow, reading
from vlm.scoring.decoding import decode
from vlm.scoring.job import Job
from vlm.statistics.agreement import Wordings
from vlm.statistics.agreement import wordings as compared
from vlm.vocabulary import Dimension, Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore

TRIED_SAMPLES = 20
LEAST = 1e-12  # of a probability whose logarithm is taken

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Said:
    """One wording's answer about one image: the word (a tag, empty for “no”), and the probability of each answer."""

    word: str
    probability: float
    mass: float
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "probability": round(self.probability, 6),
            "mass": round(self.mass, 6),
            "probabilities": [round(value, 6) for value in self.probabilities],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Said:
        return cls(value["word"], value["probability"], value["mass"], tuple(value["probabilities"]))


@dataclass(frozen=True, slots=True)
class Tried:
    """What a question made of an image: the answer (the mean of all wordings), and each wording's own.

    ``reason`` says why the answer would not become a tag; ``stored`` are the tags that the image has of the dimension.
    """

    sample_id: int
    file_name: str
    content_key: str
    said: Said | None
    wordings: tuple[Said, ...]
    reason: str
    stored: tuple[str, ...]
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "sample_id": self.sample_id,
            "file_name": self.file_name,
            "content_key": self.content_key,
            "said": self.said and self.said.to_json(),
            "wordings": [one.to_json() for one in self.wordings],
            "reason": self.reason,
            "stored": list(self.stored),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tried:
        return cls(
            sample_id=value["sample_id"],
            file_name=value["file_name"],
            content_key=value["content_key"],
            said=Said.from_json(value["said"]) if value["said"] else None,
            wordings=tuple(Said.from_json(one) for one in value["wordings"]),
            reason=value["reason"],
            stored=tuple(value["stored"]),
            error=value["error"],
        )


@dataclass(frozen=True, slots=True)
class WordingReport:
    """How one wording did: right answers and log loss (nats a label) on the labelled images, where there are any."""

    question: str
    labels: int
    right: int
    log_loss: float | None

    def to_json(self) -> dict[str, Any]:
        return {"question": self.question, "labels": self.labels, "right": self.right, "log_loss": self.log_loss}


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a trial showed: how the wordings agree, how each and their mean did, and what would change."""

    images: int
    failed: int
    changed: int
    agreement: Wordings | None
    wordings: tuple[WordingReport, ...]
    mean: WordingReport

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "failed": self.failed,
            "changed": self.changed,
            "agreement": self.agreement and self.agreement.to_json(),
            "wordings": [one.to_json() for one in self.wordings],
            "mean": self.mean.to_json(),
        }


def chosen_samples(dataset: Dataset, chosen: SampleFilter, limit: int) -> list[SampleRow]:
    """Return ``limit`` samples from all over a filter, the same ones every time; files that are gone are left out."""
    with sample_store().read() as cursor:
        ids = reading.spread(cursor, dataset.pk, chosen, words_by_dimension(), limit)
        return reading.samples_by_id(cursor, dataset.pk, ids)


def ask(
    *,
    samples: Sequence[SampleRow],
    dataset: Dataset,
    dimension: Dimension,
    options: RunOptions,
    known: Sequence[str] = (),
    report: Report = lambda *_: None,
    stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Tried], None] = lambda _: None,
) -> list[Tried]:
    """Ask one question, with all its wordings, of some images.

    Args:
        options: whose model, device, detail and thresholds count.
        known: words whose tags are shown as what is stored.
        report: called with what goes on (``download``, ``verify`` or ``load``, in bytes, then ``ask``, in images), how much of
            it is done, and of how much.
        tell: called with each image's result.

    Raises:
        ModelUnavailable
    """
    vocabulary, words = Vocabulary((dimension,)), {*known, *dimension.words}
    run = scope.draft(dataset, replace(options, vocabulary=vocabulary, dimensions=()))
    job = scope.job(run)
    found: list[Tried] = []
    with keeper.use(scope.spec(run), progress=lambda part: report(part.stage, part.done, part.total)) as tagger:
        for number, sample in enumerate(samples):
            if stopped():
                break
            report("ask", number, len(samples))
            image = decode(Pending(sample.id, sample.path), job, tagger)
            score = (
                tagger.score([image.image], vocabulary, job.detail)[0][dimension.name]
                if image.image is not None
                else None
            )
            stored = tuple(tag.tag for tag in sample.tags if tag.tag in words)
            one = _tried(sample, dimension, job, score, stored, image.error)
            found.append(one)
            tell(one)
        report("ask", len(found), len(samples))
    return found


def summary(dimension: Dimension, tried: Sequence[Tried], labels: Mapping[int, str]) -> TrialReport:
    """Compare the wordings with each other, and with ``labels`` (sample id → the word that is right)."""
    answered = [(one, one.said) for one in tried if one.said is not None]
    tags = [dimension.tag_of(answer) for answer in dimension.answers]
    places = {tag: place for place, tag in enumerate(tags)}
    agreement = None
    if len(dimension.questions) > 1 and answered:
        said = np.array([[places[one.word] for one in image.wordings] for image, _ in answered], dtype=np.int64)
        agreement = compared(said, [tag or "no" for tag in tags])
    known = [(one, said, labels[one.sample_id]) for one, said in answered if labels.get(one.sample_id) in places]

    def rated(question: str, pairs: Sequence[tuple[Said, str]]) -> WordingReport:
        losses = [-math.log(max(said.probabilities[places[word]], LEAST)) for said, word in pairs]
        right = sum(said.word == word for said, word in pairs)
        return WordingReport(question, len(pairs), right, sum(losses) / len(losses) if losses else None)

    return TrialReport(
        images=len(tried),
        failed=len(tried) - len(answered),
        changed=sum(_becomes(one) != one.stored for one, _ in answered),
        agreement=agreement,
        wordings=tuple(
            rated(question, [(one.wordings[place], word) for one, _, word in known])
            for place, question in enumerate(dimension.questions)
        ),
        mean=rated("", [(said, word) for _, said, word in known]),
    )


def _becomes(one: Tried) -> tuple[str, ...]:
    return (one.said.word,) if one.said is not None and one.said.word and not one.reason else ()


def _tried(
    sample: SampleRow, dimension: Dimension, job: Job, score: DimensionScore | None, stored: tuple[str, ...], error: str
) -> Tried:
    if score is None:
        return Tried(sample.id, sample.file_name, sample.content_key, None, (), "", stored, error)
    said = _said(dimension, score)
    reason = job.decided(dimension.name, said.word, said.probability, said.mass)
    each = tuple(_said(dimension, one) for one in score.wordings or (score,))
    return Tried(sample.id, sample.file_name, sample.content_key, said, each, reason, stored)


def _said(dimension: Dimension, score: DimensionScore) -> Said:
    answer, probability = score.best
    return Said(dimension.tag_of(answer), probability, score.mass, score.probabilities)
