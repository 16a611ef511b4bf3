"""Tables of scores: what each column holds is found out, and what cannot be used is listed and never guessed away."""

import io
from collections.abc import Iterator

import numpy as np
import pytest

from vlm.formats.scores import Scores, read_scores
from vlm.formats.table import TableBroken

KNOWN = [(place, f"train/{place:03d}.jpg") for place in range(20)] + [(99, "other/005.jpg")]


def known() -> Iterator[tuple[int, str]]:
    yield from KNOWN


def read(text: str | bytes, **options: object) -> Scores:
    content = text.encode() if isinstance(text, str) else text
    return read_scores(io.BytesIO(content), known, **options)  # type: ignore[arg-type]


def columns(found: Scores) -> dict[str, tuple[str, dict[int, object]]]:
    return {
        one.name: (one.kind, dict(zip(one.ids.tolist(), one.values.tolist(), strict=True))) for one in found.columns
    }


def test_numbers_flags_and_words_are_told_apart() -> None:
    found = read(
        "file,error,flag,bit,camera,empty\n"
        "train/000.jpg,0.5,yes,1,front,\n"
        "train/001.jpg,-2e3,No,0,rear,\n"
        "train/002.jpg,nan,,1,front,\n"
    )
    assert columns(found) == {
        "error": ("number", {0: 0.5, 1: -2000.0}),
        "flag": ("boolean", {0: 1.0, 1: 0.0}),
        "bit": ("boolean", {0: 1.0, 1: 0.0, 2: 1.0}),
        "camera": ("word", {0: "front", 1: "rear", 2: "front"}),
    }
    assert (found.rows, found.problem_count) == (3, 0)


def test_what_cannot_be_used_is_listed_with_its_line() -> None:
    good = "".join(f"train/{place:03d}.jpg,{place},{place % 2}\n" for place in range(10, 20))
    found = read(
        "file,error,flag\n"
        "train/000.jpg,1,yes\n"
        "nowhere.jpg,2,yes\n"
        "train/000.jpg,3,yes\n"
        "train/001.jpg,many,yes\n"
        "train/002.jpg,inf,no\n"
        "train/003.jpg,4,perhaps\n"
        "005.jpg,5,no\n"
        "/somewhere/else/train/004.jpg,6,no\n" + good
    )
    said = "\n".join(found.problems)
    for line, reason in (
        (3, "no file of the data set"),
        (4, "line 2"),
        (5, "“many” is no number"),
        (6, "“inf” is no number"),
        (7, "“perhaps” is neither yes nor no"),
        (8, "several files"),
    ):
        assert any(problem.startswith(f"Line {line}:") and reason in problem for problem in found.problems), said
    assert found.problem_count == 6
    of = columns(found)
    assert of["error"][1] == {0: 1.0, 3: 4.0, 4: 6.0} | {place: float(place) for place in range(10, 20)}
    assert of["flag"][1][4] == 0.0


def test_a_kind_can_be_said_and_columns_chosen() -> None:
    text = "file;camera;error\ntrain/000.jpg;1;0,5\ntrain/001.jpg;2;1,5\n"
    assert columns(read(text))["camera"] == ("number", {0: 1.0, 1: 2.0})
    found = columns(read(text, kinds={"camera": "word"}, only=["camera"]))
    assert found == {"camera": ("word", {0: "1", 1: "2"})}
    assert columns(read(text))["error"] == ("number", {0: 0.5, 1: 1.5})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_any_encoding_is_read_twice(encoding: str) -> None:
    found = read("file,größe,näher\ntrain/000.jpg,1.5,süß\n".encode(encoding))
    assert columns(found) == {"größe": ("number", {0: 1.5}), "näher": ("word", {0: "süß"})}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\ntrain/000.jpg\n", "nothing to bring in"),
        ("file,a:b\ntrain/000.jpg,1\n", "colon"),
        ("file," + "x" * 61 + "\ntrain/000.jpg,1\n", "60 characters"),
        ("error\n1\n", "Call one of them “file”"),
        ("", "empty"),
        ('file,error\n"a,1\n' + "b,2\n" * 40_000, "Line 2"),
    ],
)
def test_tables_that_cannot_be_used_at_all(content: str, message: str) -> None:
    with pytest.raises(TableBroken, match=message):
        read(content)


def test_a_column_that_is_not_there_and_a_word_that_is_too_long() -> None:
    with pytest.raises(TableBroken, match="no column “speed”"):
        read("file,error\ntrain/000.jpg,1\n", only=["speed"])
    found = read("file,camera\ntrain/000.jpg," + "x" * 121 + "\ntrain/001.jpg,front\n")
    assert found.problem_count == 1
    assert columns(found)["camera"][1] == {1: "front"}


def test_many_rows_are_arrays() -> None:
    rows = "".join(f"train/{place:03d}.jpg,{place / 7!r}\n" for place in range(20))
    (one,) = read("path,error\n" + rows).columns
    assert one.ids.dtype == np.int64
    assert one.values.tolist() == [place / 7 for place in range(20)]
