"""COCO JSON: one file or several, with the images beside them or in folders of their own.

One pass over each JSON spools its images and annotations to a temporary file, so memory stays flat; then the images
come in the order of the JSON, each with its annotations. Images are not opened: sizes are those of the JSON.
"""

import json
import math
import os
import posixpath
import re
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from vlm.errors import Unwritable
from vlm.formats.base import Found, ImportFormat
from vlm.formats.files import OUTSIDE, UTF_16, Elsewhere, Files, Refused, not_text
from vlm.formats.json_stream import JSONBroken, stream_sections
from vlm.formats.masks import DESCRIBING
from vlm.formats.matching import Ambiguous, split_in, split_name
from vlm.formats.records import (
    LONGEST_CATEGORY,
    Annotation,
    ImportFailed,
    ReportSkip,
    SampleRecord,
    Scan,
    Skip,
    distinct_categories,
    printable,
)
from vlm.formats.upright import turn

_MAX_FILES = 1000  # JSON files that are looked at
_HEAD = 65_536  # bytes in which most COCO JSONs name one of their sections
_FAR_HEAD = 16_000_000  # characters that are decoded to find a section behind a long “info”
_DEEPER_FOLDERS = 500  # folders that are looked into where there is no JSON higher up
_TRIED = 100  # images by which the root of a JSON is found
_SECTION = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|keypoints|panoptic|stuff|densepose|image_info)_", re.IGNORECASE)
_TASKS_IN_ORDER = ("person_keypoints", "keypoints", "densepose", "stuff", "captions", "image_info")
_TASK = re.compile(
    r"^(?:instances|person_keypoints|keypoints|densepose|stuff|captions|image_info)_(.+)$", re.IGNORECASE
)
_COPY = re.compile(
    r"^(?:copy of |kopie von )(?P<of>.+)$|^(?P<before>.+?)(?: - (?:copy|kopie)(?: ?\(\d+\))?| ?\((?:copy|kopie)(?: \d+)?\)| ?\(\d+\)|"
    r"[-_. ](?:copy|kopie|backup|bak|old|orig|original)\d*)$",
    re.IGNORECASE,
)
_OWN_EXPORT = re.compile(rb'^[\xef\xbb\xbf\s]*\{\s*"datavisor"\s*:|"contributor": "DataVisor"')
# Exports of the first release that were made from a JSON have no mark, but tags in their images.
_TAGGED = re.compile(rb'"tags": \[(\{"tag": "[^"]*", "dimension": [^,]*, "source": "|\]\})')
_EXPORT = "It is an export of DataVisor, not the data set itself; give its path to import it."
_FAR = 1e9  # pixels; beyond it a number is no coordinate
_BATCH = 4096  # entries that are spooled, and images whose annotations are looked up, at once
_MAX_REFUSED = 1000
_NO_ID = hash("")
_ANNOTATION = struct.Struct("<qi4d")  # hash of the image's id, index of the category, box (NaN where there is none)
_ANNOTATION_DTYPE = np.dtype(
    [("image", "<i8"), ("category", "<i4"), ("x", "<f8"), ("y", "<f8"), ("width", "<f8"), ("height", "<f8")]
)

_Image = tuple[str, str, int | None, int | None]  # id as written, file name, width, height


def find_coco(files: Files) -> Found:
    """Look for COCO JSONs: at the root and in the folders directly below; where there is none, one folder deeper.

    Of files that describe the same images, one kind is read: instances where there are any, else key points and the like.
    Copies that lie beside their original and DataVisor's own exports are left to be named.
    """
    found = Found()
    folders, candidates = files.listing("", (".json",))
    deeper = _candidates_in(files, folders, candidates)
    _judge(files, candidates, found)
    if not found.descriptions and not found.broken:
        more: list[str] = []
        _candidates_in(files, deeper[:_DEEPER_FOLDERS], more)
        _judge(files, more, found)
    return found


def find_annotation_files(files: Files) -> list[str]:
    """Return the paths of the COCO JSONs of a data set; see ``find_coco``."""
    return find_coco(files).descriptions


def _candidates_in(files: Files, folders: list[str], candidates: list[str]) -> list[str]:
    """Add the JSONs of folders to ``candidates``, and return the folders in these folders."""
    deeper: list[str] = []
    for folder in folders:
        try:
            below, jsons = files.listing(folder, (".json",))
        except Refused:
            continue  # it is not needed for finding a JSON elsewhere
        candidates += jsons
        deeper += below
    return deeper


def _judge(files: Files, candidates: list[str], found: Found) -> None:
    """Sort JSONs into those that are read, those that are not, and those that are meant but cannot be."""
    coco: list[str] = []
    tagged: list[str] = []
    others: list[Skip] = []  # not worth a word beside a COCO JSON
    for path in candidates[:_MAX_FILES]:
        verdict, reason = _verdict(files, path)
        if verdict in ("coco", "tagged"):
            (coco if verdict == "coco" else tagged).append(path)
        else:
            {"broken": found.broken, "export": found.unused, "other": others}[verdict].append(Skip(path, reason))
    if len(candidates) > _MAX_FILES:
        found.unused.append(Skip(candidates[_MAX_FILES], f"Only the first {_MAX_FILES:,} JSON files are looked at."))
    if coco:
        found.unused += [Skip(path, _EXPORT) for path in tagged]
    else:
        coco = tagged
    originals = {posixpath.splitext(path)[0].casefold() for path in coco}
    usual = [path for path in coco if not _is_copy(path, originals)]
    found.unused += [
        Skip(path, "It is a copy that lies beside its original; give its path to import it instead.")
        for path in coco
        if path not in usual
    ]
    instances = [path for path in usual if not _OTHER_TASKS.match(posixpath.basename(path))]
    if not instances:
        tasks = {path: _task_of(path) for path in usual}
        first = next((task for task in _TASKS_IN_ORDER if task in tasks.values()), None)
        instances = [path for path, task in tasks.items() if task == first and first is not None]
    found.descriptions += instances
    if not instances:
        found.unused += others


def _task_of(path: str) -> str:
    match = _OTHER_TASKS.match(posixpath.basename(path))
    return match[1].lower() if match else ""


def _is_copy(path: str, originals: set[str]) -> bool:
    folder, name = posixpath.split(posixpath.splitext(path)[0])
    match = _COPY.match(name)
    return bool(match) and posixpath.join(folder, match["of"] or match["before"]).casefold() in originals  # type: ignore[index]


def _verdict(files: Files, path: str) -> tuple[str, str]:
    """Return what a JSON is (coco, tagged, broken, export, other) and, where it is not read, why."""
    try:
        status = files.status(path)
        head = files.read_head(path, _HEAD) if status is not None else b""
    except Refused as refused:
        return "other", str(refused)
    if reason := not_text(head):
        return ("broken" if reason != UTF_16 or _SECTION.search(_as_utf_16(head)) else "other"), reason
    if _OWN_EXPORT.search(head):
        return "export", _EXPORT
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "other", "It is no COCO JSON: no object with “images”, “annotations” and “categories”."
    if _SECTION.search(head.decode("utf-8", "replace")):
        return ("tagged" if _TAGGED.search(head) else "coco"), ""
    try:
        with Path(files.absolute(path)).open(encoding="utf-8-sig", errors="replace") as file:
            for section in stream_sections(cast(TextIO, _Limited(file, _FAR_HEAD))):
                if section.is_array and section.key in ("images", "annotations", "categories"):
                    return "coco", ""
    except (OSError, JSONBroken) as error:
        return "other", f"It is not read as a COCO JSON ({error})."
    return "other", "It is no COCO JSON: it has neither “images” nor “annotations” nor “categories”."


def _as_utf_16(head: bytes) -> str:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-le" if head[1] == 0 else "utf-16-be"
    return head.decode(encoding, "replace")


class _Limited:
    """The beginning of a text file."""

    def __init__(self, file: TextIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> str:
        text = self._file.read(min(size, self._left))
        self._left -= len(text)
        return text


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
            if (full := Unwritable.of(error)) is not None:  # no room for what is read meanwhile
                raise full from error
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
        yield from _Reading(files, read, report).records()

    return Scan(Path(files.root), "coco", total, records)


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
    keys: "array[int]" = field(default_factory=lambda: array("q"))  # of the images, in their order: hash of the id,
    names: "array[int]" = field(default_factory=lambda: array("q"))  # and of the file name

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
                _spool_categories(elements, spool)
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
            batch.append((_written(external_id), name, _pixels(element.get("width")), _pixels(element.get("height"))))
            spool.keys.append(hash(identity(external_id)))
            spool.names.append(hash(name))
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
                key = hash(identity(element["image_id"]))
                category_id = element.get("category_id")
            except (AttributeError, KeyError, TypeError):
                spool.refuse(f"Entry {number:,} of “annotations” names no image.")
                continue
            if key == _NO_ID:
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


def _spool_categories(elements: Iterator[Any], spool: _Spool) -> None:
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


def _pixels(value: Any) -> int | None:
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
    return _pixels(image.get("width")), _pixels(image.get("height"))


# -- records from a spool ---------------------------------------------------------------------------------------------


class _Reading:
    """One pass over what the JSONs list.

    Images that lie where their JSON says come first, in its order. Then come those whose paths are of another machine:
    they are looked for by the ends of their paths, all at once, and never take a file that another entry names itself.
    """

    def __init__(self, files: Files, spools: list[_Spool], report: ReportSkip) -> None:
        self._files = files
        self._spools = spools
        self._report = report
        self._seen: set[int] = set()  # hashes: the paths themselves would take several times the memory
        self._lookups: list[_AnnotationLookup] = []
        self._missing: list[array[int]] = []  # places in each spool of the images that were not found
        self._splits: list[str] = []
        self._split_of: dict[str, str] = {}  # of folders
        self._ambiguous: list[frozenset[int]] = []  # ids of each spool that several images have

    def records(self) -> Iterator[SampleRecord]:
        for spool in self._spools:
            for reason in spool.refused:
                self._report(spool.path, reason)
            self._lookups.append(_AnnotationLookup(spool))
            self._ambiguous.append(_ids_of_several(spool))
            yield from self._listed(spool)
        if any(self._missing):
            yield from self._elsewhere()
        for spool, lookup in zip(self._spools, self._lookups, strict=True):
            if lookup.orphans:
                text = f"Annotations that belong to images which it does not list: {lookup.orphans:,}."
                self._report(spool.path, text)
            if lookup.broken_boxes:
                text = f"Boxes that are none (negative, endless or no numbers), left out: {lookup.broken_boxes:,}."
                self._report(spool.path, text)

    def _listed(self, spool: _Spool) -> Iterator[SampleRecord]:
        """Yield the images that lie where the JSON says."""
        bases, split = _image_folders(self._files, spool.path)
        missing: array[int] = array("q")
        self._missing.append(missing)
        self._splits.append(split)
        for place, image, annotations in self._images(spool, self._lookups[-1]):
            if spool.keys[place] in self._ambiguous[-1]:
                self._report(
                    image[1],
                    f"Its id “{image[0]}” is also that of another image in {spool.path}, so it cannot be told which "
                    "annotations are its own: it comes without.",
                )
                annotations = ()
            try:
                found = _locate(self._files, bases, image[1])
            except Refused as refused:
                self._report(image[1], str(refused))
                continue
            if found is None:
                missing.append(place)
                continue
            path, key = found
            if hash(path) in self._seen:
                self._report(
                    path, f"It is listed more than once; the entry with id “{image[0]}” in {spool.path} is left out."
                )
                continue
            self._seen.add(hash(path))
            yield self._record(path, key, image, split, annotations, spool.path)

    def _elsewhere(self) -> Iterator[SampleRecord]:
        """Yield the images whose written paths lead nowhere, but end like one file."""
        elsewhere = Elsewhere(self._files, (image[1] for _, _, image, _ in self._not_found()))
        claims: dict[str, int] = {}  # hash of the name that claims a file, 0 where different ones do
        for _, _, image, _ in self._not_found():
            try:
                path = elsewhere.path(image[1])
            except Ambiguous:
                continue
            if path is not None:
                name = hash(image[1])
                claims[path] = name if claims.get(path, name) == name else 0
        for index, spool, image, annotations in self._not_found():
            written = image[1]
            try:
                path = elsewhere.path(written)
                if path is None:
                    away = _is_elsewhere(written)
                    raise Refused(OUTSIDE if away else "The image is listed in the JSON, but the file is missing.")
                if hash(path) in self._seen:
                    raise Refused(
                        f"Its name fits {path}, which is listed already; the entry with id “{image[0]}” is left out."
                    )
                if not claims[path]:
                    raise Refused(f"Its name fits {path}, but so do other entries; it is not clear which one is meant.")
                key = self._files.image(path)
                if key is None:
                    raise Refused("The file is missing.")
            except (Refused, Ambiguous) as refused:
                self._report(written, str(refused))
                continue
            self._seen.add(hash(path))
            yield self._record(path, key, image, self._splits[index], annotations, spool.path)

    def _not_found(self) -> Iterator[tuple[int, _Spool, _Image, tuple[Annotation, ...]]]:
        for index, (spool, missing) in enumerate(zip(self._spools, self._missing, strict=True)):
            if not missing:
                continue
            wanted = iter(missing)
            following = next(wanted)
            for place, image, annotations in self._images(spool, self._lookups[index]):
                if place == following:
                    unclear = spool.keys[place] in self._ambiguous[index]
                    yield index, spool, image, () if unclear else annotations
                    following = next(wanted, -1)

    def _images(
        self, spool: _Spool, lookup: "_AnnotationLookup"
    ) -> Iterator[tuple[int, _Image, tuple[Annotation, ...]]]:
        """Yield the images of a spool with their places and annotations."""
        spool.images.seek(0)
        place = 0
        while line := spool.images.readline():
            # Somebody may move the file's position between two lines, but not within one batch.
            position = spool.images.tell()
            batch: list[_Image] = [
                (image[0], image[1].replace("\\", "/"), image[2], image[3]) for image in json.loads(line)
            ]
            keys = spool.keys[place : place + len(batch)]
            for image, annotations in zip(batch, lookup.of(keys), strict=True):
                yield place, image, annotations
                place += 1
            spool.images.seek(position)

    def _record(
        self, path: str, key: str, image: _Image, split: str, annotations: tuple[Annotation, ...], source: str
    ) -> SampleRecord:
        external_id, name, width, height = image
        width, height, annotations = turn(self._files.absolute(path), width, height, annotations)
        return SampleRecord(
            path=path,
            file_name=name,
            split=split or self._split_in(path.rpartition("/")[0]),
            width=width,
            height=height,
            categories=distinct_categories(annotations),
            annotations=annotations,
            content_key=key,
            external_id=printable(external_id),
            source_file=source,
        )

    def _split_in(self, folder: str) -> str:
        """Return the split that a folder's name stands for; none where other folders beside it are no splits: then it is a class."""
        if folder not in self._split_of:
            split = split_in(folder)
            if split and (beside := _class_beside(self._files, folder)):
                split = ""
                self._report(
                    folder,
                    f"Its name could be a split's, but “{beside}” beside it is none: it is taken for a class, and stands for no split.",
                )
            self._split_of[folder] = split
        return self._split_of[folder]


def _class_beside(files: Files, folder: str) -> str:
    """Return a folder of images beside the one split that a path names, if that is the only split there; else ''."""
    parts = folder.split("/")
    place = next(index for index, part in enumerate(parts) if split_name(part))
    parent = "/".join(parts[:place])
    try:
        with os.scandir(files.absolute(parent)) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return ""
    others = [name for name in names if not split_name(name) and name.lower() not in DESCRIBING]
    if place != len(parts) - 1 or len({split_name(name) for name in names} - {""}) > 1:
        return ""
    return next((name for name in others if files.has_images(f"{parent}/{name}" if parent else name)), "")


def _is_elsewhere(name: str) -> bool:
    """Tell whether a path leads out of the folder: absolute, an address, or upward."""
    return name.startswith(("/", "../")) or "/../" in name or bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", name))


def _ids_of_several(spool: _Spool) -> frozenset[int]:
    """Return the hashes of the ids that more than one file name has."""
    keys, names = np.frombuffer(spool.keys, np.int64), np.frombuffer(spool.names, np.int64)
    if not len(keys):
        return frozenset()
    order = np.lexsort((names, keys))
    keys, names = keys[order], names[order]
    several = (keys[1:] == keys[:-1]) & (names[1:] != names[:-1])
    return frozenset(keys[1:][several].tolist()) - {_NO_ID}


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

    def of(self, images: "array[int]") -> Iterator[tuple[Annotation, ...]]:
        """Yield the annotations of each image, given by the hash of its id, in the order of the JSON."""
        wanted = np.frombuffer(images, dtype=np.int64)
        starts = np.searchsorted(self._keys, wanted, side="left")
        counts = np.searchsorted(self._keys, wanted, side="right") - starts
        # The places of all annotations of the batch in sorted order: each image's run, one behind the other.
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        self._found[places] = True
        annotations = map(self._annotation, self._rows[self._order[places]].tolist())
        for count in counts.tolist():
            yield tuple(islice(annotations, count)) if count else ()

    @property
    def broken_boxes(self) -> int:
        """How many boxes are there and are none."""
        if not len(self._rows):
            return 0
        box = np.stack([self._rows[name] for name in ("x", "y", "width", "height")])
        with np.errstate(invalid="ignore"):
            good = (np.abs(box) < _FAR).all(axis=0) & (box[2] >= 0) & (box[3] >= 0)
        return int(np.count_nonzero(~good & ~np.isnan(box).all(axis=0)))

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


def _locate(files: Files, bases: list[str], name: str) -> tuple[str, str] | None:
    """Return the path and content key of an image, ``None`` where it is in none of the folders.

    The folder that had it is asked first next time.

    Raises:
        Refused: it is there, but not to be used.
    """
    for index, base in enumerate(bases):
        try:
            path = files.relative(base, name)
        except Refused:
            continue
        key = files.image(path)
        if key is not None:
            if index:
                bases.insert(0, bases.pop(index))
            return path, key
    return None


def _root_of(path: Path, allowed: Callable[[Path], bool]) -> Path:
    """Return the folder from which the images of a JSON are found: its own, or one of the three above.

    That is the first below which images lie where the JSON says; else the folder around ``annotations``, else its own.
    """
    usual = path.parent.parent if path.parent.name.lower() in ("annotations", "labels") else path.parent
    if not allowed(usual):
        usual = path.parent
    names = _first_names(path)
    for root in (usual, *path.parents[:3]):
        if len(root.parts) < 2 or not allowed(root):
            continue
        files = Files(root)
        bases, _ = _image_folders(files, path.relative_to(root).as_posix())
        for name in names:
            try:
                if _locate(files, bases, name) is not None:
                    return root
            except Refused:
                continue
    return usual


def _first_names(path: Path) -> list[str]:
    """Return the file names of the first images that a JSON lists."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for section in stream_sections(file):
                if section.key == "images" and section.is_array:
                    named = (
                        image.get("file_name") for image in islice(section.elements, _TRIED) if isinstance(image, dict)
                    )
                    return [name.replace("\\", "/") for name in named if isinstance(name, str) and name]
    except (OSError, JSONBroken):
        pass  # reading it will say what is wrong
    return []


FORMAT = ImportFormat(
    name="coco",
    label="COCO JSON",
    layout=(
        "COCO JSON at the root or in a folder directly below (`annotations/instances_train2017.json`), "
        "images beside it or in folders of their own"
    ),
    find=find_coco,
    scan=scan_coco,
    suffixes=(".json",),
    describing="a COCO JSON",
    root_of=_root_of,
)
