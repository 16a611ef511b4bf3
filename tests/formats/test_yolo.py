"""YOLO data sets."""

from pathlib import Path

import pytest
from PIL import Image

from tests.formats.material import coco, read, skips, write_image, write_images, write_json
from vlm.formats import Annotation, ImportFailed, scan

NAMES = "names: [cat, dog]\n"


def describe(root: Path, text: str, name: str = "data.yaml") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def label(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def test_parallel_folders(tmp_path: Path) -> None:
    describe(
        tmp_path, "path: coco8\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: cat\n  1: dog\n", "coco8.yaml"
    )
    write_images(tmp_path, "images/train/1.jpg", "images/val/2.jpg")
    label(tmp_path / "labels/train/1.txt", "1 0.5 0.5 0.5 0.2", "", "0 0.25 0.5 0.5 1")
    found, records = read(tmp_path)
    assert (found.format, found.total, found.skip_count) == ("yolo", 2, 0)
    assert [(r.path, r.split, r.categories) for r in records] == [
        ("images/train/1.jpg", "train", ("dog", "cat")),
        ("images/val/2.jpg", "val", ()),
    ]
    assert (records[0].width, records[0].height) == (40, 30)
    assert records[0].annotations == (
        Annotation("dog", (10.0, 12.0, 20.0, 6.0)),
        Annotation("cat", (0.0, 0.0, 20.0, 30.0)),
    )


def test_boxes_are_of_the_upright_image(tmp_path: Path) -> None:
    describe(tmp_path, "train: images\n" + NAMES)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/1.jpg", exif=exif)
    label(tmp_path / "labels/1.txt", "0 0.5 0.5 1 0.5")
    _, (record,) = read(tmp_path)
    assert (record.width, record.height) == (30, 40)
    assert record.annotations[0].box == (0.0, 10.0, 30.0, 20.0)


def test_polygons_and_key_points(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg")
    describe(tmp_path, "train: images\n" + NAMES)
    label(tmp_path / "labels/1.txt", "0 0.1 0.2 0.5 0.2 0.3 0.8", "1 0.5 0.5 0.2 0.2 0.9")
    _, (record,) = read(tmp_path)
    assert [a.box for a in record.annotations] == [(4.0, 6.0, 16.0, 18.0), (16.0, 12.0, 8.0, 6.0)]
    describe(tmp_path, "train: images\nkpt_shape: [2, 3]\n" + NAMES)
    label(tmp_path / "labels/1.txt", "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.9 0.9 2")
    _, (record,) = read(tmp_path)
    assert [a.box for a in record.annotations] == [(16.0, 12.0, 8.0, 6.0)]


def test_broken_lines_are_listed_and_the_others_count(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg", "images/2.jpg")
    describe(tmp_path, "train: images\n" + NAMES)
    label(
        tmp_path / "labels/1.txt",
        "0 0.5 0.5 1 1",
        "cat 0 0 1 1",
        "0 0.5",
        "7 0.5 0.5 1 1",
        "0.5 0 0 1 1",
        "0 9 9 1 1",
        "0 nan 0 1 1",
    )
    (tmp_path / "labels/2.txt").write_bytes(b"\xff\xfe")
    found, records = read(tmp_path)
    assert [len(r.annotations) for r in records] == [1, 0]
    reasons = [skip.reason for skip in found.skips if skip.path == "labels/1.txt"]
    assert [reason.split(":")[0] for reason in reasons] == [f"Line {number}" for number in range(2, 8)]
    assert "UTF-8" in skips(found)["labels/2.txt"]


def test_splits_as_lists_and_files(tmp_path: Path) -> None:
    write_images(tmp_path, "a/images/1.jpg", "b/images/2.jpg", "c/3.jpg", "c/4.jpg")
    (tmp_path / "val.txt").write_text("./c/3.jpg\n\nc/gone.jpg\n/etc/passwd\n../../x.jpg\n")
    describe(tmp_path, "train: [a/images, b/images]\nval: val.txt\n" + NAMES)
    label(tmp_path / "c/3.txt", "0 0.5 0.5 1 1")
    found, records = read(tmp_path)
    assert {r.path: (r.split, r.categories) for r in records} == {
        "a/images/1.jpg": ("train", ()),
        "b/images/2.jpg": ("train", ()),
        "c/3.jpg": ("val", ("cat",)),
    }
    reasons = [f"{skip.path} {skip.reason}" for skip in found.skips]
    assert len(reasons) == 3
    assert any("gone.jpg" in reason and "missing" in reason for reason in reasons)
    assert len([reason for reason in reasons if "leads out" in reason]) == 2


def test_an_image_in_two_splits_counts_once(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg")
    (tmp_path / "all.txt").write_text("images/1.jpg\n")
    describe(tmp_path, "train: images\nval: all.txt\n" + NAMES)
    found, (record,) = read(tmp_path)
    assert record.split == "train"
    assert "more than one split" in found.skips[0].reason


def test_a_folder_that_is_two_splits_is_one_line(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg", "images/2.jpg")
    describe(tmp_path, "train: images\nval: images\n" + NAMES)
    label(tmp_path / "labels/1.txt", "0 .5 .5 .2 .2")
    found, records = read(tmp_path)
    assert {record.split for record in records} == {"train"}
    assert [skip.path for skip in found.skips] == ["images"]
    assert "both “train” and “val”" in found.skips[0].reason


def test_roboflow_writes_one_folder_too_many(tmp_path: Path) -> None:
    write_images(tmp_path / "set", "train/images/1.jpg")
    label(tmp_path / "set/train/labels/1.txt", "0 0.5 0.5 1 1")
    describe(tmp_path / "set", "train: ../train/images\nval: ../valid/images\n" + NAMES)
    found, (record,) = read(tmp_path / "set")
    assert (record.path, record.split, record.categories) == ("train/images/1.jpg", "train", ("cat",))
    assert found.skip_count == 1


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    outside = tmp_path.resolve() / "outside"
    write_image(outside / "images/1.jpg")
    label(outside / "labels/1.txt", "0 0.5 0.5 1 1")
    root = tmp_path / "root"
    write_images(root, "images/1.jpg")
    (root / "labels").symlink_to(outside / "labels")
    (root / "linked").symlink_to(outside / "images")
    describe(root, f"path: ..\ntrain: images\nval: {outside}/images\ntest: [../outside/images, linked]\n" + NAMES)
    found, (record,) = read(root)
    assert record.path == "images/1.jpg"
    assert record.annotations == ()
    assert found.skip_count >= 3


def test_classes_without_names_have_numbers(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg")
    describe(tmp_path, "train: images\nnc: 3\n")
    label(tmp_path / "labels/1.txt", "2 0.5 0.5 1 1")
    assert read(tmp_path)[1][0].categories == ("class 2",)


def test_an_unreadable_labelled_image_stays_a_sample(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(b"\xff\xd8\xff" + bytes(2000))
    describe(tmp_path, "train: images\n" + NAMES)
    label(tmp_path / "labels/1.txt", "0 0.5 0.5 1 1")
    _, (record,) = read(tmp_path)
    assert (record.width, record.annotations) == (None, (Annotation("cat", None),))


def test_images_and_labels_without_description(tmp_path: Path) -> None:
    write_images(tmp_path, "images/train/1.jpg")
    label(tmp_path / "labels/train/1.txt", "1 0.5 0.5 1 1")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert read(tmp_path)[0].format == "folder"
    _, (record,) = read(tmp_path, "yolo")
    assert (record.split, record.categories) == ("train", ("dog",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images\nnames: [a\nval: x", "no valid YAML at line"),
        ("- a\n- b", "no description"),
        ("train: missing\n" + NAMES, "leads to no images"),
        ("train: !!python/object/apply:os.system [echo]\n", "no valid YAML"),
    ],
)
def test_a_bad_description_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    write_images(tmp_path, "images/1.jpg")
    describe(tmp_path, text)
    with pytest.raises(ImportFailed, match=message):
        scan(tmp_path / "data.yaml")


def test_two_formats_or_descriptions_ask_for_a_choice(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg")
    describe(tmp_path, "train: images\n" + NAMES, "one.yaml")
    describe(tmp_path, "val: images\n" + NAMES, "two.yaml")
    with pytest.raises(ImportFailed, match=r"one\.yaml, two\.yaml"):
        scan(tmp_path)
    assert read(tmp_path / "two.yaml")[1][0].split == "val"
    write_json(tmp_path / "annotations.json", coco("1.jpg"))
    with pytest.raises(ImportFailed, match="--format coco"):
        scan(tmp_path)
    assert read(tmp_path, "coco")[0].format == "coco"


def test_a_yaml_of_something_else_is_no_description(tmp_path: Path) -> None:
    write_images(tmp_path, "1.jpg")
    describe(tmp_path, "name: my project\n", "config.yaml")
    assert read(tmp_path)[0].format == "folder"
