"""COCO JSON: one file or several, with the images beside them or in folders of their own.

One pass over each JSON spools its images and annotations to a temporary file, so memory stays flat; then the images
come in the order of the JSON, each with its annotations. Images are not opened: sizes are those of the JSON.
"""

import json
import math
import posixpath
import re
import struct
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlm.importing.files import OUTSIDE, Files, Refused
from vlm.importing.folder import split_name
from vlm.importing.json_stream import JSONBroken, stream_sections
from vlm.importing.records import Annotation, ImportFailed, ReportSkip, SampleRecord, Scan, distinct_categories

_MAX_FILES = 1000  # JSON files that are looked at
_HEAD = 65_536  # characters in which a COCO JSON names one of its sections
_SECTION = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|keypoints|panoptic|stuff|densepose|image_info)_", re.IGNORECASE)
_TASK = re.compile(r"^instances_(.+)$", re.IGNORECASE)
_BATCH = 4096  # images whose annotations are looked up at once
_BUFFER = 1 << 20  # bytes of annotations that are kept before they are spooled
_ANNOTATION = struct.Struct("<qi4d")  # hash of the image's id, index of the category, box (NaN where there is none)
_ANNOTATION_DTYPE = np.dtype(
    [("image", "<i8"), ("category", "<i4"), ("x", "<f8"), ("y", "<f8"), ("width", "<f8"), ("height", "<f8")]
)

_Image = tuple[str, str, int | None, int | None]  # id, file name, width, height


def find_annotation_files(files: Files) -> list[str]:
    """Return the paths of the COCO JSONs of a data set: at its root, and in the folders directly below.

    Captions, keypoints and the like describe the same images for other tasks and are left out.
    """
    root = Path(files.root)
    found: list[str] = []
    for candidate in sorted(chain(root.glob("*.json"), root.glob("*/*.json")))[:_MAX_FILES]:
        path = candidate.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in path.split("/"))
        if not hidden and not _OTHER_TASKS.match(candidate.name) and _begins_like_coco(files, path):
            found.append(path)
    return found


def scan_coco(root: Path, paths: list[str]) -> Scan:
    """Read COCO JSONs; ``paths`` are relative to ``root``.

    Raises:
        ImportFailed: none of them can be read, or they list no images.
    """
    files = Files(root)
    read: list[_Spool] = []
    broken: list[tuple[str, str]] = []
    for path in paths:
        try:
            read.append(_read(files, path))
        except (JSONBroken, Refused, OSError) as error:
            broken.append((path, str(error)))
    if not read:
        path, reason = broken[0]
        raise ImportFailed(f"“{path}” cannot be read as JSON: {reason}. Repair the file, or export it anew.")
    total = sum(spool.image_count for spool in read)
    if not total:
        raise ImportFailed(f"The COCO JSON “{read[0].path}” lists no images. Import the folder with --format folder.")

    def records(report: ReportSkip) -> Iterator[SampleRecord]:
        for path, reason in broken:
            report(path, f"It cannot be read as JSON: {reason}.")
        seen: set[int] = set()  # hashes: the paths themselves would take several times the memory
        for spool in read:
            yield from _records(files, spool, seen, report)

    return Scan(Path(files.root), "coco", total, records)


def _begins_like_coco(files: Files, path: str) -> bool:
    try:
        files.status(path)
        with Path(files.absolute(path)).open(encoding="utf-8-sig", errors="replace") as file:
            head = file.read(_HEAD)
    except (Refused, OSError):
        return False
    return head.lstrip().startswith("{") and bool(_SECTION.search(head))


# -- reading a JSON into a spool --------------------------------------------------------------------------------------


@dataclass
class _Spool:
    """A COCO JSON's content, on disk."""

    path: str
    images: IO[str]  # a line is a JSON list of images
    annotations: IO[bytes]
    image_count: int = 0
    annotation_count: int = 0
    categories: dict[str, str] = field(default_factory=dict)  # name by id
    category_ids: dict[str, int] = field(default_factory=dict)  # index by id, as the annotations refer to them
    invalid: list[tuple[str, str]] = field(default_factory=list)
    invalid_count: int = 0

    def refuse(self, path: str, reason: str) -> None:
        self.invalid_count += 1
        if self.invalid_count <= 1000:
            self.invalid.append((path, reason))


def _read(files: Files, path: str) -> _Spool:
    if files.status(path) is None:
        raise Refused("There is no such file")
    # Both live as long as the scan does, and have no name that could stay behind.
    images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
    annotations = tempfile.TemporaryFile()  # noqa: SIM115
    spool = _Spool(path, images, annotations)
    batch: list[_Image] = []
    packed = bytearray()
    with Path(files.absolute(path)).open(encoding="utf-8-sig") as file:
        for section, element in stream_sections(file):
            if section == "images":
                image = _parse_image(element, spool)
                if image is not None:
                    batch.append(image)
                if len(batch) == _BATCH:
                    _spool_images(spool, batch)
            elif section == "annotations":
                packed += _pack_annotation(element, spool)
                if len(packed) > _BUFFER:
                    spool.annotations.write(packed)
                    packed.clear()
            elif section == "categories" and isinstance(element, dict) and element.get("name") is not None:
                spool.categories[str(element.get("id"))] = str(element["name"]).strip()
    _spool_images(spool, batch)
    spool.annotations.write(packed)
    spool.annotations.flush()
    return spool


def _parse_image(element: Any, spool: _Spool) -> _Image | None:
    if not isinstance(element, dict) or not isinstance(element.get("file_name"), str) or not element["file_name"]:
        spool.refuse(spool.path, f"Entry {spool.image_count + spool.invalid_count + 1:,} of “images” has no file name.")
        return None
    external_id = element.get("id")
    return (
        "" if external_id is None else str(external_id),
        element["file_name"],
        _pixels(element.get("width")),
        _pixels(element.get("height")),
    )


def _spool_images(spool: _Spool, batch: list[_Image]) -> None:
    if batch:
        spool.images.write(json.dumps(batch) + "\n")
        spool.image_count += len(batch)
        batch.clear()


def _pack_annotation(element: Any, spool: _Spool) -> bytes:
    if not isinstance(element, dict) or element.get("image_id") is None:
        spool.refuse(spool.path, "An entry of “annotations” names no image.")
        return b""
    category_id = element.get("category_id")
    category = -1
    if category_id is not None:
        category = spool.category_ids.setdefault(str(category_id), len(spool.category_ids))
    spool.annotation_count += 1
    return _ANNOTATION.pack(hash(str(element["image_id"])), category, *_box(element.get("bbox")))


def _pixels(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 2**31 else None


def _box(value: Any) -> tuple[float, float, float, float]:
    """Return x, y, width, height; NaN where there is no proper box."""
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError, OverflowError):
        return math.nan, math.nan, math.nan, math.nan
    return x, y, width, height


# -- records from a spool ---------------------------------------------------------------------------------------------


def _records(files: Files, spool: _Spool, seen: set[int], report: ReportSkip) -> Iterator[SampleRecord]:
    for path, reason in spool.invalid:
        report(path, reason)
    bases, split = _image_folders(files, spool.path)
    lookup = _AnnotationLookup(spool)
    spool.images.seek(0)
    for line in spool.images:
        batch: list[_Image] = [(image[0], image[1], image[2], image[3]) for image in json.loads(line)]
        for (external_id, name, width, height), annotations in zip(batch, lookup.of(batch), strict=True):
            name = name.replace("\\", "/")
            try:
                path, key = _locate(files, bases, name)
            except Refused as refused:
                report(name, str(refused))
                continue
            fingerprint = hash(path)
            if fingerprint in seen:
                report(
                    path, f"It is listed more than once; the entry with id “{external_id}” in {spool.path} is left out."
                )
                continue
            seen.add(fingerprint)
            yield SampleRecord(
                path=path,
                file_name=name,
                split=split or _split_in(path),
                width=width,
                height=height,
                categories=distinct_categories(annotations),
                annotations=annotations,
                content_key=key,
                external_id=external_id,
            )
    if lookup.orphans:
        report(spool.path, f"Annotations that belong to images which it does not list: {lookup.orphans:,}.")


class _AnnotationLookup:
    """The annotations of a spool, by image."""

    def __init__(self, spool: _Spool) -> None:
        self._rows: NDArray[Any] = np.empty(0, _ANNOTATION_DTYPE)
        if spool.annotation_count:
            self._rows = np.memmap(spool.annotations, _ANNOTATION_DTYPE, "r", shape=(spool.annotation_count,))
        keys = np.ascontiguousarray(self._rows["image"])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._found = np.zeros(len(keys), dtype=np.bool_)
        self._names = [spool.categories.get(identity, f"category {identity}") for identity in spool.category_ids]
        self._names.append("")  # index -1: an annotation without category

    def of(self, images: Iterable[_Image]) -> Iterator[tuple[Annotation, ...]]:
        """Yield the annotations of each image, in the order of the JSON."""
        wanted = np.frombuffer(array("q", [hash(image[0]) for image in images]), dtype=np.int64)
        starts = np.searchsorted(self._keys, wanted, side="left").tolist()
        ends = np.searchsorted(self._keys, wanted, side="right").tolist()
        for start, end in zip(starts, ends, strict=True):
            if start == end:
                yield ()
                continue
            self._found[start:end] = True
            yield tuple(self._annotation(row) for row in self._rows[self._order[start:end]].tolist())

    @property
    def orphans(self) -> int:
        """How many annotations no image has asked for."""
        return int(np.count_nonzero(~self._found))

    def _annotation(self, row: tuple[int, int, float, float, float, float]) -> Annotation:
        _, category, *box = row
        x, y, width, height = box
        known = all(map(math.isfinite, box)) and width >= 0 and height >= 0
        return Annotation(self._names[category], (x, y, width, height) if known else None)


def _image_folders(files: Files, path: str) -> tuple[list[str], str]:
    """Return the folders in which the images of a JSON may lie, likeliest first, and the split that it stands for."""
    folder = posixpath.dirname(path)
    stem = posixpath.splitext(posixpath.basename(path))[0]
    match = _TASK.match(stem)
    named = match[1] if match else stem
    split = split_name(named) or split_name(posixpath.basename(folder))
    above = {folder, posixpath.dirname(folder), ""}
    bases = [folder]
    for parent in sorted(above, key=len, reverse=True):
        for child in (named, f"images/{named}", split, f"images/{split}", "images", "JPEGImages", "data", ""):
            candidate = posixpath.join(parent, child).rstrip("/")
            if candidate not in bases and (not candidate or files.is_folder(candidate)):
                bases.append(candidate)
    return bases, split


def _locate(files: Files, bases: list[str], name: str) -> tuple[str, str]:
    """Return the path and content key of an image; the folder that had it is asked first next time.

    Raises:
        Refused: it is in none of the folders, or not to be used.
    """
    outside = True
    for index, base in enumerate(bases):
        try:
            path = files.relative(base, name)
        except Refused:
            continue
        outside = False
        key = files.image(path)
        if key is not None:
            if index:
                bases.insert(0, bases.pop(index))
            return path, key
    raise Refused(OUTSIDE if outside else "The image is listed in the JSON, but the file is missing.")


def _split_in(path: str) -> str:
    """Return the split that the first fitting folder of a path stands for."""
    return next(filter(None, map(split_name, path.split("/")[:-1])), "")
