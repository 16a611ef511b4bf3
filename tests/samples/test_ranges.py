"""Ranges of numbers, bytes and times, as a filter spells them."""

from datetime import datetime

import pytest

from vlm.samples.ranges import said_bytes, said_range, said_times, span_of, span_of_bytes, span_of_times


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("500kB..2MB", (5e5, 2e6)),
        ("1.5 MB..", (1.5e6, float("inf"))),
        ("..1000", (float("-inf"), 1000)),
        ("0..1G", (0, 1e9)),
        ("..", None),
        ("1kB", None),
        ("1 kb..", None),
        ("-1..", None),
    ],
)
def test_file_sizes(text: str, bounds: tuple[float, float] | None) -> None:
    assert span_of_bytes(text) == bounds


def test_the_upper_bound_belongs_to_a_range_or_not() -> None:
    for span, text in ((span_of, "1..<2"), (span_of_bytes, "1..<2B")):
        found = span(text)
        assert found is not None
        assert found[0] == 1
        assert 2 - 1e-9 < found[1] < 2


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", "2024-01-01", "2024-12-31 23:59:59.999999"),
        ("2024-12", "2024-12-01", "2024-12-31 23:59:59.999999"),
        ("2024-02", "2024-02-01", "2024-02-29 23:59:59.999999"),
        ("2024-02-29", "2024-02-29", "2024-02-29 23:59:59.999999"),
        ("2023..2024-05-01T12:30", "2023-01-01", "2024-05-01 12:30:59.999999"),
        ("2024-05-01 12:30:15", "2024-05-01 12:30:15", "2024-05-01 12:30:15.999999"),
        ("..1999", "0001-01-01", "1999-12-31 23:59:59.999999"),
        ("1999..", "1999-01-01", "9999-12-31 23:59:59.999999"),
        ("9999", "9999-01-01", "9999-12-31 23:59:59.999999"),
        ("9999-12-31", "9999-12-31", "9999-12-31 23:59:59.999999"),
    ],
)
def test_times_count_in_full_at_either_end(text: str, first: str, last: str) -> None:
    assert span_of_times(text) == (datetime.fromisoformat(first), datetime.fromisoformat(last))


@pytest.mark.parametrize("text", ["", "..", "24", "2024-13", "2024-1", "2023-02-29", "0000", "2024-05-01T25:00", "May"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert span_of_times(text) is None


def test_a_range_as_people_read_it() -> None:
    assert [said_range(text) for text in ("0.5..1", "..<2", "..2", "7..", "x")] == [
        "0.5 to 1",
        "below 2",
        "up to 2",
        "from 7 on",
        "x",
    ]
    assert said_bytes("500kB..<2 MB") == "500 kB to 2 MB"
    assert said_times("2024-05..") == "from 2024-05 on"
