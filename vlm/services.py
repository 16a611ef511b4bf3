"""The one door: page, admin, commands and HTTP call these functions and nothing behind them.

Everything takes keywords. Reading functions open the store themselves; writing ones commit before they return.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User

from vlm import exporting, imaging
from vlm.exporting import FORMATS as EXPORT_FORMATS
from vlm.exporting import ExportContext, ExportRow
from vlm.files import locate
from vlm.imaging import ImageUnreadable
from vlm.importing import ImportFailed
from vlm.imports import (
    ImportDone,
    ImportPreview,
    allowed_path,
    dataset_import,
    fail_stale_imports,
    import_preview,
    import_start,
)
from vlm.model import keeper
from vlm.models import Dataset, TaggingRun, words_by_dimension
from vlm.runs import (
    NothingToTag,
    NotResumable,
    Preview,
    RunActive,
    RunError,
    RunOptions,
    RunState,
    fail_stale_runs,
    is_demonstration,
    run_cancel,
    run_create,
    run_current,
    run_execute,
    run_launch,
    run_preview,
    run_reapply,
    run_requeue,
    run_revert,
    run_scope_count,
    run_state,
    subscribe,
)
from vlm.samples import (
    DatasetStats,
    Discard,
    Facets,
    Failure,
    Page,
    Reapplied,
    SampleDetail,
    SampleFilter,
    SampleRow,
    WordCount,
    merging,
    reading,
    where,
)
from vlm.samples.checking import Report, check_store
from vlm.store import sample_store

THUMBNAIL_SIZES = (160, 320, 640)
KEPT_COUNTS, KEPT_DATASETS = 1000, 20  # of the facets, in memory
VIEW_SIZE = 2560  # pixels of the long side of the picture on a sample's page

__all__ = [
    "EXPORT_FORMATS",
    "THUMBNAIL_SIZES",
    "ImageUnreadable",
    "ImportDone",
    "ImportFailed",
    "ImportPreview",
    "NotResumable",
    "NothingToTag",
    "Preview",
    "RunActive",
    "RunError",
    "RunOptions",
    "RunState",
    "allowed_path",
    "current_model_state",
    "dataset_delete",
    "dataset_import",
    "dataset_stats",
    "export_stream",
    "fail_stale_imports",
    "fail_stale_runs",
    "import_preview",
    "import_start",
    "is_demonstration",
    "run_cancel",
    "run_changes",
    "run_create",
    "run_current",
    "run_discards",
    "run_execute",
    "run_failures",
    "run_preview",
    "run_reapply",
    "run_reapply_preview",
    "run_requeue",
    "run_resume",
    "run_revert",
    "run_scope_count",
    "run_start",
    "run_state",
    "run_words",
    "sample_detail",
    "sample_image",
    "sample_neighbours",
    "sample_thumbnail",
    "samples_by_id",
    "samples_count",
    "samples_facets",
    "samples_page",
    "store_check",
    "subscribe",
    "tag_suggestions",
    "tags_add",
    "tags_confirm",
    "tags_remove",
    "words_by_dimension",
]


_counts: dict[tuple[Any, ...], tuple[int, dict[Any, Any]]] = {}
_counts_lock = threading.Lock()


# -- samples -------------------------------------------------------------------------------------------------------------
def samples_page(
    *, dataset: Dataset, filter: SampleFilter, order: str = "name", after: str = "", limit: int = 60
) -> Page:
    """Return the samples behind the cursor ``after``. Raises ``FilterError`` on an unknown order, dimension or cursor."""
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.samples_page(cursor, dataset.pk, filter, words, order=order, after=after, limit=limit)


def samples_facets(*, dataset: Dataset, filter: SampleFilter) -> Facets:
    """Count what a filter could be narrowed to.

    Counts are kept until the store changes: neighbouring filters share most of them, and so do all viewers.
    """
    words = words_by_dimension()
    with sample_store().read() as cursor:
        memory = _counts_known(dataset.pk, words, reading.revision(cursor))
        return reading.facets(cursor, dataset.pk, filter, words, memory)


def _counts_known(dataset_id: int, words: dict[str, tuple[str, ...]], revision: int) -> dict[Any, Any]:
    """Return the counts that :func:`samples_facets` made at this revision of the store."""
    key = (str(settings.DUCKDB_PATH), dataset_id, tuple(words.items()))
    with _counts_lock:
        known = _counts.get(key)
        if known is None or known[0] != revision or len(known[1]) > KEPT_COUNTS:
            if len(_counts) >= KEPT_DATASETS:
                _counts.clear()
            known = _counts[key] = (revision, {})
        return known[1]


def samples_count(*, dataset: Dataset, filter: SampleFilter) -> int:
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.count(cursor, dataset.pk, filter, words)


def samples_by_id(*, dataset: Dataset, ids: Sequence[int]) -> list[SampleRow]:
    with sample_store().read() as cursor:
        return reading.samples_by_id(cursor, dataset.pk, ids)


def sample_detail(*, dataset: Dataset, sample_id: int) -> SampleDetail | None:
    with sample_store().read() as cursor:
        return reading.sample_detail(cursor, dataset.pk, sample_id)


def sample_neighbours(
    *, dataset: Dataset, filter: SampleFilter, order: str, sample_id: int
) -> tuple[int | None, int | None]:
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.neighbours(cursor, dataset.pk, filter, words, order=order, sample_id=sample_id)


def dataset_stats(*, datasets: Iterable[Dataset]) -> dict[int, DatasetStats]:
    ids = [dataset.pk for dataset in datasets]
    with sample_store().read() as cursor:
        return reading.dataset_stats(cursor, ids)


def sample_thumbnail(*, dataset: Dataset, sample_id: int, size: int) -> Path | None:
    """Return a WebP picture of the sample, ``None`` for an unknown sample. Raises ``ImageUnreadable``."""
    found = samples_by_id(dataset=dataset, ids=[sample_id])
    if not found:
        return None
    return imaging.thumbnail(
        locate(Path(dataset.root), found[0].path),
        size=size,
        cache_dir=settings.THUMBNAIL_DIR,
        key=found[0].content_key,
        max_pixels=settings.MAX_PIXELS,
    )


def sample_image(*, dataset: Dataset, sample_id: int) -> Path | None:
    """Return the sample as a browser can show it, at most ``VIEW_SIZE`` pixels long. Raises ``ImageUnreadable``."""
    return sample_thumbnail(dataset=dataset, sample_id=sample_id, size=VIEW_SIZE)


# -- tags ----------------------------------------------------------------------------------------------------------------
def tags_add(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Give a tag to all samples of a filter; returns how many did not have it from a user. Raises ``TagError``."""
    words, tag = words_by_dimension(), merging.clean_tag(tag)
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        return merging.tags_add(
            cursor, dataset_id=dataset.pk, target=target, tag=tag, dimension=_dimension_of(tag, words)
        )


def tags_remove(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Take a tag away from all samples of a filter, for good; returns how many had it."""
    words = words_by_dimension()
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        return merging.tags_remove(cursor, dataset_id=dataset.pk, target=target, tag=merging.clean_tag(tag))


def tags_confirm(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Make a model's tag the user's own wherever it stands in a filter; returns where it was not yet."""
    words, tag = words_by_dimension(), merging.clean_tag(tag)
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        return merging.tags_confirm(
            cursor, dataset_id=dataset.pk, target=target, tag=tag, dimension=_dimension_of(tag, words)
        )


def tag_suggestions(*, dataset: Dataset, prefix: str, limit: int = 20) -> list[str]:
    with sample_store().read() as cursor:
        return reading.tag_suggestions(cursor, dataset.pk, prefix, limit)


# -- runs: starting, watching and changing them (see vlm.runs) -----------------------------------------------------------
def run_start(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Start a run in a thread of this process. Raises ``RunActive``, ``NothingToTag``, ``VocabularyError``."""
    run = run_create(dataset=dataset, options=options, user=user, origin=origin)
    run_launch(run)
    return run


def run_resume(*, run: TaggingRun, user: User | None, origin: str) -> TaggingRun:
    """Go on with an unfinished run in a thread of this process. Raises ``NotResumable``, ``RunActive``."""
    run = run_requeue(run=run, user=user, origin=origin)
    run_launch(run)
    return run


def run_reapply_preview(*, run: TaggingRun, min_probability: float, min_mass: float) -> Reapplied:
    """Tell what :func:`run_reapply` would change. Raises ``RunError``."""
    return run_reapply(run=run, min_probability=min_probability, min_mass=min_mass, preview=True)


def run_words(*, run: TaggingRun) -> list[WordCount]:
    with sample_store().read() as cursor:
        return reading.run_words(cursor, run.pk)


def run_failures(*, run: TaggingRun, limit: int = 200) -> list[Failure]:
    with sample_store().read() as cursor:
        return reading.run_failures(cursor, run.pk, limit)


def run_discards(*, run: TaggingRun, limit: int = 200) -> list[Discard]:
    with sample_store().read() as cursor:
        return reading.run_discards(cursor, run.pk, limit)


def run_changes(*, run: TaggingRun, since: int, limit: int = 200) -> tuple[list[int], int]:
    """Return the samples that a run has answered after the change ``since``, newest ``limit``, and the latest change."""
    with sample_store().read() as cursor:
        found = reading.changes(cursor, run.pk, since, limit)
    return [sample_id for _, sample_id in found], (found[-1][0] if found else since)


def current_model_state() -> str:
    return keeper.state


# -- whole data sets -----------------------------------------------------------------------------------------------------
def dataset_delete(*, dataset: Dataset) -> None:
    """Delete a data set with its samples, tags, answers and thumbnails; the images stay. Raises ``RunActive``."""
    fail_stale_runs()
    active = TaggingRun.objects.filter(dataset=dataset, status__in=TaggingRun.ACTIVE).first()
    if active is not None:
        raise RunActive(active)
    dataset.delete()


def store_check(*, repair: bool = False) -> Report:
    """Prove that every sample's tags are what the ledger says, and find rows of data sets that are gone."""
    with sample_store().write() as cursor:
        # Read only now: an import that had the store until here may have made one.
        datasets = list(Dataset.objects.values_list("pk", flat=True))
        return check_store(cursor, datasets=datasets, repair=repair)


def export_stream(*, dataset: Dataset, filter: SampleFilter, format: str) -> Iterator[bytes]:
    """Return the samples of a filter as a stream in one of ``EXPORT_FORMATS``. Raises ``FilterError``."""
    words = words_by_dimension()
    where(dataset.pk, filter, words)  # a bad filter is told before the stream begins
    context = ExportContext(dataset.name, Path(dataset.root), dataset.format)
    return exporting.export_rows(_export_rows(dataset, filter, words), format=format, context=context)


def _export_rows(dataset: Dataset, filter: SampleFilter, words: dict[str, tuple[str, ...]]) -> Iterator[ExportRow]:
    after = ""
    while True:
        # The store is let go between pages, so that a slow reader of the stream holds up nobody.
        with sample_store().read() as cursor:
            rows, after = reading.export_page(cursor, dataset.pk, filter, words, after=after)
        for sample, categories, external_id, annotations in rows:
            yield ExportRow(
                id=sample.id,
                path=sample.path,
                file_name=sample.file_name,
                split=sample.split,
                width=sample.width,
                height=sample.height,
                external_id=external_id,
                categories=categories,
                annotations=annotations,
                tags=sample.tags,
            )
        if not after:
            return


def _dimension_of(tag: str, words: dict[str, tuple[str, ...]]) -> str | None:
    return next((name for name, of in words.items() if tag in of), None)
