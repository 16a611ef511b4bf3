"""COCO JSON in the layouts in which it is found."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.formats.material import coco, read, skips, write_image, write_images, write_json
from vlm.formats import Annotation, ImportFailed, scan
from vlm.roots import LocalRoot


def test_a_flat_data_set(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "not listed.jpg")
    write_json(tmp_path / "annotations.json", coco("b.jpg", "a.jpg"))
    found, records = read(tmp_path)
    assert (found.format, found.total, found.skip_count) == ("coco", 2, 0)
    assert [(r.path, r.external_id, r.width, r.height) for r in records] == [
        ("b.jpg", "1", 40, 30),
        ("a.jpg", "2", 40, 30),
    ]
    assert records[0].annotations == (Annotation("cat", (1.5, 2.0, 10.0, 12.25)),)
    assert records[0].categories == ("cat",)


def test_annotations_keep_their_order_and_categories_are_distinct(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    annotations = [
        {"image_id": 2, "category_id": 2, "bbox": [1, 1, 1, 1]},
        {"image_id": 1, "category_id": 1, "bbox": [2, 2, 2, 2]},
        {"image_id": 2, "category_id": 1, "bbox": [3, 3, 3, 3]},
        {"image_id": 2, "category_id": 2},
        {"image_id": 2, "category_id": 77, "bbox": ["4", "4", "4", "4"]},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, -3, 4]},
    ]
    write_json(tmp_path / "a.json", coco("a.jpg", "b.jpg", annotations=annotations))
    _, (_, record) = read(tmp_path)
    assert record.categories == ("dog", "cat", "category 77")
    assert [a.box and a.box[0] for a in record.annotations] == [1.0, 3.0, None, 4.0, None]


def test_the_standard_layout(tmp_path: Path) -> None:
    write_images(tmp_path, "train2017/1.jpg", "val2017/1.jpg")
    write_json(tmp_path / "annotations/instances_train2017.json", coco("1.jpg"))
    write_json(tmp_path / "annotations/instances_val2017.json", coco("1.jpg"))
    for other in ("captions_val2017", "person_keypoints_val2017", "panoptic_val2017"):
        write_json(tmp_path / f"annotations/{other}.json", coco("ignored.jpg"))
    found, records = read(tmp_path)
    assert found.skip_count == 0
    assert [(r.path, r.file_name, r.split) for r in records] == [
        ("train2017/1.jpg", "1.jpg", "train"),
        ("val2017/1.jpg", "1.jpg", "val"),
    ]


def test_images_in_a_folder_of_their_own_beside_the_annotations(tmp_path: Path) -> None:
    write_images(tmp_path, "images/train/1.jpg", "images/2.jpg")
    write_json(tmp_path / "annotations/instances_train.json", coco("1.jpg"))
    write_json(tmp_path / "annotations/all.json", coco("2.jpg"))
    _, records = read(tmp_path)
    assert {r.path: r.split for r in records} == {"images/train/1.jpg": "train", "images/2.jpg": ""}


def test_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write_image(tmp_path / split / "1_jpg.rf.abc.jpg")
        write_json(tmp_path / split / "_annotations.coco.json", coco("1_jpg.rf.abc.jpg"))
    (tmp_path / "README.roboflow.txt").touch()
    _, records = read(tmp_path)
    assert {r.path: r.split for r in records} == {
        "test/1_jpg.rf.abc.jpg": "test",
        "train/1_jpg.rf.abc.jpg": "train",
        "valid/1_jpg.rf.abc.jpg": "valid",
    }


@pytest.mark.parametrize(
    "name", ["images/sub/1.jpg", r"images\sub\1.jpg", "./images/sub/1.jpg", "images/../images/sub//1.jpg"]
)
def test_file_names_with_folders(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, "images/sub/1.jpg")
    write_json(tmp_path / "annotations.json", coco(name))
    _, (record,) = read(tmp_path)
    assert record.path == "images/sub/1.jpg"


def test_absolute_paths_count_inside_only(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "root"
    write_images(root, "1.jpg")
    outside = write_image(tmp_path.resolve() / "2.jpg")
    write_json(root / "annotations.json", coco(str(root / "1.jpg"), str(outside), "C:\\images\\3.jpg"))
    found, records = read(root)
    assert [r.path for r in records] == ["1.jpg"]
    assert {"leads out" in reason for reason in skips(found).values()} == {True}
    assert found.skip_count == 2


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "images/../../secret.jpg", "link/secret.jpg", "link.jpg", r"..\secret.jpg"]
)
def test_nothing_outside_the_root_is_read(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    write_image(tmp_path / "secret.jpg")
    write_images(root, "good.jpg", "images/x.jpg")
    (root / "link").symlink_to(tmp_path)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    write_json(root / "annotations.json", coco(name, "good.jpg"))
    found, records = read(root)
    assert [r.path for r in records] == ["good.jpg"]
    assert ["leads out" in skip.reason for skip in found.skips] == [True]


def test_a_json_that_is_a_link_to_outside_is_not_read(tmp_path: Path) -> None:
    write_images(tmp_path / "root", "1.jpg")
    write_json(tmp_path / "secret.json", coco("1.jpg"))
    (tmp_path / "root/annotations.json").symlink_to(tmp_path / "secret.json")
    found, _ = read(tmp_path / "root")
    assert found.format == "folder"


def test_links_within_the_root_are_fine(tmp_path: Path) -> None:
    write_images(tmp_path, "real/1.jpg")
    (tmp_path / "alias").symlink_to("real")
    write_json(tmp_path / "annotations.json", coco("alias/1.jpg"))
    _, (record,) = read(tmp_path)
    assert record.path == "alias/1.jpg"


def test_string_ids_and_no_categories(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    content = coco("a.jpg", "b.jpg", categories=[])
    content["images"][0]["id"] = "first"
    content["images"][1]["id"] = "2"
    content["annotations"] = [
        {"image_id": "first", "category_id": "x"},
        {"image_id": 2},
        {"image_id": 2, "category_id": 1},
    ]
    write_json(tmp_path / "a.json", content)
    _, records = read(tmp_path)
    assert [(r.external_id, r.categories) for r in records] == [("first", ("category x",)), ("2", ("category 1",))]
    assert records[1].annotations == (Annotation("", None), Annotation("category 1", None))


def test_missing_images_orphans_and_nonsense_are_listed(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "script.py")
    (tmp_path / "empty.jpg").touch()
    content: dict[str, Any] = coco("a.jpg", "gone.jpg", "empty.jpg", "script.py", "a.jpg", "bad\ud800.jpg", "nul\0.jpg")
    content["images"] += [{"id": 50}, "nonsense", None, {"id": 51, "file_name": 7}]
    content["annotations"] += [{"image_id": 999, "category_id": 1}, {"category_id": 1}, 3]
    write_json(tmp_path / "a.json", content)
    found, records = read(tmp_path)
    assert [r.path for r in records] == ["a.jpg"]
    reasons = [f"{skip.path}: {skip.reason}" for skip in found.skips]
    for expected in ("gone.jpg: .*missing", "empty.jpg: .*empty", r"script.py: .*“\.py”", "a.jpg: .*more than once"):
        assert len([reason for reason in reasons if re.match(expected, reason)]) == 1, expected
    assert len([reason for reason in reasons if "of “images” has no file name" in reason]) == 4
    assert len([reason for reason in reasons if "names no image" in reason]) == 2
    assert any("does not list: 1" in reason for reason in reasons)


def test_odd_sizes_are_unknown_sizes(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    content = coco("a.jpg", "b.jpg", "c.jpg")
    content["images"][0] |= {"width": "40", "height": 30.0}
    content["images"][1] |= {"width": -1, "height": None}
    del content["images"][2]["width"]
    write_json(tmp_path / "a.json", content)
    _, records = read(tmp_path)
    assert [(r.width, r.height) for r in records] == [(40, 30), (None, None), (None, 30)]


def test_sections_in_any_order(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    content = coco("a.jpg")
    write_json(tmp_path / "a.json", dict(reversed(content.items())))
    _, (record,) = read(tmp_path)
    assert record.categories == ("cat",)


def test_a_broken_json_beside_a_good_one_is_a_skip(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    write_json(tmp_path / "annotations.json", coco("a.jpg"))
    (tmp_path / "broken.json").write_text('{"images": [\n')
    found, records = read(tmp_path)
    assert len(records) == 1
    assert "line 2" in skips(found)["broken.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n{"id": 1,\n"file_name" "a.jpg"}]}', r"line 3, column 13"),
        ('{"images": [{"id": 1}]', "line 1"),
        ('{"images": [{"id": 1}]} tail', "follows the end"),
        ('{"images": [' + "[" * 100_000, "line 1"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", "line 1"),
        ('{"images": []}', "lists no images"),
    ],
)
def test_an_unreadable_json_says_where(tmp_path: Path, text: str, message: str) -> None:
    write_images(tmp_path, "a.jpg")
    path = tmp_path / "annotations.json"
    path.write_text(text)
    for given in (tmp_path, path):
        with pytest.raises(ImportFailed, match=message):
            scan(given)


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    (tmp_path / "annotations.json").write_bytes(b'{"images": [{"file_name": "\xff"}]}')
    with pytest.raises(ImportFailed, match="UTF-8"):
        scan(tmp_path)


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    (tmp_path / "annotations.json").write_text(json.dumps(coco("a.jpg")), encoding="utf-8-sig")
    assert len(read(tmp_path)[1]) == 1


def test_the_path_of_a_json_chooses_it(tmp_path: Path) -> None:
    write_images(tmp_path, "images/1.jpg", "images/2.jpg")
    chosen = write_json(tmp_path / "annotations/one.json", coco("1.jpg"))
    write_json(tmp_path / "annotations/two.json", coco("2.jpg"))
    found, records = read(chosen)
    assert found.root == LocalRoot(tmp_path.resolve())
    assert [r.path for r in records] == ["images/1.jpg"]


def test_all_images_missing_is_a_failure(tmp_path: Path) -> None:
    write_json(tmp_path / "annotations.json", coco("a.jpg"))
    with pytest.raises(ImportFailed, match=r"No image could be imported.*a\.jpg"):
        list(scan(tmp_path))


def test_more_images_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.formats.coco_spool.BATCH", 3)
    names = [f"{number:02}.jpg" for number in range(20)]
    write_images(tmp_path, *names)
    annotations: list[dict[str, Any]] = [
        {"image_id": 1 + (7 * n) % 20, "category_id": 1 + n % 2, "bbox": [n, 0, 1, 1]} for n in range(60) if n % 20 != 5
    ]
    write_json(tmp_path / "a.json", coco(*names, annotations=annotations))
    _, records = read(tmp_path)
    assert [r.path for r in records] == names
    for record in records:
        expected = [a["bbox"][0] for a in annotations if str(a["image_id"]) == record.external_id]
        assert [a.box[0] for a in record.annotations if a.box] == expected
