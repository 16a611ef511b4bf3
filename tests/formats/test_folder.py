"""Folders of images: flat, nested, with classes and splits."""

import os
from pathlib import Path

import pytest

from tests.formats.material import read, skips, write_image, write_images
from vlm.formats import Annotation, ImportFailed, scan
from vlm.roots import LocalRoot


def test_a_flat_folder(tmp_path: Path) -> None:
    write_images(tmp_path, "b.jpg", "a.JPG")
    found, records = read(tmp_path)
    assert (found.format, found.total, found.root) == ("folder", 2, LocalRoot(tmp_path.resolve()))
    assert [record.path for record in records] == ["a.JPG", "b.jpg"]
    record, status = records[0], (tmp_path / "a.JPG").stat()
    assert (record.file_name, record.split, record.width, record.height) == ("a.JPG", "", None, None)
    assert (record.categories, record.annotations, record.external_id) == ((), (), "")
    assert record.content_key == f"{status.st_size}-{status.st_mtime_ns}"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["cat/1.jpg", "dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (["train/cat/1.jpg", "val/dog/2.jpg"], [("train", "cat"), ("val", "dog")]),
        (["data/test/cat/1.jpg", "data/train/dog/2.jpg"], [("test", "cat"), ("train", "dog")]),
        (["train2017/1.jpg", "val2017/2.jpg"], [("train", ""), ("val", "")]),
        (["images/train/1.jpg", "images/valid/2.jpg"], [("train", ""), ("valid", "")]),
        (["images/1.jpg", "images/2.jpg"], [("", ""), ("", "")]),
        (["1.jpg", "cat/2.jpg"], [("", ""), ("", "")]),
        (["a/b/1.jpg", "a/2.jpg"], [("", ""), ("", "")]),
        (["train/1.jpg", "train/cat/2.jpg"], [("train", ""), ("train", "")]),
        (["train/cat/1.jpg", "dog/2.jpg"], [("", ""), ("", "")]),
        (["cat/1.jpg", "cat/2.jpg"], [("", "cat"), ("", "cat")]),
    ],
)
def test_classes_and_splits(tmp_path: Path, paths: list[str], expected: list[tuple[str, str]]) -> None:
    """They count only where every image lies in one of them."""
    write_images(tmp_path, *paths)
    _, records = read(tmp_path)
    by_path = {record.path: (record.split, "".join(record.categories)) for record in records}
    assert [by_path[path] for path in paths] == expected
    for record in records:
        assert record.annotations == tuple(Annotation(category, None) for category in record.categories)


def test_what_is_no_image_is_listed_or_passed_over(tmp_path: Path) -> None:
    write_images(tmp_path, "good.jpg", "no_ending", ".hidden.jpg", ".hidden/1.jpg", "__MACOSX/1.jpg")
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\n",
        "drawing.psd": b"8BPS",
        "LICENSE": b"Do what you like.",
        "notes.txt": b"",
        "labels.xml": b"<x/>",
        "Thumbs.db": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    found, records = read(tmp_path)
    assert [record.path for record in records] == ["good.jpg", "no_ending"]
    reasons = skips(found)
    assert set(reasons) == {"empty.jpg", "text.jpg", "pointer.png", "drawing.psd", "LICENSE", "pipe.jpg", "labels.xml"}
    assert "empty" in reasons["empty.jpg"]
    assert "git lfs pull" in reasons["pointer.png"]
    assert "“.psd”" in reasons["drawing.psd"]
    assert "regular" in reasons["pipe.jpg"]


def test_any_unicode_name_is_an_image_and_other_bytes_are_a_skip(tmp_path: Path) -> None:
    names = [
        "写真.jpg",
        "صورة.jpg",
        "🌧️ rain.jpg",
        "café.jpg",
        "cafe\u0301.jpg",
        "new\nline.jpg",
        "-rf.jpg",
        "%2e%2e%2f.jpg",
    ]
    names += ["=cmd|calc.jpg", "<img src=x>.jpg", "a" * 244 + ".jpg", "quote'\".jpg"]
    write_images(tmp_path, *names)
    content = (tmp_path / "-rf.jpg").read_bytes()
    (tmp_path / os.fsdecode(b"bytes-\xff.jpg")).write_bytes(content)
    (tmp_path / os.fsdecode(b"folder-\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"folder-\xfe") / "1.jpg").write_bytes(content)
    found, records = read(tmp_path)
    assert {record.path for record in records} == set(names)
    reasons = skips(found)
    assert set(reasons) == {r"bytes-\udcff.jpg", r"folder-\udcfe"}
    assert all("UTF-8" in reason for reason in reasons.values())


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside" / "secret.jpg")
    root = tmp_path / "root"
    write_images(root, "real.jpg", "sub/more.jpg")
    (root / "out.jpg").symlink_to(outside)
    (root / "in.jpg").symlink_to("sub/more.jpg")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "loop").symlink_to(root)
    (root / "outfolder").symlink_to(outside.parent)
    found, records = read(root)
    assert {record.path for record in records} == {"real.jpg", "sub/more.jpg", "in.jpg"}
    reasons = skips(found)
    assert set(reasons) == {"out.jpg", "dangling.jpg", "loop", "outfolder"}
    assert "leads out" in reasons["out.jpg"]


def test_a_root_behind_a_link_is_fine(tmp_path: Path) -> None:
    write_images(tmp_path / "real", "1.jpg")
    (tmp_path / "link").symlink_to("real")
    found, records = read(tmp_path / "link")
    assert found.root == LocalRoot((tmp_path / "real").resolve())
    assert len(records) == 1


def test_reading_again_starts_anew(tmp_path: Path) -> None:
    write_images(tmp_path, "1.jpg")
    (tmp_path / "empty.jpg").touch()
    found = scan(tmp_path)
    assert list(found) == list(found)
    assert found.skip_count == len(found.skips) == 1


def test_a_million_skips_are_counted_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.formats.records.MAX_KEPT_SKIPS", 2)
    write_images(tmp_path, "good.jpg")
    for number in range(5):
        (tmp_path / f"{number}.jpg").touch()
    found = scan(tmp_path)
    assert len(list(found)) == 1
    assert (found.skip_count, len(found.skips)) == (5, 2)


@pytest.mark.parametrize("format", ["auto", "folder", "coco", "yolo"])
def test_nothing_to_import_says_so(tmp_path: Path, format: str) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImportFailed):
        scan(tmp_path, format)


def test_only_unusable_images_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImportFailed, match=r"1 entries were skipped.*empty\.jpg"):
        list(scan(tmp_path))


def test_bad_paths_and_formats_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="There is no folder"):
        scan(tmp_path / "missing")
    with pytest.raises(ImportFailed, match="no format"):
        scan(tmp_path, "voc")
    with pytest.raises(ImportFailed, match="no folder"):
        scan(write_image(tmp_path / "1.jpg"))
    with pytest.raises(ImportFailed, match="Check the path"):
        scan(Path("\0"))
