"""What a COCO JSON lists, read once and kept on disk, so that memory stays flat however large the JSON is."""

import json
import math
import struct
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import numpy as np

from vlm.formats.files import Files, Refused
from vlm.formats.json_stream import stream_sections
from vlm.formats.records import LONGEST_CATEGORY, printable

BATCH = 4096  # entries that are spooled, and images whose annotations are looked up, at once
_MAX_REFUSED = 1000
NO_ID = hash("")  # of an image or annotation that has none
_ANNOTATION = struct.Struct("<qi4d")  # hash of the image's id, index of the category, box (NaN where there is none)
ANNOTATION_DTYPE = np.dtype(
    [("image", "<i8"), ("category", "<i4"), ("x", "<f8"), ("y", "<f8"), ("width", "<f8"), ("height", "<f8")]
)
Listed = tuple[str, str, int | None, int | None]  # id as written, file name, width, height


@dataclass
class Spool:
    """A COCO JSON's content, on disk."""

    path: str
    images: IO[str]  # a line is a JSON list of images
    annotations: IO[bytes]
    image_count: int = 0
    annotation_count: int = 0
    categories: dict[str, str] = field(default_factory=dict)  # name by id
    category_ids: dict[str, int] = field(default_factory=dict)  # index by id, as the annotations refer to them
    refused: list[str] = field(default_factory=list)  # why entries were left out, the first thousand
    keys: "array[int]" = field(default_factory=lambda: array("q"))  # of the images, in their order: hash of the id,
    names: "array[int]" = field(default_factory=lambda: array("q"))  # and of the file name

    def refuse(self, reason: str) -> None:
        if len(self.refused) < _MAX_REFUSED:
            self.refused.append(reason)


def read_json(files: Files, path: str) -> Spool:
    """Read a COCO JSON in one pass.

    Raises:
        Refused: there is no such file, or it is not to be used.
        JSONBroken: it is no JSON.
    """
    if files.status(path) is None:
        raise Refused("There is no such file")
    # Both live as long as the scan does, and have no name that could stay behind.
    images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
    annotations = tempfile.TemporaryFile()  # noqa: SIM115
    spool = Spool(path, images, annotations)
    with files.open_text(path) as file:
        for section, _, elements in stream_sections(file):
            if section == "images":
                _spool_images(elements, spool)
            elif section == "annotations":
                _spool_annotations(elements, spool)
            elif section == "categories":
                _spool_categories(elements, spool)
    spool.annotations.flush()
    return spool


def _spool_images(elements: Iterator[Any], spool: Spool) -> None:
    done = 0
    while block := list(islice(elements, BATCH)):
        batch: list[Listed] = []
        for number, element in enumerate(block, start=done + 1):
            try:
                external_id, name = element.get("id"), element["file_name"]
                if not isinstance(name, str) or not name:
                    raise KeyError
            except (AttributeError, KeyError):
                spool.refuse(f"Entry {number:,} of “images” has no file name.")
                continue
            batch.append((_written(external_id), name, pixels(element.get("width")), pixels(element.get("height"))))
            spool.keys.append(hash(identity(external_id)))
            spool.names.append(hash(name))
        spool.images.write(json.dumps(batch) + "\n")
        spool.image_count += len(batch)
        done += len(block)


def _spool_annotations(elements: Iterator[Any], spool: Spool) -> None:
    """Pack annotations; this loop and its like for images take most of the time of an import."""
    pack, category_ids = _ANNOTATION.pack, spool.category_ids
    done = 0
    while block := list(islice(elements, BATCH)):
        packed: list[bytes] = []
        for number, element in enumerate(block, start=done + 1):
            try:
                key = hash(identity(element["image_id"]))
                category_id = element.get("category_id")
            except (AttributeError, KeyError, TypeError):
                spool.refuse(f"Entry {number:,} of “annotations” names no image.")
                continue
            if key == NO_ID:
                spool.refuse(f"Entry {number:,} of “annotations” names no image.")
                continue
            category = -1 if category_id is None else category_ids.setdefault(identity(category_id), len(category_ids))
            try:
                if "image_label" in element:  # a category of the whole image, as exports write it
                    raise KeyError
                x, y, width, height = element["bbox"]
                packed.append(pack(key, category, x, y, width, height))
            except (KeyError, TypeError, ValueError, OverflowError, struct.error):
                packed.append(pack(key, category, *_box(element)))
        spool.annotations.write(b"".join(packed))
        spool.annotation_count += len(packed)
        done += len(block)


def _spool_categories(elements: Iterator[Any], spool: Spool) -> None:
    for number, element in enumerate(elements, start=1):
        said = element.get("name") if isinstance(element, dict) else None
        name = printable(str(said).strip()) if isinstance(said, str | int | float) else ""
        if not name or len(name) > LONGEST_CATEGORY:
            spool.refuse(f"Entry {number:,} of “categories” has no name of at most {LONGEST_CATEGORY} characters.")
            continue
        key = identity(element.get("id"))
        if (earlier := spool.categories.get(key, name)) != name:
            spool.refuse(f"The category id “{key}” has two names, “{earlier}” and “{name}”; the last one counts.")
        spool.categories[key] = name


def pixels(value: Any) -> int | None:
    """Return a number of pixels, ``None`` for what is none."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 2**31 else None


def identity(value: Any) -> str:
    """Return an id so that the same number is the same text, however it was written: 1, 1.0, "1" and "001"."""
    kind = type(value)
    if kind is int:
        return str(value)
    if value is None:
        return ""
    if kind is float and value.is_integer():
        return str(int(value))
    if kind is str and value.isascii() and value.isdigit():
        return value.lstrip("0") or "0"
    return str(value)


def _written(value: Any) -> str:
    return "" if value is None else str(value)


def _box(element: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return x, y, width, height: of the box, which may have been written as texts, or around the polygons.

    NaN where there is neither, and negative sizes where there is a box that is none, so that these can be counted.
    """
    value = element.get("bbox")
    if element.get("image_label"):
        return math.nan, math.nan, math.nan, math.nan
    if value is None or value == []:
        return polygons_box(element.get("segmentation")) or (math.nan, math.nan, math.nan, math.nan)
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError, OverflowError):
        return 0.0, 0.0, -1.0, -1.0
    return x, y, width, height


def polygons_box(polygons: Any) -> tuple[float, float, float, float] | None:
    """Return the box around the polygons of a segmentation, ``None`` where it is something else."""
    try:
        points = [float(number) for polygon in polygons for number in polygon] if isinstance(polygons, list) else []
        xs, ys = points[::2], points[1::2]
        if xs and len(xs) == len(ys) and all(map(math.isfinite, points)):
            return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    except (TypeError, ValueError, OverflowError):
        pass
    return None


def sized(image: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the width and height that an image's record gives, as far as they can be pixels."""
    return pixels(image.get("width")), pixels(image.get("height"))
