"""A folder of images: nested or flat, with class folders and split folders where there are any."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vlm.formats.base import Found, ImportFormat
from vlm.formats.files import Files, Refused, suffix_of, walk_images
from vlm.formats.masks import DESCRIBING, mask_folders
from vlm.formats.matching import split_name
from vlm.formats.records import Annotation, ImportFailed, ReportSkip, SampleRecord, Scan, Skip

# Such folders say where the images are, not what is on them.
_CONTAINERS = frozenset(
    ["image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "data", "dataset", "jpegimages"]
)
_STRAYS = 0.1  # share of images that may lie elsewhere than splits and classes say
_UNUSED = {
    "labels": "It looks like labels of a YOLO data set, which a folder of images does not use; import with --format yolo.",
    "xml": "XML annotations (Pascal VOC and the like) are not read; convert them to COCO JSON or YOLO.",
    "yaml": "It lies too deep in the folder to be looked at; give its path if it describes the data set.",
    "table": "It looks like a table about the images, which an import does not read; import_labels or import_scores brings it in as CSV.",
    "json": "It lies too deep in the folder to be looked at; give its path if it is a COCO JSON.",
}

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_ABOUT_IMAGES = re.compile(r"^_?(annotations?|classes|labels?|metadata)\b", re.IGNORECASE)  # as other tools call them

_Folder = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How folders are to be understood: ``base`` leading ones mean nothing, then a split, then a class."""

    base: int
    has_splits: bool
    has_classes: bool


def scan_folder(files: Files) -> Scan:
    """Look over a folder of images.

    Raises:
        ImportFailed: there is no image in it.
    """
    companions = _Companions()
    folders = Counter(posixpath.dirname(path) for path in walk_images(files, "", _ignore, companions.see))
    if not folders:
        raise ImportFailed(f"There is no image in “{files.root}”. Give the folder that holds the images.")
    masks = mask_folders(files, folders)
    described = [
        Skip(
            f"{folder} ({folders.pop(folder):,} pictures)",
            f"They are called as those in “{photos or files.root.parts[-1]}”, so they are taken for masks of these and are no samples. "
            "Import this folder by itself if they are photos.",
        )
        for folder, photos in masks.items()
    ]
    layout = _layout({tuple(folder.split("/")) if folder else (): count for folder, count in folders.items()})

    def records(report: ReportSkip) -> Iterator[SampleRecord]:
        for path in walk_images(files, "", report):
            if masks and posixpath.dirname(path) in masks:
                continue
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

    return Scan(files.root, "folder", folders.total(), records, notes=[*described, *companions.notes()])


def _layout(folders: dict[_Folder, int]) -> _Layout:
    """Find splits and class folders, given how many images each folder has.

    They count where (nearly) every image lies in one: a stray picture at the root, or one in a folder below a class, does
    not make the others lose theirs.
    """
    for base in range(_common_depth([folder for folder in folders if folder] or [()]) + 1):
        below = [(folder[base:], count) for folder, count in folders.items()]
        has_splits = _nearly_all(below, lambda folder: bool(folder and split_name(folder[0])))
        if has_splits:
            below = [(folder[1:], count) for folder, count in below if folder and split_name(folder[0])]
        # What lies in a folder “images” and the like has no class, and speaks neither for classes nor against them.
        plain = [(_plain(folder), count) for folder, count in below if _plain(folder) or not folder]
        classes = {folder[0].lower() for folder, _ in plain if len(folder) == 1}
        has_classes = _nearly_all(plain, lambda folder: len(folder) == 1, several=True) and not classes & DESCRIBING
        if has_splits or has_classes:
            return _Layout(base, has_splits, has_classes)
    return _Layout(0, has_splits=False, has_classes=False)


def _nearly_all(folders: list[tuple[_Folder, int]], fits: Callable[[_Folder], bool], several: bool = False) -> bool:
    """Tell whether images lie in folders that fit; a few strays are let pass, with ``several`` only beside several."""
    fitting = [(folder, count) for folder, count in folders if fits(folder)]
    total, fit = (sum(count for _, count in some) for some in (folders, fitting))
    strays = total - fit
    if not fit or not strays:
        return bool(fit)
    enough = not several or len({folder[0] for folder, _ in fitting}) > 1
    return enough and strays <= max(1, _STRAYS * total) and fit > 2 * strays


def _plain(folder: _Folder) -> _Folder:
    """Return a folder without a last part that says nothing: ``n01443537/images`` holds what ``n01443537`` is."""
    return folder[:-1] if folder and folder[-1].lower() in _CONTAINERS else folder


def _common_depth(folders: list[_Folder]) -> int:
    first, last = min(folders), max(folders)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return depth


def _understand(path: str, layout: _Layout) -> tuple[str, str]:
    """Return an image's split and category."""
    parts = path.split("/")[layout.base : -1]
    # A stray image, or one that came since the folder was looked over, may lie anywhere.
    split = split_name(parts[0]) if layout.has_splits and parts else ""
    if split:
        del parts[0]
    elif layout.has_splits:
        return "", ""
    parts = list(_plain(tuple(parts)))
    return split, parts[0] if layout.has_classes and parts else ""


class _Companions:
    """What lies beside the images and looks like the description of a data set, to say that it is not used."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], str] = {}  # by folder and kind
        self._counts: Counter[tuple[str, str]] = Counter()

    def see(self, path: str) -> None:
        suffix = suffix_of(path)
        folder, _, name = path.rpartition("/")
        kind = ""
        if suffix == ".txt":
            if "labels" in folder.lower().split("/") or name.lower() == "classes.txt":
                kind = "labels"
        elif suffix in (".yaml", ".yml"):
            kind = "yaml" if "/" in folder else ""  # those above have been looked at
        elif suffix in _TABLES:
            kind = "table" if _ABOUT_IMAGES.search(name) else ""
        elif suffix == ".json":
            kind = "json" if folder.count("/") > 1 else ""
        else:
            kind = {".xml": "xml", ".names": "labels", ".data": "labels"}.get(suffix, "")
        if kind:
            self._first.setdefault((folder, kind), path)
            self._counts[folder, kind] += 1

    def notes(self) -> list[Skip]:
        """Return a line for each folder and kind."""
        return [
            Skip(path if self._counts[key] == 1 else f"{path} and {self._counts[key] - 1:,} more", _UNUSED[key[1]])
            for key, path in self._first.items()
        ]


def _ignore(path: str, reason: str) -> None:
    """Take no note: while looking over, for what will be reported while reading."""


FORMAT = ImportFormat(
    name="folder",
    label="folder of images",
    layout="images, nested or flat; folders `train`, `val`, `test` become splits, class folders become categories",
    find=lambda files: Found(),
    scan=lambda files, descriptions: scan_folder(files),
)
