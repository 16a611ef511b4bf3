"""A filter's text form gives the very same filter, whatever is in it; what would cost the server too much is refused."""

import base64
from dataclasses import fields
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vlm.samples import FilterError, SampleFilter, SampleStore, where
from vlm.samples.conditions import SOURCES, STATES, WITHOUT
from vlm.samples.filters import MAX_LENGTH, MAX_PARTS
from vlm.samples.ranges import overlap
from vlm.samples.reading import count, samples_page

from .conftest import WORDS, fill

text = st.text(max_size=MAX_LENGTH).filter(lambda value: value.isprintable() or value.strip() == value)
texts = st.lists(text, max_size=5).map(tuple)
numbers = st.none() | st.integers(0, 2**63 - 1)
# Values that a key refuses unless they mean something.
amounts = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 1e6).map(repr))
spans = st.tuples(amounts, st.sampled_from(["..", "..<"]), amounts).map("".join) | amounts.map("{}..".format)
sizes = st.tuples(st.integers(0, 999), st.sampled_from(["", "B", "kB", " MB", "G"])).map(
    lambda part: f"{part[0]}{part[1]}"
)
days = st.dates().flatmap(
    lambda day: st.sampled_from([f"{day:%Y}".zfill(4), day.isoformat(), day.isoformat()[:7], f"{day}T23:59"])
)


def several(values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(values, max_size=3).map(tuple)


SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "state": st.sampled_from(["", *STATES]),
    "source": st.sampled_from(["", *SOURCES]),
    "without": several(st.sampled_from(list(WITHOUT))),
    "min_probability": st.none() | st.floats(0, 1),
    "max_probability": st.none() | st.floats(0, 1),
    "widths": several(spans),
    "heights": several(spans),
    "megapixels": several(spans),
    "file_sizes": several(
        st.tuples(sizes, st.sampled_from(["..", "..<"]), sizes).map("".join) | sizes.map("..{}".format)
    ),
    "taken": several(days | days.map("{}..".format) | st.tuples(days, days).map("..".join)),
    "ids": st.lists(st.integers(0, 2**63 - 1), max_size=20).map(tuple),
}


def strategy(name: str, default: object) -> st.SearchStrategy[Any]:
    if name in SPECIAL:
        return SPECIAL[name]
    if isinstance(default, str):
        return text
    return texts if isinstance(default, tuple) else numbers


RANGED = ("widths", "heights", "megapixels", "file_sizes", "taken", "cameras")
filters = st.builds(SampleFilter, **{own.name: strategy(own.name, own.default) for own in fields(SampleFilter)})


@given(filters)
@settings(max_examples=examples(80), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@example(SampleFilter(text="v1.0"))
@example(SampleFilter(all_of=("1.0", "a&b=c", "+", "é", "日本")))
@example(SampleFilter(min_probability=1.0, max_probability=1e-9))
def test_the_text_form_gives_the_same_filter(chosen: SampleFilter) -> None:
    assert SampleFilter.from_query(chosen.to_query()) == chosen
    assert SampleFilter.from_text(chosen.to_query()) == chosen
    for chip in chosen.chips():
        assert chip.without != chosen
    where(1, SampleFilter(**{name: getattr(chosen, name) for name in RANGED}), WORDS)


@pytest.mark.parametrize(
    "query",
    [
        urlencode([("all", f"x{index}") for index in range(MAX_PARTS + 1)]),
        urlencode([("any", f"x{index}") for index in range(20_000)]),
        urlencode([("none", "a" * (MAX_LENGTH + 1))]),
        "q=" + "a" * 300_000,
        "run=" + "9" * 5000,
        "edit=1e3",
        "pmin=nan",
        "pmax=1e400",
        "id=" + "9" * 30,
        "width=wide",
        "megapixels=..",
        "filesize=1kB",
        "filesize=1 lb..",
        "taken=yesterday",
        "taken=2024-13",
        "taken=2024-02-30..",
    ],
)
def test_what_would_cost_too_much_is_refused(query: str) -> None:
    with pytest.raises(FilterError):
        SampleFilter.from_query(query)


def test_lone_surrogates_are_no_text() -> None:
    with pytest.raises(FilterError):
        SampleFilter(text="\ud800")
    with pytest.raises(FilterError):
        SampleFilter(all_of=("a\udc80",))


def test_a_filter_that_was_made_too_large_reaches_no_statement() -> None:
    with pytest.raises(FilterError, match="at most 100 parts"):
        where(1, SampleFilter(all_of=tuple(map(str, range(101)))), WORDS)


def test_as_many_parts_as_there_may_be_are_answered(store: SampleStore) -> None:
    fill(store, 20)
    values = tuple(f"tag {index}" for index in range(MAX_PARTS))
    with store.read() as cursor:
        for name in ("all_of", "any_of", "none_of", "categories", "splits"):
            assert count(cursor, 1, SampleFilter(**{name: values}), WORDS) == (20 if name == "none_of" else 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "after",
    [
        base64.urlsafe_b64encode(b"[" * 9000).decode(),
        base64.urlsafe_b64encode(b'["name", "\\ud800", 1]').decode(),
        base64.urlsafe_b64encode(b'["name", "a", 1e30]').decode(),
        base64.urlsafe_b64encode(b'["name", "a", true]').decode(),
        base64.urlsafe_b64encode(b'["name", "a", -1]').decode(),
        base64.urlsafe_b64encode(b'["name", "a", 99999999999999999999]').decode(),
        "a" * 9000,
        "é",
        quote("\x00"),
    ],
)
def test_odd_cursors_are_refused(store: SampleStore, after: str) -> None:
    fill(store, 1)
    with store.read() as cursor, pytest.raises(FilterError, match="no longer known"):
        samples_page(cursor, 1, SampleFilter(), WORDS, after=after)


@pytest.mark.parametrize("value", [b"Infinity", b"NaN", b"true", b'"a"', b"1" + b"0" * 400, b"[]"])
def test_odd_numbers_in_cursors_are_refused(store: SampleStore, value: bytes) -> None:
    fill(store, 1)
    for order in ("added", "uncertain"):
        after = base64.urlsafe_b64encode(b'["%s", %s, 1]' % (order.encode(), value)).decode()
        with store.read() as cursor, pytest.raises(FilterError, match="no longer known"):
            samples_page(cursor, 1, SampleFilter(), WORDS, order=order, after=after)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("0..1", "0.5..2", "0.5..1"),
        ("..<0.5", "0.25..<0.5", "0.25..<0.5"),
        ("..3", "1..", "1..3"),
        ("..<3", "..3", "..<3"),
        ("0..1", "2..3", None),
        ("..<1", "1..", None),
        ("yes", "0..1", None),
    ],
)
def test_what_two_ranges_have_in_common(one: str, other: str, both: str | None) -> None:
    assert overlap(one, other) == overlap(other, one) == both


def test_only_what_there_is_can_be_lacked() -> None:
    with pytest.raises(FilterError, match="split, category, own tag, measure"):
        SampleFilter(without=("colour",))
