"""What a format is, to be read or to be written; ``vlm.formats.registry`` lists them all."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from vlm.errors import Refusal
from vlm.formats.files import Files
from vlm.formats.records import Annotation, Scan, Skip
from vlm.imaging import ImageUnreadable, image_size
from vlm.roots import Root
from vlm.samples import Measures, Tag
from vlm.samples.conditions import MEASURES

CHUNK = 1 << 16  # bytes of a piece of an export, roughly


class ExportFailed(Refusal):
    """An export cannot be written; the message says what to do."""

    title = "This cannot be exported"
    status = 409


@dataclass(slots=True)
class Found:
    """What a format finds in a folder.

    Attributes:
        descriptions: paths of the files that describe a data set of the format.
        unused: files that look like it and are not used, with the reason.
        broken: files that are meant as descriptions and cannot be understood, with the reason.
    """

    descriptions: list[str] = field(default_factory=list)
    unused: list[Skip] = field(default_factory=list)
    broken: list[Skip] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImportFormat:
    """A format in which data sets are read.

    Attributes:
        name: what ``--format`` takes, and what the data set's row holds.
        label: what people choose from.
        layout: what such a data set looks like, for the README.
        suffixes: of the files that describe such a data set, and may be given in place of its folder.
        describing: what such a file is called, for a sentence.
        find: looks for descriptions in a folder.
        scan: takes the files and the descriptions to read.
        root_of: returns the root of the data set that a description in a folder of this machine belongs to; a folder above the
            description's own only where the second argument allows it.
        beside: names of folders that hold descriptions and lie beside the images.
    """

    name: str
    label: str
    layout: str
    find: Callable[[Files], Found]
    scan: Callable[[Files, list[str]], Scan]
    suffixes: tuple[str, ...] = ()
    describing: str = ""
    root_of: Callable[[Path, Callable[[Path], bool]], Path] = lambda path, allowed: path.parent
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A sample as it is exported; see ``SampleRecord`` for what the fields mean."""

    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    external_id: str
    source_file: str
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    tags: tuple[Tag, ...]
    measures: Measures | None = None
    values: Mapping[str, float | bool | str] = field(default_factory=dict)  # of the columns, where it has one


@dataclass(frozen=True, slots=True)
class ExportContext:
    """The data set that is exported: its name, its root, and the format and time of its last import.

    ``measured`` says whether any of its images is: without, no format has a column for measures.
    """

    dataset_name: str
    root: Root
    format: str
    imported: datetime | None = None
    dimensions: tuple[str, ...] = ()  # of the vocabulary, in its order
    measured: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)  # that users brought along: name → number, boolean or word


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format in which samples and their tags are written.

    Attributes:
        name: what ``--format`` takes.
        meaning: what the file holds, for the README.
        mime: how the file is announced to a browser.
        suffix: how its name ends.
        write: returns the file's content, piece by piece.
    """

    name: str
    meaning: str
    mime: str
    suffix: str
    write: Callable[[Iterable[ExportRow], ExportContext], Iterator[bytes]]


def tag_objects(row: ExportRow) -> list[dict[str, Any]]:
    """Return the tags of a sample as every export writes them; times are UTC."""
    return [asdict(tag) | {"time": said_time(tag)} for tag in row.tags]


def said_time(tag: Tag) -> str | None:
    """Return when a tag was given, as ISO 8601 has it."""
    return f"{tag.time:%Y-%m-%dT%H:%M:%SZ}" if tag.time is not None else None


MEASURED = (*MEASURES, "phash")


def measure_object(row: ExportRow) -> dict[str, float | str] | None:
    """Return the measures of a sample as every export writes them: to six digits, the hash as 16 hexadecimal ones."""
    if row.measures is None:
        return None
    numbers: dict[str, float | str] = {name: float(f"{getattr(row.measures, name):.6g}") for name in MEASURES}
    return numbers | {"phash": f"{row.measures.phash:016x}"}


def column_heads(context: ExportContext, taken: Iterable[str]) -> dict[str, str]:
    """Return column → what a table calls it: its name, or “column NAME” where the table has one of that name already."""
    there = {name.casefold() for name in taken}
    heads = {}
    for name in context.columns:
        head = name
        while head.casefold() in there:
            head = f"column {head}"
        there.add(head.casefold())
        heads[name] = head
    return heads


def size_of(row: ExportRow, context: ExportContext) -> tuple[int, int]:
    """Return width and height of a sample; where they are not known, the file's head says so (0, 0 if it cannot be read)."""
    if row.width and row.height:
        return row.width, row.height
    try:
        return context.root.look(row.path, image_size)
    except ImageUnreadable:
        return 0, 0


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
