"""One list of formats, and everything that derives from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats.material import write_images
from vlm.formats import AUTO, EXPORTS, IMPORTS, ImportFormat, SampleRecord, Scan, asked_choices, scan
from vlm.formats.base import Found
from vlm.formats.files import Files
from vlm.formats.folder import scan_folder
from vlm.formats.records import ReportSkip
from vlm.formats.registry import exports_table, layouts_table
from vlm.forms import ImportForm
from vlm.models import Dataset

README = Path(__file__, "../../../README.md").resolve()


def test_the_readme_lists_every_format() -> None:
    text = README.read_text("utf-8")
    assert layouts_table() in text, "write this table into the README:\n" + layouts_table()
    assert exports_table() in text, "write this table into the README:\n" + exports_table()


def test_a_new_format_is_a_module_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line it can be chosen everywhere, is found, and is read, from its folder or its file."""

    def read_list(files: Files, descriptions: list[str]) -> Scan:
        def records(report: ReportSkip) -> Iterator[SampleRecord]:
            for record in scan_folder(files).records(report):
                if record.path in files.read_text(descriptions[0], max_bytes=1000).splitlines():
                    yield record

        return Scan(files.root, "list", None, records)

    listed = ImportFormat(
        name="list",
        label="list of files",
        layout="`images.lst` with a path in each line",
        find=lambda files: Found(files.listing("", (".lst",))[1]),
        scan=read_list,
        suffixes=(".lst",),
        describing="an images.lst",
    )
    monkeypatch.setitem(IMPORTS, listed.name, listed)
    write_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "images.lst").write_text("b.jpg\n")
    for path, format in ((tmp_path, AUTO), (tmp_path, "list"), (tmp_path / "images.lst", AUTO)):
        found = scan(path, format)
        assert (found.format, [record.path for record in found]) == ("list", ["b.jpg"])
    assert ("list", "list of files") in asked_choices()
    assert ImportForm({"path": "x", "format": "list"}).is_valid()
    assert Dataset(format="list").get_format_display() == "list of files"  # type: ignore[attr-defined]
    assert "| `list` | `images.lst` with a path in each line |" in layouts_table()


def test_names_are_keys() -> None:
    assert list(IMPORTS) == [format.name for format in IMPORTS.values()]
    assert list(EXPORTS) == [format.name for format in EXPORTS.values()]
