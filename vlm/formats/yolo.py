"""YOLO data sets: a ``data.yaml`` with names and splits, images and label files in parallel folders.

Label files hold a line per object: the class, then the box's centre and size, or a polygon, or a box and key points, in
fractions of the upright image. Boxes are wanted in pixels, so the headers of labelled images are read for their size.
"""

import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm.formats.base import ImportFormat
from vlm.formats.files import Files, Refused, walk_images
from vlm.formats.matching import split_in
from vlm.formats.records import (
    Annotation,
    ImportFailed,
    ReportSkip,
    SampleRecord,
    Scan,
    distinct_categories,
    printable,
)
from vlm.imaging import ImageUnreadable, image_size

_SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
_MAX_YAML = 10_000_000  # bytes
_MAX_LABELS = 10_000_000
_MAX_LIST = 1_000_000_000

_Object = tuple[int, float, float, float, float]  # class, then x, y, width, height as fractions


@dataclass(frozen=True, slots=True)
class _Description:
    """What a ``data.yaml`` says."""

    path: str
    base: str
    names: dict[int, str]
    sources: tuple[tuple[str, str], ...]  # split, and a folder or list of images as written
    key_point_values: int  # numbers per object behind the box, 0 where objects have no key points


def find_descriptions(files: Files) -> list[str]:
    """Return the paths of the YAML files at the root that describe a YOLO data set."""
    found = []
    for path in files.listing("", (".yaml", ".yml"))[1]:
        try:
            content = _load(files, path)
        except (Refused, ImportFailed):
            continue
        if isinstance(content, dict) and _describes_yolo(content):
            found.append(path)
    return ["data.yaml"] if "data.yaml" in found else found


def scan_yolo(root: Path, paths: list[str]) -> Scan:
    """Read a YOLO data set; ``paths`` has its YAML file relative to ``root``, if there is one.

    Raises:
        ImportFailed: there are several, the YAML file cannot be read, or it leads to no images.
    """
    files = Files(root)
    if len(paths) > 1:
        raise ImportFailed(f"“{root}” has several descriptions ({', '.join(paths)}). Give the path of one of them.")
    description = _describe(files, paths[0]) if paths else _without_description(files)
    total = sum(1 for _ in _images(files, description, lambda path, reason: None))
    if not total:
        raise ImportFailed(
            f"“{description.path or root}” leads to no images below “{root}”. Check its “train”, “val” and “test”."
        )

    def records(report: ReportSkip) -> Iterator[SampleRecord]:
        seen: set[int] = set()
        for split, image in _images(files, description, report):
            fingerprint = hash(image)
            if fingerprint in seen:
                report(image, f"It is in more than one split or list; the one in “{split}” is left out.")
                continue
            seen.add(fingerprint)
            try:
                key = files.image(image)
                if key is None:
                    raise Refused("The file is missing.")
            except Refused as refused:
                report(image, str(refused))
                continue
            size, annotations = _annotations(files, description, image, report)
            yield SampleRecord(
                path=image,
                file_name=image,
                split=split,
                width=size[0] if size else None,
                height=size[1] if size else None,
                categories=distinct_categories(annotations),
                annotations=annotations,
                content_key=key,
                external_id="",
            )

    return Scan(Path(files.root), "yolo", total, records)


# -- the description --------------------------------------------------------------------------------------------------


def _load(files: Files, path: str) -> Any:
    text = files.read_text(path, max_bytes=_MAX_YAML)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = f" at line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""  # type: ignore[union-attr]
        raise ImportFailed(f"“{path}” is no valid YAML{where}. Repair the file, or export it anew.") from error


def _describes_yolo(content: dict[Any, Any]) -> bool:
    return any(content.get(key) for key in _SPLIT_KEYS) and ("names" in content or "nc" in content)


def _describe(files: Files, path: str) -> _Description:
    try:
        content = _load(files, path)
    except Refused as refused:
        raise ImportFailed(f"“{path}” cannot be read: {refused}") from refused
    if not isinstance(content, dict):
        raise ImportFailed(f"“{path}” is no description of a YOLO data set: “train”, “val” and “names” are expected.")
    folder = posixpath.dirname(path)
    sources: list[tuple[str, str]] = []
    for key in _SPLIT_KEYS:
        value = content.get(key)
        entries = value if isinstance(value, list) else [value]
        sources.extend((key, entry.replace("\\", "/")) for entry in entries if isinstance(entry, str) and entry)
    return _Description(
        path,
        _base(files, folder, content.get("path")),
        _names(content.get("names")),
        tuple(sources),
        _key_point_values(content.get("kpt_shape")),
    )


def _without_description(files: Files) -> _Description:
    """Describe a folder that has only images and labels; ``classes.txt`` names the classes where it exists."""
    names: dict[int, str] = {}
    for path in ("classes.txt", "labels/classes.txt"):
        try:
            lines = files.read_text(path, max_bytes=_MAX_YAML).splitlines()
        except Refused:
            continue
        names = dict(enumerate(line.strip() for line in lines if line.strip()))
        break
    return _Description("", "", names, (("", "images" if files.is_folder("images") else "."),), 0)


def _base(files: Files, folder: str, path: Any) -> str:
    """Return the folder that splits are relative to: “path” where it exists here, else the YAML file's own."""
    if isinstance(path, str) and path:
        try:
            base = files.relative(folder, path.replace("\\", "/"))
        except Refused:
            return folder
        if files.is_folder(base):
            return base
    return folder


def _names(value: Any) -> dict[int, str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    names = {}
    for key, name in pairs:
        try:
            names[int(key)] = printable(str(name).strip())
        except (TypeError, ValueError):
            continue
    return names


def _key_point_values(shape: Any) -> int:
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(number, int) and number > 0 for number in shape):
        return int(shape[0]) * int(shape[1])
    return 0


# -- images -----------------------------------------------------------------------------------------------------------


def _images(files: Files, description: _Description, report: ReportSkip) -> Iterator[tuple[str, str]]:
    """Yield the split and path of every image that the description leads to."""
    for key, written in description.sources:
        try:
            source = _source(files, description, written)
        except Refused as refused:
            report(written, f"{refused} It is the “{key}” of {description.path}.")
            continue
        paths = _listed(files, source, report) if source.endswith(".txt") else walk_images(files, source, report)
        for path in paths:
            yield key or split_in(path.rpartition("/")[0]), path


def _source(files: Files, description: _Description, written: str) -> str:
    """Return a split's folder or list. Exports are known to write ``../train/images`` for ``train/images``."""
    inner = written
    while inner.startswith("../"):
        inner = inner[3:]
    refused = Refused("There is no such folder or list.")
    for candidate in dict.fromkeys([written, inner]):
        try:
            path = files.relative(description.base, candidate)
            if files.is_folder(path) or (path.endswith(".txt") and files.status(path) is not None):
                return path
        except Refused as error:
            refused = error
    raise refused


def _listed(files: Files, source: str, report: ReportSkip) -> Iterator[str]:
    """Yield the images of a list; its lines are relative to the list, or to the root."""
    try:
        lines = files.read_text(source, max_bytes=_MAX_LIST).splitlines()
    except Refused as refused:
        report(source, str(refused))
        return
    folder = posixpath.dirname(source)
    for number, line in enumerate(lines, start=1):
        written = line.strip().replace("\\", "/")
        if not written:
            continue
        try:
            candidates = [files.relative(base, written) for base in dict.fromkeys([folder, ""])]
            yield next((path for path in candidates if files.status(path) is not None), candidates[0])
        except Refused as refused:
            report(source, f"Line {number:,}: {refused}")


# -- labels -----------------------------------------------------------------------------------------------------------


def _annotations(
    files: Files, description: _Description, image: str, report: ReportSkip
) -> tuple[tuple[int, int] | None, tuple[Annotation, ...]]:
    """Return an image's size, where it is known, and its annotations."""
    objects = _labels(files, description, image, report)
    if not objects:
        return None, ()
    try:
        size = image_size(Path(files.absolute(image)))
    except ImageUnreadable:
        size = None  # it stays a sample: tagging will say what is wrong with it
    return size, tuple(
        Annotation(description.names.get(index) or f"class {index}", _in_pixels(box, size)) for index, *box in objects
    )


def _in_pixels(box: list[float], size: tuple[int, int] | None) -> tuple[float, float, float, float] | None:
    if size is None:
        return None
    x, y, width, height = box
    return (
        round(x * size[0], 3),
        round(y * size[1], 3),
        round(width * size[0], 3),
        round(height * size[1], 3),
    )


def _labels(files: Files, description: _Description, image: str, report: ReportSkip) -> list[_Object]:
    path = _label_path(files, image)
    if path is None:
        return []
    try:
        lines = files.read_text(path, max_bytes=_MAX_LABELS).splitlines()
    except Refused as refused:
        report(path, str(refused))
        return []
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_object(line.split(), description))
        except ValueError as error:
            report(path, f"Line {number:,}: {error}.")
    return objects


def _label_path(files: Files, image: str) -> str | None:
    """Return the label file of an image: in ``labels`` parallel to ``images``, else beside the image."""
    stem = posixpath.splitext(image)[0]
    folders = stem.split("/")
    candidates = [f"{stem}.txt"]
    if "images" in folders[:-1]:
        last = len(folders) - 2 - folders[-2::-1].index("images")
        candidates.insert(0, "/".join([*folders[:last], "labels", *folders[last + 1 :]]) + ".txt")
    for candidate in candidates:
        try:
            if files.status(candidate) is not None:
                return candidate
        except Refused:
            continue
    return None


def _object(words: list[str], description: _Description) -> _Object:
    """Parse a line of a label file: box, box with confidence, box with key points, or polygon.

    Raises:
        ValueError: the line is none of them; the message says why.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError("it has something else than numbers") from None
    if not all(map(math.isfinite, numbers)) or numbers[0] < 0 or numbers[0] != int(numbers[0]):
        raise ValueError("the class must be a whole number from 0, and the rest finite numbers")
    index, values = int(numbers[0]), numbers[1:]
    if description.names and index not in description.names:
        raise ValueError(f"class {index} has no name in {description.path or 'classes.txt'}")
    if len(values) in (4, 5) or (description.key_point_values and len(values) == 4 + description.key_point_values):
        x, y, width, height = values[:4]
        left, top = x - width / 2, y - height / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        left, top = min(values[::2]), min(values[1::2])
        width, height = max(values[::2]) - left, max(values[1::2]) - top
    else:
        raise ValueError(f"it has {len(words)} values; a class and a box (5) or a polygon (7 or more) are expected")
    if width < 0 or height < 0 or min(left, top) < -0.01 or left + width > 1.01 or top + height > 1.01:
        raise ValueError("the box is not within the image; fractions from 0 to 1 are expected")
    return index, max(left, 0.0), max(top, 0.0), width, height


FORMAT = ImportFormat(
    name="yolo",
    label="YOLO",
    layout="`data.yaml` with names and splits, `images/` and `labels/` in parallel; boxes, polygons or key points",
    find=find_descriptions,
    scan=scan_yolo,
    suffixes=(".yaml", ".yml"),
    describing="a YOLO data.yaml",
)
