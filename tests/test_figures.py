"""Figures as people read them."""

import pytest

from vlm.figures import duration, number, pace, roughly, share


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [
        (0.0, "–"),
        (1234.5, "1,234/s"),
        (99.96, "100.0/s"),
        (3.24, "3.2/s"),
        (1.0, "1.0/s"),
        (0.02, "1.2/min"),
        (1 / 54, "1.1/min"),
        (1 / 600, "6.0/h"),
        (1 / 7200, "0.50/h"),
    ],
)
def test_a_pace_is_never_shown_as_nothing(per_second: float, shown: str) -> None:
    assert pace(per_second) == shown


def test_durations() -> None:
    assert [duration(seconds) for seconds in (-1, 5.4, 65, 3725)] == ["0 s", "5 s", "1 min 05 s", "1 h 02 min"]


def test_estimates_have_no_more_digits_than_they_know() -> None:
    shown = ["59 s", "18 min", "89 min", "2.5 h", "11 h", "4.2 days"]
    assert [roughly(seconds) for seconds in (58.8, 1092, 5340, 9000, 39_600, 360_000)] == shown


def test_shares_and_numbers() -> None:
    assert [share(part, 1000) for part in (0, 1, 374, 999, 1000)] == ["0 %", "< 1 %", "37 %", "99 %", "100 %"]
    assert share(0, 0) == "0 %"
    assert number(1234567) == "1,234,567"
