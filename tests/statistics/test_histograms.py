"""Edges of histograms are round, rise, and cover what is there."""

import itertools
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlm.statistics.histograms import BARS, edges

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


def test_edges_are_round() -> None:
    assert edges(0, 10, 0, 10, bars=10) == tuple(float(place) for place in range(1, 10))
    assert edges(0, 1, 0.0, 1, bars=4) == (0.25, 0.5, 0.75)
    assert edges(-1, 1, -1, 1, bars=4) == (-0.5, 0.0, 0.5)


def test_far_values_do_not_push_the_others_together() -> None:
    found = edges(0, 1e9, 0.1, 9.9)
    assert found[0] <= 1
    assert found[-1] <= 10
    assert len(found) > 9


def test_one_value_has_one_bar() -> None:
    assert edges(5, 5, 5, 5) == ()


@settings(max_examples=60, deadline=None)
@example([0.0, 0.0, 5e-324, 1e-323])  # the smallest that there are
@example([-1.7e308, 0.0, 0.0, 1.7e308])
@example([2.0**63, 2.0**63, 2.0**64, 2.0**64])
@given(st.lists(NUMBERS, min_size=4, max_size=4).map(sorted))
def test_edges_rise_within_the_range(values: list[float]) -> None:
    low, first, last, high = values
    found = edges(low, high, first, last)
    assert len(found) <= BARS + 1
    assert all(one < other for one, other in itertools.pairwise(found))
    assert all(math.isfinite(edge) and low <= edge <= high for edge in found)
