"""Columns from a table to filters, orders, facets, a sample's page and exports, through page and commands, on a real store."""

import csv
import io
import json
from io import StringIO
from pathlib import Path

import duckdb
import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.formats import EXPORTS
from vlm.models import Dataset
from vlm.samples import SampleFilter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 8
TABLE = "file,error,missed,camera\n" + "".join(
    f"{place:03d}.jpg,{place / 10},{'yes' if place % 2 else 'no'},{('front', 'rear', '=cmd')[place % 3]}\n"
    for place in range(COUNT - 1)
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def scored(dataset: Dataset, tmp_path: Path) -> Dataset:
    command("import_scores", dataset.name, table(tmp_path))
    return dataset


@pytest.fixture
def ada(client: Client) -> Client:
    user = User.objects.create_user("ada", password="x")
    for right in ("view_dataset", "edit_tags"):
        user.user_permissions.add(Permission.objects.get(codename=right))
    client.force_login(user)
    return client


def table(folder: Path, text: str = TABLE) -> str:
    path = folder / "scores.csv"
    path.write_text(text)
    return str(path)


def command(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def names(client: Client, dataset: Dataset, query: str) -> list[str]:
    page = client.get(f"{reverse('dataset', args=[dataset.pk])}?{query}")
    assert page.status_code == 200
    return [sample.file_name for sample in page.context["page"].samples]


def upload(client: Client, dataset: Dataset, text: str, **fields: str) -> object:
    file = SimpleUploadedFile("scores.csv", text.encode())
    return client.post(reverse("columns", args=[dataset.pk]), {"file": file, **fields})


def test_a_command_brings_columns_in_and_they_are_filters_and_orders(scored: Dataset, ada: Client) -> None:
    listed = json.loads(command("columns", "photos", "--json"))
    assert [(one["name"], one["kind"], one["values"]) for one in listed] == [
        ("camera", "word", 7),
        ("error", "number", 7),
        ("missed", "boolean", 7),
    ]
    assert listed[0]["source"] == "scores.csv"
    assert names(ada, scored, "column=error:0.5..") == ["005.jpg", "006.jpg"]
    assert names(ada, scored, "column=camera:front&column=missed:yes") == ["003.jpg"]
    assert names(ada, scored, "order=-column:error")[:2] == ["006.jpg", "005.jpg"]
    assert names(ada, scored, "order=column:error&novalue=error") == ["007.jpg"]
    assert ada.get(f"{reverse('dataset', args=[scored.pk])}?order=column:odd").status_code == 400


def test_facets_have_histograms_whose_bars_lead_to_as_many_images(scored: Dataset, ada: Client) -> None:
    page = ada.get(f"{reverse('dataset', args=[scored.pk])}?column=missed:yes")
    camera, error, missed = page.context["column_facets"]
    assert sum(bar.count for bar in error.bars) == 3
    for bar in error.bars:
        found = ada.get(bar.url)
        assert found.context["facets"].total == bar.count, bar
    assert [(choice.label, choice.count, choice.chosen) for choice in missed.choices] == [
        ("yes", 3, True),
        ("no", 4, False),
        ("no value", 1, False),
    ]
    for facet in (camera, missed):
        for choice in facet.choices:
            wanted = ada.get(choice.url).context["facets"].total
            if facet is camera:
                assert wanted == choice.count, choice
    labels = [label for _, label, _ in page.context["orders"]]
    assert "error, highest first" in labels
    assert "camera" in labels


def test_a_range_is_asked_for_by_a_form(scored: Dataset, ada: Client) -> None:
    address = reverse("column_range", args=[scored.pk])
    keeps = {"name": "error", "column": ["missed:yes", "error:0..0.1"], "order": "added"}
    answer = ada.get(address, {**keeps, "low": "0.2", "high": ""})
    assert answer.status_code == 302
    assert ada.get(answer.headers["Location"]).context["chips"][1][0] == "error from 0.2 on"
    assert ada.get(address, {**keeps, "low": "much", "high": ""}).status_code == 400
    assert "error" not in ada.get(address, {**keeps, "low": "", "high": ""}).headers["Location"]


def test_nothing_is_half_imported_and_everything_wrong_is_listed(scored: Dataset, tmp_path: Path, ada: Client) -> None:
    bad = "file,error\n000.jpg,9\n001.jpg,9\nnowhere.jpg,9\n000.jpg,9\n002.jpg,9\n003.jpg,9\n004.jpg,much\n"
    with pytest.raises(CommandError, match="3 things"):
        command("import_scores", "photos", table(tmp_path, bad))
    answer = upload(ada, scored, bad)
    assert answer.status_code == 400  # type: ignore[attr-defined]
    page = answer.content.decode()  # type: ignore[attr-defined]
    assert page.count("<li>Line ") == 3
    assert names(ada, scored, "column=error:9..") == []
    told = ada.post(
        reverse("columns", args=[scored.pk]),
        {"file": SimpleUploadedFile("s.csv", bad.encode())},
        headers={"Accept": "application/json"},
    )
    assert (told.status_code, told.json()["problem_count"], told.json()["columns"]) == (400, 3, [])
    assert upload(ada, scored, bad, partly="1").status_code == 302  # type: ignore[attr-defined]
    assert names(ada, scored, "column=error:9..") == ["000.jpg", "001.jpg", "002.jpg", "003.jpg"]
    assert names(ada, scored, "column=error:0..1") == []  # the column was replaced as a whole


def test_the_page_describes_and_removes(scored: Dataset, ada: Client) -> None:
    change, page = reverse("column_change", args=[scored.pk]), reverse("columns", args=[scored.pk])
    ada.post(change, {"name": "error", "action": "describe", "description": "of <the> detector"})
    assert "of &lt;the&gt; detector" in ada.get(page).content.decode()
    upload(ada, scored, TABLE)
    told = {one["name"]: one for one in ada.get(page, headers={"Accept": "application/json"}).json()["columns"]}
    assert (told["error"]["description"], told["error"]["by"]) == ("of <the> detector", "ada")
    ada.post(change, {"name": "error", "action": "remove"})
    assert names(ada, scored, "column=error:0..") == []
    for fields, status in (
        ({"name": "error", "action": "remove"}, 404),
        ({"name": "nothing", "action": "describe"}, 404),
        ({"name": "camera", "action": "burn"}, 400),
    ):
        assert ada.post(change, fields).status_code == status
    command("columns", "photos", "--describe", "camera", "where it hangs", "--remove", "missed")
    assert "where it hangs" in command("columns", "photos")
    assert "missed" not in command("columns", "photos")


def test_a_sample_shows_its_values(scored: Dataset, ada: Client) -> None:
    (sample,) = services.samples.page(dataset=scored, filter=SampleFilter(text="003")).samples
    page = ada.get(reverse("sample", args=[scored.pk, sample.id]))
    assert page.context["columns"] == [("camera", "front"), ("error", "0.3"), ("missed", "yes")]


def test_who_may_only_look_changes_nothing(scored: Dataset, client: Client) -> None:
    user = User.objects.create_user("bob", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    client.force_login(user)
    assert 'type="file"' not in client.get(reverse("columns", args=[scored.pk])).content.decode()
    assert upload(client, scored, TABLE).status_code == 403  # type: ignore[attr-defined]
    assert client.post(reverse("column_change", args=[scored.pk]), {"name": "error"}).status_code == 403


@pytest.mark.parametrize("file", ["nowhere.csv", "empty"])
def test_a_table_that_is_not_there(scored: Dataset, tmp_path: Path, file: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(CommandError) as caught:
        command("import_scores", "photos", str(tmp_path / file))
    assert caught.value.returncode == 2


def exported(dataset: Dataset, name: str) -> bytes:
    with services.exports.make(dataset=dataset, filter=SampleFilter(), format=name) as made:
        return made.file.read()


def test_exports_hold_the_columns(scored: Dataset, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(scored, "csv").decode())))
    assert [rows[3][name] for name in ("camera", "error", "missed")] == ["front", "0.3", "true"]
    assert [rows[7][name] for name in ("camera", "error", "missed")] == ["", "", ""]
    sheet = list(csv.DictReader(io.StringIO(exported(scored, "csv-spreadsheet").decode("utf-8-sig"))))
    assert sheet[2]["camera"] == "'=cmd"
    lines = [json.loads(line) for line in exported(scored, "jsonl").splitlines()]
    assert lines[3]["columns"] == {"camera": "front", "error": 0.3, "missed": True}
    assert lines[7]["columns"] == {}
    (tmp_path / "x.parquet").write_bytes(exported(scored, "parquet"))
    found = duckdb.execute(
        "select camera, error, missed from read_parquet(?) where file_name = '003.jpg'", [str(tmp_path / "x.parquet")]
    ).fetchall()
    assert found == [("front", 0.3, True)]
    images = json.loads(exported(scored, "coco-stored"))["images"]
    assert images[3]["columns"] == {"camera": "front", "error": 0.3, "missed": True}
    assert "columns" not in images[7]


def test_columns_that_are_called_like_fields_keep_apart(dataset: Dataset, tmp_path: Path) -> None:
    command("import_scores", "photos", table(tmp_path, "path,Tags,split\n000.jpg,1.5,x\n"))
    command("import_scores", "photos", table(tmp_path, "path,tags\n000.jpg,2.5\n"))
    head = exported(dataset, "csv").decode().splitlines()[0].split(",")
    assert len({name.casefold() for name in head}) == len(head)
    for name in EXPORTS:
        assert exported(dataset, name)
