"""COCO JSON: the samples with their annotations as they came, out of the data set's own JSONs; or a new one.

The store keeps boxes and categories only. So a data set that came from COCO JSONs is exported by reading these once more, in
one stream each: what belongs to the samples of the filter is taken over as it is, with segmentation, crowds and attributes.
"""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from vlm.formats.base import (
    CHUNK,
    ExportContext,
    ExportFailed,
    ExportFormat,
    ExportRow,
    json_bytes,
    measure_object,
    size_of,
    tag_objects,
)
from vlm.formats.coco import find_annotation_files
from vlm.formats.coco_spool import identity, polygons_box, sized
from vlm.formats.files import Refused
from vlm.formats.files_of import files_of
from vlm.formats.json_stream import JSONBroken, Section, stream_sections
from vlm.formats.records import Annotation, printable

STORED = "coco-stored"
UNKNOWN = "unknown"  # the category of annotations that have none: readers want one
_NO_CATEGORY = -1
_SECONDS = 2.0  # by which the clocks of a disk and of this machine may differ
_BIGGEST = 2**62


def _coco(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    if context.format != "coco":
        yield from _stored(rows, context)
        return
    with ExitStack() as stack:
        sources = _sources(rows, context, stack)
        for source in sources:
            source.read(context)
        yield from _assembled(sources, context)


# -- the data set's own JSONs -----------------------------------------------------------------------------------------


def _sources(rows: Iterable[ExportRow], context: ExportContext, stack: ExitStack) -> list["_Source"]:
    """Sort the rows by the JSON that described them."""
    sources: dict[str, _Source] = {}
    fallback: str | None = None
    for row in rows:
        path = row.source_file
        if not path:
            # An import of the first release did not note it. Where there is one JSON only, it is clear.
            fallback = _only_json(context) if fallback is None else fallback
            path = fallback
        if path not in sources:
            sources[path] = _Source(path, _spool(stack), _spool(stack), _spool(stack), _spool(stack))
        sources[path].expect(row, context)
    return [sources[path] for path in sorted(sources)]


def _spool(stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.TemporaryFile())


def _only_json(context: ExportContext) -> str:
    try:
        found = find_annotation_files(files_of(context.root))
    except Refused:
        found = []
    if len(found) != 1:
        raise ExportFailed(
            "An earlier release imported this data set and did not note which JSON describes an image. Import it again, or "
            f"export it as {STORED}, which has boxes and categories only."
        )
    return found[0]


@dataclass
class _Source:
    """A COCO JSON, what is wanted of it, and what was found."""

    path: str
    rows: IO[bytes]  # a line is what goes into an image's record
    images: IO[bytes]  # a line is an image's record without its id
    annotations: IO[bytes]  # a line is an annotation without its own, its image's and its category's id
    extras: IO[bytes]  # a line is a further section: its key and value
    offsets: dict[int, int] = field(default_factory=dict)  # of an image's line in ``rows``, by id and file name
    expected: dict[int, int] = field(default_factory=dict)  # annotations of an image, by its id
    image_ids: list[Any] = field(default_factory=list)  # as written, of the images that were found
    annotation_ids: "array[int]" = field(default_factory=lambda: array("q"))  # 0 where it is no whole number
    annotation_images: "array[int]" = field(default_factory=lambda: array("q"))  # hash of the image's id
    annotation_categories: "array[int]" = field(default_factory=lambda: array("i"))  # place in ``category_ids``
    category_ids: dict[str, int] = field(default_factory=dict)  # that annotations refer to
    categories: list[dict[str, Any]] = field(default_factory=list)
    names: dict[int, int] = field(default_factory=dict)  # hash of an image's file name, by its id
    ambiguous: set[int] = field(default_factory=set)  # ids that several images have

    def expect(self, row: ExportRow, context: ExportContext) -> None:
        key = hash(_id_of(row.external_id))
        self.offsets[hash((key, row.file_name))] = self.rows.tell()
        self.expected[key] = len(row.annotations)
        width, height = size_of(row, context)
        told = told_of(row, context) | {"path": row.path, "width": width, "height": height}
        self.rows.write(json.dumps(told).encode() + b"\n")

    def read(self, context: ExportContext) -> None:
        """Read the JSON in one stream and keep what belongs to the wanted images.

        Raises:
            ExportFailed: it is gone, or is not what was imported.
        """
        files = files_of(context.root)
        try:
            status = files.now(self.path)
            if status is None:
                raise FileNotFoundError("it is not there any more")
            imported = context.imported.timestamp() if context.imported else None
            if imported is not None and status.modified > imported + _SECONDS:
                raise self._changed(context)
            with files.open_text(self.path) as file:
                for section in stream_sections(file):
                    self._take(section)
        except (JSONBroken, Refused, OSError) as error:
            raise ExportFailed(
                f"The data set's COCO JSON “{self.path}” cannot be read any more: {error}. Restore it, or export as {STORED}, "
                "which has boxes and categories only."
            ) from error
        found = Counter(self.annotation_images)
        wanted = ((key, count) for key, count in self.expected.items() if key not in self.ambiguous)
        if self.offsets or any(found[key] != count for key, count in wanted):
            raise self._changed(context)

    def _changed(self, context: ExportContext) -> ExportFailed:
        return ExportFailed(
            f"The data set's COCO JSON “{self.path}” has changed since “{context.dataset_name}” was imported. Import it again, "
            f"or export as {STORED}, which has boxes and categories only."
        )

    def _take(self, section: Section) -> None:
        if section.key == "images" and section.is_array:
            for element in section.elements:
                if isinstance(element, dict):
                    self._take_image(element)
        elif section.key == "annotations" and section.is_array:
            for element in section.elements:
                if isinstance(element, dict):
                    self._take_annotation(element)
        elif section.key == "categories" and section.is_array:
            self.categories += [element for element in section.elements if isinstance(element, dict)]
        elif section.key != "datavisor":
            value = list(section.elements) if section.is_array else next(section.elements)
            self.extras.write(json.dumps([section.key, value]).encode() + b"\n")

    def _take_image(self, image: dict[str, Any]) -> None:
        key, name = hash(_id_of(image.get("id"))), str(image.get("file_name", "")).replace("\\", "/")
        if key in self.expected and self.names.setdefault(key, hash(name)) != hash(name):
            self.ambiguous.add(key)
        offset = self.offsets.pop(hash((key, name)), None)
        if offset is None:
            return
        self.rows.seek(offset)
        self.image_ids.append(image.pop("id", None))
        told = json.loads(self.rows.readline())
        width, height = sized(image)
        told |= {"width": width or told["width"], "height": height or told["height"]}
        self.images.write(json.dumps(image | told).encode() + b"\n")

    def _take_annotation(self, annotation: dict[str, Any]) -> None:
        image = annotation.pop("image_id", None)
        key = hash(_id_of(image))
        if image is None or key not in self.expected:
            return
        number = annotation.pop("id", None)
        whole = isinstance(number, int | float) and number == number // 1 and 0 < number < _BIGGEST
        category = annotation.pop("category_id", None)
        place = (
            _NO_CATEGORY
            if category is None
            else self.category_ids.setdefault(identity(category), len(self.category_ids))
        )
        self.annotation_ids.append(int(number) if whole else 0)
        self.annotation_images.append(key)
        self.annotation_categories.append(place)
        self.annotations.write(json.dumps(_completed(annotation)).encode() + b"\n")


def _id_of(value: Any) -> str:
    """Return an image's id as it is compared, whether it comes from a JSON or from the store, which has it as text."""
    if isinstance(value, str) and value[-2:] == ".0" and value[:-2].lstrip("-").isdecimal():
        value = value[:-2]
    return printable(identity(value))


def _completed(annotation: dict[str, Any]) -> dict[str, Any]:
    """Add what readers cannot do without, as far as it follows from what is there."""
    annotation.setdefault("iscrowd", 0)
    if not annotation.get("bbox") and (box := polygons_box(annotation.get("segmentation"))) is not None:
        annotation["bbox"] = list(box)
    box = annotation.get("bbox")
    if annotation.get("area") is None and isinstance(box, list) and len(box) == 4:
        try:
            annotation["area"] = round(float(box[2]) * float(box[3]), 3)
        except (TypeError, ValueError):
            pass
    return annotation


def _assembled(sources: list[_Source], context: ExportContext) -> Iterator[bytes]:
    """Put the parts together; ids stay where they are one image's, one annotation's or one category's alone."""
    single = len(sources) == 1
    yield b"{" + _mark(context)
    yield from _extras(sources, context)
    categories, places = _merged_categories(sources)
    image_ids = _merged_image_ids(sources)
    yield b',\n"images": ['
    opening = b""
    for source, ids in zip(sources, image_ids, strict=True):
        source.images.seek(0)
        for number, line in zip(ids.values(), source.images, strict=True):
            image = json.loads(line)
            path = image.pop("path")
            # The name as it came; but names of several JSONs are relative to different folders, and may be the same.
            record = {"id": number} | image | ({} if single else {"file_name": path})
            yield opening + json.dumps(record).encode()
            opening = b",\n"
    yield b'],\n"annotations": ['
    opening = b""
    annotation_ids = _merged_annotation_ids(sources)
    for source, ids, numbers, category_of in zip(sources, image_ids, annotation_ids, places, strict=True):
        source.annotations.seek(0)
        rows = zip(
            numbers.tolist(), source.annotation_images, source.annotation_categories, source.annotations, strict=True
        )
        for number, key, category, line in rows:
            if key in source.ambiguous:
                continue
            head = json.dumps({"id": number, "image_id": ids[key], "category_id": category_of[category]}).encode()
            rest = line.strip()[1:]
            yield opening + head[:-1] + (b"" if rest == b"}" else b", ") + rest
            opening = b",\n"
    yield b'],\n"categories": ' + json.dumps(categories).encode() + b"}\n"


def told_of(row: ExportRow, context: ExportContext) -> dict[str, Any]:
    """Return what an image record says of its sample beside what COCO knows."""
    told: dict[str, Any] = {"tags": tag_objects(row), "datavisor_id": row.id}
    told |= {"measures": measure_object(row)} if context.measured else {}
    return told | {"columns": dict(row.values)} if row.values else told


def _mark(context: ExportContext) -> bytes:
    """Return what an import knows an export by, so that it is never taken for the data set itself."""
    return b'"datavisor": ' + json_bytes({"export": 1, "dataset": context.dataset_name})


def _extras(sources: list[_Source], context: ExportContext) -> Iterator[bytes]:
    """Yield the further sections: of one JSON all of them; of several, a description and the licenses."""
    licenses: dict[str, Any] = {}
    for source in sources:
        source.extras.seek(0)
        for line in source.extras:
            key, value = json.loads(line)
            if len(sources) == 1:
                yield f",\n{json.dumps(key)}: {json.dumps(value)}".encode()
            elif key == "licenses" and isinstance(value, list):
                for entry in value:
                    licenses.setdefault(identity(entry.get("id")) if isinstance(entry, dict) else str(entry), entry)
    if len(sources) != 1:
        info = {"description": context.dataset_name, "contributor": "DataVisor"}
        yield f',\n"info": {json.dumps(info)},\n"licenses": {json.dumps(list(licenses.values()))}'.encode()


def _merged_image_ids(sources: list[_Source]) -> list[dict[int, Any]]:
    """Return, for each source, the id of each image that was found, by the hash of the id it had."""
    taken: set[str] = set()
    fresh = 1 + max((number for source in sources for number in source.image_ids if _is_whole(number)), default=0)
    merged = []
    for source in sources:
        ids: dict[int, Any] = {}
        for place, number in enumerate(source.image_ids):
            text, key = identity(number), hash(_id_of(number))
            if number is None or text in taken:
                number, fresh = fresh, fresh + 1
            taken.add(text)
            # Images that share an id need a key each; their annotations are left out.
            ids[key if key not in ids else -place - 1] = int(number) if isinstance(number, float) else number
        merged.append(ids)
    return merged


def _merged_annotation_ids(sources: list[_Source]) -> list[Any]:
    """Return the ids of the annotations: the own ones, but new ones where there is none or another one has it."""
    every = np.concatenate(
        [np.frombuffer(source.annotation_ids, np.int64) for source in sources] or [np.empty(0, np.int64)]
    )
    _, first = np.unique(every, return_index=True)
    kept = np.zeros(len(every), dtype=np.bool_)
    kept[first] = True
    kept &= every > 0
    merged = every.copy()
    merged[~kept] = int(every.max(initial=0)) + 1 + np.arange(np.count_nonzero(~kept))
    ends = np.cumsum([len(source.annotation_ids) for source in sources])
    return np.split(merged, ends[:-1]) if sources else []


def _merged_categories(sources: list[_Source]) -> tuple[list[dict[str, Any]], list[dict[int, Any]]]:
    """Return the categories, and for each source the id of the category at each place of its ``category_ids``.

    What annotations refer to and nobody declares is added by the name that the page shows.
    """
    categories: list[dict[str, Any]] = []
    by_name: dict[tuple[str, str], Any] = {}
    taken: set[str] = set()
    fresh = 1 + max((c["id"] for source in sources for c in source.categories if _is_whole(c.get("id"))), default=0)

    def add(category: dict[str, Any]) -> Any:
        nonlocal fresh
        number = category.get("id")
        name = (str(category.get("name", "")), str(category.get("supercategory", "")))
        if len(sources) > 1 and name in by_name:
            return by_name[name]
        if number is None or (len(sources) > 1 and identity(number) in taken):
            number, fresh = fresh, fresh + 1
        taken.add(identity(number))
        categories.append(category | {"id": number})
        by_name.setdefault(name, number)
        return number

    places: list[dict[int, Any]] = []
    for source in sources:
        declared: dict[str, Any] = {}
        for category in source.categories:
            number = add(category)
            declared.setdefault(identity(category.get("id")), number)
        of: dict[int, Any] = {}
        for text, place in source.category_ids.items():
            if text not in declared:
                number = int(text) if text.lstrip("-").isdecimal() and len(text) < 18 else text
                declared[text] = add({"id": number, "name": f"category {text}"})
            of[place] = declared[text]
        if _NO_CATEGORY in source.annotation_categories:
            of[_NO_CATEGORY] = by_name.get((UNKNOWN, ""))
            if of[_NO_CATEGORY] is None:
                of[_NO_CATEGORY] = add({"name": UNKNOWN})
        places.append(of)
    return categories, places


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < _BIGGEST


# -- from what is stored ------------------------------------------------------------------------------------------------


def _stored(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a new COCO JSON for any data set: file names are relative to its root.

    What lies around a box is told as a polygon too, and a category without a box as one around the whole image, which says
    so (``image_label``): readers want both.
    """
    categories: dict[str, int] = {}
    count = 0
    with tempfile.TemporaryFile() as spool:
        info = {"description": context.dataset_name, "contributor": "DataVisor"}
        yield b"{" + _mark(context) + b',\n"info": ' + json_bytes(info) + b',\n"licenses": [],\n"images": ['
        opening = b""
        for row in rows:
            width, height = size_of(row, context)
            image: dict[str, Any] = {"id": row.id, "file_name": row.path, "width": width, "height": height}
            if row.split:
                image["split"] = row.split
            yield opening + json_bytes(image | told_of(row, context))
            opening = b",\n"
            for annotation in row.annotations:
                number = categories.setdefault(annotation.category or UNKNOWN, len(categories) + 1)
                record = {"id": count + 1, "image_id": row.id, "category_id": number} | _shape(
                    annotation, width, height
                )
                spool.write((b",\n" if count else b"") + json_bytes(record))
                count += 1
        yield b'],\n"annotations": ['
        spool.seek(0)
        while piece := spool.read(CHUNK):
            yield piece
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        yield b'],\n"categories": ' + json_bytes(listed) + b"}\n"


def _shape(annotation: Annotation, width: int, height: int) -> dict[str, Any]:
    x, y, across, down = annotation.box or (0, 0, width, height)
    corners = [x, y, x + across, y, x + across, y + down, x, y + down]
    shape: dict[str, Any] = {
        "iscrowd": 0,
        "bbox": [x, y, across, down],
        "area": round(across * down, 3),
        "segmentation": [[round(number, 3) for number in corners]],
    }
    return shape if annotation.box is not None else shape | {"image_label": True}


FORMAT = ExportFormat(
    "coco",
    "COCO JSON of just these samples; where the data set came from COCO JSONs, images and annotations as they were there "
    "(segmentation, crowds, attributes, ids where they are unique), with `tags` and your `columns` in the image records",
    "application/json",
    ".json",
    _coco,
)
STORED_FORMAT = ExportFormat(
    STORED,
    "a new COCO JSON from what DataVisor keeps: boxes and categories, file names relative to the data set's folder",
    "application/json",
    ".json",
    _stored,
)
