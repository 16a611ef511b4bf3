"""COCO JSON: one file or several, with the images beside them or in folders of their own.

One pass over each JSON spools its images and annotations to a temporary file, so memory stays flat; then the images
come in the order of the JSON, each with its annotations. Images are not opened: sizes are those of the JSON.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO, cast

from vlm.errors import Unwritable
from vlm.formats.base import Found, ImportFormat
from vlm.formats.coco_reading import Reading, image_folders, locate
from vlm.formats.coco_spool import Spool, read_json
from vlm.formats.files import UTF_16, Files, Refused, not_text
from vlm.formats.json_stream import JSONBroken, stream_sections
from vlm.formats.local_files import LocalFiles
from vlm.formats.records import ImportFailed, ReportSkip, SampleRecord, Scan, Skip

BESIDE = ("annotations", "labels")  # folders of JSONs beside those of the images
_MAX_FILES = 1000  # JSON files that are looked at
_HEAD = 65_536  # bytes in which most COCO JSONs name one of their sections
_FAR_HEAD = 16_000_000  # characters that are decoded to find a section behind a long “info”
_DEEPER_FOLDERS = 500  # folders that are looked into where there is no JSON higher up
_TRIED = 100  # images by which the root of a JSON is found
_SECTION = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|keypoints|panoptic|stuff|densepose|image_info)_", re.IGNORECASE)
_TASKS_IN_ORDER = ("person_keypoints", "keypoints", "densepose", "stuff", "captions", "image_info")
_COPY = re.compile(
    r"^(?:copy of |kopie von )(?P<of>.+)$|^(?P<before>.+?)(?: - (?:copy|kopie)(?: ?\(\d+\))?| ?\((?:copy|kopie)(?: \d+)?\)| ?\(\d+\)|"
    r"[-_. ](?:copy|kopie|backup|bak|old|orig|original)\d*)$",
    re.IGNORECASE,
)
_OWN_EXPORT = re.compile(rb'^[\xef\xbb\xbf\s]*\{\s*"datavisor"\s*:|"contributor": "DataVisor"')
# Exports of the first release that were made from a JSON have no mark, but tags in their images.
_TAGGED = re.compile(rb'"tags": \[(\{"tag": "[^"]*", "dimension": [^,]*, "source": "|\]\})')
_EXPORT = "It is an export of DataVisor, not the data set itself; give its path to import it."


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
        with files.open_text(path, errors="replace") as file:
            for section in stream_sections(cast(TextIO, _Limited(file, _FAR_HEAD))):
                if section.is_array and section.key in ("images", "annotations", "categories"):
                    return "coco", ""
    except (OSError, JSONBroken, Refused) as error:
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


def scan_coco(files: Files, paths: list[str]) -> Scan:
    """Read COCO JSONs; ``paths`` are relative to the root.

    Raises:
        ImportFailed: there are none, none of them can be read, or they list no images.
    """
    if not paths:
        raise ImportFailed(
            f"There is no COCO JSON in “{files.root}” or the folders directly below. Give the path of the JSON."
        )
    read: list[Spool] = []
    broken: list[tuple[str, str]] = []
    for path in paths:
        try:
            read.append(read_json(files, path))
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
        yield from Reading(files, read, report).records()

    return Scan(files.root, "coco", total, records)


def _root_of(path: Path, allowed: Callable[[Path], bool]) -> Path:
    """Return the folder from which the images of a JSON are found: its own, or one of the three above.

    That is the first below which images lie where the JSON says; else the folder around ``annotations``, else its own.
    """
    usual = path.parent.parent if path.parent.name.lower() in BESIDE else path.parent
    if not allowed(usual):
        usual = path.parent
    names = _first_names(path)
    for root in (usual, *path.parents[:3]):
        if len(root.parts) < 2 or not allowed(root):
            continue
        files = LocalFiles(root)
        bases, _ = image_folders(files, path.relative_to(root).as_posix())
        for name in names:
            try:
                if locate(files, bases, name) is not None:
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
    beside=BESIDE,
)
