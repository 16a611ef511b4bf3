"""Frozen slices through service, page and command: they hold what they held, however the tags change."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from tests.test_trust import reviewer
from vlm import services
from vlm.models import Dataset, FrozenSlice
from vlm.process import sample_store
from vlm.samples import SampleFilter
from vlm.services.slices import SliceRefused

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

JSON = {"Accept": "application/json"}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", 5), name="photos")
    assert done.dataset is not None
    return done.dataset


def shown(dataset: Dataset, query: str) -> list[int]:
    found = services.samples.page(dataset=dataset, filter=SampleFilter.from_text(query), order="added")
    return [sample.id for sample in found.samples]


def test_a_slice_holds_what_it_held(dataset: Dataset, client: Client) -> None:
    client.force_login(reviewer("ada"))
    first, second, *_ = shown(dataset, "")
    ours = SampleFilter(ids=(first, second))
    services.tags.add(dataset=dataset, filter=ours, tag="dark", user=None)
    address = reverse("slices", args=[dataset.pk])
    told = client.post(address, {"name": "night shift", "query": "all=dark&order=added"}, headers=JSON)
    assert told.status_code == 201
    number = told.json()["slice"]
    assert (told.json()["samples"], told.json()["filter"]) == (2, "all=dark")
    services.tags.remove(dataset=dataset, filter=ours, tag="dark", user=None)
    assert shown(dataset, "all=dark") == []
    assert shown(dataset, f"slice={number}") == [first, second]

    page = client.get(address).content.decode()
    assert "night shift" in page
    assert "by ada" in page
    frozen = services.slices.get(dataset=dataset, slice_id=number)
    assert frozen is not None
    with services.slices.manifest(frozen=frozen) as made:
        manifest = json.loads(made.file.read())
    assert made.name == "photos-night-shift-manifest.json"
    assert manifest["datavisor"]["filter"] == "all=dark"
    assert manifest["datavisor"]["vocabulary"][0]["name"] == "lighting"
    assert [(one["id"], Path(dataset.root, one["path"]).is_file()) for one in manifest["samples"]] == [
        (first, True),
        (second, True),
    ]
    answer = client.get(reverse("slice_manifest", args=[dataset.pk, number]))
    assert answer.headers["Content-Length"] == str(made.size)

    assert client.post(address, {"name": "night shift", "query": ""}, headers=JSON).status_code == 409  # taken
    assert client.post(address, {"name": "none", "query": "all=nothing"}, headers=JSON).status_code == 409
    assert client.post(address, {"name": " ", "query": ""}, headers=JSON).status_code == 409
    assert [one["name"] for one in client.get(address, headers=JSON).json()["slices"]] == ["night shift"]
    assert client.post(reverse("slice_remove", args=[dataset.pk, number])).status_code == 302
    assert client.get(reverse("slice_manifest", args=[dataset.pk, number])).status_code == 404
    with sample_store().read() as cursor:
        assert cursor.execute("select count(*) from slice_samples").fetchall() == [(0,)]


def test_who_may_only_look_freezes_nothing(dataset: Dataset, client: Client) -> None:
    user = reviewer("bob")
    user.user_permissions.remove(*user.user_permissions.filter(codename="edit_tags"))
    client.force_login(user)
    assert client.post(reverse("slices", args=[dataset.pk]), {"name": "x", "query": ""}).status_code == 403
    assert "Freeze" not in client.get(reverse("dataset", args=[dataset.pk])).content.decode()
    assert FrozenSlice.objects.count() == 0


def test_the_command_freezes_lists_writes_and_removes(dataset: Dataset, tmp_path: Path) -> None:
    call_command("slices", "photos", "--freeze", "all of it", "--json", stdout=(out := StringIO()))
    number = json.loads(out.getvalue())["slice"]
    call_command("slices", "photos", stdout=(out := StringIO()))
    assert "all of it" in out.getvalue()
    target = tmp_path / "manifest.json"
    call_command("slices", "photos", "--manifest", "all of it", "--output", str(target), stderr=StringIO())
    assert len(json.loads(target.read_text())["samples"]) == 5
    with pytest.raises(CommandError, match="no frozen slice"):
        call_command("slices", "photos", "--remove", "another")
    call_command("slices", "photos", "--remove", str(number), stdout=StringIO())
    assert services.slices.listed(dataset=dataset) == []
    with pytest.raises(SliceRefused):
        services.slices.freeze(dataset=dataset, name="x" * 101, filter=SampleFilter(), user=None)
