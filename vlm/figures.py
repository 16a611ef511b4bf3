"""Figures as people read them: the page, the live strip and the commands write them alike."""


def number(value: int) -> str:
    """Return 1234567 as “1,234,567”."""
    return f"{value:,}"


def counted(count: int, thing: str) -> str:
    """Return “1 image” or “1,234 images”."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def duration(seconds: float) -> str:
    """Return 3725 s as “1 h 02 min”, 65 s as “1 min 05 s”, 5 s as “5 s”."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def roughly(seconds: float) -> str:
    """Return 1092 s as “18 min”, 9000 s as “2.5 h”, 100 h as “4.2 days”: no more digits than an estimate has."""
    for most, length, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < most:
            return (
                f"{seconds / length:.1f} h"
                if unit == "h" and seconds < 10 * length
                else f"{seconds / length:.0f} {unit}"
            )
    return f"{seconds / 86400:.1f} days"


def pace(per_second: float) -> str:
    """Return 3.2 as “3.2/s”, 0.02 as “1.2/min”, 0.002 as “7.2/h”; a dash for a rate that is not known yet."""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if (rate := factor * per_second) >= 1:
            return f"{rate:.1f}/{unit}" if rate < 100 else f"{round(rate):,}/{unit}"
    return f"{3600 * per_second:.2f}/h" if per_second else "–"


def size(count: int) -> str:
    """Return a number of bytes as “512 bytes”, “34 kB”, “3.4 MB” or “1.2 GB”, in powers of a thousand."""
    if count < 1000:
        return counted(count, "byte")
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


def share(part: int, whole: int) -> str:
    """Return “37 %”; something is never shown as nothing, nor nearly all as all."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "< 1 %"
    return f"{min(round(percent), 99) if part < whole else 100} %"


def figure(value: float | None) -> str:
    """Return a number in four digits: “0.3125”, “1,240”; a dash for one that is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def tenths(value: float) -> str:
    """Return a number with one digit behind the point: “1,234.5”."""
    return f"{value:,.1f}"


def percent(probability: float | None) -> str:
    """Return 0.873 as “87 %”; nothing for an unknown one."""
    return "" if probability is None else f"{100 * probability:.0f} %"


def percent_1(value: float | None) -> str:
    """Return a share with one digit behind the point: “12.5 %”."""
    return "–" if value is None else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign: “+4.2”."""
    return f"{100 * value:+.1f}".replace("-", "−")


def rate(value: float) -> str:
    """Return a false discovery rate or p-value: “0.012”, “< 0.001”."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
