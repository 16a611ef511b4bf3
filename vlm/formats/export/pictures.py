"""The pictures themselves, and lists of where they lie."""

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from vlm.formats.base import CHUNK, ExportContext, ExportFailed, ExportFormat, ExportRow
from vlm.formats.export.archive import NO_DATE, Lines, Listing, Sink
from vlm.imaging import ImageUnreadable, Source, open_source

MOST = 4 << 30  # bytes of pictures in one zip, which is complete on disk before it is sent


def _pictures(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a zip of the files as they are, below ``images/``; what cannot be read is named in ``unreadable.txt``."""
    sink, size, failed = Sink(), 0, 0
    with ExitStack() as stack, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        listing, unreadable = Listing(stack), Lines(stack)
        for row in listing.of(rows):
            try:
                source = context.root.source(row.path)
                size += _size(source)
                if size > MOST:
                    raise ExportFailed(
                        f"These pictures have more than {MOST / 2**30:.0f} GB. Narrow the filter, or lay them out as a folder on the "
                        "machine itself, with “export_images”."
                    )
                with open_source(source) as file:
                    member = zipfile.ZipInfo(f"images/{row.path}", NO_DATE)
                    with archive.open(member, "w", force_zip64=True) as target:
                        while piece := file.read(CHUNK):
                            target.write(piece)
                            yield sink.take()
            except (OSError, ImageUnreadable) as error:
                failed += 1
                unreadable.file.write(f"{row.path}: {error}\n")
            yield sink.take()
        listing.write_to(archive, listing.name)
        if failed:
            unreadable.write_to(archive, "unreadable.txt")
    yield sink.take()


def _size(source: Source) -> int:
    if isinstance(source, Path):
        return source.stat().st_size
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size


def _files(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write the whole path or URL of each file on a line of its own."""
    base = context.root.base()
    for row in rows:
        path = base + row.path
        if "\n" in path or "\r" in path:
            raise ExportFailed(
                f"The name of image {row.id} has a line break, so no list of lines can hold it. Export as jsonl."
            )
        yield path.encode("utf-8", "surrogateescape") + b"\n"


PICTURES = ExportFormat(
    "pictures",
    "a zip of the pictures as they are (`images/…`, at most 4 GB), with `samples.csv`: id, file, split, tags",
    "application/zip",
    ".zip",
    _pictures,
)
FILES = ExportFormat(
    "files",
    "the whole path or URL of each picture, one a line, for other tools",
    "text/plain; charset=utf-8",
    ".txt",
    _files,
)
