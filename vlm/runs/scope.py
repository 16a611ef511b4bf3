"""From a run's row to its work: which samples, asked what, and by which model."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from django.conf import settings

from vlm.models import Dataset, TaggingRun, current_vocabulary, words_by_dimension
from vlm.moondream import ModelUnavailable, identity
from vlm.moondream.hub import MODEL as PINNED_MODEL
from vlm.moondream.hub import REVISION as PINNED_REVISION
from vlm.process import ModelSpec, sample_store
from vlm.roots import root_of
from vlm.runs.errors import NotGrouped
from vlm.runs.options import RunOptions
from vlm.samples import Question, SampleFilter, asking, finding, merging, progress, sharing, where
from vlm.samples.conditions import Condition
from vlm.samples.cursor import Cursor
from vlm.scoring.job import Job
from vlm.scoring.places import Workers
from vlm.vocabulary import Vocabulary


def draft(dataset: Dataset, options: RunOptions) -> TaggingRun:
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
        full_share=options.full_share if options.detail == "auto" else None,
        mode=options.mode,
        batch_size=options.batch_size,
        min_probability=options.min_probability,
        min_mass=options.min_mass,
        same_detail=options.same_detail,
        one_per_group=options.one_per_group,
        workers=str(Workers.parse(options.workers)),
    )


def spec(run: TaggingRun) -> ModelSpec:
    return ModelSpec(
        run.model, "" if run.revision == "local" else run.revision, run.device or "auto", run.dtype or "auto"
    )


def questions(run: TaggingRun) -> tuple[Question, ...]:
    """Return what a run asks of which model; an answer counts for another run that asks the very same."""
    try:
        revision = identity(run.model)
    except ModelUnavailable:  # gone or incomplete, as loading it will tell
        revision = run.revision
    model = PINNED_MODEL if revision == PINNED_REVISION else "local"  # a copy of the published model is that model
    return tuple(
        Question.of(model=model, revision=revision, mode=run.mode, dimension=asked.name, asked=asked.asked)
        for asked in run.vocabulary
    )


@dataclass(frozen=True, slots=True)
class Extent:
    """How many images a run covers, and how many of them it asks about: the others take an answer over."""

    images: int
    asked: int


def extent(run: TaggingRun) -> Extent:
    """Return what a run that has not begun would cover.

    Raises:
        NotGrouped: it is to ask one image of each group, and nobody has looked for groups.
    """
    _adopt()
    with sample_store().read() as cursor:
        wanted, limit = _wanted(cursor, run), run.sample_limit
        found = progress.pending_count(cursor, wanted, run_id=0)
        images = found if limit is None else min(found, limit)
        if not run.one_per_group:
            return Extent(images, images)
        check_grouped(cursor, run.dataset_id)
        takers = sharing.takers_count(cursor, wanted, dataset_id=run.dataset_id, run_id=0, limit=limit)
        return Extent(images, images - takers)


def check_grouped(cursor: Cursor, dataset_id: int) -> None:
    """Raise :class:`NotGrouped` where nobody has looked which images are nearly the same."""
    if finding.looked(cursor, dataset_id, finding.NEAR) is None:
        raise NotGrouped


def job(run: TaggingRun, stop: threading.Event | None = None) -> Job:
    limit: int | None = run.sample_limit
    _adopt(stop)
    with sample_store().read(stop=stop) as cursor:
        wanted = _wanted(cursor, run)
        if limit is not None and run.pk:
            limit = max(0, limit - progress.run_counts(cursor, run.pk)[0])
    return Job(
        dataset_id=run.dataset_id,
        run_id=run.pk or 0,
        worker=run.worker,
        root=root_of(run.dataset.root),
        root_wait=settings.ROOT_WAIT,
        wanted=wanted,
        questions=questions(run),
        vocabulary=run.vocabulary,
        mode=run.mode,  # type: ignore[arg-type]
        detail="low" if run.detail == "auto" else run.detail,  # type: ignore[arg-type]
        full_share=run.full_share or 0,
        one_per_group=run.one_per_group,
        min_probability=run.min_probability,
        min_mass=run.min_mass,
        batch_size=run.batch_size,
        limit=limit,
        max_pixels=settings.MAX_PIXELS,
        thresholds=run.thresholds,
    )


def _scope(run: TaggingRun) -> Condition:
    chosen = SampleFilter.from_query(run.filter_query)
    words = words_by_dimension() | {dimension.name: dimension.words for dimension in run.vocabulary}
    condition, values = where(run.dataset_id, chosen, words)
    if run.scope == TaggingRun.Scope.FAILED:
        if run.failed_of_id is not None:
            failed, given = where(run.dataset_id, SampleFilter(failed_in=run.failed_of_id), words)
            condition, values = f"{condition} and {failed}", [*values, *given]
        else:
            # A sample that this run has answered meanwhile no longer counts as failed, and is finished anyway.
            condition += " and s.failed"
    return condition, values


def _wanted(cursor: Cursor, run: TaggingRun) -> progress.Wanted:
    return progress.Wanted(
        _scope(run),
        asking.question_ids(cursor, questions(run)),
        only_missing=run.scope == TaggingRun.Scope.MISSING,
        like=(run.detail, run.dtype.removeprefix("auto")) if run.same_detail else None,
    )


def _adopt(stop: threading.Event | None = None) -> None:
    """Tell a store of the first release, once, what its runs had asked: that stood in their rows alone."""
    with sample_store().read(stop=stop) as cursor:
        waiting = asking.runs_to_adopt(cursor)
    if not waiting:
        return
    runs = TaggingRun.objects.in_bulk(waiting)
    with sample_store().write(stop=stop) as cursor:
        for run_id in waiting:
            run = runs.get(run_id)
            merging.run_adopt(cursor, run_id=run_id, questions=questions(run) if run is not None else ())


def _vocabulary(options: RunOptions) -> Vocabulary:
    vocabulary = options.vocabulary or current_vocabulary()
    return vocabulary.only(options.dimensions) if options.dimensions else vocabulary
