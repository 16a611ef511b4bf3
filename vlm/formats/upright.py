"""Sizes and boxes of the picture as it is stored, turned to the picture as it is shown.

Cameras store a portrait picture lying on its side, with a note (EXIF orientation) how to hold it. DataVisor shows and tags
pictures upright; a JSON may describe the stored one. Which of both it does is told by its width and height, so the note
alone turns nothing.
"""

from collections.abc import Sequence

from PIL import Image

from vlm import exif
from vlm.errors import RootAway
from vlm.formats.files import Files, suffix_of
from vlm.imaging import FORMATS
from vlm.samples import Annotation

_HEAD = 1 << 16  # bytes in which a file mostly says how to hold it
_JPEG_HEAD = 4096  # bytes within which EXIF begins in a JPEG: first, or behind the header of JFIF
_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")
_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})
_WITH_EXIF = frozenset({".png", ".apng", ".webp", ".avif"})
_CLOSE = 0.02  # by how much two shapes may differ and be the same: sizes are rounded when pictures are made smaller

Box = tuple[float, float, float, float]


def turn(
    files: Files, path: str, width: int | None, height: int | None, annotations: tuple[Annotation, ...]
) -> tuple[int | None, int | None, tuple[Annotation, ...]]:
    """Return the size and the annotations of the upright picture, given what a JSON says of a file."""
    if not width or not height or width == height:
        return width, height, annotations
    orientation = orientation_of(files, path)
    if orientation not in exif.ON_ITS_SIDE or not _describes_stored(files, path, width, height):
        return width, height, annotations
    turned = tuple(
        Annotation(annotation.category, annotation.box and turn_box(annotation.box, orientation, width, height))
        for annotation in annotations
    )
    return height, width, turned


def turn_box(box: Sequence[float], orientation: int, width: int, height: int) -> Box:
    """Return a box of a stored picture of this size in the upright one."""
    x, y, box_width, box_height = box
    from_right, from_bottom = round(width - x - box_width, 3), round(height - y - box_height, 3)
    left = from_bottom if orientation in (6, 7) else y
    top = from_right if orientation in (7, 8) else x
    return left, top, box_height, box_width


def orientation_of(files: Files, path: str) -> int:
    """Return the EXIF orientation of a file, 1 where it has none; reads no more than its head."""
    suffix = suffix_of(path)
    if suffix not in _JPEG and suffix not in _WITH_EXIF:
        return 1
    try:
        head = files.read_head(path, _HEAD if suffix in _WITH_EXIF else _JPEG_HEAD)
        if not any(mark in head for mark in _MARKS):
            return 1
        with Image.open(files.picture(path), formats=FORMATS) as image:
            return exif.orientation_of(exif.exif_of(image, behind=False))
    except RootAway:
        raise
    except Exception:  # noqa: BLE001 - decoders raise almost anything; tagging will say what is wrong with it
        return 1


def _describes_stored(files: Files, path: str, width: int, height: int) -> bool:
    """Tell whether a size is rather that of the stored picture than that of the upright one."""
    try:
        with Image.open(files.picture(path), formats=FORMATS) as image:
            stored = image.size
    except RootAway:
        raise
    except Exception:  # noqa: BLE001 - as above
        return False
    shape = width / height
    return min(stored) > 0 and abs(shape * stored[1] / stored[0] - 1) < _CLOSE <= abs(shape * stored[0] / stored[1] - 1)
