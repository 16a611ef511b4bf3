"""Where the bars of a histogram begin and end."""

import math
import sys

BARS = 20
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def edges(low: float, high: float, first: float, last: float, *, bars: int = BARS) -> tuple[float, ...]:
    """Return round, rising edges between bars of equal width; the first and the last bar are open.

    The bars cover what lies between ``first`` and ``last`` (quantiles near the ends), so that a few far values do not push
    all others into one bar; where no value is far, all from ``low`` to ``high``.
    """
    if last - first <= 0 or (high - low) <= 2 * (last - first):
        first, last = low, high
    width = last - first
    if not (width > 0 and math.isfinite(width)):
        return ()
    if width / bars < sys.float_info.min:  # of numbers so close to zero, floats have no round ones
        return ()
    step = _round(width / bars)
    begin = math.floor(first / step + 1e-9) + 1
    end = math.ceil(last / step - 1e-9)
    return tuple(dict.fromkeys(_tidy(place * step, step) for place in range(begin, end) if place * step <= high))


def _round(step: float) -> float:
    """Return the next round number at or above a step: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor for factor in STEPS if factor * power >= step * (1 - 1e-9)) * power


def _tidy(value: float, step: float) -> float:
    """Return a multiple of ``step`` without the digits that floats add: 0.30000000000000004 is 0.3."""
    return round(value, max(0, 2 - math.floor(math.log10(step)))) + 0.0
