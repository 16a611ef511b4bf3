"""YOLO data sets: names and splits in a ``data.yaml`` or ``obj.data``, images and label files in parallel folders.

Label files hold a line per object: the class, then the box's centre and size, or a polygon, or a box and key points, in
fractions of the upright image. Boxes are wanted in pixels, so the headers of labelled images are read for their size.
"""

import math
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlm.formats.base import Found, ImportFormat
from vlm.formats.files import LINK_OUTSIDE, Elsewhere, Files, Refused, walk_folders, walk_images
from vlm.formats.local_files import LocalFiles
from vlm.formats.matching import Ambiguous, best, readings, split_in, split_name
from vlm.formats.plain_yaml import YAMLBroken
from vlm.formats.records import Annotation, ImportFailed, ReportSkip, SampleRecord, Scan, Skip, distinct_categories
from vlm.formats.yolo_description import (
    Description,
    describe,
    describes_yolo,
    full_stop,
    lines_of,
    load_data,
    load_yaml,
    without_description,
)
from vlm.imaging import ImageUnreadable, image_size

_USUAL_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_MEANT = re.compile(rb"^\s*['\"]?(names|nc|train|val|test)['\"]?\s*:", re.MULTILINE)
_MOST_CLASSES = 1_000_000
_MAX_LABELS = 10_000_000
_MAX_LIST = 1_000_000_000
_MAX_FOLDERS = 200  # that are looked into for a description where the root has none
_FAR_OFF = 0.5  # of the image's side: a box that is farther outside was not meant in fractions
_TOLD = 3  # reasons in a sentence

_LIKE = {True: "Labels", False: "labels"}

_Object = tuple[int, float, float, float, float]  # class, then x, y, width, height as fractions


def find_yolo(files: Files) -> Found:
    """Look for descriptions: at the root; where there is none, in the folders directly below."""
    found = Found()
    folders, paths = files.listing("", (".yaml", ".yml", ".data"))
    _judge(files, paths, found)
    if not found.descriptions and not found.broken:
        for folder in folders[:_MAX_FOLDERS]:
            try:
                _judge(files, files.listing(folder, (".yaml", ".yml", ".data"))[1], found)
            except Refused:
                continue
    usual = [path for path in found.descriptions if path in _USUAL_NAMES[:1]]
    found.descriptions = usual or found.descriptions
    if found.descriptions:
        found.unused.clear()  # other YAML files beside it are not worth a word
    return found


def _judge(files: Files, paths: list[str], found: Found) -> None:
    for path in paths:
        try:
            if path.endswith(".data"):
                content: Any = load_data(files, path)
            else:
                content = load_yaml(files, path)
        except (Refused, YAMLBroken) as error:
            reason = str(error) if isinstance(error, Refused) else f"It is no valid YAML at {full_stop(str(error))}"
            (found.broken if _is_meant(files, path) else found.unused).append(Skip(path, reason))
            continue
        if isinstance(content, dict) and describes_yolo(content):
            found.descriptions.append(path)
        else:
            reason = "It describes no YOLO data set: “train” or “val”, and “names”, are expected."
            found.unused.append(Skip(path, reason))


def _is_meant(files: Files, path: str) -> bool:
    """Tell whether a file that cannot be read was meant to describe a data set, by its name or by what can be seen of it."""
    if posixpath.basename(path).lower() in _USUAL_NAMES:
        return True
    try:
        return bool(_MEANT.search(files.read_head(path, 65_536).replace(b"\0", b"")))
    except Refused:
        return False


def scan_yolo(files: Files, paths: list[str]) -> Scan:
    """Read a YOLO data set; ``paths`` has its description, if there is one.

    Raises:
        ImportFailed: there are several, the description cannot be read, or it leads to no images.
    """
    if len(paths) > 1:
        raise ImportFailed(
            f"“{files.root}” has several descriptions ({', '.join(paths)}). Give the path of one of them."
        )
    description = describe(files, paths[0]) if paths else without_description(files)
    reasons: dict[str, None] = {}
    total = sum(1 for _ in _images(files, description, lambda path, reason: reasons.setdefault(f"{path}: {reason}")))
    if not total:
        why = " ".join(list(reasons)[:_TOLD])
        raise ImportFailed(
            f"“{description.path or files.root}” leads to no images below “{files.root}”. "
            f"Check its “train”, “val” and “test”. {why}".strip()
        )

    def records(report: ReportSkip) -> Iterator[SampleRecord]:
        seen: set[int] = set()

        def wanted() -> Iterator[tuple[str, str, str]]:
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
                yield split, image, key

        labelled = False
        for record, has_label, told in files.each(wanted(), lambda found: _record(files, description, *found)):
            labelled = labelled or has_label
            for skip in told:
                report(skip.path, skip.reason)
            yield record
        if seen and not labelled:
            report(
                description.path or "labels",
                "No image has a label file: they are looked for in “labels” parallel to “images”, and beside the images.",
            )

    return Scan(files.root, "yolo", total, records)


def _record(
    files: Files, description: Description, split: str, image: str, key: str
) -> tuple[SampleRecord, bool, list[Skip]]:
    """Return the record of an image, whether it has a label file, and what is to be reported of that."""
    told: list[Skip] = []

    def report(path: str, reason: str) -> None:
        told.append(Skip(path, reason))

    label = _label_path(files, image, report)
    size, annotations = _annotations(files, description, image, label, report)
    record = SampleRecord(
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
    return record, label is not None, told


def _root_of(path: Path, allowed: Callable[[Path], bool]) -> Path:
    """Return the folder that holds a description and the images that it leads to, at most two above its own."""
    root = path.parent
    files = LocalFiles(root)
    try:
        description = describe(files, path.name)
    except ImportFailed:
        return root  # reading it will say what is wrong
    for _, written in description.sources:
        inner = re.sub(r"^(\.\./)+", "", written)
        if written.startswith("/") or files.is_folder(posixpath.join(description.base, inner)):
            continue
        target = Path(os.path.normpath(Path(files.root, description.base, written)))
        above = next((folder for folder in path.parents[1:3] if target.is_relative_to(folder)), None)
        outside = not target.is_relative_to(root)
        if outside and above is not None and target.exists() and allowed(above) and root.is_relative_to(above):
            root = above
    return root


# -- images -----------------------------------------------------------------------------------------------------------


def _images(files: Files, description: Description, report: ReportSkip) -> Iterator[tuple[str, str]]:
    """Yield the split and path of every image that the description leads to."""
    read: dict[str, str] = {}
    for key, written in description.sources:
        try:
            source = _source(files, description, written)
        except (Refused, Ambiguous) as refused:
            report(written, f"{refused} It is the “{key}” of {description.path}.")
            continue
        if source in read:
            report(
                source or written,
                f"It is both “{read[source]}” and “{key}” of {description.path}; its images count as “{read[source]}”.",
            )
            continue
        read[source] = key
        paths = (
            _listed(files, description, source, report)
            if source.endswith(".txt")
            else walk_images(files, source, report)
        )
        for path in paths:
            yield key or split_in(path.rpartition("/")[0]), path


def _source(files: Files, description: Description, written: str) -> str:
    """Return a split's folder or list.

    Exports are known to write ``../train/images`` for ``train/images``; and the path may be one of another machine, of which
    the end leads somewhere here.
    """
    linked = False
    bases = dict.fromkeys([description.base, posixpath.dirname(description.path), ""])
    candidates = [(base, path) for path in (written, re.sub(r"^(\.\./)+", "", written)) for base in bases]
    candidates += [(base, path) for path in _ends(written) for base in bases]
    for base, candidate in candidates:
        try:
            path = files.relative(base, candidate)
            if files.is_folder(path) or (path.endswith(".txt") and files.status(path) is not None):
                return path
        except Refused:
            continue
        linked = linked or (bool(path) and files.is_link(path))
    if linked:
        raise Refused(LINK_OUTSIDE)
    found = _folder_elsewhere(files, written)
    if found is None:
        raise Refused("There is no such folder or list, and none in the data set's folder ends like it.")
    return found


def _ends(written: str) -> Iterator[str]:
    """Yield the ends of a path, longest first, that still say which split it is."""
    for parts in readings(written):
        last = max((place for place, part in enumerate(parts) if split_name(part)), default=len(parts) - 1)
        for place in range(1, last + 1):
            yield "/".join(parts[place:])


def _folder_elsewhere(files: Files, written: str) -> str | None:
    """Return the folder anywhere below the root that ends like ``written``, if just one does so best.

    Raises:
        Ambiguous: several do.
    """
    ends = [tuple(end.split("/")) for end in _ends(written)]
    if not ends:
        return None
    shortest = ends[-1]
    folders = walk_folders(files, without="labels")
    candidates = [path for path in folders if tuple(path.split("/"))[-len(shortest) :] == shortest]
    return best(readings(written)[0], candidates) if candidates else None


def _listed(files: Files, description: Description, source: str, report: ReportSkip) -> Iterator[str]:
    """Yield the images of a list; its lines are relative to the list, to “path”, or to the root, or of another machine."""
    try:
        lines = lines_of(files.read_text(source, max_bytes=_MAX_LIST))
    except Refused as refused:
        report(source, str(refused))
        return
    bases = dict.fromkeys([posixpath.dirname(source), description.base, ""])
    away: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines, start=1):
        written = line.strip().replace("\\", "/")
        if not written:
            continue
        reason, there = "", None
        for base in bases:
            try:
                path = files.relative(base, written)
                there = path if files.status(path) is not None else None
            except Refused as refused:
                reason = reason or str(refused)
            if there is not None:
                yield there
                break
        else:
            away.append((number, written, reason or "The file is missing."))
    elsewhere = Elsewhere(files, (written for _, written, _ in away))
    for number, written, reason in away:
        try:
            path_there = elsewhere.path(written)
        except Ambiguous as ambiguous:
            report(source, f"Line {number:,}, {written}: {ambiguous}")
            continue
        if path_there is None:
            report(source, f"Line {number:,}, {written}: {reason}")
        else:
            yield path_there


# -- labels -----------------------------------------------------------------------------------------------------------


def _annotations(
    files: Files, description: Description, image: str, label: str | None, report: ReportSkip
) -> tuple[tuple[int, int] | None, tuple[Annotation, ...]]:
    """Return an image's size, where it is known, and its annotations."""
    objects = _labels(files, description, label, report) if label is not None else []
    if not objects:
        return None, ()
    try:
        size = image_size(files.picture(image))
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


def _labels(files: Files, description: Description, path: str, report: ReportSkip) -> list[_Object]:
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


def _label_path(files: Files, image: str, report: ReportSkip) -> str | None:
    """Return the label file of an image: in ``labels`` parallel to ``images``, else beside the image."""
    stem = posixpath.splitext(image)[0]
    folders = stem.split("/")
    stems = [stem]
    last = next((place for place in range(len(folders) - 2, -1, -1) if folders[place].lower() == "images"), None)
    if last is not None:
        # As the images' folder is written, so may the labels' be.
        named = dict.fromkeys([_LIKE[folders[last][:1].isupper()], "labels"])
        stems[:0] = ["/".join([*folders[:last], labels, *folders[last + 1 :]]) for labels in named]
    candidates = [f"{stem}{suffix}" for suffix in (".txt", ".TXT") for stem in stems]
    if not image.isascii():  # a copy through another system may have changed the form of the accents
        forms = [unicodedata.normalize(form, path) for path in candidates for form in ("NFC", "NFD")]
        candidates += [path for path in dict.fromkeys(forms) if path not in candidates]
    refused: tuple[str, str] | None = None
    for candidate in candidates:
        try:
            if files.status(candidate) is not None:
                return candidate
        except Refused as reason:
            refused = refused or (candidate, str(reason))
    if refused is not None:
        report(*refused)
    return None


def _object(words: list[str], description: Description) -> _Object:
    """Parse a line of a label file: box, box with confidence, box with key points, or polygon.

    Raises:
        ValueError: the line is none of them; the message says why.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError("it has something else than numbers") from None
    if not all(map(math.isfinite, numbers)) or not 0 <= numbers[0] < _MOST_CLASSES or numbers[0] != int(numbers[0]):
        raise ValueError(f"the class must be a whole number from 0 to {_MOST_CLASSES:,}, and the rest finite numbers")
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
    right, bottom = left + width, top + height
    if width < 0 or height < 0 or min(left, top) < -_FAR_OFF or max(right, bottom) > 1 + _FAR_OFF:
        raise ValueError("the box is not within the image; fractions from 0 to 1 are expected")
    if right <= 0 or bottom <= 0 or left >= 1 or top >= 1:
        raise ValueError("the box lies beside the image")
    # Tools let boxes end a little outside the image; what is on the picture counts.
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    return index, left, top, right - left, bottom - top


FORMAT = ImportFormat(
    name="yolo",
    label="YOLO",
    layout=(
        "`data.yaml` or Darknet's `obj.data` with names and splits, `images/` and `labels/` in parallel; "
        "boxes, polygons or key points"
    ),
    find=find_yolo,
    scan=scan_yolo,
    suffixes=(".yaml", ".yml", ".data"),
    describing="a YOLO data.yaml or obj.data",
    root_of=_root_of,
)
