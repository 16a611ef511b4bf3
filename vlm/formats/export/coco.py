"""COCO JSON: the data set's own with tags in it, or a new one."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from vlm.formats.base import CHUNK, ExportContext, ExportFailed, ExportFormat, ExportRow, json_bytes, tag_objects
from vlm.formats.coco import find_annotation_files
from vlm.formats.files import Files, Refused
from vlm.formats.json_stream import JSONBroken, Section, stream_sections
from vlm.formats.records import Annotation, printable


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
            spool.write(json.dumps(tag_objects(row)).encode() + b"\n")
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
            yield opening + json_bytes({**known, "tags": tag_objects(row)})
            opening = b",\n"
            for annotation in row.annotations:
                spool.write(
                    (b",\n" if count else b"") + json_bytes(_coco_annotation(annotation, count + 1, row.id, categories))
                )
                count += 1
        yield b'],\n"annotations": ['
        spool.seek(0)
        while piece := spool.read(CHUNK):
            yield piece
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        yield b'],\n"categories": ' + json_bytes(listed) + b"}\n"


def _coco_annotation(annotation: Annotation, number: int, image: int, categories: dict[str, int]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": number, "image_id": image, "iscrowd": 0}
    if annotation.category:
        record["category_id"] = categories.setdefault(annotation.category, len(categories) + 1)
    if annotation.box is not None:
        record |= {"bbox": list(annotation.box), "area": round(annotation.box[2] * annotation.box[3], 3)}
    return record


FORMAT = ExportFormat(
    "coco",
    "the data set's own COCO JSON with `tags` in its image records, if it came from exactly one; else a new COCO JSON",
    "application/json",
    ".json",
    _coco,
)
