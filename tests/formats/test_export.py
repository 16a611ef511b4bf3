"""What is exported is what was given, in every format, as a stream."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.formats.material import coco, read, write_images, write_json
from vlm.formats import EXPORTS, Annotation, ExportContext, ExportFailed, ExportRow, export_rows
from vlm.samples import Tag

NAMES = ["写真.jpg", 'a "quoted", name.jpg', "new\nline.jpg", "=cmd|calc.jpg", "<img src=x>.jpg", "plain.jpg"]
TAGS = (
    Tag("heute, “neu”", None, "user", None, None),
    Tag("sunny", "weather", "model", 0.8125, 7),
    Tag("day", "time-of-day", "model", 0.5, 7),
)
AS_OBJECTS = [
    {"tag": "heute, “neu”", "dimension": None, "source": "user", "probability": None, "run": None},
    {"tag": "sunny", "dimension": "weather", "source": "model", "probability": 0.8125, "run": 7},
    {"tag": "day", "dimension": "time-of-day", "source": "model", "probability": 0.5, "run": 7},
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
        "categories": ("cat",),
        "annotations": (Annotation("cat", (4.0, 5.0, 10.0, 10.0)), Annotation("outdoors", None)),
        "tags": TAGS if number % 2 else (),
    }
    return ExportRow(**(values | changes))


ROWS = [make_row(number, name) for number, name in enumerate(NAMES, start=1)]


def export(rows: Iterator[ExportRow] | list[ExportRow], format: str, root: Path, imported: str = "folder") -> bytes:
    return b"".join(export_rows(rows, format=format, context=ExportContext("Street scenes", root, imported)))


def expected_objects() -> list[dict[str, Any]]:
    return [{"file_name": row.file_name, "split": row.split, "tags": AS_OBJECTS if row.tags else []} for row in ROWS]


def test_csv(tmp_path: Path) -> None:
    text = export(ROWS, "csv", tmp_path).decode()
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [record | {"tags": json.loads(record["tags"])} for record in records] == expected_objects()
    assert text.startswith("file_name,split,tags\r\n")


def test_jsonl(tmp_path: Path) -> None:
    lines = export(ROWS, "jsonl", tmp_path).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == expected_objects()


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "export.parquet").write_bytes(export(ROWS, "parquet", tmp_path))
    with duckdb.connect() as connection:
        table = connection.execute("SELECT * FROM read_parquet(?)", [str(tmp_path / "export.parquet")])
        names = [column[0] for column in table.description]
        assert [dict(zip(names, row, strict=True)) for row in table.fetchall()] == expected_objects()


@pytest.mark.parametrize("format", EXPORTS)
def test_nothing_exports_as_an_empty_file_of_its_kind(tmp_path: Path, format: str) -> None:
    content = export([], format, tmp_path)
    if format == "csv":
        assert content == b"file_name,split,tags\r\n"
    elif format == "jsonl":
        assert content == b""
    elif format == "parquet":
        (tmp_path / "export.parquet").write_bytes(content)
        with duckdb.connect() as connection:
            counted = connection.execute("SELECT count(*) FROM read_parquet(?)", [str(tmp_path / "export.parquet")])
            assert counted.fetchall() == [(0,)]
    elif format == "coco":
        assert json.loads(content)["images"] == []
    else:
        assert json.loads(zipfile.ZipFile(io.BytesIO(content)).read("samples.json")) == {"samples": []}


@pytest.mark.parametrize("format", ["csv", "jsonl", "coco", "fiftyone"])
def test_exports_are_streams(tmp_path: Path, format: str) -> None:
    """Pieces come before the rows are at an end."""
    given = 0

    def rows() -> Iterator[ExportRow]:
        nonlocal given
        for given in range(1, 200_000):
            yield make_row(given, f"{given * 7919}.jpg")

    context = ExportContext("Street scenes", tmp_path, "folder")
    pieces = export_rows(rows(), format=format, context=context)
    assert given == 0
    next(pieces)
    assert 0 < given < 100_000
    pieces.close()  # type: ignore[attr-defined]


def test_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="csv, jsonl, parquet, coco, fiftyone"):
        export_rows([], format="xlsx", context=ExportContext("Street scenes", tmp_path, "folder"))


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
            categories=record.categories,
            annotations=record.annotations,
            tags=tags,
        )
        for number, record in enumerate(records, start=100)
    ]


def test_the_original_json_gets_tags_and_keeps_everything_else(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    original = coco(
        "images\\a.jpg", "images/b.jpg", "gone.jpg", licenses=[{"id": 3, "name": "BY"}], extra={"x": [1.5, "é"]}
    )
    original["images"][0] |= {"id": "first", "flickr_url": "http://example.org"}
    write_json(tmp_path / "annotations/instances_all.json", original)
    exported = json.loads(export(rows_of(tmp_path, TAGS)[:1], "coco", tmp_path, "coco"))
    expected = json.loads(json.dumps(original))
    expected["images"][0]["tags"] = AS_OBJECTS
    assert exported == expected
    assert list(exported) == list(original)


def test_several_jsons_become_a_new_one_that_can_be_imported(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path, f"{split}/1.jpg")
        write_json(tmp_path / split / "_annotations.coco.json", coco("1.jpg"))
    rows = rows_of(tmp_path, TAGS)
    content = export(rows, "coco", tmp_path, "coco")
    for split in ("train", "valid"):
        (tmp_path / split / "_annotations.coco.json").unlink()
    (tmp_path / "exported.json").write_bytes(content)
    _, records = read(tmp_path / "exported.json")
    assert [(r.path, r.split, r.width, r.height, r.annotations) for r in records] == [
        (row.path, row.split, row.width, row.height, row.annotations) for row in rows
    ]
    assert [image["tags"] for image in json.loads(content)["images"]] == [AS_OBJECTS, AS_OBJECTS]


def test_any_data_set_exports_as_coco(tmp_path: Path) -> None:
    rows = [*ROWS, make_row(99, "unknown.jpg", width=None, height=None, annotations=())]
    exported = json.loads(export(rows, "coco", tmp_path))
    assert [image["file_name"] for image in exported["images"]] == [row.path for row in rows]
    assert exported["images"][-1] == {"id": 99, "file_name": "images/unknown.jpg", "split": "train", "tags": AS_OBJECTS}
    assert exported["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "outdoors"}]
    assert exported["annotations"][:2] == [
        {"id": 1, "image_id": 1, "iscrowd": 0, "category_id": 1, "bbox": [4.0, 5.0, 10.0, 10.0], "area": 100.0},
        {"id": 2, "image_id": 1, "iscrowd": 0, "category_id": 2},
    ]
    assert [annotation["id"] for annotation in exported["annotations"]] == list(range(1, 2 * len(ROWS) + 1))


def test_a_json_that_broke_since_says_so(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    write_json(tmp_path / "a.json", coco("a.jpg"))
    rows = rows_of(tmp_path, TAGS)
    (tmp_path / "a.json").write_text('{"images": [{"id": 1}')
    with pytest.raises(ExportFailed, match="Restore it"):
        export(rows, "coco", tmp_path, "coco")


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
        "tags": ["heute, “neu”", "sunny", "day"],
        "split": "train",
        "tag_weather": {"_cls": "Classification", "label": "sunny", "confidence": 0.8125},
        "tag_time_of_day": {"_cls": "Classification", "label": "day", "confidence": 0.5},
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
