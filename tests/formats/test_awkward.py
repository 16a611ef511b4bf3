"""Inputs as they come out of other tools and machines: each is read rightly, or refused with its reason."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from tests.formats.material import coco, read, skips, write_image, write_images, write_json
from vlm.formats import Annotation, ImportFailed, scan
from vlm.formats.files import Elsewhere
from vlm.formats.local_files import LocalFiles
from vlm.formats.matching import Ambiguous
from vlm.formats.plain_yaml import YAMLBroken, load
from vlm.roots import LocalRoot

NAMES = "nc: 2\nnames: [cat, dog]\n"


def lay(root: Path, files: dict[str, str]) -> None:
    """Write text files, and small pictures where a name ends so."""
    for name, text in files.items():
        if name.lower().endswith((".jpg", ".png")):
            write_image(root / name)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")


# -- paths of another machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "there"),
    [
        (r"..\..\label-studio\media\upload\4\cb0618f6-x.png", "images/cb0618f6-x.png"),
        (r"..\..\label-studio\media\upload\4\cb0618f6-x.png", "images/x.png"),
        ("images\\1/90fbb0c7-a.jpg", "images/90fbb0c7-a.jpg"),
        ("/data/local-files/?d=set1/0.png", "images/0.png"),
        ("/data/local-files/?d=set1%2F0%20b.png", "pictures/set1/0 b.png"),
        ("my%20photo%201.jpg", "images/my photo 1.jpg"),
        ("http://images.example.org/val2017/9.jpg", "images/9.jpg"),
        ("https://host/a/9.jpg?size=big#top", "images/9.jpg"),
        ("gs://bucket/set/9.jpg", "images/9.jpg"),
        ("file:///home/me/set/9.jpg", "deep/er/9.jpg"),
        (r"C:\Users\me\images\p1.jpg", "images/p1.jpg"),
        (r"\\server\share\p1.jpg", "images/p1.jpg"),
        ("/content/drive/MyDrive/set/p1.jpg", "images/p1.jpg"),
        ("x.jpg", "images/classA/x.jpg"),
        ("IMG_1.JPG", "images/img_1.jpg"),
        (unicodedata.normalize("NFC", "Küste.jpg"), unicodedata.normalize("NFD", "Küste.jpg")),
        (unicodedata.normalize("NFD", "Küste.jpg"), "sub/" + unicodedata.normalize("NFC", "KÜSTE.JPG")),
    ],
)
def test_a_path_of_another_machine_is_found_by_its_end(tmp_path: Path, written: str, there: str) -> None:
    write_images(tmp_path, there, "images/another.jpg")
    write_json(tmp_path / "result.json", coco(written))
    found, (record,) = read(tmp_path)
    assert (record.path, record.categories, found.skip_count) == (there, ("cat",), 0)
    assert record.file_name == written.replace("\\", "/")


@pytest.mark.parametrize(
    ("written", "files", "reason"),
    [
        ("/x/1.jpg", ["a/1.jpg", "b/1.jpg"], "fits several files alike (a/1.jpg, b/1.jpg)"),
        ("/x/Img.jpg", ["a/IMG.jpg", "b/img.jpg"], "fits several files alike"),
        ("/x/gone.jpg", ["a/1.jpg"], "leads out"),
        ("gone.jpg", ["a/1.jpg"], "the file is missing"),
        ("train/1.jpg", ["val/1.jpg"], "the file is missing"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, written: str, files: list[str], reason: str) -> None:
    write_images(tmp_path, "good.jpg", *files)
    write_json(tmp_path / "a.json", coco("good.jpg", written))
    found, records = read(tmp_path)
    assert [record.path for record in records] == ["good.jpg"]
    assert reason in skips(found)[written]


def test_the_longest_common_end_decides(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/images/1.jpg", "dog/images/1.jpg", "other/1.jpg", "IMG.jpg", "img.jpg")
    elsewhere = Elsewhere(LocalFiles(tmp_path), ["/x/dog/images/1.jpg", "/x/IMG.jpg", "/x/images/1.jpg"])
    assert elsewhere.path("/x/dog/images/1.jpg") == "dog/images/1.jpg"
    assert elsewhere.path("/x/IMG.jpg") == "IMG.jpg"
    with pytest.raises(Ambiguous, match="cat/images"):
        elsewhere.path("/x/images/1.jpg")


def test_a_file_that_another_entry_names_itself_is_not_taken(tmp_path: Path) -> None:
    """Nor one that two entries claim: their annotations would be on the wrong picture."""
    write_images(tmp_path, "a/1.jpg", "b/2.jpg")
    write_json(tmp_path / "x.json", coco("/old/1.jpg", "a/1.jpg", "/old/2.jpg", "/older/2.jpg"))
    found, (record,) = read(tmp_path)
    assert (record.path, record.external_id) == ("a/1.jpg", "2")
    assert "listed already" in skips(found)["/old/1.jpg"]
    assert {"so do other entries" in skips(found)[name] for name in ("/old/2.jpg", "/older/2.jpg")} == {True}


def test_foreign_paths_in_several_jsons_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.formats.coco_spool.BATCH", 3)
    for split in ("train", "val"):
        names = [f"{number}.jpg" for number in range(8)]
        write_images(tmp_path, *(f"images/{split}/{name}" for name in names))
        content = coco(*(f"/old/{split}/{name}" if int(name[0]) % 2 else f"images/{split}/{name}" for name in names))
        for annotation in content["annotations"]:
            annotation["bbox"][0] = annotation["image_id"]
        write_json(tmp_path / f"annotations/instances_{split}.json", content)
    found, records = read(tmp_path)
    assert (len(records), found.skip_count) == (16, 0)
    for record in records:
        assert record.split == record.path.split("/")[1]
        assert [annotation.box and annotation.box[0] for annotation in record.annotations] == [
            float(record.external_id)
        ]


# -- COCO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "reference"), [(1, 1.0), (1.0, 1), ("1", 1), ("000123", 123), (7, "007"), ("x", "x")]
)
def test_ids_are_compared_as_numbers(tmp_path: Path, image: Any, reference: Any) -> None:
    write_images(tmp_path, "a.jpg")
    content = coco("a.jpg", categories=[{"id": 7.0, "name": "seven"}])
    content["images"][0]["id"] = image
    content["annotations"] = [{"image_id": reference, "category_id": 7, "bbox": [1, 2, 3, 4]}]
    write_json(tmp_path / "a.json", content)
    found, (record,) = read(tmp_path)
    assert record.annotations == (Annotation("seven", (1, 2, 3, 4)),)
    assert (record.external_id, found.skip_count) == (str(image), 0)


def test_images_with_one_id_come_without_annotations(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    content = coco("a.jpg", "b.jpg", "c.jpg")
    content["images"][1]["id"] = 1.0
    write_json(tmp_path / "a.json", content)
    found, records = read(tmp_path)
    assert {record.path: len(record.annotations) for record in records} == {"a.jpg": 0, "b.jpg": 0, "c.jpg": 1}
    assert "also that of another image" in skips(found)["a.jpg"]
    assert "also that of another image" in skips(found)["b.jpg"]


def test_boxes_that_are_none_are_counted_and_polygons_have_one(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    polygon = [[1, 2, 11, 2, 11, 8], [0, 3, 1, 3, 1, 4]]
    boxes = [[float("nan"), 1, 2, 3], [1, 2, -3, 4], [0, 0, float("inf"), 1], ["a", 1, 2, 3], [1, 2, 3], None, []]
    annotations = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    annotations.append({"image_id": 1, "category_id": 1, "segmentation": polygon})
    write_json(tmp_path / "a.json", coco("a.jpg", annotations=annotations))
    found, (record,) = read(tmp_path)
    assert [annotation.box for annotation in record.annotations] == [None] * 7 + [(0, 2, 11, 6)]
    assert "left out: 5" in skips(found)["a.json"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("describes", ["stored", "upright", "smaller"])
def test_boxes_and_size_are_those_of_the_upright_picture(tmp_path: Path, orientation: int, describes: str) -> None:
    """A white rectangle in the picture lies, once it is upright, where the box says."""
    stored = Image.new("RGB", (80, 40), "black")
    stored.paste("white", (60, 4, 76, 12))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    on_its_side = orientation >= 5
    upright = (40, 80) if on_its_side else (80, 40)
    width, height = {"stored": (80, 40), "upright": upright, "smaller": (40, 20)}[describes]
    factor = width / 80 if describes == "smaller" else 1
    box = [60 * factor, 4 * factor, 16 * factor, 8 * factor]
    content = coco("a.jpg")
    content["images"][0] |= {"width": width, "height": height}
    content["annotations"][0]["bbox"] = box
    write_json(tmp_path / "a.json", content)
    _, (record,) = read(tmp_path)
    assert record.annotations[0].box is not None
    if describes == "upright" or not on_its_side:
        assert (record.width, record.height, list(record.annotations[0].box)) == (width, height, box)
        return
    assert (record.width, record.height) == (height, width)
    with Image.open(tmp_path / "a.jpg") as image:
        shown = ImageOps.exif_transpose(image).convert("L").resize((height, width))
    left, top, box_width, box_height = record.annotations[0].box
    inside = shown.crop((round(left) + 1, round(top) + 1, round(left + box_width) - 1, round(top + box_height) - 1))
    assert min(inside.tobytes()) > 150
    assert shown.point(lambda value: 255 * (value > 128)).getbbox() == pytest.approx(
        (left, top, left + box_width, top + box_height), abs=1
    )


def test_key_points_are_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    write_images(tmp_path, "images/default/a.jpg")
    write_json(tmp_path / "annotations/person_keypoints_default.json", coco("a.jpg"))
    write_json(tmp_path / "annotations/captions_default.json", coco("a.jpg"))
    found, (record,) = read(tmp_path)
    assert (found.format, record.path, record.categories) == ("coco", "images/default/a.jpg", ("cat",))


def test_a_long_info_in_front_hides_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    write_json(
        tmp_path / "a.json", {"info": {"description": "x" * 3_000_000}} | coco("a.jpg", info={"d": "y" * 300_000})
    )
    assert read(tmp_path)[0].format == "coco"


def test_a_copy_beside_its_original_is_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg")
    original = coco("a.jpg", categories=[{"id": 1, "name": "right"}])
    write_json(tmp_path / "annotations/instances_train.json", original)
    copies = [
        "instances_train (copy)",
        "instances_train - Copy",
        "instances_train(1)",
        "instances_train_backup",
        "Copy of instances_train",
    ]
    for name in copies:
        write_json(tmp_path / f"annotations/{name}.json", coco("a.jpg"))
    found, (record,) = read(tmp_path)
    assert record.categories == ("right",)
    assert {"copy" in reason for reason in skips(found).values()} == {True}
    assert read(tmp_path / "annotations/instances_train (copy).json")[1][0].categories == ("cat",)


@pytest.mark.parametrize("mark", [{"datavisor": {"export": 1}}, {"info": {"contributor": "DataVisor"}}])
def test_an_export_of_datavisor_is_never_taken_for_the_data_set(tmp_path: Path, mark: dict[str, Any]) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_json(tmp_path / "an export.json", mark | coco("a.jpg", info=mark.get("info", {})))
    found, records = read(tmp_path)
    assert (found.format, len(records)) == ("folder", 2)
    assert "export of DataVisor" in skips(found)["an export.json"]
    with pytest.raises(ImportFailed, match="export of DataVisor"):
        scan(tmp_path, "coco")
    write_json(tmp_path / "original.json", coco("a.jpg", "b.jpg"))
    assert len(read(tmp_path)[1]) == 2
    assert len(read(tmp_path / "an export.json")[1]) == 1


def test_an_export_of_the_first_release_gives_way_to_the_original(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    content = coco("a.jpg")
    content["images"][0]["tags"] = []
    write_json(tmp_path / "a tagged.json", content)
    assert read(tmp_path)[0].format == "coco"  # there is nothing else
    write_json(tmp_path / "b original.json", coco("a.jpg", categories=[{"id": 1, "name": "right"}]))
    found, (record,) = read(tmp_path)
    assert record.categories == ("right",)
    assert list(skips(found)) == ["a tagged.json"]


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("annotations/train/instances.json", ["images/train/a.jpg"]),
        ("coco/train.json", ["images/a.jpg"]),
        ("annotations/instances_all.json", ["a.jpg"]),
    ],
)
def test_the_root_of_a_json_is_where_its_images_are_found(tmp_path: Path, given: str, files: list[str]) -> None:
    root = tmp_path / "set"
    write_images(root, *files)
    write_json(root / given, coco("a.jpg"))
    for path in (root, root / given):
        found, (record,) = read(path)
        assert (found.root, found.format, record.path) == (LocalRoot(root.resolve()), "coco", files[0])


def test_a_root_is_never_above_the_folders_that_are_allowed(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    write_images(tmp_path, "secret.jpg", "labels/a.jpg")
    write_json(labels / "x.json", coco("secret.jpg", "a.jpg"))
    found = scan(labels / "x.json", within=[labels])
    assert (found.root, [record.path for record in found]) == (LocalRoot(labels.resolve()), ["a.jpg"])
    lay(tmp_path, {"labels/y.yaml": "train: ../pictures\n" + NAMES, "pictures/b.jpg": ""})
    with pytest.raises(ImportFailed, match="leads to no images"):
        scan(labels / "y.yaml", within=[labels])
    assert scan(labels / "y.yaml", within=[tmp_path]).root == LocalRoot(tmp_path.resolve())


# -- what was meant and cannot be understood ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data.yaml", b"train: images\nnames:\n  0: cat\n\t1: dog\n", "line 4"),
        ("data.yaml", b'path: "C:\\Users\\me"\ntrain: images\nnames: [a]\n', "line 1: .*single quotes"),
        ("data.yaml", "train: images\nnames: [Tür]\n".encode("latin-1"), "not UTF-8 text: line 2"),
        ("helmets.yml", b"train: images\nnames: [a\nval: x\n", "line"),
        ("data.yaml", "train: images\nnames: [a]\n".encode("utf-16"), "UTF-16"),
        ("data.yaml", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("data.yaml", b"a: &a [x]\ntrain: images\nnames: *a\n", r"line 3: aliases \(\*a\)"),
        ("data.yaml", b"a: &a {x: y}\n<<: *a\ntrain: images\nnames: [a]\n", "line 2: merge keys"),
        ("annotations.json", json.dumps(coco("1.jpg")).encode("utf-16"), "UTF-16"),
        ("annotations.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_a_broken_description_is_an_error_and_no_folder(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    write_images(tmp_path, "images/1.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportFailed, match=rf"“{name}” cannot be used: .*{reason}.*--format folder"):
        scan(tmp_path)
    with pytest.raises(ImportFailed, match=reason):
        scan(tmp_path, "coco" if name.endswith("json") else "yolo")
    assert read(tmp_path, "folder")[0].format == "folder"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"images/1.jpg": "", "labels/1.txt": "0 .5 .5 1 1\n", "classes.txt": "cat\n"},
            ["labels/1.txt", "classes.txt"],
        ),
        ({"1.jpg": "", "1.txt": "0 .5 .5 1 1", "classes.txt": "cat"}, ["classes.txt"]),
        ({"1.jpg": "", "obj.names": "cat"}, ["obj.names"]),
        ({"1.jpg": "", "results.json": "[]"}, ["results.json"]),
        (
            {"train/1.jpg": "", "metadata.jsonl": "{}", "train/_annotations.csv": "x"},
            ["metadata.jsonl", "train/_annotations.csv"],
        ),
        ({"1.jpg": "", "labels.csv": "file,value", "weather.csv": "x", "class-list.tsv": "x"}, ["labels.csv"]),
        ({"1.jpg": "", "config.yaml": "name: x"}, ["config.yaml"]),
        ({"1.jpg": "", "a/b/c/deep.json": "{}", "a/b/deep.yaml": "x"}, ["a/b/c/deep.json", "a/b/deep.yaml"]),
        (
            {"JPEGImages/1.jpg": "", "Annotations/1.xml": "<x/>", "Annotations/2.xml": ""},
            ["Annotations/1.xml and 1 more"],
        ),
    ],
)
def test_a_folder_says_which_descriptions_it_did_not_use(
    tmp_path: Path, files: dict[str, str], told: list[str]
) -> None:
    lay(tmp_path, files)
    found, records = read(tmp_path)
    assert (found.format, len(records)) == ("folder", 1)
    assert sorted(skips(found)) == sorted(told)


def test_a_thousand_sidecars_are_one_line(tmp_path: Path) -> None:
    lay(tmp_path, {"1.jpg": ""} | {f"{number}.json": '{"shapes": []}' for number in range(300)})
    found, _ = read(tmp_path)
    assert [skip.path for skip in found.skips] == ["0.json and 299 others in the folder"]


# -- YOLO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "folder"),
    [
        ("/content/yolov5/helm/images/train", "images/train"),
        (r"D:\data\helm\images\train", "images/train"),
        ("/content/helm/images/train", "sets/helm/images/train"),
        ("../../helm/train/images", "train/images"),
        ("/content/helm/pictures", "pictures"),
    ],
)
def test_folders_of_another_machine(tmp_path: Path, train: str, folder: str) -> None:
    lay(tmp_path, {f"{folder}/1.jpg": "", "data.yaml": f"train: {train}\n" + NAMES})
    _, (record,) = read(tmp_path)
    assert (record.path, record.split) == (f"{folder}/1.jpg", "train")


def test_a_folder_of_another_split_is_not_taken(tmp_path: Path) -> None:
    lay(tmp_path, {"train/images/1.jpg": "", "data.yaml": "train: /x/train/images\nval: /x/valid/images\n" + NAMES})
    found, (record,) = read(tmp_path)
    assert record.split == "train"
    assert "“val” of data.yaml" in skips(found)["/x/valid/images"]


def test_a_description_in_a_folder_of_its_own(tmp_path: Path) -> None:
    lay(tmp_path, {"helm/images/train/a.jpg": "", "helm/labels/train/a.txt": "1 .5 .5 .2 .2\n"})
    lay(tmp_path, {"data/helm.yaml": "train: ../helm/images/train\n" + NAMES})
    for path in (tmp_path, tmp_path / "data/helm.yaml"):
        found, (record,) = read(path)
        assert (found.root, record.path, record.categories) == (
            LocalRoot(tmp_path.resolve()),
            "helm/images/train/a.jpg",
            ("dog",),
        )


def test_darknet(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\n\ndog\n",
            "train.txt": "data/obj_train_data/a.jpg\n/home/x/obj_train_data/b.jpg\ndata/gone.jpg\n",
            "obj_train_data/a.jpg": "",
            "obj_train_data/a.txt": "2 .5 .5 .2 .2\n",
            "obj_train_data/b.jpg": "",
        },
    )
    for path in (tmp_path, tmp_path / "obj.data"):
        found, records = read(path)
        assert {record.path: record.categories for record in records} == {
            "obj_train_data/a.jpg": ("dog",),
            "obj_train_data/b.jpg": (),
        }
        assert [skip.reason.split(":")[0] for skip in found.skips] == ["Line 3, data/gone.jpg"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[yes, no]", "yes no"),
        ("[on, 1e3]", "on 1e3"),
        ("[null, 007]", "null 007"),
        ("{0: a, 1: b}", "a b"),
        ("{'0': a, '1': b}", "a b"),
        ('"[a, b]"', "a b"),
        ("\n  - a\n  - b", "a b"),
        ("my.names", "a b"),
    ],
)
def test_names_stay_what_was_written(tmp_path: Path, names: str, expected: str) -> None:
    lay(tmp_path, {"images/1.jpg": "", "labels/1.txt": "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n", "my.names": "a\nb\n"})
    lay(tmp_path, {"data.yaml": f"train: images\nnames: {names}\n"})
    assert read(tmp_path)[1][0].categories == tuple(expected.split())


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, {"images/1.jpg": "", "data.yaml": "train: images\nnames: cats and dogs\n"})
    with pytest.raises(ImportFailed, match="no list of classes"):
        scan(tmp_path)


def test_a_blank_line_in_a_list_of_classes_shifts_nothing(tmp_path: Path) -> None:
    lay(tmp_path, {"images/1.jpg": "", "labels/1.txt": "2 .5 .5 .2 .2\n", "classes.txt": "cat\n\ndog\n\n"})
    assert read(tmp_path, "yolo")[1][0].categories == ("dog",)


def test_a_box_that_ends_outside_is_cut_off(tmp_path: Path) -> None:
    labels = "0 .5 .5 1.0004 1\n0 .99 .5 .1 .5\n0 -.1 -.1 .4 .4\n0 1.2 .5 .3 .1\n0 320 240 100 50\n"
    lay(tmp_path, {"images/1.jpg": "", "labels/1.txt": labels, "data.yaml": "train: images\n" + NAMES})
    found, (record,) = read(tmp_path)
    boxes = [annotation.box for annotation in record.annotations]
    assert boxes == [(0, 0, 40, 30), (37.6, 7.5, 2.4, 15), (0, 0, 4, 3)]
    assert [skip.reason.split(":")[0] for skip in found.skips] == ["Line 4", "Line 5"]


def test_labels_in_another_form_of_the_accents(tmp_path: Path) -> None:
    image, label = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    lay(tmp_path, {f"images/{image}.jpg": "", f"labels/{label}.txt": "0 .5 .5 1 1\n"})
    lay(tmp_path, {"data.yaml": "train: images\n" + NAMES})
    assert read(tmp_path)[1][0].categories == ("cat",)


def test_a_linked_folder_is_called_a_link(tmp_path: Path) -> None:
    write_images(tmp_path / "store", "1.jpg")
    root = tmp_path / "root"
    lay(root, {"data.yaml": "train: images\n" + NAMES})
    (root / "images").symlink_to(tmp_path / "store")
    with pytest.raises(ImportFailed, match="is a link that leads out"):
        scan(root)


def test_yaml_cannot_grow(tmp_path: Path) -> None:
    """A few lines of aliases or merges stand for gigabytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    write_images(tmp_path, "1.jpg")
    (tmp_path / "notes.yaml").write_text("\n".join(lines))
    found, _ = read(tmp_path)
    assert "aliases" in skips(found)["notes.yaml"]
    (tmp_path / "data.yaml").write_text("train: images\nnames: *a11\n" + "\n".join(lines))
    with pytest.raises(ImportFailed, match="line 2: "):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 50_000, "deeper"),
        ("a: " * 50 + "b", "line 1"),
        ("x\n" * 1_500_000, "characters"),
        ("- x\n" * 300_000, "values"),
        ("a: !!python/object/apply:os.system [echo]", "tag"),
        ("? [a]\n: b", "a key must be a text"),
        ("a: \x01", "."),
    ],
)
def test_yaml_is_bounded(text: str, reason: str) -> None:
    with pytest.raises(YAMLBroken, match=reason):
        load(text)


# -- folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            ["preview.png", "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"],
            [("", ""), ("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "dog")],
        ),
        (
            ["train/cat/1.jpg", "train/cat/sub/2.jpg", "train/dog/1.jpg", "val/cat/1.jpg"],
            [("train", "cat"), ("train", "cat"), ("train", "dog"), ("val", "cat")],
        ),
        (
            ["preview.png", "data/cat/1.jpg", "data/dog/1.jpg", "data/dog/2.jpg"],
            [("", ""), ("", "cat"), ("", "dog"), ("", "dog")],
        ),
        (
            ["train/n01/images/1.jpg", "train/n02/images/1.jpg", "val/images/1.jpg"],
            [("train", "n01"), ("train", "n02"), ("val", "")],
        ),
        (["Train/1.jpg", "VAL/2.jpg"], [("train", ""), ("val", "")]),
        (["JPEGImages/1.jpg", "SegmentationClass/2.png"], [("", ""), ("", "")]),
        (["images/1.jpg", "masks/2.png"], [("", ""), ("", "")]),
    ],
)
def test_classes_and_splits_survive_a_stray_file(
    tmp_path: Path, paths: list[str], expected: list[tuple[str, str]]
) -> None:
    write_images(tmp_path, *paths)
    by_path = {record.path: (record.split, "".join(record.categories)) for record in read(tmp_path)[1]}
    assert [by_path[path] for path in paths] == expected


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["images/1.jpg", "images/2.jpg"], ["masks/1.png", "masks/2_mask.png"]),
        (["JPEGImages/1.jpg"], ["SegmentationClass/1.png", "SegmentationObject/1.png"]),
        (["train/images/1.jpg", "val/images/2.jpg"], ["train/labels/1.png", "val/labels/2-gt.png"]),
        (["images/cat/1.jpg", "images/dog/1.jpg"], ["Masks/cat/1.png", "Masks/dog/1.png"]),
        (["1.JPG", "2.jpg"], ["mask/1.png"]),
    ],
)
def test_masks_beside_their_photos_are_no_samples(tmp_path: Path, photos: list[str], masks: list[str]) -> None:
    write_images(tmp_path, *photos, *masks)
    found, records = read(tmp_path)
    assert sorted(record.path for record in records) == sorted(photos)
    assert found.total == len(photos)
    assert {"taken for masks" in reason for reason in skips(found).values()} == {True}
    assert {name.partition(" (")[0] for name in skips(found)} == {str(Path(path).parent) for path in masks}
    alone = tmp_path / Path(masks[0]).parent
    assert len(read(alone)[1]) == sum((tmp_path / path).is_relative_to(alone) for path in masks)


@pytest.mark.parametrize("folder", ["masks", "labels", "gt"])
def test_photos_of_masks_are_samples(tmp_path: Path, folder: str) -> None:
    """Of such as people wear, say."""
    write_images(tmp_path, *(f"images/{number}.jpg" for number in range(4)), f"{folder}/a.jpg", f"{folder}/1.jpg")
    assert len(read(tmp_path)[1]) == 6


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["images/train", "images/bus"], ["", ""]),
        (["images/train", "images/val", "images/extra"], ["train", "val", ""]),
        (["train", "masks"], ["train", ""]),
        (["train", "val"], ["train", "val"]),
        (["images/train/a", "images/other"], ["train", ""]),
    ],
)
def test_a_class_called_train_is_no_split(tmp_path: Path, folders: list[str], expected: list[str]) -> None:
    names = [f"{folder}/{place}.jpg" for place, folder in enumerate(folders)]
    write_images(tmp_path, *names)
    write_json(tmp_path / "a.json", coco(*names))
    found, records = read(tmp_path)
    by_path = {record.path: record.split for record in records}
    assert [by_path[name] for name in names] == expected
    told = [reason for reason in skips(found).values() if "taken for a class" in reason]
    assert len(told) == (expected == ["", ""])


@pytest.mark.parametrize("mark", ["datavisor.sqlite3", "samples.duckdb"])
def test_a_data_folder_among_the_images_makes_no_samples(tmp_path: Path, mark: str) -> None:
    digest = "0123456789abcdef" * 2 + "01234567"
    lay(tmp_path, {"a.jpg": "", f"data/{mark}": "", "data/thumbnails/x.jpg": "", "data/1.jpg": ""})
    lay(tmp_path, {f"thumbs/{digest}/folder": "/x", f"thumbs/{digest}/ab/1.jpg": ""})
    assert [record.path for record in read(tmp_path)[1]] == ["a.jpg"]
    lay(tmp_path, {mark: "", "thumbnails/ab/1.jpg": "", "b/1.jpg": ""})  # the images lie in the data folder itself
    assert [record.path for record in read(tmp_path)[1]] == ["a.jpg", "b/1.jpg"]
