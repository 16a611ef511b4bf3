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
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlm.formats.base import ImportFormat
from vlm.formats.files import OUTSIDE, Files, Refused
from vlm.formats.json_stream import JSONBroken, stream_sections
from vlm.formats.matching import split_in, split_name
from vlm.formats.records import (
    Annotation,
    ImportFailed,
    ReportSkip,
    SampleRecord,
    Scan,
    distinct_categories,
    printable,
)

_MAX_FILES = 1000  # JSON files that are looked at
_HEAD = 65_536  # characters in which a COCO JSON names one of its sections
_SECTION = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|keypoints|panoptic|stuff|densepose|image_info)_", re.IGNORECASE)
_TASK = re.compile(r"^instances_(.+)$", re.IGNORECASE)
_FAR = 1e9  # pixels; beyond it a number is no coordinate
_BATCH = 4096  # entries that are spooled, and images whose annotations are looked up, at once
_MAX_REFUSED = 1000
_ANNOTATION = struct.Struct("<qi4d")  # hash of the image's id, index of the category, box (NaN where there is none)
_ANNOTATION_DTYPE = np.dtype(
    [("image", "<i8"), ("category", "<i4"), ("x", "<f8"), ("y", "<f8"), ("width", "<f8"), ("height", "<f8")]
)

_Image = tuple[str, str, int | None, int | None]  # id, file name, width, height


def find_annotation_files(files: Files) -> list[str]:
    """Return the paths of the COCO JSONs of a data set: at its root, and in the folders directly below.

    Captions, keypoints and the like describe the same images for other tasks and are left out.
    """
    folders, candidates = files.listing("", (".json",))
    for folder in folders:
        try:
            candidates += files.listing(folder, (".json",))[1]
        except Refused:
            continue  # it is not needed for finding a JSON elsewhere
    return [
        path
        for path in candidates[:_MAX_FILES]
        if not _OTHER_TASKS.match(posixpath.basename(path)) and _begins_like_coco(files, path)
    ]


def scan_coco(root: Path, paths: list[str]) -> Scan:
    """Read COCO JSONs; ``paths`` are relative to ``root``.

    Raises:
        ImportFailed: there are none, none of them can be read, or they list no images.
    """
    files = Files(root)
    if not paths:
        raise ImportFailed(
            f"There is no COCO JSON in “{root}” or the folders directly below. Give the path of the JSON."
        )
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
    refused: list[str] = field(default_factory=list)  # why entries were left out, the first thousand

    def refuse(self, reason: str) -> None:
        if len(self.refused) < _MAX_REFUSED:
            self.refused.append(reason)


def _read(files: Files, path: str) -> _Spool:
    if files.status(path) is None:
        raise Refused("There is no such file")
    # Both live as long as the scan does, and have no name that could stay behind.
    images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
    annotations = tempfile.TemporaryFile()  # noqa: SIM115
    spool = _Spool(path, images, annotations)
    with Path(files.absolute(path)).open(encoding="utf-8-sig") as file:
        for section, _, elements in stream_sections(file):
            if section == "images":
                _spool_images(elements, spool)
            elif section == "annotations":
                _spool_annotations(elements, spool)
            elif section == "categories":
                for element in elements:
                    if isinstance(element, dict) and element.get("name") is not None:
                        spool.categories[str(element.get("id"))] = printable(str(element["name"]).strip())
    spool.annotations.flush()
    return spool


def _spool_images(elements: Iterator[Any], spool: _Spool) -> None:
    done = 0
    while block := list(islice(elements, _BATCH)):
        batch: list[_Image] = []
        for number, element in enumerate(block, start=done + 1):
            try:
                external_id, name = element.get("id"), element["file_name"]
                if not isinstance(name, str) or not name:
                    raise KeyError
            except (AttributeError, KeyError):
                spool.refuse(f"Entry {number:,} of “images” has no file name.")
                continue
            identity = "" if external_id is None else str(external_id)
            batch.append((identity, name, _pixels(element.get("width")), _pixels(element.get("height"))))
        spool.images.write(json.dumps(batch) + "\n")
        spool.image_count += len(batch)
        done += len(block)


def _spool_annotations(elements: Iterator[Any], spool: _Spool) -> None:
    """Pack annotations; this loop and its like for images take most of the time of an import."""
    pack, category_ids = _ANNOTATION.pack, spool.category_ids
    done = 0
    while block := list(islice(elements, _BATCH)):
        packed: list[bytes] = []
        for number, element in enumerate(block, start=done + 1):
            try:
                key = hash(str(element["image_id"]))
                category_id = element.get("category_id")
            except (AttributeError, KeyError, TypeError):
                spool.refuse(f"Entry {number:,} of “annotations” names no image.")
                continue
            category = -1 if category_id is None else category_ids.setdefault(str(category_id), len(category_ids))
            try:
                x, y, width, height = element["bbox"]
                packed.append(pack(key, category, x, y, width, height))
            except (KeyError, TypeError, ValueError, OverflowError, struct.error):
                packed.append(pack(key, category, *_box(element.get("bbox"))))
        spool.annotations.write(b"".join(packed))
        spool.annotation_count += len(packed)
        done += len(block)


def _pixels(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 2**31 else None


def _box(value: Any) -> tuple[float, float, float, float]:
    """Return x, y, width, height, which may have been written as texts; NaN where there is no proper box."""
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError, OverflowError):
        return math.nan, math.nan, math.nan, math.nan
    return x, y, width, height


# -- records from a spool ---------------------------------------------------------------------------------------------


def _records(files: Files, spool: _Spool, seen: set[int], report: ReportSkip) -> Iterator[SampleRecord]:
    for reason in spool.refused:
        report(spool.path, reason)
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
                split=split or split_in(path.rpartition("/")[0]),
                width=width,
                height=height,
                categories=distinct_categories(annotations),
                annotations=annotations,
                content_key=key,
                external_id=printable(external_id),
            )
    if lookup.orphans:
        report(spool.path, f"Annotations that belong to images which it does not list: {lookup.orphans:,}.")


class _AnnotationLookup:
    """The annotations of a spool, by image."""

    def __init__(self, spool: _Spool) -> None:
        self._rows: NDArray[Any] = np.empty(0, _ANNOTATION_DTYPE)
        if spool.annotation_count:
            # A plain array over the mapped file: memmap's own indexing is slow.
            mapped = np.memmap(spool.annotations, _ANNOTATION_DTYPE, "r", shape=(spool.annotation_count,))
            self._rows = np.asarray(mapped)
        keys = np.ascontiguousarray(self._rows["image"])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._found = np.zeros(len(keys), dtype=np.bool_)
        self._names = [
            spool.categories.get(identity, printable(f"category {identity}")) for identity in spool.category_ids
        ]
        self._names.append("")  # index -1: an annotation without category

    def of(self, images: Iterable[_Image]) -> Iterator[tuple[Annotation, ...]]:
        """Yield the annotations of each image, in the order of the JSON."""
        wanted = np.frombuffer(array("q", [hash(image[0]) for image in images]), dtype=np.int64)
        starts = np.searchsorted(self._keys, wanted, side="left")
        counts = np.searchsorted(self._keys, wanted, side="right") - starts
        # The places of all annotations of the batch in sorted order: each image's run, one behind the other.
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        self._found[places] = True
        annotations = map(self._annotation, self._rows[self._order[places]].tolist())
        for count in counts.tolist():
            yield tuple(islice(annotations, count)) if count else ()

    @property
    def orphans(self) -> int:
        """How many annotations no image has asked for."""
        return int(np.count_nonzero(~self._found))

    def _annotation(self, row: tuple[int, int, float, float, float, float]) -> Annotation:
        _, category, x, y, width, height = row
        # NaN fails every comparison.
        known = -_FAR < x < _FAR and -_FAR < y < _FAR and 0 <= width < _FAR and 0 <= height < _FAR
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
    outside = False
    for index, base in enumerate(bases):
        try:
            path = files.relative(base, name)
        except Refused:
            outside = True
            continue
        key = files.image(path)
        if key is not None:
            if index:
                bases.insert(0, bases.pop(index))
            return path, key
    raise Refused(OUTSIDE if outside else "The image is listed in the JSON, but the file is missing.")


def _root_of(path: Path) -> Path:
    """Return the folder around ``annotations``, where a JSON lies in such a folder; else the JSON's own."""
    return path.parent.parent if path.parent.name.lower() in ("annotations", "labels") else path.parent


FORMAT = ImportFormat(
    name="coco",
    label="COCO JSON",
    layout=(
        "COCO JSON at the root or in a folder directly below (`annotations/instances_train2017.json`), "
        "images beside it or in folders of their own"
    ),
    find=find_annotation_files,
    scan=scan_coco,
    suffixes=(".json",),
    describing="a COCO JSON",
    root_of=_root_of,
)
