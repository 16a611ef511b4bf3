"""Every expected error, through every door: a sentence and a status or an exit code, never a 500 or a trace."""

import importlib
import json
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DataError, OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

import vlm
from tests.children import PATIENCE
from tests.images import make_images
from tests.test_jobs import worker_of
from vlm import services
from vlm.errors import DatabaseFull, DatabaseUnusable, Refusal
from vlm.models import Dataset, Dimension, TaggingRun
from vlm.process import sample_store
from vlm.routing import websocket_urlpatterns
from vlm.samples import Answer, Result, SampleFilter
from vlm.samples.merging import merge_batch

NEVER_LEAVE_THEIR_ROOM = {
    "Refused",
    "JSONBroken",
    "YAMLBroken",
    "Ambiguous",
    "NotKept",
    "GivenUp",
    "WorkerLost",
    "_GivenUp",
    "_Previewed",
}
SENTENCE = "It rains <in>: take an umbrella."


def classes_of(base: type[Any]) -> Iterator[type[Any]]:
    for cls in base.__subclasses__():
        yield cls
        yield from classes_of(cls)


for module in pkgutil.walk_packages(vlm.__path__, "vlm."):
    if not module.name.startswith("vlm.migrations"):
        importlib.import_module(module.name)

REFUSALS: list[type[Refusal]] = sorted({Refusal, *classes_of(Refusal)}, key=lambda cls: cls.__qualname__)


def refusal(cls: type[Refusal]) -> Refusal:
    """Return a refusal of that class, whatever its class wants to be told."""
    error = cls.__new__(cls)
    Exception.__init__(error, SENTENCE)
    return error


ERRORS = [refusal(cls) for cls in REFUSALS]  # one test per door walks them all: a data set for each would take minutes


@pytest.fixture
def dataset(db: None, data_dir: object) -> Dataset:
    return Dataset.objects.create(name="empty", root="/nowhere", format="folder")


@pytest.fixture
def run(dataset: Dataset) -> TaggingRun:
    return TaggingRun.objects.create(dataset=dataset, status="completed", model="m", vocabulary_hash="0" * 64)


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def breaks(error: Exception) -> Any:
    def broken(**_: object) -> None:
        raise error

    return broken


def test_every_error_of_the_house_is_of_the_family() -> None:
    known = (Refusal, ObjectDoesNotExist, MultipleObjectsReturned)
    ours = {cls for cls in classes_of(Exception) if cls.__module__.startswith("vlm.")}
    strangers = {cls.__name__ for cls in ours if not issubclass(cls, known)} - NEVER_LEAVE_THEIR_ROOM
    assert strangers == set()


def test_each_says_what_it_means_to_every_door() -> None:
    for error in ERRORS:
        assert 400 <= error.status < 600
        assert error.status != 500
        assert error.exit_code in (2, 3)
        assert error.title
        assert error.message == SENTENCE


def test_pages(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ERRORS:
        monkeypatch.setattr(services.samples, "page", breaks(error))
        answer = admin.get(reverse("dataset", args=[dataset.pk]))
        page = answer.content.decode()
        assert (answer.status_code, "It rains &lt;in&gt;: take an umbrella." in page) == (error.status, True)
        assert f"<h1>{escape(error.title)}</h1>" in page
        assert answer.headers.get("Retry-After", "0") == str(error.retry_after)


def test_htmx(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ERRORS:
        monkeypatch.setattr(services.samples, "page", breaks(error))
        answer = admin.get(reverse("dataset", args=[dataset.pk]), headers={"HX-Request": "true"})
        assert answer.status_code == error.status
        assert answer.headers["HX-Reswap"] == "none"
        assert 'id="messages"' in answer.content.decode()
        assert "It rains &lt;in&gt;" in answer.content.decode()


def test_json(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ERRORS:
        monkeypatch.setattr(services.samples, "page", breaks(error))
        answer = admin.get(reverse("dataset", args=[dataset.pk]), headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (error.status, SENTENCE)


def test_commands(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ERRORS:
        monkeypatch.setattr(services.runs, "fail_stale", breaks(error))
        with pytest.raises(CommandError) as end:
            call_command("runs")
        assert (str(end.value), end.value.returncode) == (SENTENCE, error.exit_code)


@pytest.mark.parametrize("page", ["changelist", "change", "delete", "action", "steer"])
def test_the_admin(page: str, run: TaggingRun, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that was asked for, or the first one, with the sentence on it."""
    for error in ERRORS:
        for name in ("fail_stale", "cancel", "active"):
            monkeypatch.setattr(services.runs, name, breaks(error))
        if page == "changelist":
            answer = admin.get(reverse("admin:vlm_taggingrun_changelist"), follow=True)
        elif page == "change":
            answer = admin.get(reverse("admin:vlm_taggingrun_change", args=[run.pk]), follow=True)
        elif page == "delete":
            answer = admin.get(reverse("admin:vlm_dataset_delete", args=[run.dataset_id]), follow=True)
        elif page == "action":
            monkeypatch.setattr(services.runs, "fail_stale", lambda: 0)
            form = {"action": "cancel", "_selected_action": [run.pk]}
            answer = admin.post(reverse("admin:vlm_taggingrun_changelist"), form, follow=True)
        else:
            monkeypatch.setattr(services.runs, "fail_stale", lambda: 0)
            answer = admin.post(reverse("admin:vlm_taggingrun_cancel", args=[run.pk]), follow=True)
        assert answer.status_code == 200
        assert "It rains &lt;in&gt;: take an umbrella." in answer.content.decode()


@pytest.mark.django_db(transaction=True)
async def test_the_websocket(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays open; what waiting does not mend is told."""
    for error in ERRORS:
        monkeypatch.setattr(services.runs, "current", breaks(error))
        viewer = await User.objects.aget(username="ada")
        listener = WebsocketCommunicator(URLRouter(websocket_urlpatterns), f"/ws/datasets/{dataset.pk}/progress/")
        listener.scope["user"] = viewer
        assert (await listener.connect(timeout=PATIENCE))[0]
        if not error.retry_after:
            assert "It rains &lt;in&gt;" in await listener.receive_from(timeout=PATIENCE)
        else:
            assert await listener.receive_nothing(timeout=0.2)
        await listener.disconnect(timeout=PATIENCE)


def test_a_database_that_is_away(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.samples, "page", breaks(OperationalError("database is locked")))
    answer = admin.get(reverse("dataset", args=[dataset.pk]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(DatabaseUnusable.retry_after))
    assert "database is locked" in answer.content.decode()


def test_what_does_not_fit_the_database(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.samples, "page", breaks(DataError("value too long for type character varying(60)")))
    answer = admin.get(reverse("dataset", args=[dataset.pk]), headers={"accept": "application/json"})
    assert (answer.status_code, "does not fit the database: value too long" in answer.json()["error"]) == (400, True)


# -- faults of the last release ------------------------------------------------------------------------------------------
def test_a_generated_answer_has_a_page(db: None, data_dir: Path, tmp_path: Path, admin: Client) -> None:
    """It has a text and words, but no probabilities."""
    dataset = services.datasets.import_folder(path=make_images(tmp_path / "photos", 1), name="photos").dataset
    assert dataset is not None
    (sample,) = services.samples.page(dataset=dataset, filter=SampleFilter()).samples
    run = TaggingRun.objects.create(dataset=dataset, status="completed", model="m", vocabulary_hash="0" * 64)
    said = Answer(run.pk, "lighting", 0, ("dark", "dim"), (), None, "dark", None, True, "", "Dark!")
    with sample_store().write() as cursor:
        merge_batch(cursor, dataset_id=dataset.pk, run_id=run.pk, results=[Result(sample.id, (said,))])
    answer = admin.get(reverse("sample", args=[dataset.pk, sample.id]))
    assert answer.status_code == 200
    assert "said “Dark!”" in answer.content.decode()


@pytest.mark.parametrize("action", ["apply", "preview"])
@pytest.mark.parametrize("state", ["reverted", "active"])
def test_thresholds_of_a_run_that_stays_as_it_is(run: TaggingRun, admin: Client, action: str, state: str) -> None:
    if state == "active":
        run.status, run.heartbeat, run.worker = "running", timezone.now(), worker_of(os.getppid())
    else:
        run.reverted = timezone.now()
    run.save()
    form = {"min_probability": "0.5", "min_mass": "0.5", "action": action}
    answer = admin.post(reverse("run_thresholds", args=[run.pk]), form)
    assert answer.status_code == 409
    assert f"is {state}; its thresholds stay as they are" in answer.content.decode()


def test_a_vocabulary_without_dimensions(dataset: Dataset, admin: Client) -> None:
    Dimension.objects.update(enabled=False)
    complaint = "switch at least one on"
    counted = admin.get(reverse("auto_tag_count", args=[dataset.pk]))
    options = admin.post(reverse("auto_tag", args=[dataset.pk]), {"count": "1"})
    started = admin.post(reverse("auto_tag", args=[dataset.pk]))
    assert [answer.status_code for answer in (counted, options, started)] == [400, 200, 400]
    for answer in (counted, options, started):
        assert complaint in answer.content.decode()


def test_a_damaged_annotation_file_is_no_broken_download(
    db: None, data_dir: Path, tmp_path: Path, admin: Client
) -> None:
    folder = make_images(tmp_path / "coco", 1)
    source = folder / "annotations.json"
    name = next(path.name for path in folder.iterdir() if path.suffix != ".json")
    source.write_text(json.dumps({"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}))
    dataset = services.datasets.import_folder(path=folder, name="coco").dataset
    assert dataset is not None
    source.write_text('{"images": [{"id": 1, "file_')
    answer = admin.get(reverse("export", args=[dataset.pk]), {"format": "coco"})
    assert answer.status_code == 409
    assert "cannot be read any more" in answer.content.decode()


def test_a_thumbnail_cache_that_takes_no_writes(
    db: None, data_dir: Path, tmp_path: Path, admin: Client, settings: Any
) -> None:
    dataset = services.datasets.import_folder(path=make_images(tmp_path / "photos", 1), name="photos").dataset
    assert dataset is not None
    (sample,) = services.samples.page(dataset=dataset, filter=SampleFilter()).samples
    settings.THUMBNAIL_DIR = tmp_path / "a file"
    settings.THUMBNAIL_DIR.write_text("in its place")
    for address in (
        reverse("thumbnail", args=[dataset.pk, sample.id, 160]),
        reverse("image", args=[dataset.pk, sample.id]),
    ):
        answer = admin.get(address)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")  # made, if not kept


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("database or disk is full", DatabaseFull, "Make room"),
        ('could not extend file "base/5/1": No space left on device\nHINT:  Check free disk space.', DatabaseFull, "Make room"),
        ("database is locked", DatabaseUnusable, "“migrate”"),
        ('relation "vlm_dataset" does not exist\nLINE 1: SELECT', DatabaseUnusable, "“migrate”"),
        ("connection failed: connection to server on socket “x” failed: No such file", DatabaseUnusable, "once its server runs"),
        ("terminating connection due to administrator command\nSSL connection has been closed", DatabaseUnusable, "once its server runs"),
        ("FATAL:  the database system is starting up", DatabaseUnusable, "once its server runs"),
    ],
)  # fmt: skip
def test_what_a_database_says_becomes_what_to_do(said: str, kind: type[Refusal], told: str) -> None:
    refusal = DatabaseUnusable.of(OperationalError(said))
    assert type(refusal) is kind
    assert told in refusal.message
    assert "\n" not in refusal.message
