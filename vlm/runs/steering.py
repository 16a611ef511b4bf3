"""Starting, stopping and changing runs, and looking what one would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from vlm import errands
from vlm.models import Dataset, TaggingRun
from vlm.process import ModelSpec, keeper, sample_store
from vlm.runs import scope
from vlm.runs.calibrating import for_job
from vlm.runs.errors import NothingToTag, NotResumable, RunActive, Unchangeable
from vlm.runs.options import NEVER, RunOptions, check_thresholds
from vlm.runs.scope import Extent
from vlm.runs.state import active_of, check_idle, fail_stale, notify
from vlm.samples import Reapplied, SampleRow, merging, progress, reading, sharing
from vlm.samples.merging import NO_WORDS
from vlm.scoring.answering import answer_batch
from vlm.scoring.decoding import decode
from vlm.scoring.places import Workers

Status = TaggingRun.Status

PREVIEW_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would say about a sample: dimension → (word, probability, whether it would become a tag)."""

    sample: SampleRow
    words: dict[str, tuple[str, float | None, bool]]
    error: str = ""


def create(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Claim the data set for a new run.

    Raises:
        RunActive: another run has it.
        NothingToTag: the scope is empty.
        VocabularyError: nothing to ask, or an unknown dimension.
        FilterError: the filter names an unknown dimension.
        NotGrouped: it is to ask one image of each group, and nobody has looked for groups.
    """
    fail_stale()
    errands.finish()  # else what is taken back by half would count as answered
    run = scope.draft(dataset, options)
    run.started_by, run.origin, run.heartbeat = user, origin, timezone.now()
    if (active := active_of(dataset.pk)) is not None:
        raise RunActive(active)
    run.total = scope.extent(run).images
    if not run.total:
        raise NothingToTag(
            "No image of this scope waits for an answer. Choose “all images, anew”, or another filter."
            if options.scope == "missing"
            else "No image is in this scope."
        )
    try:
        with transaction.atomic():
            run.save()
            if errands.is_under_way(errands.VOCABULARY):
                raise errands.ChangeUnderWay("The vocabulary is being edited. Start again in a moment.")
            if errands.is_under_way(errands.calibrations_of(dataset.pk)):
                raise errands.ChangeUnderWay("A calibration is being changed. Start again in a moment.")
    except IntegrityError:
        raise RunActive(active_of(dataset.pk)) from None
    return run


def requeue(
    *, run: TaggingRun, user: User | None, origin: str, device: str = "", workers: str | None = None
) -> TaggingRun:
    """Make an unfinished run ready to go on, with its own model, vocabulary and settings.

    Device and number format are those of the settings, as for a new run: they belong to the machine that goes on. Workers are those
    that it had, unless others are given.

    Raises:
        NotResumable, RunActive, WorkersUnknown
    """
    fail_stale()
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
        "crew": [],
    }
    if workers is not None:
        claimed["workers"] = str(Workers.parse(workers))
    if user is not None:
        claimed["started_by"] = user
    try:
        with transaction.atomic():
            count = TaggingRun.objects.filter(pk=run.pk, status__in=TaggingRun.RESUMABLE, reverted=None).update(
                **claimed
            )
    except IntegrityError:
        raise RunActive(active_of(run.dataset_id)) from None
    run.refresh_from_db()
    if not count:
        why = "was reverted" if run.reverted else f"is {Status(run.status).label}"
        raise NotResumable(f"Run {run.pk} {why}: only a cancelled, failed or interrupted run can go on.")
    return run


def cancel(*, run: TaggingRun) -> bool:
    """Ask an active run to stop after the batch at hand; returns whether it was active.

    A run that nobody works on yet is cancelled at once.
    """
    fail_stale()
    now = timezone.now()
    idle = TaggingRun.objects.filter(pk=run.pk, status=Status.QUEUED, worker="")
    asked = idle.update(status=Status.CANCELLED, finished=now) or TaggingRun.objects.filter(
        pk=run.pk, status__in=(Status.QUEUED, Status.LOADING, Status.RUNNING)
    ).update(status=Status.CANCELLING)
    run.refresh_from_db()
    if asked:
        notify(run.dataset_id)
    return bool(asked) or run.status == Status.CANCELLING


def revert(*, run: TaggingRun) -> int:
    """Take back what a finished run added; returns how many samples it had answered.

    Raises:
        RunActive: the run, or another of its data set, is active.
    """
    check_idle(run.dataset_id)
    before = run.reverted

    def change() -> dict[str, Any]:
        _claim_finished(run, reverted=timezone.now())  # so that nobody resumes it meanwhile
        return {"run": run.pk}

    def undo() -> None:
        TaggingRun.objects.filter(pk=run.pk).update(reverted=before)

    count: int = errands.carry_out("revert", about=f"run {run.pk}", change=change, undo=undo)
    run.refresh_from_db()
    notify(run.dataset_id)
    return count


def reapply(
    *,
    run: TaggingRun,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Decide a finished run's answers by other thresholds, without the model.

    Args:
        dimension: of this one alone; empty for all.
        words: of these words of ``dimension`` alone, each from its own least probability on.

    Raises:
        Unchangeable: the run is active or reverted.
        RunError: a threshold is no probability.
    """
    _check_changeable(run, min_probability, min_mass, words)
    before = {name: getattr(run, name) for name in ("min_probability", "min_mass", "thresholds")}
    changed: dict[str, Any]
    if dimension:
        min_mass = run.min_mass
        changed = {"thresholds": _with_own(run.thresholds, dimension, min_probability, words)}
    else:
        changed = {"min_probability": min_probability, "min_mass": min_mass, "thresholds": {}}

    def change() -> dict[str, Any]:
        _claim_finished(run, **changed)  # so that whoever resumes it meanwhile decides by the new ones
        asked = {"min_probability": min_probability, "min_mass": min_mass, "dimension": dimension, "words": dict(words)}
        return {"run": run.pk, **asked}

    def undo() -> None:
        TaggingRun.objects.filter(pk=run.pk).update(**before)

    result = errands.carry_out("thresholds", about=f"run {run.pk}", change=change, undo=undo)
    run.refresh_from_db()
    notify(run.dataset_id)
    return Reapplied.from_json(result["done"])


def reapply_preview(
    *,
    run: TaggingRun,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Tell what :func:`reapply` would change. Raises as it does."""
    _check_changeable(run, min_probability, min_mass, words)
    with sample_store().read() as cursor:
        return merging.preview_thresholds(
            cursor,
            run_id=run.pk,
            min_probability=min_probability,
            min_mass=run.min_mass if dimension else min_mass,
            dimension=dimension,
            words=words,
        )


def _with_own(
    own: Mapping[str, float], dimension: str, min_probability: float, words: Mapping[str, float]
) -> dict[str, float]:
    """Return a run's thresholds with a dimension's new one, in place of those of its words; or with those of some words."""
    if words:
        return {**own, **{f"{dimension}:{word}": least for word, least in words.items()}}
    return {key: least for key, least in own.items() if key.partition(":")[0] != dimension} | {
        dimension: min_probability
    }


def _check_changeable(run: TaggingRun, min_probability: float, min_mass: float, words: Mapping[str, float]) -> None:
    for least in (min_probability, *(least for least in words.values() if least != NEVER)):
        check_thresholds(least, min_mass)
    run.refresh_from_db()
    if run.is_active or run.reverted:
        raise Unchangeable(
            f"Run {run.pk} is {'active' if run.is_active else 'reverted'}; its thresholds stay as they are."
        )


def preview(
    *, dataset: Dataset, options: RunOptions, report: Callable[[str, int, int], None] = lambda *_: None
) -> list[Preview]:
    """Score twenty samples of a scope, spread over it, and write nothing.

    Args:
        report: called with what goes on (``download``, ``verify`` or ``load``, in bytes, then ``ask``, in samples), how
            much of it is done, and of how much.

    Raises:
        ModelUnavailable, VocabularyError, FilterError, NotGrouped
    """
    run = scope.draft(dataset, replace(options, limit=min(options.limit or PREVIEW_SAMPLES, PREVIEW_SAMPLES)))
    job = scope.job(run)
    with sample_store().read() as cursor:
        if job.one_per_group:
            scope.check_grouped(cursor, dataset.pk)
        asked = sharing.asked_itself(job.wanted, dataset_id=dataset.pk) if job.one_per_group else ("true", [])
        limit = run.sample_limit or PREVIEW_SAMPLES
        waiting = progress.pending_spread(cursor, job.wanted, run_id=0, limit=limit, among=asked)
        samples = {row.id: row for row in reading.samples_by_id(cursor, dataset.pk, [item.id for item in waiting])}
    previews = []
    if waiting:
        with keeper.use(scope.spec(run), progress=lambda part: report(part.stage, part.done, part.total)) as tagger:
            with sample_store().read() as cursor:
                job = replace(job, calibrations=for_job(cursor, job, dtype=tagger.dtype, detail=run.detail))
            for number, item in enumerate(waiting):
                report("ask", number, len(waiting))
                (found,) = answer_batch([decode(item, job, tagger)], job, tagger)
                words = {a.dimension: (a.word or a.text, a.probability, a.accepted) for a in found.answers}
                previews.append(Preview(samples[item.id], words, found.error))
    return previews


def extent(*, dataset: Dataset, options: RunOptions) -> Extent:
    """Return how many samples a run with these options would cover and ask. Raises ``NotGrouped``."""
    return scope.extent(scope.draft(dataset, options))


def _claim_finished(run: TaggingRun, **changes: object) -> None:
    """Change the row of a run that nobody works on, in one step with looking whether somebody does. Raises ``RunActive``."""
    if not TaggingRun.objects.filter(pk=run.pk).exclude(status__in=TaggingRun.ACTIVE).update(**changes):
        raise RunActive(run)
