"""Exports: the samples of a filter in a format."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from django.utils.text import slugify

from vlm.formats import EXPORTS, ExportContext, ExportRow, export_rows
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.roots import root_of
from vlm.samples import SampleFilter, columns, reading, values, where

_LONGEST_PART = 60  # characters of a part of the file's name


@dataclass
class Export:
    """An export that is complete, in a file without a name that is gone as soon as it is closed."""

    file: IO[bytes]
    size: int
    name: str
    mime: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()


def make(*, dataset: Dataset, filter: SampleFilter, format: str, view: str = "") -> Export:
    """Write the samples of a filter into a file, in one of ``vlm.formats.EXPORTS``.

    Whatever goes wrong does so here, before anybody was told that there is something to come.

    Args:
        view: the name of the filter, for the name of the file.

    Raises:
        FilterError: the filter cannot be read.
        ExportFailed: the file cannot be made; the message says why.
        StoreError: the store cannot be read.
    """
    words = words_by_dimension()
    where(dataset.pk, filter, words)  # a bad filter is told before the long writing
    with sample_store().read() as cursor:
        measured = values.has_measures(cursor, dataset.pk)
        brought = {column.name: column.kind for column in columns.columns(cursor, dataset.pk)}
    root = root_of(dataset.root)
    context = ExportContext(dataset.name, root, dataset.format, dataset.imported, tuple(words), measured, brought)
    pieces = export_rows(_rows(dataset, filter, words), format=format, context=context)
    return written(
        pieces, name=file_name(dataset=dataset, filter=filter, format=format, view=view), mime=EXPORTS[format].mime
    )


def written(pieces: Iterable[bytes], *, name: str, mime: str) -> Export:
    """Write pieces into a file that nobody else sees, and return it from its beginning on."""
    file = tempfile.TemporaryFile(prefix="datavisor-export-")  # noqa: SIM115 - its reader closes it
    try:
        size = sum(file.write(piece) for piece in pieces)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Export(file, size, name, mime)


def file_name(*, dataset: Dataset, filter: SampleFilter, format: str, view: str = "") -> str:
    """Return the name of an export's file: the data set, the view (or the filter's own words), the format."""
    said = view or (filter.to_query() if not filter.is_empty else "")
    return slugs(dataset.name, said, format) + EXPORTS[format].suffix


def slugs(*said: str) -> str:
    """Return texts as one name of a file, without what such a name had better not have."""
    parts = (slugify(part, allow_unicode=True)[:_LONGEST_PART].strip("-") for part in said)
    return "-".join(part for part in parts if part)


def rows_of(dataset: Dataset, filter: SampleFilter) -> Iterator[ExportRow]:
    """Return the samples of a filter as exports write them. Raises ``FilterError``."""
    words = words_by_dimension()
    where(dataset.pk, filter, words)
    return _rows(dataset, filter, words)


def _rows(dataset: Dataset, filter: SampleFilter, words: dict[str, tuple[str, ...]]) -> Iterator[ExportRow]:
    after = ""
    while True:
        # The store is let go between pages, so that a long export holds up nobody.
        with sample_store().read() as cursor:
            rows, after = reading.export_page(cursor, dataset.pk, filter, words, after=after)
            ids = [row[0].id for row in rows]
            measures = values.measures_of(cursor, dataset.pk, ids=ids)
            brought = columns.values_of(cursor, dataset.pk, ids)
        for sample, categories, external_id, source_file, annotations in rows:
            yield ExportRow(
                id=sample.id,
                path=sample.path,
                file_name=sample.file_name,
                split=sample.split,
                width=sample.width,
                height=sample.height,
                external_id=external_id,
                source_file=source_file,
                categories=categories,
                annotations=annotations,
                tags=sample.tags,
                measures=measures.get(sample.id),
                values=brought.get(sample.id, {}),
            )
        if not after:
            return
