"""Measuring without the model, through service, page and command, on a real store."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from PIL import Image

from tests.children import wait_for
from tests.images import make_images
from tests.test_trust import reviewer
from vlm import services
from vlm.datasets import measuring
from vlm.datasets.measuring import MeasureActive
from vlm.demo import DEMO_PHOTOS
from vlm.jobs import stop_all
from vlm.models import Dataset, MeasureJob
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import Measures, SampleFilter, values
from vlm.samples.conditions import MEASURES

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 9


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = make_images(tmp_path / "photos", COUNT)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    done = services.datasets.import_folder(path=folder, name="photos")
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def ada(client: Client) -> Client:
    client.force_login(reviewer("ada"))
    return client


def measures(dataset: Dataset) -> dict[int, Measures]:
    with sample_store().read() as cursor:
        return values.measures_of(cursor, dataset.pk)


def execute(dataset: Dataset, stop: threading.Event | None = None) -> MeasureJob:
    job = services.pixels.measure_create(dataset=dataset, user=None)
    return services.pixels.measure_execute(job_id=job.pk, stop=stop or threading.Event())


def test_what_nobody_measured_is_measured_and_bad_images_are_told(dataset: Dataset) -> None:
    job = execute(dataset)
    assert (job.status, job.done, job.total, job.failed) == ("completed", COUNT + 1, COUNT + 1, 1)
    assert [problem["path"] for problem in job.problems] == ["broken.jpg"]
    assert len(measures(dataset)) == COUNT
    again = execute(dataset)  # the broken one is tried again, nothing else
    assert (again.total, again.failed) == (1, 1)


def test_a_stopped_job_goes_on_where_it_was(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BATCH", 2)
    stop, batches = threading.Event(), measuring._batches

    def one_and_stop(dataset_id: int, halt: threading.Event) -> Iterator[Any]:
        for batch in batches(dataset_id, halt):
            yield batch
            stop.set()
            assert halt.wait(60)  # however fast the machine is, and however late its clock

    monkeypatch.setattr(measuring, "_batches", one_and_stop)
    job = execute(dataset, stop)
    assert job.status == "interrupted"
    before = len(measures(dataset))
    assert 0 < before < COUNT
    monkeypatch.setattr(measuring, "_batches", batches)
    assert execute(dataset).total == COUNT + 1 - before
    assert len(measures(dataset)) == COUNT


def test_one_job_at_a_time_and_cancelling(dataset: Dataset) -> None:
    job = services.pixels.measure_create(dataset=dataset, user=None)
    with pytest.raises(MeasureActive):
        services.pixels.measure_create(dataset=dataset, user=None)
    assert services.pixels.measure_cancel(job=job)
    assert job.status == "cancelled"
    assert not services.pixels.measure_cancel(job=job)
    assert services.pixels.measure_execute(job_id=job.pk, stop=threading.Event()).status == "cancelled"
    assert measures(dataset) == {}


def test_a_job_of_a_dead_process_is_ended(dataset: Dataset) -> None:
    job = services.pixels.measure_create(dataset=dataset, user=None)
    MeasureJob.objects.filter(pk=job.pk).update(worker=f"here:4194305:1:{measuring.jobs._machine()}:ab")
    found = services.pixels.measure_job(dataset=dataset)
    assert found is not None
    assert found.status == "interrupted"


def test_the_page_measures_and_shows(dataset: Dataset, ada: Client) -> None:
    assert b"not yet" in ada.get(reverse("pixels", args=[dataset.pk])).content
    answer = ada.post(reverse("measure", args=[dataset.pk]), headers={"Accept": "application/json"})
    assert answer.status_code == 202
    progress = answer.json()["progress"]

    def is_done() -> bool:
        return ada.get(progress, headers={"Accept": "application/json"}).json()["status"] == "completed"

    wait_for(is_done, "The end of measuring")
    stop_all()
    told = ada.get(reverse("pixels", args=[dataset.pk]), headers={"Accept": "application/json"}).json()
    assert (told["measured"], told["left"], set(told["measures"])) == (COUNT, 1, set(MEASURES))
    page = ada.get(reverse("pixels", args=[dataset.pk])).content.decode()
    assert "could not be read" in page
    assert "broken.jpg" in page
    assert ada.post(reverse("measure_cancel", args=[dataset.pk])).status_code == 409
    sample = next(iter(measures(dataset)))
    assert "What the pixels say" in ada.get(reverse("sample", args=[dataset.pk, sample])).content.decode()


def test_measures_are_orders_filters_and_columns(dataset: Dataset, ada: Client, tmp_path: Path) -> None:
    address = reverse("dataset", args=[dataset.pk])
    assert b'value="luminance"' not in ada.get(address).content  # nothing is measured yet
    execute(dataset)
    found = measures(dataset)
    brightest = max(found, key=lambda sample: found[sample].luminance)
    page = ada.get(f"{address}?order=-measure:luminance").content.decode()
    assert page.index(f'data-id="{brightest}"') == min(page.index(f'data-id="{sample}"') for sample in found)
    low = found[brightest].luminance - 1e-6
    asked = ada.get(address, {"measured": "luminance", "least": repr(low), "most": "", "order": "added"}, follow=True)
    assert "order=added" in asked.redirect_chain[0][0]
    assert f'data-id="{brightest}"' in asked.content.decode()
    assert ada.get(f"{address}?measure=luminance:..").status_code == 400
    assert ada.get(f"{address}?order=measure:smell").status_code == 400
    count = services.samples.count(dataset=dataset, filter=SampleFilter.from_text(f"measure=luminance:{low}.."))
    assert count == sum(one.luminance >= low for one in found.values())

    lines = [json.loads(line) for line in exported(dataset, "jsonl").splitlines()]
    told = {line["id"]: line["measures"] for line in lines}
    assert told[brightest]["luminance"] == pytest.approx(found[brightest].luminance, rel=1e-5)
    assert int(told[brightest]["phash"], 16) == found[brightest].phash
    assert sum(one is None for one in told.values()) == 1  # the broken one
    rows = list(csv.DictReader(io.StringIO(exported(dataset, "csv").decode())))
    assert {int(row["id"]): row["sharpness"] for row in rows}[brightest] == f"{told[brightest]['sharpness']}"
    (parquet := tmp_path / "rows.parquet").write_bytes(exported(dataset, "parquet"))
    typed = duckdb.execute(
        "select measures.sharpness from read_parquet(?) where id = ?", [str(parquet), brightest]
    ).fetchall()
    assert typed == [(told[brightest]["sharpness"],)]
    assert b'"sharpness": ' in exported(dataset, "coco-stored")


def exported(dataset: Dataset, format: str) -> bytes:
    with services.exports.make(dataset=dataset, filter=SampleFilter(), format=format) as made:
        return made.file.read()


def test_the_command_measures(dataset: Dataset) -> None:
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("measure", "photos", "--json", "--no-progress", stdout=out)
    assert ended.value.code == 1  # one could not be read
    told = json.loads(out.getvalue())
    assert (told["status"], told["done"], told["failed"]) == ("completed", COUNT + 1, 1)
    assert len(measures(dataset)) == COUNT


# -- what is found -------------------------------------------------------------------------------------------------------
@pytest.fixture
def pairs(tmp_path: Path) -> Dataset:
    """Nine photographs in a split, and smaller copies of three of them in another."""
    folder = tmp_path / "pairs"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    for place, path in enumerate(sorted(Path(DEMO_PHOTOS).glob("*.jpg"))[:COUNT]):
        with Image.open(path) as image:
            image.draft("RGB", (320, 240))
            small = image.convert("RGB").resize((240, 180))
        small.save(folder / "train" / f"{place}.png")
        if place < 3:
            small.resize((160, 120)).save(folder / "val" / f"copy-of-{place}.png")
    done = services.datasets.import_folder(path=folder, name="pairs")
    assert done.dataset is not None
    execute(done.dataset)
    return done.dataset


def test_images_that_are_nearly_the_same_are_shown_edited_and_listed(pairs: Dataset, ada: Client) -> None:
    found = services.pixels.nearly_same(dataset=pairs, listed=9)
    assert (found.groups, found.samples, found.leaking) == (3, 6, 6)
    assert [(leak.split, leak.other, leak.groups) for leak in found.leaks] == [("train", "val", 3)]
    number = found.listed[0][0].number
    page = ada.get(reverse("sample", args=[pairs.pk, number])).content.decode()
    assert f"?group={number}" in page
    assert "<b>1</b> like this" in page
    grid = ada.get(reverse("dataset", args=[pairs.pk]), {"mark": "leak"}).content.decode()
    assert grid.count('class="cell') == 6
    assert "Nearly the same" in grid

    asked = {"group": number, "tag": "twin", "action": "add"}
    done = ada.post(reverse("edit_tags", args=[pairs.pk]), asked, headers={"Accept": "application/json"}).json()
    assert done["changed"] == 2
    (edit,) = services.tags.edits(dataset=pairs)
    assert (edit.way, edit.samples) == ("group", 2)

    out = StringIO()
    call_command("duplicates", "pairs", "--distance", "0", "--json", stdout=out)
    assert json.loads(out.getvalue())["distance"] == 0
    call_command("duplicates", "pairs", "--distance", "4", stdout=(text := StringIO()))
    assert "6 images are in 3 groups; 6 leak between splits." in text.getvalue()
    with pytest.raises(CommandError, match="0 to 12"):
        call_command("duplicates", "pairs", "--distance", "13")
    page = ada.get(reverse("pixels", args=[pairs.pk])).content.decode()
    assert "leak between splits" in page
    assert "train and val" in page


def test_contradictions_are_listed_reviewed_and_gone(dataset: Dataset, ada: Client) -> None:
    execute(dataset)
    found = measures(dataset)
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=tuple(found)), tag="dark", user=None)
    find = reverse("pixels_find", args=[dataset.pk])
    assert ada.post(find, {"beyond": "20"}).status_code == 400
    assert ada.post(find, {"distance": "70"}).status_code == 400
    told = ada.post(find, {"beyond": "90"}, headers={"Accept": "application/json"}).json()["contradictions"]
    brightest = max(found, key=lambda sample: found[sample].luminance)
    assert told["samples"] == 1
    assert told["words"] == [
        {"dimension": "lighting", "word": "dark", "measure": "luminance", "side": "high", "count": 1}
    ]
    assert (
        "Tagged “dark”, but brighter than" in ada.get(reverse("sample", args=[dataset.pk, brightest])).content.decode()
    )
    assert "1</b> contradicts a tag" in ada.get(reverse("dataset", args=[dataset.pk])).content.decode()
    call_command("contradictions", "photos", "--json", stdout=(out := StringIO()))
    (row,) = json.loads(out.getvalue())["listed"]
    assert (row["id"], row["word"], row["measure"]) == (brightest, "dark", "luminance")

    review = reverse("contradictions_review", args=[dataset.pk])
    answer = ada.post(review, {"dimension": "lighting"})
    assert answer.status_code == 302
    queue = services.review.queue(dataset=dataset, dimension="lighting", who="x")
    assert queue.current is not None
    assert (queue.current.sample.id, queue.current.probability) == (brightest, None)
    services.review.decide(
        dataset=dataset, dimension="lighting", batch=queue.batch, sample_id=brightest, word="dark", user=None
    )
    assert services.pixels.contradicting(dataset=dataset) == 0
    assert ada.post(review, {"dimension": "lighting"}).status_code == 409


def test_a_run_looks_at_its_end(pairs: Dataset) -> None:
    with sample_store().write() as cursor:
        cursor.execute("delete from marks").fetchall()
        cursor.execute("update findings set samples = -1").fetchall()
    run = services.runs.create(dataset=pairs, options=RunOptions(), user=None, origin="command")
    assert services.runs.execute(run_id=run.pk, stop=threading.Event()).status == "completed"
    assert services.pixels.nearly_same(dataset=pairs, listed=1).groups == 3
