"""What is exported is what was given, in every format, as a stream."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.formats.material import coco, read, write_image, write_images, write_json
from vlm.formats import EXPORTS, Annotation, ExportContext, ExportFailed, ExportRow, export_rows
from vlm.roots import LocalRoot
from vlm.samples import Tag

NAMES = ["写真.jpg", 'a "quoted", name.jpg', "new\nline.jpg", "=cmd|calc.jpg", "<img src=x>.jpg", "plain.jpg"]
TAGS = (
    Tag("heute, “neu”", None, "user", None, None, "ada", datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC), "bulk"),
    Tag("sunny", "weather", "model", 0.8125, 7, "", datetime(2026, 2, 1, 12, 30, 5, tzinfo=UTC), "run", 3),
    Tag("day", "time-of-day", "model", 0.5, 7),
)
AS_OBJECTS = [
    {"tag": "heute, “neu”", "dimension": None, "source": "user", "probability": None, "run": None}
    | {"user": "ada", "time": "2026-03-01T12:30:05Z", "way": "bulk", "shared_from": None},
    {"tag": "sunny", "dimension": "weather", "source": "model", "probability": 0.8125, "run": 7}
    | {"user": "", "time": "2026-02-01T12:30:05Z", "way": "run", "shared_from": 3},
    {"tag": "day", "dimension": "time-of-day", "source": "model", "probability": 0.5, "run": 7}
    | {"user": "", "time": None, "way": "", "shared_from": None},
]


def make_row(number: int, name: str, **changes: Any) -> ExportRow:
    values: dict[str, Any] = {
        "id": number,
        "path": f"images/{name}",
        "file_name": name,
        "split": "train" if number % 2 else "",
        "width": 40,
        "height": 20,
        "external_id": "",
        "source_file": "",
        "categories": ("cat",),
        "annotations": (Annotation("cat", (4.0, 5.0, 10.0, 10.0)), Annotation("outdoors", None)),
        "tags": TAGS if number % 2 else (),
    }
    return ExportRow(**(values | changes))


ROWS = [make_row(number, name) for number, name in enumerate(NAMES, start=1)]


def export(rows: Iterator[ExportRow] | list[ExportRow], format: str, root: Path, imported: str = "folder") -> bytes:
    return b"".join(export_rows(rows, format=format, context=ExportContext("Street scenes", LocalRoot(root), imported)))


def expected_objects() -> list[dict[str, Any]]:
    return [
        {"id": row.id, "file_name": row.file_name, "split": row.split, "tags": AS_OBJECTS if row.tags else []}
        for row in ROWS
    ]


def test_csv(tmp_path: Path) -> None:
    text = export(ROWS, "csv", tmp_path).decode()
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    objects = [record | {"id": int(record["id"]), "tags": json.loads(record["tags"])} for record in records]
    assert objects == expected_objects()
    assert text.startswith("id,file_name,split,tags\r\n")


def test_a_csv_for_spreadsheets_has_no_formulas(tmp_path: Path) -> None:
    context = ExportContext("Street scenes", LocalRoot(tmp_path), "folder", None, ("weather", "=danger"))
    content = b"".join(export_rows(ROWS, format="csv-spreadsheet", context=context))
    assert content.startswith(b"\xef\xbb\xbf")
    records = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert list(records[0]) == ["id", "file_name", "split", "weather", "'=danger", "other tags"]
    assert [record["file_name"] for record in records] == [
        f"'{name}" if name.startswith("=") else name for name in NAMES
    ]
    assert records[0]["weather"] == "sunny"
    assert records[0]["other tags"] == "heute, “neu”, day"


def test_jsonl(tmp_path: Path) -> None:
    lines = export(ROWS, "jsonl", tmp_path).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == expected_objects()


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "export.parquet").write_bytes(export(ROWS, "parquet", tmp_path))
    with duckdb.connect() as connection:
        table = connection.execute("SELECT * FROM read_parquet(?)", [str(tmp_path / "export.parquet")])
        names = [column[0] for column in table.description]
        found = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    for tag in (tag for row in found for tag in row["tags"]):
        tag["time"] = tag["time"] and f"{tag['time'].isoformat()}Z"
    assert found == expected_objects()


@pytest.mark.parametrize("format", EXPORTS)
def test_nothing_exports_as_an_empty_file_of_its_kind(tmp_path: Path, format: str) -> None:
    content = export([], format, tmp_path)
    if format == "csv":
        assert content == b"id,file_name,split,tags\r\n"
    elif format == "csv-spreadsheet":
        assert content.decode("utf-8-sig") == "id,file_name,split,other tags\r\n"
    elif format in ("jsonl", "files"):
        assert content == b""
    elif format == "parquet":
        (tmp_path / "export.parquet").write_bytes(content)
        with duckdb.connect() as connection:
            counted = connection.execute("SELECT count(*) FROM read_parquet(?)", [str(tmp_path / "export.parquet")])
            assert counted.fetchall() == [(0,)]
    elif format.startswith("coco"):
        assert json.loads(content)["images"] == []
    else:
        archive = zipfile.ZipFile(io.BytesIO(content))
        holding = {"fiftyone": ["metadata.json", "samples.json"], "yolo": ["data.yaml", "samples.csv"], "xmp": []}
        assert archive.namelist() == holding.get(format, ["samples.csv"])
        if format == "fiftyone":
            assert json.loads(archive.read("samples.json")) == {"samples": []}


@pytest.mark.parametrize("format", ["csv", "csv-spreadsheet", "jsonl", "coco-stored", "fiftyone"])
def test_exports_are_streams(tmp_path: Path, format: str) -> None:
    """Pieces come before the rows are at an end."""
    given = 0

    def rows() -> Iterator[ExportRow]:
        nonlocal given
        for given in range(1, 200_000):
            yield make_row(given, f"{given * 7919}.jpg")

    context = ExportContext("Street scenes", LocalRoot(tmp_path), "folder")
    pieces = export_rows(rows(), format=format, context=context)
    assert given == 0
    next(pieces)
    assert 0 < given < 100_000
    pieces.close()  # type: ignore[attr-defined]


def test_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="csv, csv-spreadsheet, jsonl, parquet, coco, coco-stored, yolo, fiftyone"):
        export_rows([], format="xlsx", context=ExportContext("Street scenes", LocalRoot(tmp_path), "folder"))


# -- COCO -------------------------------------------------------------------------------------------------------------


def rows_of(root: Path, tags: tuple[Tag, ...]) -> list[ExportRow]:
    _, records = read(root)
    return [
        ExportRow(
            id=number,
            path=record.path,
            file_name=record.file_name,
            split=record.split,
            width=record.width,
            height=record.height,
            external_id=record.external_id,
            source_file=record.source_file,
            categories=record.categories,
            annotations=record.annotations,
            tags=tags,
        )
        for number, record in enumerate(records, start=100)
    ]


def test_the_original_json_gets_tags_and_keeps_everything_else(tmp_path: Path) -> None:
    """Of the samples in the filter; of the others nothing is left."""
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    original = coco(
        "images\\a.jpg", "images/b.jpg", "gone.jpg", licenses=[{"id": 3, "name": "BY"}], extra={"x": [1.5, "é"]}
    )
    original["images"][0] |= {"id": "first", "flickr_url": "http://example.org"}
    original["annotations"] = [
        {"id": 7, "image_id": "first", "category_id": 2, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 1, **RICH},
        {"id": 8, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 9, "image_id": "first", "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0, "area": 12},
    ]
    write_json(tmp_path / "annotations/instances_all.json", original)
    rows = rows_of(tmp_path, TAGS)[:1]
    exported = json.loads(export(rows, "coco", tmp_path, "coco"))
    expected = json.loads(json.dumps(original))
    expected["images"] = [expected["images"][0] | {"tags": AS_OBJECTS, "datavisor_id": 100}]
    expected["annotations"] = [expected["annotations"][0], expected["annotations"][2]]
    assert exported.pop("datavisor") == {"export": 1, "dataset": "Street scenes"}
    assert exported == expected


RICH: dict[str, Any] = {
    "segmentation": {"counts": [1, 2, 3], "size": [30, 40]},
    "keypoints": [1, 2, 2],
    "num_keypoints": 1,
    "attributes": {"occluded": True},
}


def test_ids_that_are_whole_numbers_by_another_spelling(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    original = coco("a.jpg", "b.jpg", categories=[{"id": 1.0, "name": "cat", "supercategory": "animal"}])
    original["images"][0]["id"] = 1.0
    write_json(tmp_path / "a.json", original)
    exported = json.loads(export(rows_of(tmp_path, ()), "coco", tmp_path, "coco"))
    assert [image["id"] for image in exported["images"]] == [1, 2]
    assert [annotation["image_id"] for annotation in exported["annotations"]] == [1, 2]
    assert exported["categories"] == [{"id": 1, "name": "cat", "supercategory": "animal"}]


def two_splits(root: Path) -> list[dict[str, Any]]:
    """Lay out two JSONs that use the same ids for different things; return their contents."""
    contents = []
    for split, categories in (("train", ["cat", "dog"]), ("val", ["dog", "bird"])):
        write_images(root, f"{split}2017/1.jpg")
        content = coco("1.jpg", licenses=[{"id": 1, "name": "BY"}])
        content["categories"] = [
            {"id": number, "name": name, "supercategory": "animal"} for number, name in enumerate(categories, start=1)
        ]
        content["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 5, "iscrowd": 1} | RICH,
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[1, 1, 9, 1, 9, 9]]},
            {"id": 3, "image_id": 1, "category_id": 99, "bbox": [0, 0, 1, 1]},
            {"id": 4, "image_id": 1, "bbox": [0, 0, 2, 2]},
        ]
        write_json(root / f"annotations/instances_{split}2017.json", content)
        contents.append(content)
    return contents


def test_several_jsons_are_merged_with_everything_that_annotations_have(tmp_path: Path) -> None:
    two_splits(tmp_path)
    exported = json.loads(export(rows_of(tmp_path, TAGS), "coco", tmp_path, "coco"))
    images, annotations = exported["images"], exported["annotations"]
    assert [image["file_name"] for image in images] == ["train2017/1.jpg", "val2017/1.jpg"]
    assert [image["id"] for image in images] == [1, 2]
    assert [annotation["id"] for annotation in annotations] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [annotation["image_id"] for annotation in annotations] == [1] * 4 + [2] * 4
    names = {category["id"]: category["name"] for category in exported["categories"]}
    assert len(names) == len(exported["categories"]) == 5
    assert [names[annotation["category_id"]] for annotation in annotations] == [
        *("cat", "dog", "category 99", "unknown"),
        *("dog", "bird", "category 99", "unknown"),
    ]
    assert {key: annotations[4][key] for key in RICH} == RICH
    assert (annotations[4]["iscrowd"], annotations[4]["area"]) == (1, 5)
    assert annotations[5]["bbox"] == [1, 1, 8, 8]
    assert exported["categories"][0] == {"id": 1, "name": "cat", "supercategory": "animal"}
    assert exported["licenses"] == [{"id": 1, "name": "BY"}]


def test_one_of_several_jsons_comes_as_it_is(tmp_path: Path) -> None:
    _, original = two_splits(tmp_path)
    rows = [row for row in rows_of(tmp_path, ()) if row.split == "val"]
    exported = json.loads(export(rows, "coco", tmp_path, "coco"))
    assert [image["file_name"] for image in exported["images"]] == ["1.jpg"]
    assert exported["annotations"][0] == original["annotations"][0]
    assert exported["categories"][:2] == original["categories"]


@pytest.mark.parametrize("format", ["coco", "coco-stored"])
def test_an_export_can_be_imported(tmp_path: Path, format: str) -> None:
    two_splits(tmp_path)
    rows = rows_of(tmp_path, TAGS)
    (tmp_path / "exported.json").write_bytes(export(rows, format, tmp_path, "coco"))
    _, records = read(tmp_path / "exported.json")
    assert [(r.path, r.split, r.width, r.height) for r in records] == [
        (row.path, row.split, row.width, row.height) for row in rows
    ]
    for record, row in zip(records, rows, strict=True):
        assert [(a.category or "unknown", a.box) for a in row.annotations] == [
            (a.category, a.box) for a in record.annotations
        ]


def test_any_data_set_exports_as_coco(tmp_path: Path) -> None:
    write_image(tmp_path / "images/unknown.jpg", (64, 48))
    rows = [*ROWS, make_row(99, "unknown.jpg", width=None, height=None, annotations=())]
    rows.append(make_row(100, "gone.jpg", width=None, height=None, annotations=(), split=""))
    exported = json.loads(export(rows, "coco", tmp_path))
    assert [image["file_name"] for image in exported["images"]] == [row.path for row in rows]
    assert exported["images"][-2] == {
        "id": 99, "file_name": "images/unknown.jpg", "width": 64, "height": 48, "split": "train",
        "tags": AS_OBJECTS, "datavisor_id": 99,
    }  # fmt: skip
    assert (exported["images"][-1]["width"], exported["images"][-1]["height"]) == (0, 0)
    assert exported["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "outdoors"}]
    corners = [4, 5, 14, 5, 14, 15, 4, 15]
    assert exported["annotations"][:2] == [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [4.0, 5.0, 10.0, 10.0], "area": 100.0,
         "segmentation": [corners]},
        {"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 0, "bbox": [0, 0, 40, 20], "area": 800,
         "segmentation": [[0, 0, 40, 0, 40, 20, 0, 20]], "image_label": True},
    ]  # fmt: skip
    assert [annotation["id"] for annotation in exported["annotations"]] == list(range(1, 2 * len(ROWS) + 1))


@pytest.mark.parametrize("change", ["broken", "gone", "fewer images", "another annotation", "newer"])
def test_a_json_that_is_not_what_was_imported_is_refused(tmp_path: Path, change: str) -> None:
    """Before a byte is written; what is stored can be exported still."""
    write_images(tmp_path, "a.jpg", "b.jpg")
    path, content = tmp_path / "a.json", coco("a.jpg", "b.jpg")
    write_json(path, content)
    rows = rows_of(tmp_path, TAGS)
    if change == "broken":
        path.write_text('{"images": [{"id": 1}')
    elif change == "gone":
        path.unlink()
    elif change == "fewer images":
        write_json(path, content | {"images": content["images"][:1]})
    elif change == "another annotation":
        write_json(path, content | {"annotations": [*content["annotations"], content["annotations"][0]]})
    imported = datetime(2020, 1, 1, tzinfo=UTC) if change == "newer" else None
    context = ExportContext("Street scenes", LocalRoot(tmp_path), "coco", imported)
    with pytest.raises(ExportFailed, match="coco-stored"):
        next(export_rows(rows, format="coco", context=context))
    exported = json.loads(b"".join(export_rows(rows, format="coco-stored", context=context)))
    assert len(exported["images"]) == len(exported["annotations"]) == 2


def test_an_import_of_the_first_release_did_not_note_the_json(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_json(tmp_path / "a.json", coco("a.jpg"))
    rows = [replace(row, source_file="") for row in rows_of(tmp_path, TAGS)]
    exported = json.loads(export(rows, "coco", tmp_path, "coco"))
    assert exported["annotations"][0]["id"] == 11
    write_json(tmp_path / "b.json", coco("b.jpg"))
    with pytest.raises(ExportFailed, match=r"Import it again.*coco-stored"):
        export(rows, "coco", tmp_path, "coco")


def test_annotations_of_images_with_one_id_are_nobodys(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    content = coco("a.jpg", "b.jpg", "c.jpg")
    content["images"][1]["id"] = 1
    write_json(tmp_path / "a.json", content)
    exported = json.loads(export(rows_of(tmp_path, ()), "coco", tmp_path, "coco"))
    assert len({image["id"] for image in exported["images"]}) == 3
    assert [annotation["image_id"] for annotation in exported["annotations"]] == [3]


# -- read by others ---------------------------------------------------------------------------------------------------


def data_set_of(kind: str, root: Path) -> tuple[list[ExportRow], str]:
    """Lay out a data set; return its rows, and the format that it has."""
    if kind == "coco":
        write_images(root, "a.jpg", "b.jpg", "c.jpg")
        content = coco("a.jpg", "b.jpg", "c.jpg")
        content["annotations"][0]["segmentation"] = [[1, 2, 11, 2, 11, 14, 1, 14]]
        content["annotations"].append({"id": 50, "image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2]})
        write_json(root / "annotations.json", content)
    elif kind == "two jsons":
        two_splits(root)
        for path in root.glob("annotations/*.json"):
            content = json.loads(path.read_text())
            for annotation in content["annotations"]:
                annotation["segmentation"] = [[1, 2, 11, 2, 11, 14, 1, 14]]
                annotation["iscrowd"] = 0
            write_json(path, content)
    elif kind == "yolo":
        write_images(root, "images/a.jpg", "images/b.jpg")
        (root / "labels").mkdir()
        (root / "labels/a.txt").write_text("1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.4 0.4\n")
        (root / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    else:
        write_images(root, "cat/1.jpg", "dog/2.jpg")
    return rows_of(root, TAGS), "coco" if kind == "two jsons" else kind


KINDS = ["coco", "two jsons", "yolo", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_pycocotools_reads_coco_exports(tmp_path: Path, kind: str) -> None:
    from pycocotools.coco import COCO

    rows, format = data_set_of(kind, tmp_path)
    (tmp_path / "out.json").write_bytes(export(rows, "coco", tmp_path, format))
    read_back = COCO(str(tmp_path / "out.json"))
    assert len(read_back.imgs) == len(rows)
    assert len(read_back.anns) == sum(len(row.annotations) for row in rows)
    for row in rows:
        image = next(image for image in read_back.imgs.values() if image["datavisor_id"] == row.id)
        found = read_back.loadAnns(read_back.getAnnIds(imgIds=[image["id"]]))
        names = [read_back.cats[annotation["category_id"]]["name"] for annotation in found]
        assert names == [annotation.category or "unknown" for annotation in row.annotations]
        for annotation in found:
            if "segmentation" in annotation:
                assert read_back.annToMask(annotation).shape == (image["height"], image["width"])


@pytest.mark.parametrize("kind", KINDS)
def test_supervision_reads_coco_exports(tmp_path: Path, kind: str) -> None:
    supervision = pytest.importorskip("supervision")
    rows, format = data_set_of(kind, tmp_path)
    (tmp_path / "out.json").write_bytes(export(rows, "coco", tmp_path, format))
    read_back = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "out.json"), force_masks=False)
    assert len(read_back) == len(rows)
    found = {Path(path).relative_to(tmp_path).as_posix(): detections for path, _, detections in read_back}
    for row in rows:
        assert len(found[row.path]) == len(row.annotations)


@pytest.mark.parametrize("kind", KINDS)
def test_fiftyone_reads_coco_exports(tmp_path: Path, kind: str) -> None:
    """Its importer needs no server. FiftyOne is not among what the tests install: 100 packages, and a database."""
    fiftyone = pytest.importorskip("fiftyone.utils.coco", exc_type=ImportError)
    rows, format = data_set_of(kind, tmp_path)
    (tmp_path / "out.json").write_bytes(export(rows, "coco", tmp_path, format))
    importer = fiftyone.COCODetectionDatasetImporter(
        data_path=str(tmp_path), labels_path=str(tmp_path / "out.json"), label_types=["detections"]
    )
    importer.setup()
    found = {Path(path).relative_to(tmp_path).as_posix(): labels for path, _, labels in importer}
    for row in rows:
        detections = found[row.path].get("detections") if isinstance(found[row.path], dict) else found[row.path]
        names = [detection.label for detection in detections.detections] if detections else []
        assert names == [annotation.category or "unknown" for annotation in row.annotations]


# -- FiftyOne ---------------------------------------------------------------------------------------------------------


def test_fiftyone(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(export(ROWS, "fiftyone", tmp_path))) as archive:
        assert archive.testzip() is None
        metadata = json.loads(archive.read("metadata.json"))
        samples = json.loads(archive.read("samples.json"))["samples"]
    assert "version" not in metadata  # with it, FiftyOne would expect a dump of its database
    assert metadata["name"] == "Street scenes"
    assert [sample["filepath"] for sample in samples] == [str(tmp_path.resolve() / row.path) for row in ROWS]
    assert samples[0] == {
        "filepath": str(tmp_path.resolve() / "images" / NAMES[0]),
        "_media_type": "image",
        "datavisor_id": 1,
        "tags": ["heute, “neu”", "sunny", "day"],
        "split": "train",
        "tag_weather": {
            **{"_cls": "Classification", "label": "sunny", "confidence": 0.8125, "source": "model", "run": 7},
            **{"time": "2026-02-01T12:30:05Z", "way": "run", "shared_from": 3},
        },
        "tag_time_of_day": {"_cls": "Classification", "label": "day", "confidence": 0.5, "source": "model", "run": 7},
        "ground_truth": {
            "_cls": "Detections",
            "detections": [{"_cls": "Detection", "label": "cat", "bounding_box": [0.1, 0.25, 0.25, 0.5]}],
        },
        "categories": {
            "_cls": "Classifications",
            "classifications": [{"_cls": "Classification", "label": "outdoors"}],
        },
    }
    assert samples[1]["tags"] == []
