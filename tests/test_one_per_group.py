"""One image per group as a run's scope: asked once, taken over by the others, and treated like any answer from then on."""

import csv
import io
import json
import shutil
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from PIL import Image

from tests.images import make_images
from tests.stops import stopped_in
from tests.test_trust import reviewer
from vlm import services
from vlm.admin import RunOptionsForm
from vlm.forms import AutoTagForm
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs import calibrating, loop
from vlm.runs.errors import NotGrouped, NothingToTag
from vlm.runs.options import RunOptions
from vlm.samples import Edit, Label, SampleFilter, trust
from vlm.samples.editing import labels_add
from vlm.scoring import decoding
from vlm.statistics.calibration import Calibration, Key, Quality

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status

COUNT, ASKED, SHARED = 8, 5, 3
DUMPS = {
    "answers": "select run_id, sample_id, dimension, words, probabilities, mass, word, probability, accepted, reason, current, raw",
    "sample_tags": "select sample_id, tag, dimension, source, probability, run_id, place, ended_by",
    "rejections": "select sample_id, tag, ended_by",
    "samples": "select id, tags, user_count, certainty, discarded, failed, answered",
    "run_totals": "select *",
    "run_samples": "select run_id, sample_id, status, detail",
    "shares": "select *",
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures; of the first there are two copies more, of the second one."""
    folder = make_images(tmp_path / "photos", ASKED)
    for name in ("000b", "000c", "001b"):
        shutil.copyfile(folder / f"{name[:3]}.jpg", folder / f"{name}.jpg")
    return folder


@pytest.fixture
def dataset(photos: Path) -> Dataset:
    done = services.datasets.import_folder(path=photos, name="photos")
    assert done.dataset is not None
    job = services.pixels.measure_create(dataset=done.dataset, user=None)
    services.pixels.measure_execute(job_id=job.pk, stop=threading.Event())
    found = services.pixels.nearly_same(dataset=done.dataset, listed=9)
    assert (found.groups, found.samples) == (2, 5)
    return done.dataset


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that runs have decoded."""
    paths: list[str] = []
    decode = decoding.decode

    def told(sample: Any, *rest: Any) -> Any:
        paths.append(sample.path)
        return decode(sample, *rest)

    monkeypatch.setattr(decoding, "decode", told)
    return paths


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    options = {"one_per_group": True, **options}
    return services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")


def execute(run: TaggingRun) -> TaggingRun:
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def rows(query: str, *values: object) -> list[tuple[Any, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(query, list(values)).fetchall()


def state() -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(f"{what} from {table} order by all") for table, what in DUMPS.items()}


def ids() -> dict[str, int]:
    return dict(rows("select path, id from samples"))


def alike(run: TaggingRun) -> None:
    """Whoever took an answer over has just that of its source, once; the store is sound, and the counts are its."""
    columns = ("words", "probabilities", "mass", "word", "probability", "accepted", "reason", "text", "raw", "current")
    same = " and ".join(f"a.{name} is not distinct from b.{name}" for name in columns)
    compared = (
        f"select count(*), count(*) filter ({same}) from shares h join answers a on a.run_id = h.run_id "
        "and a.sample_id = h.sample_id join answers b on b.run_id = h.run_id and b.sample_id = h.source_id "
        "and b.dimension = a.dimension where h.run_id = ?"
    )
    run.refresh_from_db()
    assert rows(compared, run.pk) == [(5 * run.shared, 5 * run.shared)]
    assert set(
        rows("select count(*), count(distinct dimension) from answers where run_id = ? group by sample_id", run.pk)
    ) == {(5, 5)}
    assert services.datasets.check_store().is_sound


def test_one_image_of_each_group_is_asked(dataset: Dataset, decoded: list[str]) -> None:
    run = execute(create(dataset))
    assert (run.status, run.total, run.processed, run.shared, run.failed) == (Status.COMPLETED, COUNT, COUNT, SHARED, 0)
    assert len(decoded) == len(set(decoded)) == ASKED
    of = ids()
    groups = ({of["000.jpg"], of["000b.jpg"], of["000c.jpg"]}, {of["001.jpg"], of["001b.jpg"]})
    assert rows("select sample_id, source_id from shares order by 1") == sorted(
        (one, min(group)) for group in groups for one in group - {min(group)}
    )
    alike(run)
    with pytest.raises(NothingToTag):
        create(dataset)
    with pytest.raises(NothingToTag):
        create(dataset, one_per_group=False)  # a shared answer is an answer
    again = execute(create(dataset, one_per_group=False, scope="all", filter=SampleFilter(shared_in=run.pk)))
    assert (again.processed, again.shared) == (SHARED, 0)
    assert {
        tag.shared_from for row in services.samples.by_id(dataset=dataset, ids=list(of.values())) for tag in row.tags
    } == {None}


def test_it_is_off_by_default_and_needs_groups(dataset: Dataset, photos: Path) -> None:
    assert not RunOptions().one_per_group
    assert execute(create(dataset, one_per_group=False)).shared == 0
    other = services.datasets.import_folder(path=make_images(photos.parent / "more", 2), name="more").dataset
    assert other is not None
    for refused in (
        lambda: create(other),
        lambda: services.runs.preview(dataset=other, options=RunOptions(one_per_group=True)),
        lambda: services.runs.extent(dataset=other, options=RunOptions(one_per_group=True)),
    ):
        with pytest.raises(NotGrouped, match="Measure the data set first"):
            refused()


def test_what_users_said_stands_against_shared_answers(dataset: Dataset) -> None:
    plain = execute(create(dataset))
    of = ids()
    source, taker, other = sorted((of["000.jpg"], of["000b.jpg"], of["000c.jpg"]))
    word = rows(
        "select word from answers where run_id = ? and sample_id = ? and dimension = 'setting'", plain.pk, source
    )[0][0]
    services.runs.revert(run=plain)
    assert state()["answers"] == state()["sample_tags"] == state()["shares"] == []
    against = "outdoor" if word == "indoor" else "indoor"
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=(taker,)), tag=against, user=None)
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=(other,)), tag=word, user=None)
    services.tags.remove(dataset=dataset, filter=SampleFilter(ids=(other,)), tag=word, user=None)
    before = state()
    run = execute(create(dataset, scope="all"))
    tags = dict(rows("select id, tags from samples"))
    assert against in tags[taker]
    assert word not in tags[taker]
    assert word not in tags[other]
    assert word in tags[source]
    services.runs.revert(run=run)
    assert state() == before


def test_thresholds_and_calibrations_treat_them_like_their_source(dataset: Dataset) -> None:
    run = execute(create(dataset))
    (least,) = rows("select median(probability) from answers where run_id = ? and dimension = 'weather'", run.pk)[0]
    done = services.runs.reapply(run=run, min_probability=least, min_mass=0, dimension="weather")
    assert 0 < done.discarded < COUNT
    alike(run)
    before = state()
    with sample_store().read() as cursor:
        (own,) = trust.answer_keys(cursor, dataset.pk, "setting")
    quality = Quality(0.7, 0.1)
    key = Key(own.model, own.revision, own.dtype, own.detail, own.question)
    calibration = Calibration(key, ("indoor", "outdoor"), 2.0, (0.1, -0.1), 30, quality, quality)
    changed = calibrating.apply(dataset=dataset, dimension="setting", calibration=calibration, by=Edit())
    assert changed.answers == COUNT
    assert rows("select count(*) from answers where raw is not null") == [(COUNT,)]
    alike(run)
    services.runs.revert(run=run)
    later = execute(create(dataset))  # what comes in meanwhile is calibrated as it comes, and taken over so
    assert rows("select count(*) from answers where raw is not null") == [(COUNT,)]
    alike(later)
    calibrating.end(dataset=dataset, dimension="setting")
    assert rows("select count(*) from answers where raw is not null") == [(0,)]
    assert [row[1:7] for row in state()["answers"] if row[2] == "setting"] == [
        row[1:7] for row in before["answers"] if row[2] == "setting"
    ]


def test_an_image_that_cannot_be_read_leaves_its_place_to_the_next(
    dataset: Dataset, photos: Path, decoded: list[str]
) -> None:
    first = min(("000.jpg", "000b.jpg", "000c.jpg"), key=ids().__getitem__)
    (photos / first).write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    run = execute(create(dataset, limit=COUNT))
    assert (run.status, run.processed, run.failed, run.shared) == (Status.COMPLETED, COUNT, 1, 2)
    assert len(decoded) == ASKED + 1
    assert services.datasets.check_store().is_sound


@pytest.mark.parametrize("mode", ["score", "generate"])
def test_a_limit_counts_shared_answers_too(dataset: Dataset, decoded: list[str], mode: str) -> None:
    run = execute(create(dataset, limit=4, mode=mode))  # by name: the first with its copies, and the second
    assert (run.status, run.total, run.processed, run.shared) == (Status.COMPLETED, 4, 4, 2)
    assert decoded == ["000.jpg", "001.jpg"]
    alike(run)


def test_a_replaced_file_lacks_answers_again(dataset: Dataset, photos: Path) -> None:
    execute(create(dataset))
    taker = max(("001.jpg", "001b.jpg"), key=ids().__getitem__)
    Image.new("RGB", (90, 60), "white").save(photos / taker)
    services.datasets.import_folder(path=photos, name="photos")
    run = execute(create(dataset))
    assert (run.processed, run.shared) == (1, 0)
    assert services.datasets.check_store().is_sound


def test_a_stopped_run_goes_on_and_answers_everything_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = execute(create(dataset))
    expected = [row[1:] for row in state()["answers"]]
    services.runs.revert(run=whole)
    run = create(dataset, batch_size=1)
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0)
    with stopped_in("merge_batch") as stop:
        run = services.runs.execute(run_id=run.pk, stop=stop)
    assert run.status == Status.INTERRUPTED
    assert 0 < run.processed < COUNT
    services.runs.requeue(run=run, user=None, origin="command")
    run = execute(run)
    assert (run.status, run.processed, run.shared, run.total) == (Status.COMPLETED, COUNT, SHARED, COUNT)
    assert [row[1:] for row in state()["answers"]] == [
        (*row[:3], pytest.approx(row[3]), pytest.approx(row[4]), row[5], pytest.approx(row[6]), *row[7:])
        for row in expected
    ]
    alike(run)


def test_the_second_pass_asks_one_of_each_group_too(dataset: Dataset) -> None:
    run = execute(create(dataset, detail="auto", full_share=0.6))
    assert (run.status, run.processed, run.shared) == (Status.COMPLETED, COUNT, SHARED)
    asked = rows(
        "select count(*) from run_samples where run_id = ? and detail = 'full' and sample_id not in (select sample_id from shares)",
        run.pk,
    )
    assert asked == [(3,)]
    assert rows(
        "select count(*) from shares h join run_samples a on a.run_id = h.run_id and a.sample_id = h.sample_id "
        "join run_samples b on b.run_id = h.run_id and b.sample_id = h.source_id where a.detail <> b.detail"
    ) == [(0,)]
    alike(run)


def test_labels_of_shared_answers_are_one_draw(dataset: Dataset) -> None:
    execute(create(dataset, dimensions=("setting",)))
    with sample_store().write() as cursor:
        cursor.execute("delete from marks").fetchall()  # whatever becomes of the groups
        labels_add(
            cursor,
            dataset_id=dataset.pk,
            labels=[Label(one, "setting", "indoor", 1.0, "", "draw-1") for one in ids().values()],
        )
        found = trust.decided(cursor, dataset.pk, "setting", ("indoor", "outdoor"))
    labels, _ = services.accuracy.random_labels(found, {"draw-1": COUNT})
    assert labels.group is not None
    numbers, sizes = zip(
        *sorted({number: list(labels.group).count(number) for number in labels.group}.items()), strict=True
    )
    assert numbers[0] == -1
    assert sorted(sizes) == [2, 3, 3]  # those that are alone, and the two groups


def test_every_door_offers_and_tells_it(dataset: Dataset, client: Client, tmp_path: Path) -> None:
    client.force_login(reviewer("ada"))
    form = AutoTagForm({"one_per_group": "1"})
    assert form.is_valid(), form.errors
    assert form.options().one_per_group
    plain = AutoTagForm({})
    assert plain.is_valid()
    assert not plain.options().one_per_group
    assert "one_per_group" in RunOptionsForm().fields
    json_of = {"accept": "application/json"}
    asked = client.get(reverse("auto_tag_count", args=[dataset.pk]), {"one_per_group": "1"}, headers=json_of).json()
    assert (asked["count"], asked["asked"]) == (COUNT, ASKED)
    panel = client.get(
        reverse("auto_tag_count", args=[dataset.pk]), {"one_per_group": "1"}, headers={"HX-Request": "true"}
    )
    assert "3 of them take another’s answers" in panel.content.decode()

    dry = StringIO()
    call_command("autotag", "photos", "--one-per-group", "--dry-run", "--json", "--no-progress", stdout=dry)
    assert len(json.loads(dry.getvalue())["samples"]) == ASKED
    out = StringIO()
    call_command("autotag", "photos", "--one-per-group", "--no-progress", stdout=out)
    assert "3 with a shared answer" in " ".join(out.getvalue().split())
    run = TaggingRun.objects.get()
    told = StringIO()
    call_command("runs", "--json", "--run", str(run.pk), stdout=told)
    assert json.loads(told.getvalue())["shared"] == SHARED
    with pytest.raises(CommandError, match="--one-per-group would change nothing"):
        call_command("autotag", "photos", "--resume", "--one-per-group", "--no-progress")

    of = ids()
    source, taker = sorted((of["001.jpg"], of["001b.jpg"]))
    page = client.get(reverse("sample", args=[dataset.pk, taker])).content.decode()
    name = next(path for path, one in of.items() if one == source)
    assert f'Shared from <a href="{reverse("sample", args=[dataset.pk, source])}">{name}</a>' in page
    assert (
        f'shared from <a href="{reverse("sample", args=[dataset.pk, source])}">number {source}</a>' in page
    )  # its history
    assert "hared from" not in client.get(reverse("sample", args=[dataset.pk, source])).content.decode()
    full = client.get(reverse("sample", args=[dataset.pk, taker]), headers=json_of).json()
    assert {one["shared_from"] for one in full["answers"]} == {source}
    assert f"shared_in={run.pk}" in client.get(reverse("run", args=[run.pk])).content.decode()

    for format in ("csv", "jsonl", "parquet", "coco-stored"):
        call_command("export_tags", "photos", "--format", format, "--output", str(tmp_path / format))
    table = {
        int(row["id"]): json.loads(row["tags"]) for row in csv.DictReader(io.StringIO((tmp_path / "csv").read_text()))
    }
    lines = {one["id"]: one["tags"] for one in map(json.loads, (tmp_path / "jsonl").read_text().splitlines())}
    with duckdb.connect() as connection:
        typed = dict(connection.execute("select id, tags from read_parquet(?)", [str(tmp_path / "parquet")]).fetchall())
    coco = {one["datavisor_id"]: one["tags"] for one in json.loads((tmp_path / "coco-stored").read_text())["images"]}
    for found in (table, lines, typed, coco):
        assert {tag["shared_from"] for tag in found[taker]} == {source}
        assert {tag["shared_from"] for tag in found[source]} == {None}
