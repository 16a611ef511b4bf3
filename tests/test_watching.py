"""A watched folder: what is new comes in and is tagged, what is not wanted stays away, and nothing new makes no noise."""

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from tests.children import wait_for
from tests.images import make_images
from vlm import jobs, services
from vlm.datasets.watching import NotWatchable
from vlm.models import Dataset, ImportJob, TaggingRun, Watch
from vlm.runs.options import RunOptions

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", 3)


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    done = services.datasets.import_folder(path=folder, name="photos")
    assert done.dataset is not None
    return done.dataset


def look(dataset: Dataset, *, tag: bool = True) -> tuple[dict[str, int], TaggingRun | None]:
    found = services.watches.look(dataset=dataset, tag=tag, stop=threading.Event())
    if found.run is not None:
        services.runs.execute(run_id=found.run.pk, stop=threading.Event())
        found.run.refresh_from_db()
    return found.changed, found.run


def test_what_is_new_comes_in_and_is_tagged_and_nothing_new_makes_nothing(dataset: Dataset, folder: Path) -> None:
    changed, run = look(dataset)
    assert changed == {}
    assert run is not None
    assert (run.origin, run.status, run.processed) == ("watch", Status.COMPLETED, 3)
    assert look(dataset) == ({}, None)

    make_images(folder / "later", 2)
    (folder / "000.jpg").unlink()
    changed, run = look(dataset)
    assert run is not None
    assert (changed, run.processed) == ({"new": 2, "gone": 1}, 2)
    assert look(dataset) == ({}, None)
    assert TaggingRun.objects.count() == 2
    assert not ImportJob.objects.exists()


def test_without_tagging_nothing_is_asked(dataset: Dataset, folder: Path) -> None:
    make_images(folder / "later", 1)
    assert look(dataset, tag=False) == ({"new": 1}, None)


def test_an_interrupted_look_goes_on_and_an_unwanted_run_stays_away(dataset: Dataset, folder: Path) -> None:
    first = services.watches.look(dataset=dataset, tag=True, stop=threading.Event()).run
    assert first is not None
    TaggingRun.objects.filter(pk=first.pk).update(status=Status.INTERRUPTED)
    _, again = look(dataset)
    assert again is not None
    assert (again.pk, again.status, again.processed) == (first.pk, Status.COMPLETED, 3)

    services.runs.revert(run=again)
    assert look(dataset) == ({}, None)
    make_images(folder / "later", 1)
    _, fresh = look(dataset)
    assert fresh is not None
    assert fresh.pk != first.pk

    make_images(folder / "latest", 1)
    queued = services.watches.look(dataset=dataset, tag=True, stop=threading.Event()).run
    assert queued is not None
    services.runs.cancel(run=queued)
    assert look(dataset) == ({}, None)


def test_somebody_elses_run_is_waited_for(dataset: Dataset) -> None:
    theirs = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    assert look(dataset) == ({}, None)
    services.runs.execute(run_id=theirs.pk, stop=threading.Event())
    assert look(dataset) == ({}, None)


def test_the_server_looks_when_the_time_has_come(dataset: Dataset, folder: Path) -> None:
    services.watches.watch(dataset=dataset, seconds=600, tag=True, user=None)
    assert services.watches.look_at_due(stop=threading.Event()) == 1
    wait_for(lambda: TaggingRun.objects.filter(status=Status.COMPLETED).exists(), "the run")
    watch = services.watches.get(dataset=dataset)
    assert watch is not None
    assert (watch.error, watch.worker, watch.changed) == ("", jobs.QUEUED, None)
    assert watch.due > timezone.now()
    assert services.watches.look_at_due(stop=threading.Event()) == 0

    make_images(folder / "later", 2)
    Watch.objects.update(due=timezone.now() - timedelta(seconds=1))
    assert services.watches.look_at_due(stop=threading.Event()) == 1
    watch.refresh_from_db()
    assert watch.summary == {"new": 2}
    assert watch.changed is not None


def test_a_folder_that_is_away_is_told_and_looked_for_again(dataset: Dataset, folder: Path) -> None:
    services.watches.watch(dataset=dataset, seconds=600, tag=False, user=None)
    away = folder.rename(folder.with_name("away"))
    assert services.watches.look_at_due(stop=threading.Event()) == 1
    watch = Watch.objects.get(dataset=dataset)
    assert "photos" in watch.error
    assert (watch.worker, Dataset.objects.get(pk=dataset.pk).missing_count) == (jobs.QUEUED, 0)

    away.rename(folder)
    Watch.objects.update(due=timezone.now())
    services.watches.look_at_due(stop=threading.Event())
    watch.refresh_from_db()
    assert (watch.error, watch.changed) == ("", None)


def test_a_look_whose_process_died_is_looked_at_again(dataset: Dataset) -> None:
    services.watches.watch(dataset=dataset, seconds=600, tag=False, user=None)
    dead = "elsewhere:1:gone:other:token"
    Watch.objects.update(worker=dead, heartbeat=timezone.now() - timedelta(minutes=5))
    assert services.watches.look_at_due(stop=threading.Event()) == 1


def test_a_stopping_server_leaves_the_look_to_the_next(dataset: Dataset) -> None:
    services.watches.watch(dataset=dataset, seconds=600, tag=False, user=None)
    stop = threading.Event()
    stop.set()
    assert services.watches.look_at_due(stop=stop) == 0
    watch = Watch.objects.get(dataset=dataset)
    assert watch.due <= timezone.now()


def test_only_a_folder_below_the_import_roots_and_a_sensible_time(
    dataset: Dataset, tmp_path: Path, settings: object
) -> None:
    with pytest.raises(NotWatchable, match="10 seconds"):
        services.watches.watch(dataset=dataset, seconds=1, tag=True, user=None)
    settings.IMPORT_ROOTS = [tmp_path / "other"]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="import roots"):
        services.watches.watch(dataset=dataset, seconds=60, tag=True, user=None)
    assert services.watches.get(dataset=dataset) is None


def test_the_command_looks_once_and_tells_what_it_did(
    dataset: Dataset, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(folder / "later", 1)
    call_command("watch", "photos", "--once", "--json")
    changed, run = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert changed["changed"] == {"new": 1}
    assert (run["status"], run["processed"], run["error"]) == ("completed", 4, "")
    call_command("watch", "photos", "--once")
    assert capsys.readouterr().out == ""
    folder.rename(folder.with_name("away"))
    with pytest.raises(CommandError, match="photos"):
        call_command("watch", "photos", "--once")
    with pytest.raises(CommandError, match="90s, 10m"):
        call_command("watch", "photos", "--every", "soon")


def test_the_page_sets_it_and_asks_for_the_rights(dataset: Dataset) -> None:
    user = User.objects.create_user("ada", password="correct horse 9")
    client = Client()
    client.force_login(user)
    names = ["view_dataset", "import_dataset"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    address = f"/datasets/{dataset.pk}/settings"
    assert client.post(address, {"action": "watch", "every": "600", "tag": "on"}).status_code == 403
    assert client.post(address, {"action": "watch", "every": "1"}).status_code == 400
    assert client.post(address, {"action": "watch", "every": "soon"}).status_code == 400
    assert client.post(address, {"action": "watch", "every": "600"}).status_code == 302
    watch = Watch.objects.get(dataset=dataset)
    assert (watch.seconds, watch.tag, watch.started_by) == (600, False, user)
    assert "Watched every 10 minutes, without tagging" in client.get(address).content.decode()
    assert client.post(address, {"action": "unwatch"}).status_code == 302
    assert not Watch.objects.exists()

    user.user_permissions.set(Permission.objects.filter(codename="view_dataset"))
    assert client.post(address, {"action": "watch", "every": "600"}).status_code == 403
