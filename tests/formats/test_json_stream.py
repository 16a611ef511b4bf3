"""The stream of a JSON's sections gives what ``json.loads`` gives, however the text falls into windows."""

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vlm.formats import json_stream
from vlm.formats.json_stream import JSONBroken, stream_sections

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)


def collect(text: str) -> dict[str, Any]:
    return collect_file(io.StringIO(text))


def collect_file(file: io.StringIO) -> dict[str, Any]:
    sections = {}
    for section in stream_sections(file):
        elements = list(section.elements)
        sections[section.key] = elements if section.is_array else elements[0]
    return sections


@settings(max_examples=examples(100), deadline=None)
@given(content=OBJECTS, window=st.integers(1, 40), indent=st.none() | st.integers(0, 2))
def test_it_is_what_json_reads(content: dict[str, Any], window: int, indent: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_WINDOW", window)
        assert collect(json.dumps(content, indent=indent)) == content


@settings(max_examples=examples(100), deadline=None)
@given(content=OBJECTS, window=st.integers(1, 40), cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_text_is_broken(content: dict[str, Any], window: int, cut: float) -> None:
    text = json.dumps(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_WINDOW", window)
        with pytest.raises(JSONBroken, match="line 1, column"):
            collect(text[: int(len(text) * cut)])


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"a" 1}', '{"a": [1 2]}', '{"a": [1,]}', '{"a": 1,}', "{1: 2}", '{"a": 1} x']
)
def test_no_object_is_broken(text: str) -> None:
    with pytest.raises(JSONBroken):
        collect(text)


@pytest.mark.parametrize("window", [1, 7, 64, 1 << 20])
def test_the_place_of_an_error_does_not_depend_on_the_window(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(json_stream, "_WINDOW", window)
    text = '{"images": [\n' + "".join(f'  {{"id": {n}}},\n' for n in range(50)) + '  {"id": oops}\n]}'
    with pytest.raises(JSONBroken, match="line 52, column 10"):
        collect(text)


def test_elements_that_nobody_takes_are_passed_over() -> None:
    sections = stream_sections(io.StringIO('{"a": [1, 2, 3], "b": {"c": []}, "d": 4}'))
    assert [section.key for section in sections] == ["a", "b", "d"]


def test_an_endless_element_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_WINDOW", 100)
    monkeypatch.setattr(json_stream, "_MAX_ELEMENT", 1000)
    file = io.StringIO('{"images": ["' + "x" * 1_000_000)
    with pytest.raises(JSONBroken):
        collect_file(file)
    assert file.tell() < 10_000
