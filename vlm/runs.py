"""The life of a tagging run. Its row in the database is the truth that every viewer, in every process, reads."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from vlm.demo import DEMO_CHECKPOINT
from vlm.model import ModelSpec, keeper
from vlm.models import Dataset, TaggingRun, current_vocabulary, words_by_dimension
from vlm.moondream import EngineError, ModelUnavailable
from vlm.moondream.crops import Detail
from vlm.samples import (
    Merged,
    Reapplied,
    SampleFilter,
    SampleRow,
    StoreBusy,
    StoreError,
    merging,
    reading,
    where,
)
from vlm.samples.filters import Condition
from vlm.store import sample_store
from vlm.tagging import Job, Mode, ModelMismatch, answer_batch, decode, tag_samples
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import LoadProgress

logger = logging.getLogger(__name__)

Scope = Literal["missing", "all", "failed"]
Status = TaggingRun.Status

HEARTBEAT_SECONDS = 2.0
STALE_SECONDS = 30.0
RATE_SECONDS = 20.0  # the rate is that of this long
STOP_SECONDS = 60.0  # how long a stopping process waits for the batch at hand
PREVIEW_SAMPLES = 20


class RunError(Exception):
    """A run cannot be started or changed as asked; the message says why."""


class RunActive(RunError):
    """Another run of the data set is active: ``run``, if it still is."""

    def __init__(self, run: TaggingRun | None) -> None:
        self.run = run
        number = f"Run {run.pk}" if run else "A run"
        super().__init__(f"{number} of this data set is active. Wait for its end, or cancel it.")


class NothingToTag(RunError):
    """The scope holds no sample."""


class NotResumable(RunError):
    """The run is complete, reverted, or still active."""


class _GivenUp(Exception):
    """Stopped before the model was at hand."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to tag and how.

    Attributes:
        scope: ``missing`` takes samples that lack an answer of this vocabulary and model, ``failed`` those whose image could
            not be read (by the run ``failed_of``, or by the last run that tried).
        filter: within which the scope applies.
        limit: samples at most.
        dimensions: of the vocabulary; none means all.
        model, device: empty for the settings'.
        batch_size: images per pass; 0 for what fits.
    """

    scope: Scope = "missing"
    filter: SampleFilter = field(default_factory=SampleFilter)
    limit: int | None = None
    dimensions: tuple[str, ...] = ()
    detail: Detail = field(default_factory=lambda: cast(Detail, settings.VLM_DETAIL))
    mode: Mode = "score"
    min_probability: float = field(default_factory=lambda: settings.VLM_MIN_PROBABILITY)
    min_mass: float = field(default_factory=lambda: settings.VLM_MIN_MASS)
    batch_size: int = field(default_factory=lambda: settings.VLM_BATCH_SIZE)
    model: str = ""
    device: str = ""
    failed_of: int | None = None

    def __post_init__(self) -> None:
        _check_thresholds(self.min_probability, self.min_mass)

    @classmethod
    def defaults(cls) -> RunOptions:
        return cls()


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as viewers see it; ``rate`` in images per second, ``seconds`` and ``eta`` in seconds, downloads in bytes."""

    run: int
    dataset: int
    status: str
    status_label: str
    total: int
    processed: int
    tagged: int
    discarded: int
    failed: int
    rate: float
    seconds: float
    eta: float | None
    download_done: int
    download_total: int
    error: str
    active: bool
    resumable: bool
    model: str
    device: str
    demonstration: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would say about a sample: dimension → (word, probability, whether it would become a tag)."""

    sample: SampleRow
    words: dict[str, tuple[str, float | None, bool]]
    error: str = ""


# -- watching ------------------------------------------------------------------------------------------------------------
_subscribers: list[Callable[[int], None]] = []


def subscribe(callback: Callable[[int], None]) -> None:
    """Have ``callback(dataset_id)`` called, from a run's thread, whenever a run of this process changes."""
    _subscribers.append(callback)


def notify(dataset_id: int) -> None:
    for callback in _subscribers:
        try:
            callback(dataset_id)
        except Exception:
            logger.exception("A viewer of data set %s could not be told", dataset_id)


def run_state(*, run: TaggingRun) -> RunState:
    remaining = max(0, run.total - run.processed)
    return RunState(
        run=run.pk,
        dataset=run.dataset_id,
        status=run.status,
        status_label=str(Status(run.status).label),
        total=run.total,
        processed=run.processed,
        tagged=run.tagged,
        discarded=run.discarded,
        failed=run.failed,
        rate=round(run.rate, 3),
        seconds=round(run.seconds, 1),
        eta=round(remaining / run.rate, 1) if run.rate and run.is_active else None,
        download_done=run.download_done,
        download_total=run.download_total,
        error=run.error,
        active=run.is_active,
        resumable=is_resumable(run),
        model=run.model,
        device=run.device,
        demonstration=is_demonstration(run.model),
    )


def is_resumable(run: TaggingRun) -> bool:
    return run.status in TaggingRun.RESUMABLE and run.reverted is None


def is_demonstration(model: str) -> bool:
    """Whether ``model`` is the bundled checkpoint, whose words are good for a demonstration only."""
    return bool(model) and Path(model).expanduser().resolve() == DEMO_CHECKPOINT.resolve()


def run_current(*, dataset: Dataset) -> TaggingRun | None:
    """Return the active run, else the newest."""
    fail_stale_runs()
    runs = TaggingRun.objects.filter(dataset=dataset)
    return runs.filter(status__in=TaggingRun.ACTIVE).first() or runs.first()


def fail_stale_runs() -> int:
    """Mark runs whose process died as interrupted; returns how many."""
    stale = timezone.now() - timedelta(seconds=STALE_SECONDS)
    dead = TaggingRun.objects.filter(status__in=TaggingRun.ACTIVE, heartbeat__lt=stale)
    if not dead.exists():  # every look at a page asks, and should not write for it
        return 0
    return dead.update(
        status=Status.INTERRUPTED,
        finished=F("heartbeat"),
        rate=0,
        error="The process that worked on it ended without a word. Resume to go on where it was.",
    )


# -- starting and stopping -----------------------------------------------------------------------------------------------
def run_create(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Claim the data set for a new run.

    Raises:
        RunActive: another run has it.
        NothingToTag: the scope is empty.
        VocabularyError: nothing to ask, or an unknown dimension.
        FilterError: the filter names an unknown dimension.
    """
    fail_stale_runs()
    run = _draft(dataset, options)
    run.started_by, run.origin, run.heartbeat = user, origin, timezone.now()
    if (active := TaggingRun.objects.filter(dataset=dataset, status__in=TaggingRun.ACTIVE).first()) is not None:
        raise RunActive(active)
    run.total = _count(run)
    if not run.total:
        raise NothingToTag(
            "No sample of this scope waits for an answer. Choose “all samples”, or another filter."
            if options.scope == "missing"
            else "No sample is in this scope."
        )
    try:
        with transaction.atomic():
            run.save()
    except IntegrityError:
        raise RunActive(TaggingRun.objects.filter(dataset=dataset, status__in=TaggingRun.ACTIVE).first()) from None
    return run


def run_requeue(*, run: TaggingRun, user: User | None, origin: str, device: str = "") -> TaggingRun:
    """Make an unfinished run ready to go on, with its own model, vocabulary and settings.

    Device and number format are those of the settings, as for a new run: they belong to the machine that goes on.

    Raises:
        NotResumable, RunActive
    """
    fail_stale_runs()
    spec = ModelSpec.from_settings(device=device)
    claimed: dict[str, Any] = {
        "status": Status.QUEUED,
        "device": spec.device,
        "dtype": spec.dtype,
        "worker": "",
        "error": "",
        "finished": None,
        "heartbeat": timezone.now(),
        "origin": origin,
    }
    if user is not None:
        claimed["started_by"] = user
    try:
        with transaction.atomic():
            count = TaggingRun.objects.filter(pk=run.pk, status__in=TaggingRun.RESUMABLE, reverted=None).update(
                **claimed
            )
    except IntegrityError:
        active = TaggingRun.objects.filter(dataset_id=run.dataset_id, status__in=TaggingRun.ACTIVE).first()
        raise RunActive(active) from None
    run.refresh_from_db()
    if not count:
        why = "was reverted" if run.reverted else f"is {Status(run.status).label}"
        raise NotResumable(f"Run {run.pk} {why}: only a cancelled, failed or interrupted run can go on.")
    return run


def run_launch(run: TaggingRun) -> None:
    """Work on a run in a thread of this process."""
    stop = threading.Event()

    def work() -> None:
        try:
            run_execute(run_id=run.pk, stop=stop)
        except Exception:
            logger.exception("Run %s ended badly", run.pk)
        finally:
            connections.close_all()
            with _lock:
                _working.pop(thread, None)

    thread = threading.Thread(target=work, name=f"run-{run.pk}", daemon=True)
    with _lock:
        _working[thread] = stop
    thread.start()


def run_cancel(*, run: TaggingRun) -> bool:
    """Ask an active run to stop after the batch at hand; returns whether it was active.

    A run that nobody works on yet is cancelled at once.
    """
    fail_stale_runs()
    now = timezone.now()
    idle = TaggingRun.objects.filter(pk=run.pk, status=Status.QUEUED, worker="")
    asked = idle.update(status=Status.CANCELLED, finished=now) or TaggingRun.objects.filter(
        pk=run.pk, status__in=(Status.QUEUED, Status.LOADING, Status.RUNNING)
    ).update(status=Status.CANCELLING)
    run.refresh_from_db()
    if asked:
        notify(run.dataset_id)
    return bool(asked) or run.status == Status.CANCELLING


def run_execute(
    *,
    run_id: int,
    stop: threading.Event,
    waited: Callable[[str, float], None] = lambda _, __: None,
) -> TaggingRun:
    """Work on a queued run until it ends, and return it.

    ``stop`` interrupts it after the batch at hand. Whatever goes wrong ends up in the row: this raises only when the
    database itself is gone.
    """
    # Of this execution alone: a run that was taken for dead may have gone on elsewhere, even in this process.
    worker = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
    claimed = TaggingRun.objects.filter(pk=run_id, status=Status.QUEUED, worker="").update(
        worker=worker, heartbeat=timezone.now()
    )
    run = TaggingRun.objects.select_related("dataset").get(pk=run_id)
    if not claimed:
        return run
    halt = threading.Event()  # set by ``stop`` or by a cancellation, seen by the loop
    if stop.is_set():
        halt.set()
    over = threading.Event()
    pulse = threading.Thread(target=_heartbeat, args=(run, stop, halt, over), name=f"pulse-{run_id}", daemon=True)
    pulse.start()
    status, error, halted = Status.COMPLETED, "", False
    try:
        halted = _work(run, halt, waited)
    except _GivenUp:
        halted = True
    except (EngineError, ModelMismatch, StoreError) as problem:
        # Whoever is halted while fetching the model or waiting for the store finds neither.
        if halt.is_set() and isinstance(problem, (ModelUnavailable, StoreBusy)):
            halted = True
        else:
            logger.error("Run %s failed: %s", run_id, problem, exc_info=not isinstance(problem, ModelUnavailable))
            status, error = Status.FAILED, str(problem)
    except Exception as problem:
        logger.exception("Run %s failed", run_id)
        status = Status.FAILED
        error = f"The model failed: {problem or type(problem).__name__}. The server's log has the details."
    finally:
        over.set()
        pulse.join()
    if halted and _own(run).filter(status=Status.CANCELLING).exists():
        status = Status.CANCELLED
    elif halted:
        status = Status.INTERRUPTED
        why = "The process was stopped" if stop.is_set() else "The process was taken for dead"
        error = f"{why}. Resume to go on where it was."
    _finish(run, status, error)
    notify(run.dataset_id)
    return run


def run_revert(*, run: TaggingRun) -> int:
    """Take back what a finished run added; returns how many samples it had answered.

    Raises:
        RunActive: the run, or another of its data set, is active.
    """
    fail_stale_runs()
    active = TaggingRun.objects.filter(dataset_id=run.dataset_id, status__in=TaggingRun.ACTIVE).first()
    if active is not None:
        raise RunActive(active)
    # Said first, so that nobody resumes it meanwhile; a revert that was killed can be repeated.
    _claim_finished(run, reverted=timezone.now())
    try:
        with sample_store().write() as cursor:
            count = merging.revert_run(cursor, run_id=run.pk)
    except BaseException:
        TaggingRun.objects.filter(pk=run.pk).update(reverted=run.reverted)
        raise
    run.refresh_from_db()
    notify(run.dataset_id)
    return count


def run_reapply(*, run: TaggingRun, min_probability: float, min_mass: float, preview: bool = False) -> Reapplied:
    """Decide a finished run's answers by other thresholds, without the model.

    Raises:
        RunError: the run is active or reverted, or a threshold is no probability.
    """
    _check_thresholds(min_probability, min_mass)
    run.refresh_from_db()
    if run.is_active or run.reverted:
        raise RunError(f"Run {run.pk} is {'active' if run.is_active else 'reverted'}; its thresholds stay as they are.")
    thresholds = {"run_id": run.pk, "min_probability": min_probability, "min_mass": min_mass}
    if preview:
        with sample_store().read() as cursor:
            return merging.preview_thresholds(cursor, **thresholds)  # type: ignore[arg-type]
    # Said first, so that whoever resumes it meanwhile decides by the new ones.
    _claim_finished(run, min_probability=min_probability, min_mass=min_mass)
    try:
        with sample_store().write() as cursor:
            result = merging.apply_thresholds(cursor, **thresholds)  # type: ignore[arg-type]
            _, tagged, discarded, _ = reading.run_counts(cursor, run.pk)
    except BaseException:
        TaggingRun.objects.filter(pk=run.pk).update(min_probability=run.min_probability, min_mass=run.min_mass)
        raise
    TaggingRun.objects.filter(pk=run.pk).update(tagged=tagged, discarded=discarded)
    run.refresh_from_db()
    notify(run.dataset_id)
    return result


def run_preview(
    *, dataset: Dataset, options: RunOptions, report: Callable[[str, int, int], None] = lambda *_: None
) -> list[Preview]:
    """Score twenty samples of a scope, spread over it, and write nothing.

    Args:
        report: called with what goes on (``download``, ``verify`` or ``load``, in bytes, then ``ask``, in samples), how
            much of it is done, and of how much.

    Raises:
        ModelUnavailable, VocabularyError, FilterError
    """
    run = _draft(dataset, replace(options, limit=min(options.limit or PREVIEW_SAMPLES, PREVIEW_SAMPLES)))
    job = _job(run)
    with sample_store().read() as cursor:
        waiting = reading.pending_spread(
            cursor, job.scope, run_id=0, answered_by=job.answered_by, limit=run.sample_limit or PREVIEW_SAMPLES
        )
        samples = {row.id: row for row in reading.samples_by_id(cursor, dataset.pk, [item.id for item in waiting])}
    previews = []
    if waiting:
        with keeper.use(_spec(run), progress=lambda part: report(part.stage, part.done, part.total)) as tagger:
            for number, item in enumerate(waiting):
                report("ask", number, len(waiting))
                (found,) = answer_batch([decode(item, job, tagger)], job, tagger)
                words = {a.dimension: (a.word or a.text, a.probability, a.accepted) for a in found.answers}
                previews.append(Preview(samples[item.id], words, found.error))
    return previews


def run_scope_count(*, dataset: Dataset, options: RunOptions) -> int:
    """Return how many samples a run with these options would work on."""
    return _count(_draft(dataset, options))


# -- inside --------------------------------------------------------------------------------------------------------------
_lock = threading.Lock()
_working: dict[threading.Thread, threading.Event] = {}


def _draft(dataset: Dataset, options: RunOptions) -> TaggingRun:
    """Return the run that these options describe, unsaved."""
    vocabulary = _vocabulary(options)
    spec = ModelSpec.from_settings(model=options.model, device=options.device)
    return TaggingRun(
        dataset=dataset,
        scope=options.scope,
        filter_query=options.filter.to_query(),
        sample_limit=options.limit,
        failed_of_id=options.failed_of,
        vocabulary_json=vocabulary.to_json(),
        vocabulary_hash=vocabulary.hash,
        model=spec.model,
        revision=spec.revision,
        device=spec.device,
        dtype=spec.dtype,
        detail=options.detail,
        mode=options.mode,
        batch_size=options.batch_size,
        min_probability=options.min_probability,
        min_mass=options.min_mass,
    )


def _spec(run: TaggingRun) -> ModelSpec:
    return ModelSpec(
        run.model, "" if run.revision == "local" else run.revision, run.device or "auto", run.dtype or "auto"
    )


def _own(run: TaggingRun) -> QuerySet[TaggingRun]:
    """Return the row of a run while this execution is the one that works on it."""
    return TaggingRun.objects.filter(pk=run.pk, worker=run.worker)


def _claim_finished(run: TaggingRun, **changes: object) -> None:
    """Change the row of a run that nobody works on, in one step with looking whether somebody does. Raises ``RunActive``."""
    if not TaggingRun.objects.filter(pk=run.pk).exclude(status__in=TaggingRun.ACTIVE).update(**changes):
        raise RunActive(run)


def _check_thresholds(min_probability: float, min_mass: float) -> None:
    if not (0 <= min_probability <= 1 and 0 <= min_mass <= 1):
        raise RunError("A threshold is a probability: give a number between 0 and 1.")


@atexit.register
def stop_all() -> None:
    """Let every run of this process finish its batch. At exit daemon threads would die in mid-image."""
    with _lock:
        working = dict(_working)
    for stop in working.values():
        stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in working:
        thread.join(max(0.0, deadline - time.monotonic()))


def _work(run: TaggingRun, halt: threading.Event, waited: Callable[[str, float], None]) -> bool:
    """Load the model and tag; returns whether it was halted before the end."""
    store = sample_store()

    def check() -> None:
        if halt.is_set():
            raise _GivenUp

    def loading() -> None:
        _own(run).filter(status=Status.QUEUED).update(status=Status.LOADING)
        notify(run.dataset_id)

    report_at = 0.0

    def progress(loaded: LoadProgress) -> None:
        nonlocal report_at
        check()
        if loaded.stage == "download" and time.monotonic() - report_at > 0.5:
            report_at = time.monotonic()
            _tell(run, download_done=loaded.done, download_total=loaded.total)
            notify(run.dataset_id)

    spec = _spec(run)
    check()
    with keeper.use(spec, waiting=check, loading=loading, progress=progress) as tagger:
        job = _job(run, halt)
        with store.read(stop=halt) as cursor:
            done = reading.run_counts(cursor, run.pk)
            left = reading.pending_count(cursor, job.scope, run_id=run.pk, answered_by=job.answered_by)
        run.processed, run.tagged, run.discarded, run.failed = done
        if job.limit is not None:
            left = min(left, job.limit)
        run.total = run.processed + left
        _own(run).update(
            revision=tagger.revision,
            device=tagger.device,
            dtype=tagger.dtype,
            total=run.total,
            processed=run.processed,
            tagged=run.tagged,
            discarded=run.discarded,
            failed=run.failed,
            started=run.started or timezone.now(),
        )
        _own(run).filter(status__in=(Status.QUEUED, Status.LOADING)).update(status=Status.RUNNING)
        notify(run.dataset_id)
        meter = _Meter(run)
        tag_samples(job, store, tagger, stop=halt, publish=meter.count, waited=waited)
    return halt.is_set() and meter.done.processed < left


def _tell(run: TaggingRun, **figures: object) -> None:
    """Write figures for the viewers into a run's row. A database that is locked for long must not end the run."""
    try:
        _own(run).update(**figures)
    except DatabaseError:
        logger.warning("The figures of run %s could not be written this time", run.pk, exc_info=True)


class _Meter:
    """Writes counts, rate and elapsed time of a run into its row after each commit."""

    def __init__(self, run: TaggingRun) -> None:
        self.run, self.done = run, Merged()
        self._kept = Merged(run.processed, run.tagged, run.discarded, run.failed)  # before this execution
        self._began, self._before = time.monotonic(), run.seconds
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])

    def count(self, merged: Merged) -> None:
        now = time.monotonic()
        self.done += merged
        self._marks.append((now, self.done.processed))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        total = self._kept + self.done
        _tell(
            self.run,
            total=max(self.run.total, total.processed),  # an import may have brought more
            processed=total.processed,
            tagged=total.tagged,
            discarded=total.discarded,
            failed=total.failed,
            rate=(self.done.processed - before) / max(now - since, 1e-6),
            seconds=self._before + now - self._began,
            heartbeat=timezone.now(),
        )
        notify(self.run.dataset_id)


def _heartbeat(run: TaggingRun, stop: threading.Event, halt: threading.Event, over: threading.Event) -> None:
    """Show that the process lives, and look whether somebody cancelled the run in another one."""
    beat_at = 0.0
    try:
        while not over.wait(0.1):
            if stop.is_set():
                halt.set()
            if time.monotonic() - beat_at < HEARTBEAT_SECONDS / 4:
                continue
            beat_at = time.monotonic()
            try:
                _own(run).filter(status__in=TaggingRun.ACTIVE).update(heartbeat=timezone.now())
                if not _own(run).filter(status__in=(Status.QUEUED, Status.LOADING, Status.RUNNING)).exists():
                    halt.set()
            except DatabaseError:  # locked for long, or gone for a moment: the next beat tells
                logger.warning("Run %s could not show that it lives", run.pk, exc_info=True)
                connections.close_all()
    finally:
        connections.close_all()


def _finish(run: TaggingRun, status: str, error: str) -> None:
    """Write down the end, with counts from the store: they are what was kept. Nothing, if the run is another's by now."""
    counts: dict[str, int] = {}
    try:
        with sample_store().read() as cursor:
            done = reading.run_counts(cursor, run.pk)
        counts = dict(zip(("processed", "tagged", "discarded", "failed"), done, strict=True))
    except StoreError:
        logger.exception("The counts of run %s could not be read", run.pk)
    own = _own(run)
    try:
        run.refresh_from_db()
    except TaggingRun.DoesNotExist:
        logger.warning("Run %s was deleted with its data set while it worked", run.pk)
        return
    rate = run.processed / run.seconds if run.seconds else 0.0
    own.update(status=status, error=error, finished=timezone.now(), heartbeat=timezone.now(), rate=rate, **counts)
    run.refresh_from_db()


def _vocabulary(options: RunOptions) -> Vocabulary:
    vocabulary = current_vocabulary()
    return vocabulary.only(options.dimensions) if options.dimensions else vocabulary


def _answered_by(run: TaggingRun) -> tuple[int, ...]:
    """Return the runs whose answers make a sample of the scope ``missing`` need none."""
    if run.scope != TaggingRun.Scope.MISSING:
        return ()
    same = TaggingRun.objects.filter(
        dataset_id=run.dataset_id, vocabulary_hash=run.vocabulary_hash, model=run.model, mode=run.mode, reverted=None
    )
    return tuple(same.exclude(pk=run.pk).values_list("pk", flat=True))


def _scope(run: TaggingRun) -> Condition:
    chosen = SampleFilter.from_query(run.filter_query)
    words = words_by_dimension() | {dimension.name: dimension.words for dimension in run.vocabulary}
    condition, values = where(run.dataset_id, chosen, words)
    if run.scope == TaggingRun.Scope.FAILED:
        if run.failed_of_id is not None:
            condition += " and s.id in (select sample_id from run_samples where run_id = ? and status = 'failed')"
            values = [*values, run.failed_of_id]
        else:
            # A sample that this run has answered meanwhile no longer counts as failed, and is finished anyway.
            condition += " and s.failed"
    return condition, values


def _count(run: TaggingRun) -> int:
    with sample_store().read() as cursor:
        found = reading.pending_count(cursor, _scope(run), run_id=run.pk or 0, answered_by=_answered_by(run))
    return found if run.sample_limit is None else min(found, run.sample_limit)


def _job(run: TaggingRun, stop: threading.Event | None = None) -> Job:
    limit: int | None = run.sample_limit
    if limit is not None and run.pk:
        with sample_store().read(stop=stop) as cursor:
            limit = max(0, limit - reading.run_counts(cursor, run.pk)[0])
    return Job(
        dataset_id=run.dataset_id,
        run_id=run.pk or 0,
        root=Path(run.dataset.root),
        scope=_scope(run),
        answered_by=_answered_by(run),
        vocabulary=run.vocabulary,
        mode=run.mode,  # type: ignore[arg-type]
        detail=run.detail,  # type: ignore[arg-type]
        min_probability=run.min_probability,
        min_mass=run.min_mass,
        batch_size=run.batch_size,
        limit=limit,
        max_pixels=settings.MAX_PIXELS,
    )
