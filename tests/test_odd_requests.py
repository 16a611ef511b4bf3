"""What programs, tables and people send that means nothing, or too much: each is answered with a sentence, and changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from tests.page.conftest import admin, dataset, draw_images  # noqa: F401  (fixtures)
from vlm import services
from vlm.formats import ImportFailed
from vlm.models import Dataset

pytestmark = pytest.mark.django_db(transaction=True)
JSON = {"Accept": "application/json"}
ONE = {"name": "w", "question": "a or b?", "words": ["a", "b"]}


@pytest.mark.parametrize(
    "values",
    [
        ("5e-324", "0", "1e-323"),
        ("1.7e308", "-1.7e308", "0"),
        ("-0.0", "0.0", "0"),
        ("9223372036854775808", "18446744073709551616", "1"),
    ],
)
def test_any_number_of_a_column_can_be_shown(dataset: Dataset, admin: Client, values: tuple[str, ...]) -> None:  # noqa: F811
    names = ["001.png", "002.png", "003.png"]
    table = "file,score\n" + "".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True))
    address = reverse("columns", args=[dataset.pk])
    sent = admin.post(address, {"file": SimpleUploadedFile("t.csv", table.encode())}, headers=JSON)
    assert sent.status_code == 200, sent.content
    page = reverse("dataset", args=[dataset.pk])
    for shown in (address, page, f"{page}?order=column:score", reverse("explain", args=[dataset.pk])):
        for asked in ({}, JSON):
            assert admin.get(shown, headers=asked).status_code == 200, shown  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        {"dimensions": [ONE | {"question": "\ud800 a or b?"}]},
        {"dimensions": [ONE | {"words": ["a", "b\x07"]}]},
        {"dimensions": [ONE | {"label": "\x1b[31m"}]},
        {"dimensions": [ONE | {"spellings": {"a": ["\x00"]}}]},
        {"dimensions": []},
        {"dimensions": [], "removed": "take"},
        [],
        None,
    ],
)
def test_a_vocabulary_that_cannot_be_asked_changes_nothing(db: None, admin: Client, body: Any) -> None:  # noqa: F811
    before = services.vocabulary.entries()
    answer = admin.post(reverse("vocabulary"), json.dumps(body), content_type="application/json", headers=JSON)
    assert answer.status_code == 400, answer.content
    assert services.vocabulary.entries() == before


def test_a_file_that_takes_the_parser_minutes_is_refused(db: None, admin: Client) -> None:  # noqa: F811
    for content in (b"a." * 400_000 + b"a = 1", b"x = " + b"9" * 5000):
        answer = admin.post(reverse("vocabulary_import"), {"file": SimpleUploadedFile("v.toml", content)}, headers=JSON)
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300, "x" * 300 + "/y", "\x00", "~nobody-here/x"])
def test_a_path_that_no_system_has_is_refused(dataset: Dataset, admin: Client, path: str) -> None:  # noqa: F811
    settings = reverse("dataset_settings", args=[dataset.pk])
    sent = [
        admin.post(settings, {"action": "move", "path": path}, headers=JSON),
        admin.post(reverse("import_new"), {"path": path, "action": "preview"}, headers=JSON),
        admin.post(reverse("import_new"), {"path": path, "action": "start"}, headers=JSON),
    ]
    assert [answer.status_code for answer in sent] == [400] * len(sent)
    typed = admin.get(reverse("import_folders"), {"path": path}, headers=JSON)
    assert typed.status_code == 400 or typed.json()["entries"] == []
    assert admin.get(reverse("import_folders"), {"path": path}).status_code == 200  # while it is being typed


@pytest.mark.parametrize("name", ["\x00", "a\x1b[31m", "\x85", "\u2028"])
def test_names_hold_no_control_characters(dataset: Dataset, admin: Client, tmp_path: Path, name: str) -> None:  # noqa: F811
    settings, slices = (reverse(page, args=[dataset.pk]) for page in ("dataset_settings", "slices"))
    assert admin.post(settings, {"action": "rename", "name": name}, headers=JSON).status_code == 400
    assert admin.post(slices, {"name": name, "query": ""}, headers=JSON).status_code == 409
    dataset.refresh_from_db()
    assert dataset.name == "Six pictures"
    odd = draw_images(tmp_path / f"odd {name}".replace("\x00", "\x01"), 1)
    with pytest.raises(ImportFailed, match="control characters"):  # called as its folder
        services.datasets.import_folder(path=odd)
    assert services.datasets.import_folder(path=odd, name="even").total == 1


def test_a_slip_in_a_slices_filter_is_not_the_whole_data_set(dataset: Dataset, admin: Client) -> None:  # noqa: F811
    slices = reverse("slices", args=[dataset.pk])
    for query in ("x=1", "tag=dark", "c.s=1"):
        answer = admin.post(slices, {"name": "n", "query": query}, headers=JSON)
        assert (answer.status_code, "no part of a filter" in answer.json()["error"]) == (400, True)
    assert admin.post(slices, {"name": "n", "query": "q=00&order=name&size=l"}, headers=JSON).status_code == 201


def test_an_own_tag_that_is_written_otherwise_is_no_word_of_a_dimension(dataset: Dataset, admin: Client) -> None:  # noqa: F811
    address = reverse("edit_tags", args=[dataset.pk])
    said = admin.post(address, {"action": "add", "tag": "cafe\u0301", "all": "1"}, headers=JSON).json()["done"]
    assert said == "“café” added to 7 images."


@pytest.mark.usefixtures("data_dir")
def test_the_longest_name_that_a_folder_can_have_is_a_filter(tmp_path: Path, admin: Client) -> None:  # noqa: F811
    for name in ("x" * 255, "ä" * 120, "cat"):
        draw_images(tmp_path / "photos" / name, 2)
    made = services.datasets.import_folder(path=tmp_path / "photos", name="photos").dataset
    assert made is not None
    page = reverse("dataset", args=[made.pk])
    for category in ("x" * 255, "ä" * 120):
        assert category in admin.get(page).content.decode()
        assert admin.get(page, {"category": category}).status_code == 200
        assert admin.get(page, {"category": category}, headers=JSON).json()["total"] == 2


def test_a_table_of_another_encoding_is_called_no_text(dataset: Dataset, admin: Client, tmp_path: Path) -> None:  # noqa: F811
    table = SimpleUploadedFile("t.csv", "file,score\n001.png,1\n".encode("utf-32"))
    answer = admin.post(reverse("columns", args=[dataset.pk]), {"file": table}, headers=JSON)
    assert (answer.status_code, "no text" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("path", ["apitoken/a%00/change/", "dataset/?q=a%00", "word/99999999999999999999/change/"])
def test_what_no_database_holds_is_not_found_there(db: None, admin: Client, path: str) -> None:  # noqa: F811
    """SQLite looks and finds nothing; PostgreSQL refuses to look."""
    for headers in ({}, JSON):
        assert admin.get(f"/admin/vlm/{path}", headers=headers).status_code < 500  # type: ignore[arg-type]
