"""What a camera wrote beside a picture: how to hold it, when, with what, where (EXIF 2.32). It opens no image.

Cameras write what they like, so whatever cannot be understood is as if it were not there.
"""

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from PIL import ExifTags, Image, ImageFile

from vlm.errors import RootAway

PLACE = 1 << 16  # is added to the tags of the place, whose numbers are other things elsewhere
TAKEN, CHANGED, MAKE, MODEL = 36867, 306, 271, 272
LATITUDE_IS, LATITUDE, LONGITUDE_IS, LONGITUDE = (PLACE + tag for tag in (1, 2, 3, 4))
ORIENTATION = 0x0112
ON_ITS_SIDE = (5, 6, 7, 8)  # the orientations in which width and height change places
LONGEST = 100  # characters of a camera's name
_PNG_CHUNKS = 8  # where they begin, behind the signature
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# The texts in which Pillow looks for EXIF, or for its orientation.
_PNG_TEXTS_WITH_EXIF = (b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True, slots=True)
class Taken:
    """How a picture was taken, as far as its file says.

    Attributes:
        when: by the camera's clock, which has no time zone.
        camera: its maker and name.
        place: latitude and longitude in degrees, north and east positive.
    """

    when: datetime | None = None
    camera: str = ""
    place: tuple[float, float] | None = None


def taken(exif: Mapping[int, object]) -> Taken:
    """Return how a picture was taken. ``exif``: tag → value, see ``imaging.header``."""
    return Taken(_when(exif.get(TAKEN)) or _when(exif.get(CHANGED)), _camera(exif), _place(exif))


def exif_of(image: Image.Image, *, behind: bool = True) -> Image.Exif:
    """Return the EXIF of an opened image, an empty one where it is damaged.

    Pillow decodes the whole of a PNG to look behind its pixels; here it does so only where EXIF is there.

    Args:
        behind: whether to look behind the pixels of a PNG at all, for which every part of its file is fetched.

    Raises:
        RootAway: the file lies in a bucket that does not answer.
    """
    try:
        if image.format == "PNG" and "exif" not in image.info and not (behind and _is_behind_pixels(image)):
            return Image.Image.getexif(image)
        return image.getexif()
    except RootAway:
        raise
    except Exception:  # noqa: BLE001 - damaged metadata must not hide a good picture
        return Image.Exif()


def orientation_of(exif: Image.Exif) -> int:
    """Return how the picture is to be held, 1 where the EXIF does not say or is damaged.

    Raises:
        RootAway: as for :func:`exif_of`, since parts of it may be read only now.
    """
    try:
        value = exif.get(ORIENTATION, 1)
    except RootAway:
        raise
    except Exception:  # noqa: BLE001 - as above
        return 1
    return value if isinstance(value, int) else 1


def tags_of(exif: Image.Exif) -> dict[int, object]:
    """Return what EXIF says by tag, its parts joined, nothing where it is damaged.

    Raises:
        RootAway: as for :func:`orientation_of`.
    """
    try:
        # Within a part each tag has one meaning; the place's few tags are moved out of the others' way.
        place = {PLACE + tag: value for tag, value in exif.get_ifd(ExifTags.IFD.GPSInfo).items()}
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif), **place}
    except RootAway:
        raise
    except Exception:  # noqa: BLE001 - as above
        return {}


def _is_behind_pixels(image: Image.Image) -> bool:
    """Tell whether a PNG that was opened, and not loaded yet, has EXIF behind its first pixels (PNG 3, 5.3 and 11.3)."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None:
        return True  # it is loaded, so that whatever is there is known
    here, behind = file.tell(), False
    try:
        file.seek(_PNG_CHUNKS)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            behind |= kind == b"IDAT"
            word = file.read(min(length, 32)) if behind and kind in _PNG_TEXTS else b""
            if behind and (kind == b"eXIf" or word.partition(b"\0")[0] in _PNG_TEXTS_WITH_EXIF):
                return True
            file.seek(length - len(word) + 4, os.SEEK_CUR)  # a checksum ends each
        return False
    finally:
        file.seek(here)


def _when(said: object) -> datetime | None:
    try:
        return datetime.strptime(_text(said)[:19], "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007  (it has no zone)
    except ValueError:
        return None


def _camera(exif: Mapping[int, object]) -> str:
    make, model = _text(exif.get(MAKE)), _text(exif.get(MODEL))
    name = model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()
    return name[:LONGEST]


def _place(exif: Mapping[int, object]) -> tuple[float, float] | None:
    latitude = _degrees(exif.get(LATITUDE), exif.get(LATITUDE_IS), "S", 90)
    longitude = _degrees(exif.get(LONGITUDE), exif.get(LONGITUDE_IS), "W", 180)
    return None if latitude is None or longitude is None else (latitude, longitude)


def _degrees(said: object, side: object, negative: str, most: int) -> float | None:
    """Return degrees, minutes and seconds as degrees."""
    try:
        degrees, minutes, seconds = (float(part) for part in said)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ArithmeticError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not (math.isfinite(value) and 0 <= value <= most):
        return None
    return -value if _text(side).upper().startswith(negative) else value


def _text(said: object) -> str:
    text = said.decode("latin-1") if isinstance(said, bytes) else said if isinstance(said, str) else ""
    return "".join(character for character in text if character.isprintable()).strip()
