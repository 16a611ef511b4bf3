"""Ranges as a filter spells them: of numbers, of bytes with their unit, of days and times."""

import math
import re
from collections.abc import Callable
from datetime import MAXYEAR, datetime, timedelta
from typing import Any

Span = Callable[[str], tuple[Any, Any] | None]  # a range's text → its bounds, which both belong to it

MEGAPIXELS = "(s.width::double * s.height / 1e6)"  # of a sample ``s``
MEGAPIXEL_RANGES = ("..<0.5", "0.5..<2", "2..<8", "8..<24", "24..")
FILE_SIZE_RANGES = ("..<100kB", "100kB..<1MB", "1MB..<5MB", "5MB..<20MB", "20MB..")

_RANGE = re.compile(r"(?P<low>[-+.0-9e]*?)\.\.(?P<below><?)(?P<high>[-+.0-9e]*)", re.IGNORECASE)
_BYTES = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[kMGT]?)B?", re.ASCII)
_UNSPACED = re.compile(r"(\d)([kMGT]?B|[kMGT])", re.ASCII)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TIME = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?)?)?", re.ASCII)
_TICK = timedelta(microseconds=1)


def span_of(text: str) -> tuple[float, float] | None:
    """Return the bounds of a range such as ``0.5..2``, ``0.5..<2``, ``..3`` or ``7..``; ``None`` if ``text`` is none.

    Both bounds belong to the range; ``..<2`` ends with the number before 2.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found["low"] or found["high"]):
        return None
    try:
        low = float(found["low"]) if found["low"] else float("-inf")
        high = float(found["high"]) if found["high"] else float("inf")
    except ValueError:
        return None
    return low, math.nextafter(high, -math.inf) if found["below"] else high


def span_of_bytes(text: str) -> tuple[float, float] | None:
    """Return the bounds of a range of file sizes such as ``500kB..2MB``, ``..<1 MB`` or ``1000..``, in bytes.

    Units are powers of a thousand. ``None`` if ``text`` is no such range.
    """
    low, dots, high = text.strip().partition("..")
    below = high.startswith("<")
    bounds = [_bytes_of(low), _bytes_of(high.removeprefix("<"))]
    if not dots or None in bounds or not (low or high.removeprefix("<")):
        return None
    return span_of("..".join([str(bounds[0]), f"<{bounds[1]}" if below else str(bounds[1])]))


def _bytes_of(text: str) -> str | None:
    """Return an amount in bytes; nothing for nothing, ``None`` if it is none."""
    if not text:
        return ""
    found = _BYTES.fullmatch(text)
    return None if found is None else repr(float(found["number"]) * _UNITS[found["unit"]])


def span_of_times(text: str) -> tuple[datetime, datetime] | None:
    """Return the first and the last moment of a range such as ``2024``, ``2024-05..``, ``2024-05-01..2024-05-31T12:00``.

    A year, a month, a day, a minute counts in full, at either end. ``None`` if ``text`` is no such range.
    """
    low, dots, high = text.strip().partition("..")
    if not (low or high):
        return None
    begins = _moments(low) if low else (datetime.min, datetime.max)  # noqa: DTZ901  (by the camera's clock)
    ends = _moments(high) if high else (datetime.min, datetime.max) if dots else begins  # noqa: DTZ901
    return None if begins is None or ends is None else (begins[0], ends[1])


def _moments(text: str) -> tuple[datetime, datetime] | None:
    """Return the first and the last moment of a year, a month, a day, a minute or a second."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in found.groups())
    try:
        first = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0)  # noqa: DTZ001
    except ValueError:
        return None
    if day is None:
        months = 12 if month is None else 1
        behind = first.year * 12 + first.month - 1 + months  # counted from the year 0
        if behind >= 12 * (MAXYEAR + 1):
            return first, datetime.max  # noqa: DTZ901
        return first, first.replace(year=behind // 12, month=behind % 12 + 1) - _TICK
    length = timedelta(days=1) if hour is None else timedelta(minutes=1) if second is None else timedelta(seconds=1)
    return first, first + (length - _TICK)


def said_range(text: str) -> str:
    """Return a range as people read it: “below 0.5”, “0.5 to 1”, “from 1 on”; another value as it is."""
    return _said(text) if span_of(text) is not None else text


def said_bytes(text: str) -> str:
    """Return a range of file sizes as people read it: “500 kB to 2 MB”."""
    return _said(_UNSPACED.sub(r"\1 \2", text))


def said_times(text: str) -> str:
    """Return a range of times as people read it: “2024”, “2024-05-01 to 2024-05-31”."""
    return _said(text)


def _said(text: str) -> str:
    low, dots, high = text.partition("..")
    high = high.removeprefix("<")
    if not dots:
        return text
    if not low:
        return f"below {high}" if "<" in text else f"up to {high}"
    return f"{low} to {high}" if high else f"from {low} on"


def overlap(one: str, other: str) -> str | None:
    """Return what two ranges of numbers have in common; ``None`` where that is nothing, or one is no range."""
    first, second = span_of(one), span_of(other)
    if first is None or second is None or max(first[0], second[0]) > min(first[1], second[1]):
        return None
    (low, _, high), (other_low, _, other_high) = one.partition(".."), other.partition("..")
    return f"{low if first[0] >= second[0] else other_low}..{high if first[1] <= second[1] else other_high}"
