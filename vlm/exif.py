"""What a camera wrote beside a picture: when, with what, where (EXIF 2.32). It opens no image.

Cameras write what they like, so whatever cannot be understood is as if it were not there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

PLACE = 1 << 16  # is added to the tags of the place, whose numbers are other things elsewhere
TAKEN, CHANGED, MAKE, MODEL = 36867, 306, 271, 272
LATITUDE_IS, LATITUDE, LONGITUDE_IS, LONGITUDE = (PLACE + tag for tag in (1, 2, 3, 4))
LONGEST = 100  # characters of a camera's name


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
