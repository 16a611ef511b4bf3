"""Writing samples and their tags to files, as streams of bytes.

    csv       file_name, split, tags (a JSON list of objects); quoted as RFC 4180 says, names are never altered
    jsonl     an object per sample: file_name, split, tags
    parquet   the same as typed columns: tags is a list of structs
    coco      the data set's own COCO JSON with ``tags`` in its image records, where it came from exactly one; else a
              new COCO JSON with images, annotations, categories and tags
    fiftyone  a zip of what FiftyOne reads, see ``_fiftyone``

A tag is written as ``tag``, ``dimension`` (null for free tags), ``source`` (user or model), ``probability`` and ``run``
(null for tags of users).
"""

import csv
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb

from vlm.importing.coco import find_annotation_files
from vlm.importing.files import Files, Refused
from vlm.importing.json_stream import JSONBroken, Section, stream_sections
from vlm.importing.records import Annotation, printable
from vlm.samples import Tag

_CHUNK = 1 << 16  # bytes of a piece of the stream, roughly
_NOT_A_FIELD = re.compile(r"\W+")


class ContentType(NamedTuple):
    """How an export is announced to a browser, and how its file ends."""

    mime: str
    suffix: str


FORMATS: dict[str, ContentType] = {
    "csv": ContentType("text/csv; charset=utf-8", ".csv"),
    "jsonl": ContentType("application/x-ndjson", ".jsonl"),
    "parquet": ContentType("application/vnd.apache.parquet", ".parquet"),
    "coco": ContentType("application/json", ".json"),
    "fiftyone": ContentType("application/zip", ".zip"),
}


class ExportFailed(Exception):
    """An export cannot be written; the message says what to do."""


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
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class ExportContext:
    """The data set that is exported: its name, its root folder, and the format that it was imported from."""

    dataset_name: str
    root: Path
    format: str


def export_rows(rows: Iterable[ExportRow], *, format: str, context: ExportContext) -> Iterator[bytes]:
    """Return the content of an export, piece by piece; nothing is read from ``rows`` before the first piece is.

    Raises:
        ExportFailed: there is no such format; while iterating: the data set's COCO JSON cannot be read any more, or
            there is no room for temporary files.
    """
    writers: dict[str, Callable[[Iterable[ExportRow]], Iterator[bytes]]] = {
        "csv": _csv,
        "jsonl": _jsonl,
        "parquet": _parquet,
        "coco": lambda rows: _coco(rows, context),
        "fiftyone": lambda rows: _fiftyone(rows, context),
    }
    if format not in writers:
        raise ExportFailed(f"“{format}” is no export format. Choose one of {', '.join(FORMATS)}.")
    return _in_chunks(writers[format](rows))


def _in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces: a million writes to a socket are slow."""
    pending: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            pending.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                yield b"".join(pending)
                pending.clear()
                size = 0
    except (OSError, duckdb.IOException) as error:
        raise ExportFailed(
            f"The export could not be written: {error}. Check the free space for temporary files."
        ) from error
    if pending:
        yield b"".join(pending)


def _tags(row: ExportRow) -> list[dict[str, Any]]:
    return [asdict(tag) for tag in row.tags]


def _plain(row: ExportRow) -> dict[str, Any]:
    return {"file_name": row.file_name, "split": row.split, "tags": _tags(row)}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# -- rows and columns -------------------------------------------------------------------------------------------------


def _csv(rows: Iterable[ExportRow]) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # the excel dialect is that of RFC 4180
    writer.writerow(("file_name", "split", "tags"))
    for row in rows:
        writer.writerow((row.file_name, row.split, json.dumps(_tags(row), ensure_ascii=False)))
        if buffer.tell() >= _CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _jsonl(rows: Iterable[ExportRow]) -> Iterator[bytes]:
    for row in rows:
        yield _json(_plain(row)) + b"\n"


def _parquet(rows: Iterable[ExportRow]) -> Iterator[bytes]:
    """Let DuckDB turn the lines of ``jsonl`` into Parquet, from one temporary file to another."""
    with tempfile.TemporaryDirectory(prefix="datavisor-export-") as folder:
        lines, target = Path(folder, "rows.jsonl"), Path(folder, "rows.parquet")
        with lines.open("wb") as file:
            file.writelines(_jsonl(rows))
        settings: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": folder,
            "memory_limit": "1GB",
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.execute(
                """
                COPY (
                    SELECT * FROM read_json($lines, format = 'newline_delimited', columns = {
                        file_name: 'VARCHAR',
                        split: 'VARCHAR',
                        tags: 'STRUCT(tag VARCHAR, dimension VARCHAR, source VARCHAR, probability DOUBLE, run BIGINT)[]'
                    })
                ) TO $target (FORMAT parquet, COMPRESSION zstd)
                """,
                {"lines": str(lines), "target": str(target)},
            )
        lines.unlink()
        with target.open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece


# -- COCO -------------------------------------------------------------------------------------------------------------


def _coco(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    original = _single_annotation_file(context)
    return _new_coco(rows, context) if original is None else _tagged_coco(rows, original)


def _single_annotation_file(context: ExportContext) -> Path | None:
    """Return the COCO JSON that the data set came from, ``None`` where it came from several or none."""
    if context.format != "coco":
        return None
    files = Files(context.root)
    try:
        found = find_annotation_files(files)
    except Refused:
        return None
    return Path(files.absolute(found[0])) if len(found) == 1 else None


def _tagged_coco(rows: Iterable[ExportRow], original: Path) -> Iterator[bytes]:
    """Copy a COCO JSON section by section, with ``tags`` in the records of the images that ``rows`` has."""
    with tempfile.TemporaryFile() as spool:
        offsets: dict[int, int] = {}  # of an image's tags in the spool; by hash, to hold a million of them
        for row in rows:
            offsets[hash((row.external_id, row.file_name))] = spool.tell()
            spool.write(json.dumps(_tags(row)).encode() + b"\n")
        try:
            with original.open(encoding="utf-8-sig") as file:
                opening = "{"
                for section in stream_sections(file):
                    yield f"{opening}{json.dumps(section.key)}: ".encode()
                    yield from _copied(section, offsets, spool)
                    opening = ",\n"
                yield b"}\n" if opening != "{" else b"{}\n"
        except (JSONBroken, FileNotFoundError) as error:
            raise ExportFailed(
                f"The data set's COCO JSON “{original}” cannot be read any more: {error}. Restore it, or export as jsonl."
            ) from error


def _copied(section: Section, offsets: dict[int, int], spool: IO[bytes]) -> Iterator[bytes]:
    if not section.is_array:
        yield json.dumps(next(section.elements)).encode()
        return
    opening = b"["
    for element in section.elements:
        if section.key == "images" and isinstance(element, dict):
            tags = _spooled_tags(element, offsets, spool)
            if tags is not None:
                element["tags"] = tags
        yield opening + json.dumps(element).encode()
        opening = b",\n"
    yield b"]" if opening != b"[" else b"[]"


def _spooled_tags(image: dict[str, Any], offsets: dict[int, int], spool: IO[bytes]) -> Any:
    identity = image.get("id")
    name = str(image.get("file_name", "")).replace("\\", "/")
    offset = offsets.get(hash(("" if identity is None else printable(str(identity)), name)))
    if offset is None:
        return None
    spool.seek(offset)
    return json.loads(spool.readline())


def _new_coco(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a COCO JSON for any data set: file names are relative to its root, what is not known is left out."""
    categories: dict[str, int] = {}
    count = 0
    with tempfile.TemporaryFile() as spool:
        info = json.dumps({"description": context.dataset_name, "contributor": "DataVisor"})
        yield f'{{"info": {info},\n"images": ['.encode()
        opening = b""
        for row in rows:
            image = {"id": row.id, "file_name": row.path, "width": row.width, "height": row.height, "split": row.split}
            known = {key: value for key, value in image.items() if value not in (None, "")}
            yield opening + _json({**known, "tags": _tags(row)})
            opening = b",\n"
            for annotation in row.annotations:
                spool.write(
                    (b",\n" if count else b"") + _json(_coco_annotation(annotation, count + 1, row.id, categories))
                )
                count += 1
        yield b'],\n"annotations": ['
        spool.seek(0)
        while piece := spool.read(_CHUNK):
            yield piece
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        yield b'],\n"categories": ' + _json(listed) + b"}\n"


def _coco_annotation(annotation: Annotation, number: int, image: int, categories: dict[str, int]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": number, "image_id": image, "iscrowd": 0}
    if annotation.category:
        record["category_id"] = categories.setdefault(annotation.category, len(categories) + 1)
    if annotation.box is not None:
        record |= {"bbox": list(annotation.box), "area": round(annotation.box[2] * annotation.box[3], 3)}
    return record


# -- FiftyOne ---------------------------------------------------------------------------------------------------------


def _fiftyone(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a zip of ``metadata.json`` and ``samples.json``; unpack it and read it with::

        fiftyone.Dataset.from_dir(dataset_dir="FOLDER", dataset_type=fiftyone.types.FiftyOneDataset)

    ``FiftyOneDataset`` has two forms on disk. Since FiftyOne 0.8 it is a dump of a MongoDB, bound to a version by the
    ``version`` in ``metadata.json``; without that key, FiftyOne reads the earlier form (``LegacyFiftyOneDataset``),
    which is written here. Images are referred to by their absolute paths and are not copied.

    Samples get their tags as FiftyOne's ``tags``, their split as ``split``, every dimension's word as a classification
    ``tag_DIMENSION`` with its confidence, and the data set's own annotations as ``ground_truth`` (with boxes) and
    ``categories`` (without).
    """
    sink = _Sink()
    root = context.root.resolve()
    metadata = {"name": context.dataset_name, "media_type": "image", "info": {"exported_by": "DataVisor"}}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        with archive.open("samples.json", "w", force_zip64=True) as file:
            file.write(b'{"samples": [')
            opening = b""
            for row in rows:
                file.write(opening + json.dumps(_fiftyone_sample(row, root)).encode())
                opening = b",\n"
                yield sink.take()
            file.write(b"]}\n")
    yield sink.take()


def _fiftyone_sample(row: ExportRow, root: Path) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "filepath": str(root / row.path),
        "tags": list(dict.fromkeys(tag.tag for tag in row.tags)),
        "_media_type": "image",
    }
    if row.split:
        sample["split"] = row.split
    for tag in row.tags:
        if tag.dimension is not None:
            label = {"_cls": "Classification", "label": tag.tag, "confidence": tag.probability}
            sample.setdefault(f"tag_{_NOT_A_FIELD.sub('_', tag.dimension)}", label)
    detections = [
        {"_cls": "Detection", "label": annotation.category, "bounding_box": box}
        for annotation in row.annotations
        if (box := _relative_box(annotation, row)) is not None
    ]
    if detections:
        sample["ground_truth"] = {"_cls": "Detections", "detections": detections}
    unboxed = dict.fromkeys(a.category for a in row.annotations if a.category and _relative_box(a, row) is None)
    if unboxed:
        labels = [{"_cls": "Classification", "label": category} for category in unboxed]
        sample["categories"] = {"_cls": "Classifications", "classifications": labels}
    return sample


def _relative_box(annotation: Annotation, row: ExportRow) -> list[float] | None:
    """Return x, y, width and height as fractions of the image, as FiftyOne wants them."""
    if annotation.box is None or not row.width or not row.height:
        return None
    x, y, width, height = annotation.box
    return [x / row.width, y / row.height, width / row.width, height / row.height]


class _Sink(io.RawIOBase):
    """Takes what is written and gives it away again; it cannot seek, as a socket cannot."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
