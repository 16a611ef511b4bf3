"""Data set formats, in and out: folders of images, COCO JSON and YOLO as a stream of sample records, and the exports.

Knows neither Django nor the store. Images are not decoded here; see ``vlm.imaging``. ``registry`` lists the formats.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from vlm.formats.base import CHUNK, ExportContext, ExportFailed, ExportFormat, ExportRow, ImportFormat
from vlm.formats.files import Files, Refused
from vlm.formats.records import Annotation, ImportFailed, SampleRecord, Scan, Skip
from vlm.formats.registry import AUTO, EXPORTS, IMPORTS, asked_choices, import_choices

__all__ = [
    "AUTO",
    "EXPORTS",
    "IMPORTS",
    "Annotation",
    "ExportContext",
    "ExportFailed",
    "ExportFormat",
    "ExportRow",
    "ImportFailed",
    "ImportFormat",
    "SampleRecord",
    "Scan",
    "Skip",
    "asked_choices",
    "export_rows",
    "import_choices",
    "scan",
]


def scan(path: Path, format: str = AUTO) -> Scan:
    """Look over a data set and return it ready to be read.

    Args:
        path: its folder; or the file in it that describes it.
        format: ``auto``, or one of ``IMPORTS``.

    Raises:
        ImportFailed: there is no such folder, no image in it, its description is unreadable, or it is not clear
            which format it has.
    """
    if format not in (AUTO, *IMPORTS):
        raise ImportFailed(f"“{format}” is no format. Choose {AUTO} or one of {', '.join(IMPORTS)}.")
    allowed = [known for known in IMPORTS.values() if format in (AUTO, known.name)]
    try:
        path = path.expanduser().resolve()
        if path.is_file():
            return _scan_file(path, allowed)
        if not path.is_dir():
            raise ImportFailed(f"There is no folder “{path}”. Check the path.")
        return _scan_folder(path, allowed)
    except (OSError, RuntimeError, ValueError, Refused) as error:  # resolving loops and unknown homes; NUL in a path
        raise ImportFailed(f"“{path}” cannot be read: {error}. Check the path and its rights.") from error


def _scan_file(path: Path, allowed: list[ImportFormat]) -> Scan:
    """Read the data set that a file describes."""
    for format in allowed:
        if path.name.lower().endswith(format.suffixes):
            root = format.root_of(path)
            return format.scan(root, [path.relative_to(root).as_posix()])
    described = ", ".join(format.describing for format in IMPORTS.values() if format.describing)
    raise ImportFailed(
        f"“{path}” is no folder. Give the folder of the data set, or the file that describes it: {described}."
    )


def _scan_folder(root: Path, allowed: list[ImportFormat]) -> Scan:
    files = Files(root)
    found = {format.name: format.find(files) for format in allowed}
    described = {name: paths for name, paths in found.items() if paths}
    if len(described) > 1:
        there = " and ".join(f"{IMPORTS[name].label} ({paths[0]})" for name, paths in described.items())
        options = " or ".join(f"--format {name}" for name in described)
        raise ImportFailed(f"“{root}” has {there}. Choose one with {options}.")
    # Without a description it is the one format that was asked for, or else a folder of images, which needs none.
    name = next(iter(described), allowed[0].name)
    return IMPORTS[name].scan(root, found[name])


def export_rows(rows: Iterable[ExportRow], *, format: str, context: ExportContext) -> Iterator[bytes]:
    """Return the content of an export, piece by piece; nothing is read from ``rows`` before the first piece is.

    Raises:
        ExportFailed: there is no such format; while iterating: the data set's COCO JSON cannot be read any more, or
            there is no room for temporary files.
    """
    if format not in EXPORTS:
        raise ExportFailed(f"“{format}” is no export format. Choose one of {', '.join(EXPORTS)}.")
    return _in_chunks(EXPORTS[format].write(rows, context))


def _in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces: a million writes to a socket are slow."""
    pending: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            pending.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(pending)
                pending.clear()
                size = 0
    except (OSError, duckdb.IOException) as error:
        raise ExportFailed(
            f"The export could not be written: {error}. Check the free space for temporary files."
        ) from error
    if pending:
        yield b"".join(pending)
