"""Exports: the samples of a filter in a format."""

from collections.abc import Iterator
from pathlib import Path

from vlm.formats import ExportContext, ExportRow, export_rows
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import SampleFilter, reading, where


def stream(*, dataset: Dataset, filter: SampleFilter, format: str) -> Iterator[bytes]:
    """Return the samples of a filter as a stream in one of ``vlm.formats.EXPORTS``. Raises ``FilterError``."""
    words = words_by_dimension()
    where(dataset.pk, filter, words)  # a bad filter is told before the stream begins
    context = ExportContext(dataset.name, Path(dataset.root), dataset.format)
    return export_rows(_rows(dataset, filter, words), format=format, context=context)


def _rows(dataset: Dataset, filter: SampleFilter, words: dict[str, tuple[str, ...]]) -> Iterator[ExportRow]:
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
