"""Plots as SVG from the server: coordinates here, shapes in the templates, and the same figures as a table beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.statistics.calibration import Bin
from vlm.statistics.tables import ShareDifference
from vlm.statistics.thresholds import Point

WIDTH, HEIGHT, MARGIN = 320, 200, 34
REACHES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # how far a scale of differences may go to either side


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a plot with its interval: pixels, and what they stand for."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of shares against shares.

    Attributes:
        line: the points of its polyline, as SVG wants them.
        diagonal: the ends of the line on which both axes are equal, empty for none.
        ticks: (pixel, text) of both axes.
    """

    marks: tuple[Mark, ...]
    line: str
    diagonal: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_label: str
    y_label: str
    width: int = WIDTH
    height: int = HEIGHT
    margin: int = MARGIN


@dataclass(frozen=True, slots=True)
class Whisker:
    """A difference with its interval on a line with 0 in its middle, as lengths of SVG: “62.5%” of the line's width."""

    low: str
    at: str
    high: str


def whiskers(differences: Sequence[ShareDifference]) -> tuple[tuple[Whisker, ...], float]:
    """Draw differences of shares on one scale; returns them, and how far the scale goes to either side."""
    widest = max((max(abs(one.low), abs(one.high)) for one in differences), default=0.0)
    reach = next((reach for reach in REACHES if reach >= widest), 1.0)

    def place(value: float) -> str:
        return f"{50 + 50 * value / reach:.1f}%"

    return tuple(Whisker(place(one.low), place(one.difference), place(one.high)) for one in differences), reach


def promise_curve(points: Sequence[Point]) -> Plot | None:
    """Draw accuracy of what is tagged against the share tagged; ``None`` without a figure."""
    known = [(point.tagged, point.accuracy) for point in points if point.accuracy is not None]
    if not known:
        return None
    least = _floor(min(found.low for _, found in known))
    marks = tuple(
        Mark(
            _x(tagged),
            _y(found.value, least),
            _y(found.low, least),
            _y(found.high, least),
            f"{tagged:.0%}: {found.value:.1%}",
        )
        for tagged, found in sorted(known, key=lambda pair: pair[0])
    )
    return Plot(marks, _line(marks), "", _x_ticks(), _y_ticks(least), "share tagged", "right")


def reliability(bins: Sequence[Bin]) -> Plot | None:
    """Draw what is right against what the model said; on the diagonal it is as right as it says."""
    if not bins:
        return None
    marks = tuple(
        Mark(
            _x(one.said),
            _y(one.right.value, 0),
            _y(one.right.low, 0),
            _y(one.right.high, 0),
            f"{one.said:.0%}: {one.right.value:.1%}",
        )
        for one in bins
    )
    diagonal = f"{_x(0):.1f},{_y(0, 0):.1f} {_x(1):.1f},{_y(1, 0):.1f}"
    return Plot(marks, _line(marks), diagonal, _x_ticks(), _y_ticks(0), "said", "right")


def _x(share: float) -> float:
    return round(MARGIN + share * (WIDTH - MARGIN - 10), 1)


def _y(share: float, least: float) -> float:
    return round(10 + (1 - share) / (1 - least) * (HEIGHT - MARGIN - 10), 1)


def _floor(share: float) -> float:
    return min(0.9, max(0.0, int(share * 10) / 10))


def _line(marks: Sequence[Mark]) -> str:
    return " ".join(f"{mark.x},{mark.y}" for mark in marks)


def _x_ticks() -> tuple[tuple[float, str], ...]:
    return tuple((_x(share), f"{share:.0%}") for share in (0.0, 0.5, 1.0))


def _y_ticks(least: float) -> tuple[tuple[float, str], ...]:
    return tuple((_y(share, least), f"{share:.0%}") for share in (least, (1 + least) / 2, 1.0))
