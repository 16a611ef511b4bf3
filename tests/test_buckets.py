"""Data sets whose images lie in a bucket, from their import to their end, on a real S3 server."""

import csv
import io
import json
import logging
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.urls import reverse

from tests.buckets import BUCKET, KEY, SECRET, BucketServer, Doorway, bucket, bucket_server, doorway  # noqa: F401  (fixtures)
from tests.children import PATIENCE, wait_for
from tests.formats.material import coco, write_json
from tests.images import make_images
from vlm import services
from vlm.errors import RootAway
from vlm.formats import ExportFailed, ImportFailed
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.roots import objects, waiting
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter, SampleRow
from vlm.services.folders import LayoutRefused

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

COUNT = 6
EVERYTHING = SampleFilter()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", COUNT)


@pytest.fixture
def url(data_dir: Path, bucket: BucketServer, photos: Path, request: pytest.FixtureRequest) -> str:  # noqa: F811
    """A prefix of this test's own, with the photos below it."""
    return bucket.upload(photos, request.node.name)


@pytest.fixture
def dataset(url: str) -> Dataset:
    return imported(url)


def imported(url: str, name: str = "there") -> Dataset:
    done = services.datasets.import_folder(path=url, name=name)
    assert done.dataset is not None
    return done.dataset


def rows(dataset: Dataset) -> dict[str, SampleRow]:
    page = services.samples.page(dataset=dataset, filter=EVERYTHING, limit=1000)
    return {row.path: row for row in page.samples}


def run_over(dataset: Dataset, stop: threading.Event | None = None) -> TaggingRun:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    return services.runs.execute(run_id=run.pk, stop=stop or threading.Event())


def tags_of(dataset: Dataset) -> dict[str, list[tuple[str, float | None]]]:
    return {path: [(tag.tag, tag.probability) for tag in row.tags] for path, row in rows(dataset).items()}


def exported(dataset: Dataset, format: str) -> bytes:
    with services.exports.make(dataset=dataset, filter=EVERYTHING, format=format) as export:
        return export.file.read()


# -- as on disk ----------------------------------------------------------------------------------------------------------------
def test_a_folder_in_a_bucket_is_tagged_as_on_disk(url: str, photos: Path) -> None:
    done = services.datasets.import_folder(path=url + "/", name="there")
    there = done.dataset
    here = imported(str(photos), "here")
    assert there is not None
    assert (there.root, there.sample_count, done.skips) == (url, COUNT, [])
    for dataset in (here, there):
        run = run_over(dataset)
        assert (run.status, run.processed, run.failed, run.error) == ("completed", COUNT, 0, "")
    tags = tags_of(here)
    assert tags_of(there) == tags
    assert any(tags.values())
    head = ("width", "height", "bytes", "taken", "camera")
    assert [[getattr(row, name) for name in head if hasattr(row, name)] for row in rows(there).values()] == [
        [getattr(row, name) for name in head if hasattr(row, name)] for row in rows(here).values()
    ]


def test_importing_again_tells_what_changed(url: str, dataset: Dataset, bucket: BucketServer, photos: Path) -> None:  # noqa: F811
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    run_over(dataset)
    ids = {path: row.id for path, row in rows(dataset).items()}
    contents = {path.name: path.read_bytes() for path in photos.iterdir()}
    bucket.put(
        {
            f"{prefix}/new.jpg": contents["000.jpg"],
            f"{prefix}/002.jpg": contents["003.jpg"],
            f"{prefix}/moved/004.jpg": contents["004.jpg"],
        }
    )
    bucket.delete(f"{prefix}/001.jpg", f"{prefix}/004.jpg")
    assert services.datasets.import_folder(path=url, name="there", dry_run=True).summary["new"] == 1
    done = services.datasets.import_folder(path=url)  # known by its root, whatever its name
    assert done.dataset == dataset
    assert done.summary == {"new": 1, "known": COUNT - 1, "changed": 1, "renamed": 1, "back": 0, "gone": 1}
    now = {path: row.id for path, row in rows(dataset).items()}
    assert now["moved/004.jpg"] == ids["004.jpg"]
    run = run_over(dataset)
    assert (run.processed, run.failed) == (2, 0)  # the new one, and the one with another picture


def test_a_watch_imports_and_tags_what_is_new(url: str, dataset: Dataset, bucket: BucketServer, photos: Path) -> None:  # noqa: F811
    call_command("watch", "there", once=True)
    assert TaggingRun.objects.filter(dataset=dataset).count() == 1
    bucket.put({f"{url.removeprefix(f's3://{BUCKET}/')}/new.jpg": (photos / "000.jpg").read_bytes()})
    call_command("watch", "there", once=True)
    call_command("watch", "there", once=True)  # nothing new, no run
    assert [run.processed for run in TaggingRun.objects.filter(dataset=dataset).order_by("pk")] == [COUNT, 1]


def test_coco_and_yolo_are_read_and_written_as_on_disk(
    data_dir: Path,
    bucket: BucketServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    names = [f"{number:03}.jpg" for number in range(COUNT)]
    make_images(tmp_path / "coco" / "images", COUNT)
    json_file = write_json(tmp_path / "coco/annotations/instances_train.json", coco(*names))
    make_images(tmp_path / "yolo/images/train", COUNT)
    for name in names[:4]:
        label = tmp_path / "yolo/labels/train" / name.replace(".jpg", ".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("" if name == names[3] else "1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    for format in ("coco", "yolo"):
        url = bucket.upload(tmp_path / format, f"formats/{format}")
        here, there = imported(str(tmp_path / format), f"{format} here"), imported(url, f"{format} there")
        assert (there.format, there.sample_count) == (format, COUNT)
        for name in ("jsonl", "coco", "coco-stored", "yolo"):
            assert comparable(exported(there, name)) == comparable(exported(here, name))
    described = services.datasets.import_folder(
        path=f"{bucket.upload(tmp_path / 'coco', 'one')}/annotations/{json_file.name}", name="one"
    )
    assert (str(described.root), described.total) == (f"s3://{BUCKET}/one", COUNT)


def comparable(content: bytes) -> object:
    """Return an export without what two data sets never share: their names and the ids of their images."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist() if name != "samples.csv"}
    found = [json.loads(line) for line in content.splitlines()] if content.startswith(b'{"id"') else json.loads(content)
    for image in found if isinstance(found, list) else found["images"]:
        image.pop("datavisor_id", None)
        image.pop("id")
    if isinstance(found, dict):
        found.pop("datavisor", None)
        found["info"] = {}
        found["annotations"] = [one | {"image_id": 0} for one in found["annotations"]]
    return found


def test_pictures_measures_and_exports(url: str, dataset: Dataset, photos: Path, tmp_path: Path) -> None:
    first = min(rows(dataset).values(), key=lambda row: row.path)
    here = imported(str(photos), "here")
    same = min(rows(here).values(), key=lambda row: row.path)
    for size in (160, 640):
        made = services.samples.thumbnail(dataset=dataset, sample_id=first.id, size=size)
        other = services.samples.thumbnail(dataset=here, sample_id=same.id, size=size)
        assert made is not None
        assert other is not None
        assert made.content == other.content
    facts = services.samples.file_facts(dataset=dataset, sample=first)
    assert facts == services.samples.file_facts(dataset=here, sample=same)
    assert facts is not None
    assert facts.bytes == (photos / first.path).stat().st_size
    call_command("measure", "there", no_progress=True)
    call_command("duplicates", "there")
    assert exported(dataset, "files").decode().splitlines() == [f"{url}/{path}" for path in sorted(rows(dataset))]
    with zipfile.ZipFile(io.BytesIO(exported(dataset, "pictures"))) as archive:
        assert archive.read(f"images/{first.path}") == (photos / first.path).read_bytes()
        assert len(list(csv.reader(io.StringIO(archive.read("samples.csv").decode())))) == COUNT + 1
    assert b"sharpness" in exported(dataset, "csv")
    assert exported(dataset, "parquet")
    with pytest.raises(ExportFailed, match="export_images --copy"):
        exported(dataset, "fiftyone")
    with pytest.raises(LayoutRefused, match="--copy"):
        services.folders.lay_out(dataset=dataset, filter=EVERYTHING, into=tmp_path / "out")
    with pytest.raises(LayoutRefused, match="--into"):
        services.folders.write_sidecars(dataset=dataset, filter=EVERYTHING)
    assert services.folders.lay_out(dataset=dataset, filter=EVERYTHING, into=tmp_path / "out", copy=True).made == COUNT
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in photos.iterdir()
    }
    assert services.folders.write_sidecars(dataset=dataset, filter=EVERYTHING, into=tmp_path / "xmp").made == COUNT


def test_a_data_set_moves_into_a_bucket_and_out_of_it(
    url: str,
    photos: Path,
    settings: object,
    data_dir: Path,
) -> None:
    dataset = imported(str(photos), "here")
    run_over(dataset)
    tags = tags_of(dataset)
    settings.IMPORT_URLS = [f"s3://{BUCKET}"]  # type: ignore[attr-defined]
    assert services.datasets.relocate(dataset=dataset, path=url).there == COUNT
    assert dataset.root == url
    with pytest.raises(ImportFailed, match="Only 0 of 6"):
        services.datasets.relocate(dataset=dataset, path=f"s3://{BUCKET}/elsewhere")
    done = services.datasets.import_folder(path=url, name="here")
    assert (done.summary["known"], done.summary["changed"]) == (COUNT, 0)
    assert tags_of(dataset) == tags
    assert services.samples.thumbnail(dataset=dataset, sample_id=rows(dataset)["000.jpg"].id, size=160)
    services.datasets.relocate(dataset=dataset, path=str(photos))
    assert dataset.root == str(photos)
    services.datasets.relocate(dataset=dataset, path=url)
    services.datasets.delete(dataset=dataset)
    assert not list((data_dir / "thumbnails").glob("*/folder"))


# -- away --------------------------------------------------------------------------------------------------------------------------
@contextmanager
def shut_after(doorway: Doorway, reads: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:  # noqa: F811
    """Shut the way to the server once so many pictures were read; yields what is set when somebody waits for it."""
    waits, lock, own = threading.Event(), threading.Lock(), objects.ObjectRoot.source
    left = [reads]

    def source(self: objects.ObjectRoot, path: str) -> object:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                doorway.shut()
        return own(self, path)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Waiting for it" in record.getMessage():
                waits.set()

    handler = Told()
    monkeypatch.setattr(objects.ObjectRoot, "source", source)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0})
    waiting.logger.addHandler(handler)
    try:
        yield waits
    finally:
        waiting.logger.removeHandler(handler)


def test_a_bucket_away_for_a_while_fails_no_image(
    dataset: Dataset,
    doorway: Doorway,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    with shut_after(doorway, 3, monkeypatch) as waits:

        def bring_back() -> None:
            try:
                assert waits.wait(PATIENCE)
                # Whoever looks at the run is told what it waits for; why, depends on what was under way.
                wait_for(
                    lambda: "cannot be reached" in TaggingRun.objects.get().error, "The run's word for its waiting"
                )
                told.set()
            finally:
                connections.close_all()
                doorway.open()

        helper = threading.Thread(target=bring_back)
        helper.start()
        run = run_over(dataset)
        helper.join()
    assert told.is_set()
    assert (run.status, run.processed, run.failed, run.error) == ("completed", COUNT, 0, "")


def test_a_run_that_waits_for_a_bucket_can_be_stopped(
    dataset: Dataset,
    doorway: Doorway,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = threading.Event()
    with shut_after(doorway, 3, monkeypatch) as waits:

        def halt() -> None:
            assert waits.wait(PATIENCE)
            stop.set()

        helper = threading.Thread(target=halt)
        helper.start()
        run = run_over(dataset, stop)
        helper.join()
    assert (run.status, run.failed) == ("interrupted", 0)
    doorway.open()
    assert finished(run).processed == COUNT


def test_a_bucket_away_for_long_fails_the_run_which_resumes(
    dataset: Dataset,
    doorway: Doorway,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    settings: object,
) -> None:
    settings.ROOT_WAIT = 0.2  # type: ignore[attr-defined]
    with shut_after(doorway, 3, monkeypatch):
        run = run_over(dataset)
        assert (run.status, run.failed) == ("failed", 0)
        # How a door that is shut looks from inside depends on what was under way.
        assert re.search(
            "cannot be reached: (nobody answers there|no answer came in time|it does not answer as it should)",
            run.error,
        )
        assert "It was away for" in run.error
        # Somebody who looks at pictures meanwhile breaks nothing either.
        sample = next(iter(rows(dataset).values()))
        assert services.samples.file_facts(dataset=dataset, sample=sample) is None
        with pytest.raises(RootAway):
            services.samples.thumbnail(dataset=dataset, sample_id=sample.id, size=160)
        with pytest.raises(RootAway):
            services.datasets.import_folder(path=dataset.root)
    doorway.open()
    settings.ROOT_WAIT = PATIENCE  # type: ignore[attr-defined]  # of before may be connections that are known to be broken only when used
    run = finished(run)
    assert (run.status, run.processed, run.failed) == ("completed", COUNT, 0)


def finished(run: TaggingRun) -> TaggingRun:
    """Go on with a run to its end."""
    run = services.runs.requeue(run=run, user=None, origin="command")
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def test_an_object_that_is_gone_is_one_failed_image(url: str, dataset: Dataset, bucket: BucketServer) -> None:  # noqa: F811
    bucket.delete(f"{url.removeprefix(f's3://{BUCKET}/')}/002.jpg")
    run = run_over(dataset)
    assert (run.status, run.processed, run.failed) == ("completed", COUNT, 1)
    with sample_store().read() as cursor:
        errors = cursor.execute("select error from run_samples where run_id = ? and error <> ''", [run.pk]).fetchall()
    assert errors == [("The file 002.jpg is not there (any more).",)]


# -- who may, and what is told -----------------------------------------------------------------------------------------------------
def test_the_page_imports_below_the_urls_of_the_settings_only(url: str, admin_client: Client, settings: object) -> None:
    def asked(path: str) -> tuple[int, str]:
        answer = admin_client.post(reverse("import_new"), {"path": path, "action": "preview"})
        return answer.status_code, answer.content.decode()

    status, page = asked(url)
    assert (status, "DATAVISOR_IMPORT_URLS" in page) == (400, True)
    settings.IMPORT_URLS = [f"s3://{BUCKET}/other", url + "/"]  # type: ignore[attr-defined]
    status, page = asked(url)
    assert (status, f"<b>{COUNT}</b> images" in page) == (200, True)
    for beside in (
        f"s3://{BUCKET}",
        f"{url}-old",
        f"{url}/../x",
        "s3://another/x",
        "http://127.0.0.1/x",
        "s3://user:pass@x/y",
    ):
        status, page = asked(beside)
        assert (status, "is not below the import URLS".lower() in page.lower() or "Choose one below" in page) == (
            400,
            True,
        )
        assert "user:pass" not in page.split('name="path"')[0]
    listed = admin_client.get(reverse("import_folders"), {"path": ""}, headers={"Accept": "application/json"}).json()
    assert {entry["path"] for entry in listed["entries"]} >= {f"s3://{BUCKET}/other", url}
    assert admin_client.get(reverse("import_folders"), {"path": url}).status_code == 200
    started = admin_client.post(
        reverse("import_new"), {"path": url, "action": "start"}, headers={"Accept": "application/json"}
    )
    assert started.status_code == 202
    job = services.datasets.import_job(job_id=started.json()["import"])
    assert job is not None
    assert (job.path, job.name) == (url, url.rpartition("/")[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"AWS_SECRET_ACCESS_KEY": "wrong-secret-of-somebody"},
        {"AWS_ACCESS_KEY_ID": "nobody-knows-this-key"},
        {"AWS_ENDPOINT_URL": "http://somebody:wrong-secret-of-somebody@127.0.0.1:9"},
    ],
)
def test_no_secret_comes_into_database_log_export_or_page(
    wrong: dict[str, str],
    dataset: Dataset,
    url: str,
    data_dir: Path,
    admin_client: Client,
    settings: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.IMPORT_URLS, settings.ROOT_WAIT = [url], 0  # type: ignore[attr-defined]
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0})
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        run = run_over(dataset)
        assert (run.status, run.failed) == ("failed", 0)
        told.append(run.error)
        sample = next(iter(rows(dataset).values()))
        for address in (
            reverse("dataset", args=[dataset.pk]),
            reverse("thumbnail", args=[dataset.pk, sample.id, 640]),
            reverse("runs", args=[dataset.pk]),
        ):
            told.append(admin_client.get(address).content.decode())
        told.append(admin_client.post(reverse("import_new"), {"path": url, "action": "preview"}).content.decode())
        calls: list[Callable[[], object]] = [
            lambda: call_command("import_dataset", url),
            lambda: call_command("import_dataset", url, json=True),
            lambda: call_command("autotag", "there", no_progress=True),
        ]
        for call in calls:
            with pytest.raises((CommandError, SystemExit)) as error:
                call()
            told.append(str(error.value))
        told.append(exported(dataset, "jsonl").decode())
        told += capsys.readouterr()
    said = "\n".join([caplog.text, *told]).encode()
    kept = [path.read_bytes() for path in data_dir.rglob("*") if path.is_file()]
    kept.append(Path(str(settings.DATABASES["default"]["TEST"]["NAME"])).read_bytes())  # type: ignore[attr-defined]
    for secret in (KEY, SECRET, *wrong.values(), "wrong-secret-of-somebody"):
        assert not any(secret.encode() in content for content in (said, *kept)), secret
