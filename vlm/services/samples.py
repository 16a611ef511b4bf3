"""Samples: pages of them, what a filter could be narrowed to, one in full, their pictures."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from vlm import imaging, thumbnails
from vlm.errors import RootAway
from vlm.exif import Taken, taken
from vlm.models import Dataset, TaggingRun, words_by_dimension
from vlm.process import sample_store
from vlm.roots import root_of
from vlm.samples import Event, Facets, Page, SampleDetail, SampleFilter, SampleRow, counting, reading
from vlm.samples import history as history_of

logger = logging.getLogger(__name__)

THUMBNAIL_SIZES = (160, 320, 640, 1280)  # the last for review: a third of the work of a picture in full
KEPT_COUNTS, KEPT_DATASETS = 1000, 20  # of the facets, in memory
EARLIEST = datetime.min.replace(tzinfo=UTC)
VIEW_SIZE = 2560  # pixels of the long side of the picture on a sample's page


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP picture; its name changes with the file that it was made from."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file itself says: ``size`` is width and height in pixels of the upright picture."""

    size: tuple[int, int]
    bytes: int
    taken: Taken


_counts: dict[tuple[Any, ...], tuple[int, dict[Any, Any]]] = {}
_counts_lock = threading.Lock()


def page(*, dataset: Dataset, filter: SampleFilter, order: str = "name", after: str = "", limit: int = 60) -> Page:
    """Return the samples behind the cursor ``after``. Raises ``FilterError`` on an unknown order, dimension or cursor."""
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.samples_page(cursor, dataset.pk, filter, words, order=order, after=after, limit=limit)


def window(
    *, dataset: Dataset, filter: SampleFilter, order: str = "name", at: int, before: int, limit: int
) -> tuple[Page, str]:
    """Return up to ``before`` samples in front of the place of ``at`` and ``limit`` from it on, and the cursor of the others.

    The sample itself need not match the filter: it may have left it meanwhile.

    Raises:
        FilterError: an unknown order or dimension.
    """
    words = words_by_dimension()
    with sample_store().read() as cursor:
        place = reading.cursor_before(cursor, dataset.pk, at, order, words)
        page = reading.samples_page(cursor, dataset.pk, filter, words, order=order, after=place, limit=limit)
        if not place:
            return page, ""
        front = reading.samples_before(
            cursor, dataset.pk, filter, words, order=order, before=place, limit=max(before, 1)
        )
    if before:
        return Page([*front.samples, *page.samples], page.next), front.next
    return page, place if front.samples else ""


def earlier(*, dataset: Dataset, filter: SampleFilter, order: str, before: str, limit: int) -> Page:
    """Return the samples up to the cursor ``before``; their ``next`` is the cursor of those before them."""
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.samples_before(cursor, dataset.pk, filter, words, order=order, before=before, limit=limit)


def facets(*, dataset: Dataset, filter: SampleFilter) -> Facets:
    """Count what a filter could be narrowed to.

    Counts are kept until the store changes: neighbouring filters share most of them, and so do all viewers.
    """
    words = words_by_dimension()
    with sample_store().read() as cursor:
        memory = counts_known(dataset.pk, words, reading.revision(cursor, dataset.pk))
        return counting.facets(cursor, dataset.pk, filter, words, memory)


def count(*, dataset: Dataset, filter: SampleFilter) -> int:
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.count(cursor, dataset.pk, filter, words)


def by_id(*, dataset: Dataset, ids: Sequence[int]) -> list[SampleRow]:
    with sample_store().read() as cursor:
        return reading.samples_by_id(cursor, dataset.pk, ids)


def detail(*, dataset: Dataset, sample_id: int) -> SampleDetail | None:
    with sample_store().read() as cursor:
        return reading.sample_detail(cursor, dataset.pk, sample_id)


def history(*, dataset: Dataset, sample_id: int, limit: int = history_of.MOST) -> list[Event]:
    """Return what a sample has seen, the last first: edits, undone ones too, and what runs said of it that were not taken back.

    An answer that made no tag has the time at which its run began.
    """
    with sample_store().read() as cursor:
        found = history_of.events(cursor, dataset.pk, sample_id, limit=limit)
    runs = TaggingRun.objects.select_related("started_by").in_bulk(
        {event.run for event in found if event.run is not None}
    )
    events = []
    for event in found:
        if (run := runs.get(event.run or 0)) is not None:
            by = run.started_by.get_username() if run.started_by else ""
            event = replace(event, user=by, time=event.time or run.started or run.created)
        events.append(event)
    return sorted(events, key=lambda event: event.time or EARLIEST, reverse=True)[:limit]


def neighbours(
    *, dataset: Dataset, filter: SampleFilter, order: str, sample_id: int, each: int
) -> tuple[list[SampleRow], list[SampleRow]]:
    """Return up to ``each`` samples before and behind one in the filter's order, in that order."""
    words = words_by_dimension()
    with sample_store().read() as cursor:
        before, after = reading.neighbours(
            cursor, dataset.pk, filter, words, order=order, sample_id=sample_id, each=each
        )
        rows = {row.id: row for row in reading.samples_by_id(cursor, dataset.pk, [*before, *after])}
    return [rows[i] for i in before if i in rows], [rows[i] for i in after if i in rows]


def file_facts(*, dataset: Dataset, sample: SampleRow) -> FileFacts | None:
    """Return what the head of a sample's file says; ``None`` if it cannot be read."""
    root = root_of(dataset.root)
    try:
        size, exif = root.look(sample.path, imaging.header)
        return FileFacts(size, root.size(sample.path), taken(exif))
    except (imaging.ImageUnreadable, RootAway):
        return None


def thumbnail(*, dataset: Dataset, sample_id: int, size: int) -> Thumbnail | None:
    """Return a WebP picture of the sample, ``None`` for an unknown sample. Raises ``ImageUnreadable``, ``RootAway``.

    One that cannot be kept, since the disk is full or takes no writes, is made anew each time.
    """
    found = by_id(dataset=dataset, ids=[sample_id])
    if not found:
        return None
    try:
        path = thumbnails.thumbnail(
            root_of(dataset.root),
            found[0].path,
            size=size,
            cache_dir=settings.THUMBNAIL_DIR,
            key=found[0].content_key,
            max_pixels=settings.MAX_PIXELS,
        )
        return Thumbnail(path.stem, path.read_bytes())
    except thumbnails.NotKept as error:
        logger.warning("%s Make room on the disk of %s, or give this user the right.", error, settings.THUMBNAIL_DIR)
        return Thumbnail(error.name, error.content)


def image(*, dataset: Dataset, sample_id: int) -> Thumbnail | None:
    """Return the sample as a browser can show it, at most ``VIEW_SIZE`` pixels long. Raises ``ImageUnreadable``, ``RootAway``."""
    return thumbnail(dataset=dataset, sample_id=sample_id, size=VIEW_SIZE)


def counts_known(dataset_id: int, words: dict[str, tuple[str, ...]], revision: int) -> dict[Any, Any]:
    """Return the counts that :func:`facets` made at this revision of the store."""
    key = (str(settings.DUCKDB_PATH), dataset_id, tuple(words.items()))
    with _counts_lock:
        known = _counts.get(key)
        if known is None or known[0] != revision or len(known[1]) > KEPT_COUNTS:
            if len(_counts) >= KEPT_DATASETS:
                _counts.clear()
            known = _counts[key] = (revision, {})
        return known[1]
