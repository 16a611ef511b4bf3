"""Choosing detail and number format: some images asked each way, and what that says for the whole data set. Nothing is kept.

Half of the images are labelled ones, where there are any, so that right answers can be counted; the others are from all over the
data set. What ``auto`` would keep follows from the answers at low and at full detail. The model is held once: another number
format is another form of it, for which it is loaded again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from vlm.models import Dataset, words_by_dimension
from vlm.moondream.errors import ModelUnavailable
from vlm.process import keeper, sample_store
from vlm.runs import scope
from vlm.runs.errors import NothingToChoose
from vlm.runs.options import RunDetail, RunOptions
from vlm.samples import Pending, SampleFilter, SampleRow, reading
from vlm.scoring.decoding import Decoded, decode
from vlm.scoring.job import Job

if TYPE_CHECKING:
    from vlm.moondream import Tagger

ROUNDED = ("int8", "fp8")
FULL_SHARES = (0.1, 0.2, 0.3, 0.5)  # of the images, that ``auto`` is tried with
ALIKE = 0.95  # of the answers the same as at full detail: good enough where labels cannot tell
ENOUGH_LABELS = 30  # labelled answers that can tell
FEWER_RIGHT = 0.02  # of them, that a faster way may get wrong
LEAST = 1e-30  # of a probability whose logarithm is taken; as in ``refining``

Report = Callable[[str, int, int], None]
Said = dict[str, tuple[str, float]]  # dimension → word and its probability
Answers = dict[int, Said]  # by sample


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask, and how it did.

    Attributes:
        full_share: of the images, at full detail; ``None`` unless the detail is ``auto``.
        seconds: an image takes in the model; a run decodes the next ones meanwhile.
        same: share of the answers that are those at full detail in the usual number format, over the images from all over.
        right: answers that are what somebody had labelled, of
        labels: so many.
    """

    dtype: str
    detail: RunDetail
    full_share: float | None
    seconds: float
    same: float | None
    right: int
    labels: int

    def hours(self, images: int) -> float:
        return self.seconds * images / 3600

    def to_json(self, images: int) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "detail": self.detail,
            "full_share": self.full_share,
            "seconds_per_image": round(self.seconds, 5),
            "images_per_second": round(1 / self.seconds, 4) if self.seconds else None,
            "agreement": None if self.same is None else round(self.same, 6),
            "right": self.right,
            "labels": self.labels,
            "hours": round(self.hours(images), 3),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked, each way, and which way is recommended; ``ways`` begins with full detail in the usual number format.

    Attributes:
        images: that were asked; ``failed`` of them could not be read, and ``labelled`` have a label.
        whole: images of the data set.
        missing: number format → why it was not tried.
    """

    device: str
    images: int
    failed: int
    labelled: int
    whole: int
    ways: tuple[Way, ...]
    recommended: Way
    why: str
    missing: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "images": self.images,
            "failed": self.failed,
            "labelled": self.labelled,
            "whole": self.whole,
            "ways": [way.to_json(self.whole) for way in self.ways],
            "recommended": self.recommended.to_json(self.whole),
            "why": self.why,
            "missing": dict(self.missing),
        }


def choose(*, dataset: Dataset, options: RunOptions, limit: int, report: Report = lambda *_: None) -> Choice:
    """Ask ``limit`` images each way that this machine can, and recommend one.

    Args:
        options: whose model, device, dimensions and batch size count.
        report: called with what goes on (``download``, ``verify`` or ``load``, in bytes, then ``ask``, in images), how much of
            it is done, and of how much.

    Raises:
        NothingToChoose: the data set has no image that can be read.
        ModelUnavailable, VocabularyError
    """
    run = scope.draft(dataset, replace(options, detail="full"))
    job, usual = scope.job(run), scope.spec(run)
    if usual.dtype in ROUNDED:
        usual = replace(usual, dtype="auto")
    spread, labelled, truth, whole = _samples(dataset, limit)
    samples = [*spread, *labelled]
    asked: dict[tuple[str, RunDetail], tuple[Answers, float]] = {}
    missing: dict[str, str] = {}
    wanted, device, failed = [usual.dtype], "", 0
    while wanted:
        dtype = wanted.pop(0)
        try:
            with keeper.use(
                replace(usual, dtype=dtype), progress=lambda part: report(part.stage, part.done, part.total)
            ) as tagger:
                for detail in ("full", "low"):
                    answers, seconds = _ask(tagger, samples, replace(job, detail=detail), report)
                    asked[tagger.dtype, detail] = answers, seconds
                failed = len(samples) - len(answers)
                if not device:
                    device = tagger.device
                    wanted += rounded_formats(device)
        except ModelUnavailable as error:
            if not asked:
                raise
            missing[dtype] = error.message
    if failed == len(samples):
        raise NothingToChoose("None of the images can be read. Look at a run's failed images for the reasons.")
    ways = _ways(asked, [sample.id for sample in spread], truth)
    best, why = recommended(ways)
    known = len({sample for sample, _ in truth} & {sample.id for sample in samples})
    return Choice(device, len(samples), failed, known, whole, ways, best, why, missing)


def rounded_formats(device: str) -> list[str]:
    """Return the number formats that multiply rounded weights on this device, and are faster for it."""
    import torch  # takes seconds to import

    from vlm.moondream import devices

    if device == "cpu":
        return ["int8"] if devices.cpu_multiplies_bytes() else []
    found = torch.device(device)
    return ["fp8"] if found.type == "cuda" and devices.gpu_multiplies_float8(found) else []


def recommended(ways: Sequence[Way]) -> tuple[Way, str]:
    """Return the fastest way that is good enough, and why; the first way is what the others are held against.

    Right answers decide where there are labels enough for that, else how many answers stay the same.
    """
    usual = ways[0]
    if usual.labels >= ENOUGH_LABELS:
        good = [way for way in ways if way.right >= usual.right - FEWER_RIGHT * usual.labels]
        why = f"the fastest way that gets no more than {FEWER_RIGHT:.0%} of the labelled answers wrong that full detail gets right"
    else:
        good = [way for way in ways if way is usual or (way.same is not None and way.same >= ALIKE)]
        why = f"the fastest way that gives at least {ALIKE:.0%} of the answers that full detail gives"
    return min(good, key=lambda way: way.seconds), why


def _samples(dataset: Dataset, limit: int) -> tuple[list[SampleRow], list[SampleRow], dict[tuple[int, str], str], int]:
    """Return images from all over, labelled images, what their labels say, and how many images there are in all."""
    with sample_store().read() as cursor:
        kept = reading.labels(cursor, dataset.pk)
        truth = {(label.sample_id, label.dimension): label.word for label in kept if label.word}
        known = sorted({sample for sample, _ in truth})
        chosen = known[:: max(1, 2 * len(known) // limit)]
        labelled = [row for row in reading.samples_by_id(cursor, dataset.pk, chosen[: limit // 2]) if not row.missing]
        taken = {row.id for row in labelled}
        ids = reading.spread(cursor, dataset.pk, SampleFilter(), words_by_dimension(), limit + len(taken))
        others = [sample for sample in ids if sample not in taken][: limit - len(taken)]
        spread = reading.samples_by_id(cursor, dataset.pk, others)
    if not spread and not labelled:
        raise NothingToChoose("The data set has no image whose file is there.")
    return spread, labelled, truth, dataset.sample_count - dataset.missing_count


def _ask(tagger: Tagger, samples: Sequence[SampleRow], job: Job, report: Report) -> tuple[Answers, float]:
    """Ask all questions of all images; returns the answers of those that can be read, and the seconds an image takes.

    The seconds are the median over the batches. The first batch is slower than all others, and counts where it is the only one.
    """
    answers: Answers = {}
    seconds: list[float] = []
    size = max(1, job.batch_size or tagger.batch_size)
    for start in range(0, len(samples), size):
        report("ask", start, len(samples))
        batch = list(_readable(samples[start : start + size], job, tagger))
        if not batch:
            continue
        begun = time.perf_counter()
        scores = tagger.score([item.image for item in batch if item.image is not None], job.vocabulary, job.detail)
        seconds.append((time.perf_counter() - begun) / len(batch))
        for item, score in zip(batch, scores, strict=True):
            said = {dimension.name: (dimension, score[dimension.name].best) for dimension in job.vocabulary}
            answers[item.sample.id] = {name: (of.tag_of(word), p) for name, (of, (word, p)) in said.items()}
    report("ask", len(samples), len(samples))
    return answers, median(seconds[1:] or seconds or [0.0])


def _readable(samples: Sequence[SampleRow], job: Job, tagger: Tagger) -> Iterator[Decoded]:
    for sample in samples:
        decoded = decode(Pending(sample.id, sample.path), job, tagger)
        if decoded.image is not None:
            yield decoded


def _ways(
    asked: Mapping[tuple[str, RunDetail], tuple[Answers, float]],
    spread: Sequence[int],
    truth: Mapping[tuple[int, str], str],
) -> tuple[Way, ...]:
    """Rate all ways, ``auto`` among them, against the first."""
    usual = next(iter(asked.values()))[0]
    everywhere = set(spread)

    def rated(dtype: str, detail: RunDetail, share: float | None, answers: Answers, seconds: float) -> Way:
        pairs = [
            (word, usual[sample][name][0])
            for sample in answers.keys() & everywhere
            for name, (word, _) in answers[sample].items()
        ]
        labelled = [
            (word, truth[sample, name])
            for sample, said in answers.items()
            for name, (word, _) in said.items()
            if (sample, name) in truth
        ]
        same = sum(one == other for one, other in pairs) / len(pairs) if pairs else None
        return Way(dtype, detail, share, seconds, same, sum(one == other for one, other in labelled), len(labelled))

    ways = [rated(dtype, detail, None, *found) for (dtype, detail), found in asked.items()]
    for dtype in dict.fromkeys(dtype for dtype, _ in asked):
        (full, slow), (low, quick) = asked[dtype, "full"], asked[dtype, "low"]
        order = sorted(low, key=lambda sample: (certainty(low[sample]), sample))
        for share in FULL_SHARES:
            again = order[: int(share * len(order) + 1e-9)]
            ways.append(
                rated(dtype, "auto", share, low | {sample: full[sample] for sample in again}, quick + share * slow)
            )
    return tuple(ways)


def certainty(said: Said) -> float:
    """Return the logarithm of the product of the words' probabilities, as ``refining.uncertain`` orders images."""
    return sum(math.log(max(probability, LEAST)) for _, probability in said.values())
