"""Data set formats, in and out: folders of images, COCO JSON and YOLO as a stream of sample records, and the exports.

Knows neither Django nor the store. Images are not decoded here; see ``vlm.imaging``. ``registry`` lists the formats.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import duckdb

from vlm.errors import Unwritable
from vlm.formats.base import CHUNK, ExportContext, ExportFailed, ExportFormat, ExportRow, ImportFormat
from vlm.formats.files import Files, Refused
from vlm.formats.local_files import LocalFiles
from vlm.formats.object_files import ObjectFiles
from vlm.formats.records import Annotation, ImportFailed, SampleRecord, Scan, Skip, is_unicode, printable, summed_up
from vlm.formats.registry import AUTO, EXPORTS, IMPORTS, asked_choices, import_choices
from vlm.roots import ObjectRoot, ObjectURL, is_url

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


def scan(path: Path | str, format: str = AUTO, *, within: Sequence[Path | ObjectURL] = ()) -> Scan:
    """Look over a data set and return it ready to be read.

    Args:
        path: its folder or URL; or the file in it that describes it.
        format: ``auto``, or one of ``IMPORTS``.
        within: folders and URLs that the data set's root may not lie above; none means anywhere.

    Raises:
        ImportFailed: there is no such folder, no image in it, its description is unreadable, or it is not clear
            which format it has.
        RootRefused, RootAway: the URL is none that is read from, or its store does not answer.
    """
    if format not in (AUTO, *IMPORTS):
        raise ImportFailed(f"“{format}” is no format. Choose {AUTO} or one of {', '.join(IMPORTS)}.")
    allowed = [known for known in IMPORTS.values() if format in (AUTO, known.name)]
    if isinstance(path, str) and is_url(path):
        return _scan_url(ObjectURL.parse(path), allowed, [url for url in within if isinstance(url, ObjectURL)])
    path = Path(path)
    try:
        path = path.expanduser().resolve()
        if not is_unicode(str(path)):
            raise ImportFailed(f"The path “{printable(str(path))}” has bytes that are no UTF-8. Rename the folder.")
        if path.is_file():
            return _scan_file(path, allowed, [folder.resolve() for folder in within if isinstance(folder, Path)])
        if not path.is_dir():
            raise ImportFailed(f"There is no folder “{path}”. Check the path.")
        return _scan_folder(LocalFiles(path), allowed)
    except (OSError, RuntimeError, ValueError, Refused) as error:  # resolving loops and unknown homes; NUL in a path
        raise ImportFailed(f"“{path}” cannot be read: {error}. Check the path and its rights.") from error


def _scan_file(path: Path, allowed: list[ImportFormat], within: list[Path]) -> Scan:
    """Read the data set that a file describes; its root lies below one of ``within``, if there are any."""
    for format in allowed:
        if path.name.lower().endswith(format.suffixes):
            root = format.root_of(path, lambda folder: not within or any(map(folder.is_relative_to, within)))
            return format.scan(LocalFiles(root), [path.relative_to(root).as_posix()])
    raise ImportFailed(
        f"“{path}” is no folder. Give the folder of the data set, or the file that describes it: {_described()}."
    )


def _described() -> str:
    return ", ".join(format.describing for format in IMPORTS.values() if format.describing)


def _scan_url(url: ObjectURL, allowed: list[ImportFormat], within: list[ObjectURL]) -> Scan:
    """Read the data set below a URL, or the one that an object describes: its root is then the folder around that, or one above."""
    for format in allowed:
        if url.prefix and url.name.lower().endswith(format.suffixes):
            root = url.parent
            if within and not any(map(root.is_below, within)):
                continue
            if (
                root.prefix
                and root.name.lower() in format.beside
                and (not within or any(map(root.parent.is_below, within)))
            ):
                root = root.parent
            files = ObjectFiles(ObjectRoot(root))
            description = "/".join(url.parts[len(root.parts) :])
            if files.status(description) is not None:
                return _told(partial(format.scan, files, [description]), root)
    return _told(partial(_scan_folder, ObjectFiles(ObjectRoot(url)), allowed), url)


def _told(look: Callable[[], Scan], url: ObjectURL) -> Scan:
    try:
        return look()
    except Refused as error:
        raise ImportFailed(f"“{url}” cannot be read: {error}") from None


def _scan_folder(files: Files, allowed: list[ImportFormat]) -> Scan:
    root = files.root
    found = {format.name: format.find(files) for format in allowed}
    described = {name: what.descriptions for name, what in found.items() if what.descriptions}
    if len(described) > 1:
        there = " and ".join(f"{IMPORTS[name].label} ({paths[0]})" for name, paths in described.items())
        options = " or ".join(f"--format {name}" for name in described)
        raise ImportFailed(f"“{root}” has {there}. Choose one with {options}.")
    broken = [skip for what in found.values() for skip in what.broken]
    if broken and not described:
        # What was meant and cannot be understood is never passed over: the labels would be missing without a word.
        plain = "" if len(allowed) == 1 else " Or import the images alone with --format folder."
        raise ImportFailed(f"“{broken[0].path}” cannot be used: {broken[0].reason} Repair it, or give another.{plain}")
    # Without a description it is the one format that was asked for, or else a folder of images, which needs none.
    name = next(iter(described), allowed[0].name)
    try:
        scan = IMPORTS[name].scan(files, found[name].descriptions)
    except ImportFailed as error:
        seen = (
            "" if described else " ".join(f"{skip.path}: {skip.reason}" for skip in summed_up(found[name].unused)[:3])
        )
        raise ImportFailed(f"{error} Seen and not used: {seen}" if seen else str(error)) from error
    noted = {note.path for note in scan.notes}
    unused = (
        [skip for what in found.values() for skip in what.unused] if name == allowed[0].name else found[name].unused
    )
    scan.notes += [skip for skip in summed_up([*broken, *unused]) if skip.path not in noted]
    return scan


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
        if (full := Unwritable.of(error)) is not None:
            raise full from error
        raise ExportFailed(
            f"The export could not be written: {error}. Check the free space for temporary files."
        ) from error
    if pending:
        yield b"".join(pending)
