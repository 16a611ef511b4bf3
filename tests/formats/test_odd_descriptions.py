"""Descriptions that no tool should write and some do: nothing comes in wrongly without a word, and nothing breaks an import."""

import gzip
import io
import os
import random
import struct
import warnings
from collections import deque
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.formats.material import coco, read, skips, write_image, write_images, write_json
from vlm.formats import ImportFailed, scan
from vlm.formats.json_stream import JSONBroken, stream_sections

CAT = "0 .5 .5 .2 .2\n"


def yolo(
    root: Path, *, labels: str = CAT, image: str = "images/a.jpg", label: str = "labels/a.txt", **lines: str
) -> None:
    """Write a data set of one image; ``lines`` are those of its ``data.yaml``."""
    write_image(root / image)
    (root / label).parent.mkdir(parents=True, exist_ok=True)
    (root / label).write_text(labels, encoding="utf-8")
    described = {"train": "images", "names": "[cat, dog]"} | lines
    (root / "data.yaml").write_text("".join(f"{key}: {value}\n" for key, value in described.items()))


# -- COCO ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("categories", "category", "said"),
    [
        ([{"id": 1, "name": "cat"}, {"id": 1.0, "name": "dog"}], "dog", "has two names, “cat” and “dog”"),
        ({"1": "cat"}, "category 1", "Entry 1 of “categories” has no name"),
        (["cat", "dog"], "category 1", "Entry 2 of “categories” has no name"),
        ([{"id": 1, "name": "  "}], "category 1", "has no name"),
        ([{"id": 1, "name": {"en": "cat"}}], "category 1", "has no name"),
        ([{"id": 1, "name": "x" * 2_000_000}], "category 1", "no name of at most 500 characters"),
    ],
)
def test_categories_that_are_not_clear_are_told(tmp_path: Path, categories: Any, category: str, said: str) -> None:
    write_images(tmp_path, "a.jpg")
    write_json(tmp_path / "a.json", coco("a.jpg", categories=categories))
    found, (record,) = read(tmp_path)
    assert record.categories == (category,)
    assert any(said in skip.reason for skip in found.skips)


def test_a_category_that_is_named_twice_alike_is_no_news(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    write_json(tmp_path / "a.json", coco("a.jpg", categories=[{"id": 1, "name": "cat"}, {"id": "1", "name": "cat "}]))
    found, (record,) = read(tmp_path)
    assert (record.categories, found.skip_count) == (("cat",), 0)


def test_an_entry_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets take twenty times as much memory as their text."""
    monkeypatch.setattr("vlm.formats.json_stream._WINDOW", 1 << 12)
    monkeypatch.setattr("vlm.formats.json_stream._MAX_ELEMENT", 1 << 16)
    text = io.StringIO('{"annotations": [{"segmentation": [' + "[]," * 40_000 + "[]]}]}")
    with pytest.raises(JSONBroken):
        deque(chain.from_iterable(section.elements for section in stream_sections(text)), maxlen=0)


def test_cameras_that_write_nonsense_break_no_import(tmp_path: Path) -> None:
    """The note how to hold a picture is read for its box; it may say anything."""
    chance = random.Random(5)
    plain = b"II*\0\x08\0\0\0\x03\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x0f\x01\x02\0\x05\0\0\0\x40\0\0\0\x32\x01\x02\0\x14\0\0\0\x50\0\0\0"
    encoded = io.BytesIO()
    Image.new("RGB", (40, 30)).save(encoded, "JPEG")
    names = [f"{number:03}.jpg" for number in range(200)]
    for name in names:
        note = bytearray(plain + bytes(64))
        for _ in range(chance.randrange(1, 8)):
            note[chance.randrange(len(note))] = chance.randrange(256)
        segment = b"Exif\0\0" + note
        head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
        (tmp_path / name).write_bytes(encoded.getvalue()[:2] + head + encoded.getvalue()[2:])
    write_json(tmp_path / "a.json", coco(*names))
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("default", category=RuntimeWarning)
        _, records = read(tmp_path)
    assert len(records) == len(names)
    assert {(record.width, record.height) for record in records} <= {(40, 30), (30, 40)}
    assert not [one for one in said if issubclass(one.category, RuntimeWarning)]


# -- YOLO ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("image", "label", "train"),
    [
        ("Images/train/a.jpg", "Labels/train/a.txt", "Images/train"),
        ("Images/a.jpg", "labels/a.txt", "Images"),
        ("images/a.jpg", "labels/a.TXT", "images"),
        ("IMAGES/a.JPG", "labels/a.txt", "IMAGES"),
    ],
)
def test_labels_are_found_in_any_case(tmp_path: Path, image: str, label: str, train: str) -> None:
    yolo(tmp_path, image=image, label=label, train=train)
    found, (record,) = read(tmp_path)
    assert (record.categories, found.skip_count) == (("cat",), 0)


def test_a_data_set_without_any_label_is_told(tmp_path: Path) -> None:
    yolo(tmp_path, label="annotations/a.txt")
    found, (record,) = read(tmp_path)
    assert record.categories == ()
    assert "No image has a label file" in skips(found)["data.yaml"]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_labels_that_may_not_be_read_are_told(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    yolo(root)
    (root / "labels" / "a.txt").unlink()
    if kind == "folder":
        (root / "labels" / "a.txt").mkdir()
    else:
        (tmp_path / "elsewhere.txt").write_text(CAT)
        (root / "labels" / "a.txt").symlink_to(tmp_path / "elsewhere.txt")
    found, (record,) = read(root)
    assert record.categories == ()
    assert ("no regular file" if kind == "folder" else "leads out") in skips(found)["labels/a.txt"]


def test_a_class_is_a_number_that_can_be_meant(tmp_path: Path) -> None:
    yolo(tmp_path, labels=f"1e300 .5 .5 .1 .1\n99999999999 .5 .5 .1 .1\n79 .5 .5 .1 .1\n{CAT}", names="", nc="80")
    found, (record,) = read(tmp_path)
    assert record.categories == ("class 79", "class 0")
    assert [skip.reason.split(":")[0] for skip in found.skips] == ["Line 1", "Line 2"]


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b", "\x1c"])
def test_a_line_ends_where_its_writer_ended_it(tmp_path: Path, mark: str) -> None:
    """Python takes more characters for line ends; in a list of classes each would shift all that follow."""
    name = f"images/a{mark}b.jpg"
    yolo(
        tmp_path,
        labels="1 .5 .5 .2 .2\n",
        image=name,
        label=f"labels/a{mark}b.txt",
        train="train.txt",
        names="classes.txt",
    )
    (tmp_path / "train.txt").write_text(f"{name}\r\n", encoding="utf-8", newline="")
    (tmp_path / "classes.txt").write_text(f"ca{mark}t\ndog\nbird\n", encoding="utf-8")
    _, (record,) = read(tmp_path)
    assert (record.path, record.categories) == (name, ("dog",))


# -- folders -------------------------------------------------------------------------------------------------------------
def test_links_that_lead_in_circles_are_passed_over(tmp_path: Path) -> None:
    write_images(tmp_path, "x/a.jpg", "y/b.jpg")
    for one, other in (("a.json", "b.json"), ("b.json", "a.json"), ("c.jpg", "c.jpg"), ("loop", "loop"), ("x/l", "l")):
        (tmp_path / one).symlink_to(other)
    found, records = read(tmp_path)
    assert [record.path for record in records] == ["x/a.jpg", "y/b.jpg"]
    assert "c.jpg" in skips(found)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"images": []}'.encode("utf-32"), "UTF-32"),
        ("data.yaml", "train: images\nnames: [cat]\n".encode("utf-32"), "UTF-32"),
    ],
)
def test_encodings_are_called_by_their_names(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    write_images(tmp_path, "images/a.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportFailed, match=said):
        scan(tmp_path)


def test_a_folder_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_images(folder, "a.jpg")
    with pytest.raises(ImportFailed, match="no UTF-8"):
        scan(folder)


def test_a_packed_description_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    (tmp_path / "annotations.json.gz").write_bytes(gzip.compress(b'{"images": []}'))
    found, _ = read(tmp_path)
    assert "annotations.json.gz" in skips(found)
