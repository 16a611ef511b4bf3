"""What explains a score, from a store with thousands of samples to page, command and JSON; and the commands of the docs."""

import json
import re
import shlex
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from benchmarks.million import add_samples
from vlm import services
from vlm.demo import DEMO_PHOTOS
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import SampleFilter, columns
from vlm.services.columns import NoSuchColumn
from vlm.services.insights import NotExplained

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 3_000
ROOT = Path(__file__).resolve().parent.parent
DIM = (
    *("bicycle", "dahlia", "dandelions", "dragonfly", "officer", "restaurant"),
    *("rocket", "storm", "sunset", "two-cats", "yellow-flower"),
)


def command(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Samples in three splits, some of them dark, some rainy; what is both is missed more often than all else."""
    dataset = Dataset.objects.create(name="street", root=str(tmp_path), format="folder")
    add_samples(sample_store(), dataset.pk, COUNT)
    for word, parts in (("dark", ("cam1/", "cam2", "cam3")), ("rainy", ("cam11", "cam12", "cam2"))):
        for part in parts:
            services.tags.add(dataset=dataset, filter=SampleFilter(text=part), tag=word, user=None)
    with sample_store().read() as cursor:
        rows = cursor.execute("select id, tags from samples where dataset_id = ? order by id", [dataset.pk]).fetchall()
    chance = np.random.default_rng(2)
    both = np.array([{"dark", "rainy"} <= set(tags) for _, tags in rows])
    assert both.sum() > 100
    ids = [row[0] for row in rows]
    error = chance.exponential(size=COUNT) * np.where(both, 4, 1)
    put = {
        "missed": ("boolean", chance.random(COUNT) < np.where(both, 0.7, 0.1)),
        "error": ("number", error),
        "noise": ("boolean", chance.random(COUNT) < 0.2),
        "camera": ("word", np.array(["left", "right"], dtype=object)[chance.integers(0, 2, COUNT)]),
    }
    with sample_store().write() as cursor:
        for name, (kind, values) in put.items():
            taken = slice(0, COUNT - 100) if name == "error" else slice(None)
            given = {"kind": kind, "ids": ids[taken], "values": values[taken]}
            columns.column_put(cursor, dataset_id=dataset.pk, name=name, **given)  # type: ignore[arg-type]
    return dataset


@pytest.fixture
def ada(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    return client


def test_a_slice_is_found_and_every_figure_is_a_filter(dataset: Dataset, ada: Client) -> None:
    told = json.loads(
        command("explain", "street", "--score", "missed", "--among", "tags", "--among", "split", "--json")
    )
    first = told["slices"][0]
    assert {one["name"] for one in first["features"]} == {"dark", "rainy"}
    assert (told["kind"], told["samples"]) == ("flag", COUNT)
    assert first["low"] < first["difference"] < first["high"]
    assert first["lift"] > 3
    assert first["discovery_rate"] < 0.001

    address = reverse("explain", args=[dataset.pk])
    asked = {"score": "missed", "among": ["tags", "split"]}
    assert ada.get(address, asked, headers={"Accept": "application/json"}).json() == told
    page = ada.get(address, asked)
    row = page.context["rows"][0]
    grid = reverse("dataset", args=[dataset.pk])
    assert row["url"].startswith(grid)
    assert ada.get(row["url"]).context["facets"].total == first["samples"]
    assert ada.get(row["hit_url"]).context["facets"].total == first["hits"]
    for folded in row["folded"]:
        assert ada.get(folded["url"]).context["facets"].total == folded["found"].samples

    table = command("explain", "street", "--score", "missed")
    assert "dark and rainy" in table
    assert "was not measured" in table


def test_a_number_is_explained_among_those_that_have_it(dataset: Dataset, ada: Client) -> None:
    found = services.insights.explain(dataset=dataset, score="error", among=["tags", "category", "column"])
    assert found.samples == COUNT - 100
    first = found.slices[0]
    assert {"dark", "rainy"} & {feature.name for feature in first.features}
    assert services.samples.count(dataset=dataset, filter=first.filter) == first.samples
    assert services.insights.explain(dataset=dataset, score="error", among=["tags", "category", "column"]) is found
    within = services.insights.explain(
        dataset=dataset, score="error", filter=SampleFilter(splits=("val",)), among=["tags"]
    )
    assert within.samples < found.samples
    lower = services.insights.explain(dataset=dataset, score="error", lower=True, among=["tags", "column"])
    assert all(one.difference < 0 for one in lower.slices)
    page = ada.get(reverse("explain", args=[dataset.pk]), {"score": "error", "split": "val"})
    assert [label for label, _ in page.context["chips"]] == ["split val"]


def test_where_nothing_is_nothing_is_said(dataset: Dataset, ada: Client) -> None:
    for score in ("noise", "camera:left"):
        page = ada.get(reverse("explain", args=[dataset.pk]), {"score": score, "among": ["tags", "split", "category"]})
        assert page.context["rows"] == []
        assert "Nothing explains it" in page.content.decode()


def test_what_cannot_be_explained_says_why(dataset: Dataset, ada: Client) -> None:
    address = reverse("explain", args=[dataset.pk])
    for score, status in (("nothing", 404), ("camera", 409), ("missed:yes", 409)):
        assert ada.get(address, {"score": score}).status_code == status
    assert ada.get(address, {"score": "missed", "split": "none"}).status_code == 409
    assert ada.get(address, {"score": "missed", "pmin": "x"}).status_code == 400
    with pytest.raises(NoSuchColumn, match="camera, error, missed, noise"):
        services.insights.explain(dataset=dataset, score="nothing")
    with pytest.raises(NotExplained):
        services.insights.explain(dataset=dataset, score="camera")
    with pytest.raises(CommandError):
        command("explain", "street", "--score", "nothing")
    assert 'name="score"' in ada.get(address).content.decode()


def test_the_commands_of_the_docs(db: None) -> None:
    """With the tags that the demonstration model gives, every command of docs/insights.md does what is said there."""
    dataset = services.datasets.import_folder(path=DEMO_PHOTOS, name="Bundled photographs").dataset
    assert dataset is not None
    for name in DIM:
        services.tags.add(dataset=dataset, filter=SampleFilter(text=name), tag="dim", user=None)
    text = (ROOT / "docs" / "insights.md").read_text()
    lines = re.findall(r"^python manage\.py (.+)$", text, re.MULTILINE)
    said = {}
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        said[line] = command(name, *(str(ROOT / one) if one.startswith("docs/") else one for one in arguments))
    assert len(lines) > 4
    explained = next(out for line, out in said.items() if "--score missed" in line)
    assert explained.splitlines()[0].startswith("32.5 % of 40 images are missed")
    assert re.search(r"^dim +11 +90\.9 %", explained, re.MULTILINE)
    spread, crossed, compared, cameras = (out for line, out in said.items() if line.startswith("distributions"))
    assert re.search(r"^dim +11 +28 %", spread, re.MULTILINE)
    assert re.search(r"^yes +13 +32 %", spread, re.MULTILINE)
    assert re.search(r"^dim +▲ 10 \(3\.6\)", crossed, re.MULTILINE)
    assert re.search(r"^yes +90\.9 % \(10\) +32\.5 % \(13\) +▼", compared, re.MULTILINE)
    assert json.loads(cameras)["clear"] == 0
    assert json.loads(cameras)["asked"] == ["column:camera"]
