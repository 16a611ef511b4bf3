"""A folder of images: nested or flat, with class folders and split folders where there are any."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm.formats.base import ImportFormat
from vlm.formats.files import Files, Refused, walk_images
from vlm.formats.matching import split_name
from vlm.formats.records import Annotation, ImportFailed, ReportSkip, SampleRecord, Scan

# One such folder around everything says where the images are, not what is on them.
_CONTAINERS = frozenset(
    ["image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "data", "dataset", "jpegimages"]
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How folders are to be understood: ``base`` leading ones mean nothing, then a split, then a class."""

    base: int
    has_splits: bool
    has_classes: bool


def scan_folder(root: Path) -> Scan:
    """Look over a folder of images.

    Raises:
        ImportFailed: there is no image in it.
    """
    files = Files(root)
    folders = Counter(posixpath.dirname(path) for path in walk_images(files, "", _ignore))
    if not folders:
        raise ImportFailed(f"There is no image in “{root}”. Give the folder that holds the images.")
    layout = _layout([tuple(folder.split("/")) if folder else () for folder in folders])

    def records(report: ReportSkip) -> Iterator[SampleRecord]:
        for path in walk_images(files, "", report):
            try:
                key = files.image(path)
            except Refused as refused:
                report(path, str(refused))
                continue
            if key is None:
                report(path, "The link leads nowhere, or the file went away.")
                continue
            split, category = _understand(path, layout)
            yield SampleRecord(
                path=path,
                file_name=path,
                split=split,
                width=None,
                height=None,
                categories=(category,) if category else (),
                annotations=(Annotation(category, None),) if category else (),
                content_key=key,
                external_id="",
            )

    return Scan(Path(files.root), "folder", folders.total(), records)


def _layout(folders: list[tuple[str, ...]]) -> _Layout:
    """Find splits and class folders: they count only where every image lies in one."""
    for base in range(_common_depth(folders) + 1):
        below = [folder[base:] for folder in folders]
        has_splits = all(folder and split_name(folder[0]) for folder in below)
        if has_splits:
            below = [folder[1:] for folder in below]
        has_classes = all(len(folder) == 1 for folder in below) and not (
            len(set(below)) == 1 and below[0][0].lower() in _CONTAINERS
        )
        if has_splits or has_classes:
            return _Layout(base, has_splits, has_classes)
    return _Layout(0, has_splits=False, has_classes=False)


def _common_depth(folders: list[tuple[str, ...]]) -> int:
    first, last = min(folders), max(folders)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return depth


def _understand(path: str, layout: _Layout) -> tuple[str, str]:
    """Return an image's split and category."""
    parts = path.split("/")[layout.base : -1]
    # An image that came since the folder was looked over may lie anywhere.
    split = split_name(parts.pop(0)) if layout.has_splits and parts else ""
    return split, parts[0] if layout.has_classes and len(parts) == 1 else ""


def _ignore(path: str, reason: str) -> None:
    """Take no note: while looking over, for what will be reported while reading."""


FORMAT = ImportFormat(
    name="folder",
    label="folder of images",
    layout="images, nested or flat; folders `train`, `val`, `test` become splits, class folders become categories",
    find=lambda files: [],
    scan=lambda root, descriptions: scan_folder(root),
)
