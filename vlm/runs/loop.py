"""The loop of a run: read, decode, score, decide, commit. It joins store and model and knows nothing above them."""

from __future__ import annotations

import logging
import os
import queue
import string
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vlm.formats.files import locate
from vlm.imaging import ImageUnreadable, read_picture
from vlm.measures import Measures
from vlm.moondream import EngineError
from vlm.moondream.crops import Detail
from vlm.runs import ahead
from vlm.runs.errors import ModelMismatch
from vlm.runs.options import Mode, least_of
from vlm.samples import Answer, Head, Merged, Pending, Question, Raw, Result, SampleStore
from vlm.samples.merging import BELOW_THRESHOLD, OFF_THE_LIST, check_claim, merge_batch, run_begin
from vlm.samples.progress import Wanted
from vlm.samples.refining import refine_batch
from vlm.samples.sharing import shares_plan
from vlm.statistics.calibration import Calibration
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore, PreparedImage, Tagger

logger = logging.getLogger(__name__)

MOST_DECODERS = 16  # threads; Pillow lets go of the interpreter while it decodes
COMMIT_SECONDS = 0.5  # batches that are quicker than this are committed together

# A model whose tokenizer is another's answers outside the list nearly always, with hardly any mass on it.
MISMATCH_ANSWERS = 20  # of four images: at 22 s each on a small CPU, the page should not wait for more
MISMATCH_SHARE = 0.95
MISMATCH_MASS = 0.02


Merge: TypeAlias = Callable[..., Merged]  # ``merge_batch`` or ``refine_batch``


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to do.

    Attributes:
        root: folder of the data set.
        worker: who may commit for the run.
        wanted: which samples to ask, and what.
        questions: what is asked, as the store writes it down.
        full_share: of the samples, how many are asked again, in a second pass at full detail; 0 for one pass.
        limit: samples at most; ``None`` for all.
        batch_size: images per pass; 0 for what fits.
        one_per_group: of samples that are nearly the same one is asked, and the others take its answer over.
        thresholds: dimension, or ``dimension:word``, → its own least probability.
        calibrations: dimension → the one in force for just these answers.
    """

    dataset_id: int
    run_id: int
    worker: str
    root: Path
    wanted: Wanted
    questions: tuple[Question, ...]
    vocabulary: Vocabulary
    mode: Mode
    detail: Detail
    min_probability: float
    min_mass: float
    batch_size: int
    limit: int | None
    max_pixels: int
    full_share: float = 0
    one_per_group: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    def decided(self, dimension: str, word: str, probability: float, mass: float) -> str:
        """Return why an answer does not become a tag, or an empty text if it does."""
        least = least_of(self.thresholds, dimension, word, otherwise=self.min_probability)
        return decide(probability, mass, min_probability=least, min_mass=self.min_mass)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample whose image is ready for the model, or the reason why it is not."""

    sample: Pending
    image: PreparedImage | None
    error: str = ""
    digest: str = ""
    measures: Measures | None = None
    head: Head | None = None


def tag_samples(
    job: Job,
    store: SampleStore,
    tagger: Tagger,
    *,
    stop: threading.Event,
    publish: Callable[[Merged], None] = lambda _: None,
    waited: Callable[[str, float], None] = lambda _, __: None,
) -> Merged:
    """Tag the pending samples of a job, committing as it goes, until none is left or ``stop`` is set.

    Args:
        stop: looked at between batches; what the model has at hand is finished and kept.
        publish: called after each commit with what it did.
        waited: called with ``"decode"``, ``"model"`` or ``"store"`` and the seconds spent there.

    Returns:
        What this call did, in sum.

    Raises:
        ModelMismatch: no answer of it became a tag.
        EngineError: the model failed; what it answered before is kept.
        StoreError: what was committed before is kept. A busy store is waited for, until ``stop`` is set.
        StoreClaimLost: the run was reverted, or goes on elsewhere.
    """
    with store.write(stop=stop) as cursor:
        questions = run_begin(
            cursor,
            dataset_id=job.dataset_id,
            run_id=job.run_id,
            worker=job.worker,
            questions=job.questions,
            detail="auto" if job.full_share else job.detail,
            dtype=tagger.dtype,
        )

    def go(job: Job, samples: Iterator[Pending], merge: Merge, *, held_back: bool) -> Merged:
        keep = partial(merge, dataset_id=job.dataset_id, run_id=job.run_id, questions=questions, worker=job.worker)
        return _pass(job, samples, keep, store, tagger, stop, publish, waited, held_back=held_back)

    done = Merged()
    while True:
        limit = None if job.limit is None else job.limit - done.processed
        limit, takers = _plan_shares(job, limit, store, stop) if job.one_per_group else (limit, 0)
        # Answers are held back until the first ones show that the model fits.
        held_back = job.min_mass > 0 and not done.processed
        samples = ahead.waiting(store, job.wanted, run_id=job.run_id, limit=limit, stop=stop)
        part = go(job, samples, merge_batch, held_back=held_back)
        done += part
        # Where the one that was asked could not be read, another one of its group is.
        if stop.is_set() or not part.processed or part.shared == takers:
            break
    if job.full_share and not stop.is_set():
        again = ahead.doubtful(store, run_id=job.run_id, share=job.full_share, stop=stop)
        done += go(replace(job, detail="full"), again, refine_batch, held_back=False)
    return done


def _pass(
    job: Job,
    samples: Iterator[Pending],
    merge: Merge,
    store: SampleStore,
    tagger: Tagger,
    stop: threading.Event,
    publish: Callable[[Merged], None],
    waited: Callable[[str, float], None],
    *,
    held_back: bool,
) -> Merged:
    done = Merged()
    unsaved: list[Result] = []
    saved_at = time.monotonic()

    def save() -> None:
        nonlocal done, saved_at
        if unsaved:
            with _timed("store", waited), store.write(stop=stop) as cursor:
                merged = merge(cursor, results=unsaved)
            unsaved.clear()
            done += merged
            publish(merged)
        saved_at = time.monotonic()

    # While the device works on one batch, the one before is decided and committed, and the next one uploaded.
    in_flight: deque[Asked] = deque()
    more = True
    with _batches_of(job.batch_size, tagger), decoded_ahead(samples, job, tagger) as images:
        try:
            while True:
                while more and not stop.is_set() and len(in_flight) < tagger.in_flight:
                    with _timed("decode", waited):
                        batch = list(islice(images, max(1, tagger.batch_size)))
                    more = bool(batch)
                    if batch:
                        with _timed("model", waited):
                            in_flight.append(ask(batch, job, tagger))
                if not in_flight:
                    break
                with _timed("model", waited):
                    unsaved += in_flight.popleft().results()
                if held_back:
                    if sum(len(result.answers) for result in unsaved) >= MISMATCH_ANSWERS:
                        check_fit(unsaved)
                        held_back = False
                    elif len(unsaved) < MISMATCH_ANSWERS:  # a folder full of unreadable images never answers
                        continue
                if time.monotonic() - saved_at >= COMMIT_SECONDS:
                    save()
        except EngineError:
            if not held_back:
                save()  # what was answered before the device failed
            raise
    save()
    return done


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


def ask(batch: Sequence[Decoded], job: Job, tagger: Tagger) -> Asked:
    """Hand the readable images of a batch to the model."""
    readable = [item for item in batch if item.image is not None]
    groups: dict[tuple[str, ...], list[Decoded]] = {
        names: [] for names in dict.fromkeys(item.sample.lacking for item in readable)
    }
    for item in readable:
        groups[item.sample.lacking].append(item)
    return Asked(batch, [_ask(items, job, job.vocabulary.only(names), tagger) for names, items in groups.items()])


def answer_batch(batch: Sequence[Decoded], job: Job, tagger: Tagger) -> list[Result]:
    """Ask about the readable images of a batch; the others become failed results."""
    return ask(batch, job, tagger).results()


def _ask(
    readable: Sequence[Decoded], job: Job, vocabulary: Vocabulary, tagger: Tagger
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


def decide(probability: float, mass: float, *, min_probability: float, min_mass: float) -> str:
    """Return why the best word does not become a tag, or an empty text if it does."""
    if mass < min_mass:
        return OFF_THE_LIST
    return BELOW_THRESHOLD if probability < min_probability else ""


def match(text: str, words: Sequence[str]) -> str:
    """Return the allowed word that a generated answer is, without regard to case and surrounding punctuation, or ``""``."""
    bare = text.strip(string.whitespace + string.punctuation + "“”‘’…").casefold()
    return next((word for word in words if word.casefold() == bare), "")


def check_fit(results: Sequence[Result]) -> None:
    """Raise :class:`ModelMismatch` if nearly all answers lie outside the list."""
    answers = [answer for result in results for answer in result.answers]
    outside = [not answer.accepted if answer.mass is None else answer.mass < MISMATCH_MASS for answer in answers]
    if sum(outside) > MISMATCH_SHARE * len(answers):
        raise ModelMismatch(
            f"{sum(outside)} of the first {len(answers)} answers are none of the allowed words: these weights and this tokenizer "
            "do not belong together, so nothing was tagged. Use the pinned model (leave DATAVISOR_VLM_MODEL and "
            "DATAVISOR_VLM_REVISION empty), or a folder whose weights and tokenizer.json come from one release."
        )


@contextmanager
def decoded_ahead(samples: Iterator[Pending], job: Job, tagger: Tagger) -> Iterator[Iterator[Decoded]]:
    """Decode ``samples`` in threads while the model works; yields them in order, a bounded number ahead.

    Plain daemon threads on purpose: an executor's refuse work while the interpreter exits, when a run finishes its batch.
    """
    decoders = decode_threads(tagger.device)
    ahead = 2 * max(1, tagger.batch_size) + decoders
    tasks: queue.Queue[tuple[Pending, queue.Queue[Decoded]] | None] = queue.Queue()

    def work() -> None:
        while (task := tasks.get()) is not None:
            sample, box = task
            box.put(decode(sample, job, tagger))

    def results() -> Iterator[Decoded]:
        boxes: list[queue.Queue[Decoded]] = []
        more = True
        while more or boxes:
            while more and len(boxes) < ahead:
                sample = next(samples, None)
                if sample is None:
                    more = False
                    break
                box: queue.Queue[Decoded] = queue.Queue(1)
                tasks.put((sample, box))
                boxes.append(box)
            if boxes:
                yield boxes.pop(0).get()

    threads = [threading.Thread(target=work, name=f"decode-{index}", daemon=True) for index in range(decoders)]
    for thread in threads:
        thread.start()
    try:
        yield results()
    finally:
        while not tasks.empty():  # nobody waits for these any more
            try:
                tasks.get_nowait()
            except queue.Empty:
                break
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()


def decode_threads(device: str) -> int:
    """Choose how many threads decode: a CPU that runs the model needs its cores for that, a GPU may wait for images."""
    return 2 if device == "cpu" else min(MOST_DECODERS, os.cpu_count() or 2)


def decode(sample: Pending, job: Job, tagger: Tagger) -> Decoded:
    """Read and crop one image. Whatever is wrong with it is its own affair."""
    try:
        path = locate(job.root, sample.path)
        picture = read_picture(
            path,
            max_pixels=job.max_pixels,
            enough=partial(tagger.enough, detail=job.detail),
            digested=True,
            measured=True,
        )
        prepared = tagger.prepare(picture.image, job.detail, size=picture.size)
        head = Head.of(picture.size, picture.exif)
        return Decoded(sample, prepared, "", picture.digest, picture.measures, head)
    except ImageUnreadable as error:
        return Decoded(sample, None, str(error))
    except Exception as error:
        logger.warning("%s could not be decoded", sample.path, exc_info=True)
        return Decoded(sample, None, f"The image could not be decoded ({type(error).__name__}).")


@contextmanager
def _batches_of(size: int, tagger: Tagger) -> Iterator[None]:
    """Have the model take ``size`` images per pass, and go back to its own size after; 0 leaves it at that.

    A size that was halved because memory was full says something about the machine, and stays.
    """
    own = tagger.batch_size
    tagger.batch_size = size or own
    try:
        yield
    finally:
        tagger.batch_size = own if tagger.batch_size == size else min(own, tagger.batch_size)


def _plan_shares(job: Job, limit: int | None, store: SampleStore, stop: threading.Event) -> tuple[int | None, int]:
    """Plan whose answers are taken over; returns how many samples at most are asked, and how many take an answer."""
    with store.write(stop=stop) as cursor:
        check_claim(cursor, job.run_id, job.worker)
        takers = shares_plan(cursor, job.wanted, dataset_id=job.dataset_id, run_id=job.run_id, limit=limit)
    return None if limit is None else limit - takers, takers


def _scored(job: Job, place: int, score: DimensionScore) -> Answer:
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


def _calibrated(job: Job, answer: Answer, calibration: Calibration) -> Answer:
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


def _generated(job: Job, place: int, text: str) -> Answer:
    dimension = job.vocabulary.dimensions[place]
    answer = next((one for one in dimension.answers if match(text, dimension.spelled(one))), "")
    tags = tuple(map(dimension.tag_of, dimension.answers))
    reason = "" if answer else OFF_THE_LIST
    word = dimension.tag_of(answer)
    return Answer(job.run_id, dimension.name, place, tags, (), None, word, None, bool(answer), reason, text)


@contextmanager
def _timed(what: str, waited: Callable[[str, float], None]) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        waited(what, time.perf_counter() - start)
