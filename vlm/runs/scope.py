"""From a run's row to its work: which samples, asked what, and by which model."""

from __future__ import annotations

import threading
from pathlib import Path

from django.conf import settings

from vlm.models import Dataset, TaggingRun, current_vocabulary, words_by_dimension
from vlm.process import ModelSpec, sample_store
from vlm.runs.loop import Job
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter, reading, where
from vlm.samples.filters import Condition
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
        mode=options.mode,
        batch_size=options.batch_size,
        min_probability=options.min_probability,
        min_mass=options.min_mass,
    )


def spec(run: TaggingRun) -> ModelSpec:
    return ModelSpec(
        run.model, "" if run.revision == "local" else run.revision, run.device or "auto", run.dtype or "auto"
    )


def count(run: TaggingRun) -> int:
    with sample_store().read() as cursor:
        found = reading.pending_count(cursor, _scope(run), run_id=run.pk or 0, answered_by=_answered_by(run))
    return found if run.sample_limit is None else min(found, run.sample_limit)


def job(run: TaggingRun, stop: threading.Event | None = None) -> Job:
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


def _answered_by(run: TaggingRun) -> tuple[int, ...]:
    """Return the runs whose answers make a sample of the scope ``missing`` need none."""
    if run.scope != TaggingRun.Scope.MISSING:
        return ()
    same = TaggingRun.objects.filter(
        dataset_id=run.dataset_id, vocabulary_hash=run.vocabulary_hash, model=run.model, mode=run.mode, reverted=None
    )
    return tuple(same.exclude(pk=run.pk).values_list("pk", flat=True))


def _vocabulary(options: RunOptions) -> Vocabulary:
    vocabulary = current_vocabulary()
    return vocabulary.only(options.dimensions) if options.dimensions else vocabulary
