"""Pictures that describe other pictures: masks and label maps in a folder of their own, each called as the photo it is of."""

import posixpath
import re
from collections.abc import Collection, Iterator
from itertools import islice

from vlm.formats.files import FILE, OTHER, Files, Refused

# Folders that describe the pictures beside them.
DESCRIBING = frozenset(
    [
        *("mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "seg"),
        *(
            "annotation",
            "annotations",
            "label",
            "labels",
            "gt",
            "groundtruth",
            "ground_truth",
            "gtfine",
            "matte",
            "mattes",
        ),
    ]
)
_END = re.compile(
    r"[-_. ](mask|label|labelids|labels|seg|segmentation|gt|groundtruth|instance|matte)s?$", re.IGNORECASE
)
_LOOKED_AT = 200  # pictures of a folder
_LEAST = 0.9  # of them that must be called as a photo


def mask_folders(files: Files, folders: Collection[str]) -> dict[str, str]:
    """Return those of ``folders`` (all that hold images) whose pictures are masks, with the folder of their photos."""
    found: dict[str, str] = {}
    for folder in sorted(folders):
        for photos in _beside(folder, folders):
            if _are_masks(files, folder, photos):
                found[folder] = photos
                break
    return found


def _beside(folder: str, folders: Collection[str]) -> Iterator[str]:
    """Yield the folders whose pictures ``folder`` may describe: with another name in the place of “masks”, or without it."""
    parts = folder.split("/")
    place = next((index for index, part in reversed(list(enumerate(parts))) if part.lower() in DESCRIBING), None)
    if place is None:
        return
    before, behind = parts[:place], parts[place + 1 :]
    for other in sorted(folders):
        there = other.split("/") if other else []
        same = there[:place] == before and there[place + 1 :] == behind and len(there) == len(parts)
        if (same and there[place].lower() not in DESCRIBING) or there == [*before, *behind]:
            yield other


def _are_masks(files: Files, folder: str, photos: str) -> bool:
    stems = set(_stems(files, photos))
    looked_at = list(islice(_stems(files, folder), _LOOKED_AT))
    called = sum(stem in stems or _END.sub("", stem) in stems for stem in looked_at)
    return bool(looked_at) and called >= _LEAST * len(looked_at)


def _stems(files: Files, folder: str) -> Iterator[str]:
    try:
        found = files.entries(folder)
    except Refused:
        return
    for name, kind in found:
        if kind in (FILE, OTHER) and not name.startswith("."):
            yield posixpath.splitext(name)[0].casefold()
