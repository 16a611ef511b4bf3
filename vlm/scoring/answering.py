"""Asking a model about decoded images, and what its scores or words are as answers."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vlm.samples import Answer, Raw, Result
from vlm.samples.merging import OFF_THE_LIST
from vlm.scoring.decoding import Decoded
from vlm.scoring.job import Asking
from vlm.statistics.calibration import Calibration
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore, Tagger


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch whose images were handed to the model; its answers may still be on their way."""

    batch: Sequence[Decoded]
    answers: Sequence[Callable[[], dict[int, tuple[Answer, ...]]]]

    def results(self) -> list[Result]:
        """Wait for the answers. Images that could not be read are failed results."""
        answers = {sample: found for given in self.answers for sample, found in given().items()}
        return [
            Result(item.sample.id, answers.get(item.sample.id, ()), item.error, item.digest, item.measures, item.head)
            for item in self.batch
        ]


def ask(batch: Sequence[Decoded], job: Asking, tagger: Tagger) -> Asked:
    """Hand the readable images of a batch to the model."""
    readable = [item for item in batch if item.image is not None]
    groups: dict[tuple[str, ...], list[Decoded]] = {
        names: [] for names in dict.fromkeys(item.sample.lacking for item in readable)
    }
    for item in readable:
        groups[item.sample.lacking].append(item)
    return Asked(batch, [_ask(items, job, job.vocabulary.only(names), tagger) for names, items in groups.items()])


def answer_batch(batch: Sequence[Decoded], job: Asking, tagger: Tagger) -> list[Result]:
    """Ask about the readable images of a batch; the others become failed results."""
    return ask(batch, job, tagger).results()


def _ask(
    readable: Sequence[Decoded], job: Asking, vocabulary: Vocabulary, tagger: Tagger
) -> Callable[[], dict[int, tuple[Answer, ...]]]:
    images = [item.image for item in readable if item.image is not None]
    places = [(job.vocabulary.names.index(name), name) for name in vocabulary.names]
    if job.mode == "score":
        submitted = tagger.submit(images, vocabulary, job.detail)
        return lambda: {
            item.sample.id: tuple(_scored(job, place, scores[name]) for place, name in places)
            for item, scores in zip(readable, tagger.result(submitted), strict=True)
        }
    questions = [dimension.question for dimension in vocabulary]
    written = tagger.answers(images, questions, detail=job.detail)
    found = {
        item.sample.id: tuple(_generated(job, place, text) for (place, _), text in zip(places, texts, strict=True))
        for item, texts in zip(readable, written, strict=True)
    }
    return lambda: found


def match(text: str, words: Sequence[str]) -> str:
    """Return the allowed word that a generated answer is, without regard to case and surrounding punctuation, or ``""``."""
    bare = text.strip(string.whitespace + string.punctuation + "“”‘’…").casefold()
    return next((word for word in words if word.casefold() == bare), "")


def _scored(job: Asking, place: int, score: DimensionScore) -> Answer:
    dimension = job.vocabulary.dimensions[place]
    tags = tuple(map(dimension.tag_of, score.words))
    answer, probability = score.best
    word = dimension.tag_of(answer)
    reason = job.decided(dimension.name, word, probability, score.mass)
    said = (tags, score.probabilities, score.mass, word, probability)
    others = [other.best[0] != answer for other in score.wordings]
    disagreement = sum(others) / len(others) if others else None
    answered = Answer(job.run_id, dimension.name, place, *said, not reason, reason, disagreement=disagreement)
    calibration = job.calibrations.get(dimension.name)
    return answered if calibration is None else _calibrated(job, answered, calibration)


def _calibrated(job: Asking, answer: Answer, calibration: Calibration) -> Answer:
    """Return the answer by calibrated probabilities, with what the model said itself beside it."""
    assert answer.probability is not None and answer.mass is not None  # noqa: S101, PT018 - it was scored
    raw = Raw(answer.probabilities, answer.word, answer.probability, answer.accepted, answer.reason)
    kept = np.array([answer.probabilities], dtype=np.float32)  # as the store will have them
    probabilities = tuple(calibration.apply(kept.astype(np.float64), calibration.key)[0].tolist())
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    word, probability = answer.words[best], probabilities[best]
    reason = job.decided(answer.dimension, word, probability, answer.mass)
    return replace(
        answer,
        probabilities=probabilities,
        word=word,
        probability=probability,
        accepted=not reason,
        reason=reason,
        raw=raw,
    )


def _generated(job: Asking, place: int, text: str) -> Answer:
    dimension = job.vocabulary.dimensions[place]
    answer = next((one for one in dimension.answers if match(text, dimension.spelled(one))), "")
    tags = tuple(map(dimension.tag_of, dimension.answers))
    reason = "" if answer else OFF_THE_LIST
    word = dimension.tag_of(answer)
    return Answer(job.run_id, dimension.name, place, tags, (), None, word, None, bool(answer), reason, text)
