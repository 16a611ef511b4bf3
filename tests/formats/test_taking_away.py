"""Exports of the pictures themselves, of lists and labels beside them, and of XMP."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.formats.material import write_image
from tests.formats.test_export import TAGS, make_row
from vlm.formats import IMPORTS, Annotation, ExportContext, ExportFailed, ExportRow, export_rows, scan
from vlm.formats.export import pictures, xmp
from vlm.formats.export.yolo import label_of
from vlm.roots import LocalRoot

NAMES = {"rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "dc": "http://purl.org/dc/elements/1.1/"}


def archive(rows: list[ExportRow], format: str, root: Path) -> zipfile.ZipFile:
    content = b"".join(
        export_rows(rows, format=format, context=ExportContext("Street scenes", LocalRoot(root), "folder"))
    )
    opened = zipfile.ZipFile(io.BytesIO(content))
    assert opened.testzip() is None
    return opened


def listing(opened: zipfile.ZipFile) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(opened.read("samples.csv").decode(), newline="")))


def rows_in(root: Path, *paths: str, **changes: Any) -> list[ExportRow]:
    rows = []
    for number, path in enumerate(paths, start=1):
        write_image(root / path)
        rows.append(make_row(number, Path(path).name, path=path, **changes))
    return rows


def test_pictures_are_the_very_files_with_a_table_beside(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, "a.jpg", "deep/写真.jpg")
    (tmp_path / "gone.jpg").symlink_to("/etc/hostname")
    opened = archive([*rows, make_row(3, "gone.jpg", path="gone.jpg")], "pictures", tmp_path)
    for row in rows:
        assert opened.read(f"images/{row.path}") == (tmp_path / row.path).read_bytes()
    assert [(line["id"], line["file"]) for line in listing(opened)] == [
        ("1", "a.jpg"),
        ("2", "deep/写真.jpg"),
        ("3", "gone.jpg"),
    ]
    assert json.loads(listing(opened)[0]["tags"])[1]["tag"] == "sunny"
    assert "gone.jpg" in opened.read("unreadable.txt").decode()
    assert "images/gone.jpg" not in opened.namelist()


def test_too_many_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST", 10)
    with pytest.raises(ExportFailed, match="export_images"):
        archive(rows_in(tmp_path, "a.jpg"), "pictures", tmp_path)


def test_a_list_of_files_is_one_a_line(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, "a b.jpg", "deep/ü.jpg")
    context = ExportContext("x", LocalRoot(tmp_path), "folder")
    lines = b"".join(export_rows(rows, format="files", context=context)).decode().splitlines()
    assert [Path(line).samefile(tmp_path / row.path) for line, row in zip(lines, rows, strict=True)] == [True, True]
    with pytest.raises(ExportFailed, match="line break"):
        b"".join(export_rows([make_row(1, "new\nline.jpg")], format="files", context=context))


def test_yolo_lies_beside_the_pictures_and_comes_back(tmp_path: Path) -> None:
    """Both zips in one folder are a data set as the importer, and Ultralytics by the same rules, reads it."""
    source, target = tmp_path / "source", tmp_path / "target"
    boxes = (Annotation("cat", (4.0, 5.0, 10.0, 10.0)), Annotation("dog: big", (0.0, 0.0, 40.0, 20.0)))
    rows = rows_in(source, "one/a.jpg", "images/b.jpg", annotations=boxes, split="")
    rows[1] = make_row(2, "b.jpg", path="images/b.jpg", annotations=(), split="val")
    for format in ("pictures", "yolo"):
        archive(rows, format, source).extractall(target)
    described = yaml.safe_load((target / "data.yaml").read_text())
    assert (described["train"], described["val"]) == ("train.txt", "val.txt")
    assert described["names"] == {0: "cat", 1: "dog: big"}
    assert (target / "labels/one/a.txt").read_text() == "0 0.225 0.5 0.25 0.5\n1 0.5 0.5 1 1\n"
    assert (target / "images/labels/b.txt").read_text() == ""
    (target / "samples.csv").unlink()
    found = {record.path: record for record in scan(target, IMPORTS["yolo"].name)}
    assert {path: record.split for path, record in found.items()} == {
        "images/one/a.jpg": "train",
        "images/images/b.jpg": "val",
    }
    assert found["images/one/a.jpg"].categories == ("cat", "dog: big")


@pytest.mark.parametrize(
    ("path", "label"),
    [("a.jpg", "labels/a.txt"), ("x/a.b.png", "labels/x/a.b.txt"), ("images/a.jpg", "images/labels/a.txt")],
)
def test_where_labels_are_looked_for(path: str, label: str) -> None:
    assert label_of(path) == label


def test_two_images_of_one_label_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="Images 1 and 2"):
        archive(rows_in(tmp_path, "a.jpg", "a.png"), "yolo", tmp_path)


def test_xmp_holds_tags_as_keywords(tmp_path: Path) -> None:
    row = make_row(7, "a <b>.jpg", tags=(*TAGS, TAGS[0].__class__("a\x01 & <b>", None, "user", None, None)))
    opened = archive([row], "xmp", tmp_path)
    assert opened.namelist() == ["images/a <b>.jpg.xmp"]
    assert opened.read(opened.namelist()[0]) == xmp.packet(row)
    tree = ElementTree.fromstring(xmp.packet(row).decode().split("?>\n", 1)[1].rsplit("<?xpacket", 1)[0])
    words = [item.text for item in tree.findall(".//dc:subject/rdf:Bag/rdf:li", NAMES)]
    assert words == ["heute, “neu”", "sunny", "day", "a & <b>"]
    deep = [
        item.text for item in tree.findall(".//{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject//rdf:li", NAMES)
    ]
    assert "weather|sunny" in deep
    described = tree.find(".//rdf:Description", NAMES)
    assert described is not None
    assert described.get("{https://datavisor.invalid/ns/1.0/}id") == "7"
