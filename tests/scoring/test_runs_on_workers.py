"""Runs on workers, from the row to the store: the real loop and the real model, in workers that are no processes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from tests.brake import Brake
from tests.children import PATIENCE
from tests.images import make_images
from tests.scoring.fakes import Clock, FakeTransport
from vlm import services
from vlm.errors import Refusal
from vlm.models import Dataset, TaggingRun
from vlm.process import keeper, sample_store
from vlm.runs.options import RunOptions
from vlm.scoring import crew as crews
from vlm.scoring import ray_cluster
from vlm.scoring.places import Workers
from vlm.scoring.worker import Outfit, Worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
IMAGES = 24

Kill = Callable[[str], None]


class Cluster:
    """Stands in for Ray: its workers live in this process, and die when they are told to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport: FakeTransport | None = None
        self.asked: list[Workers] = []

    def load(self, workers: Workers) -> None:
        self.asked.append(workers)

    @contextmanager
    def cluster(self, workers: Workers, outfit: Outfit) -> Iterator[FakeTransport]:
        names = [str(number) for number in range(1, (workers.count or 1) + 1)]
        self.transport = FakeTransport({name: Again(replace(outfit, cores=1)) for name in names}, self.clock)
        yield self.transport


class Again(Worker):
    """A worker that can be started anew."""

    down = 1
    unreachable = 0
    restarts = 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(ray_cluster, "load", cluster.load)
    monkeypatch.setattr(ray_cluster, "cluster", cluster.cluster)
    monkeypatch.setattr("vlm.scoring.crew.time", cluster.clock)
    monkeypatch.setattr("vlm.scoring.member.time", cluster.clock)
    return cluster


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", IMAGES), name="photos")
    assert done.dataset is not None
    return done.dataset


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    options = {"workers": "local:2", "batch_size": 2, **options}
    return services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")


def execute(run: TaggingRun, stop: threading.Event | None = None) -> TaggingRun:
    return services.runs.execute(run_id=run.pk, stop=stop or threading.Event())


def begun(run: TaggingRun, brake: Brake, images: int, stop: threading.Event | None = None) -> threading.Thread:
    """Begin a run, and return its thread once it stands still after so many images."""
    brake.allow(images)
    thread = threading.Thread(target=lambda: execute(run, stop))
    thread.start()
    brake.wait_until_reached()
    return thread


def said(run: TaggingRun) -> list[tuple[Any, ...]]:
    """Return all that a run answered."""
    with sample_store().read() as cursor:
        return cursor.execute(
            "select sample_id, dimension, word, probability, mass, accepted, reason, probabilities from answers "
            "where run_id = ? order by all",
            [run.pk],
        ).fetchall()


@pytest.mark.parametrize(
    "options", [{}, {"detail": "auto"}, {"mode": "generate"}], ids=["plain", "two passes", "generated"]
)
def test_its_answers_are_those_of_a_run_here(dataset: Dataset, cluster: Cluster, options: dict[str, Any]) -> None:
    here = execute(create(dataset, workers="", **options))
    run = execute(create(dataset, scope="all", **options))
    assert (run.status, run.processed, run.failed, run.workers) == (Status.COMPLETED, IMAGES, 0, "local:2")
    assert said(run) == said(here)
    assert (run.device, run.dtype, run.revision) == (here.device, here.dtype, here.revision)
    assert cluster.asked == [Workers("local", 2)]
    states = services.runs.state(run=run).crew
    assert [state.state for state in states] == ["ended", "ended"]
    asked = IMAGES if options.get("detail") != "auto" else IMAGES + round(0.3 * IMAGES)
    assert sum(state.images for state in states) == asked


def test_the_model_of_this_process_makes_room_and_nobody_comes_between(dataset: Dataset, cluster: Cluster) -> None:
    execute(create(dataset, workers="", limit=2))
    assert keeper.state == "loaded"
    execute(create(dataset))
    assert keeper.state == "not loaded"


def test_a_worker_that_dies_in_mid_run_changes_nothing(dataset: Dataset, cluster: Cluster, brake: Brake) -> None:
    here = execute(create(dataset, workers=""))
    run = create(dataset, scope="all")
    brake.allow(4)
    thread = threading.Thread(target=lambda: execute(run))
    thread.start()
    brake.wait_until_reached()
    assert cluster.transport is not None
    cluster.transport.kill("1")
    brake.release()
    thread.join(PATIENCE)
    run.refresh_from_db()
    assert (run.status, run.processed, run.failed) == (Status.COMPLETED, IMAGES, 0)
    assert said(run) == said(here)
    assert sum(state["deaths"] for state in run.crew) == 1


def test_a_cancelled_run_goes_on_where_it_had_worked_or_elsewhere(
    dataset: Dataset, cluster: Cluster, brake: Brake
) -> None:
    run = create(dataset)
    thread = begun(run, brake, 2)
    assert services.runs.cancel(run=run)
    thread.join(PATIENCE)
    brake.release()
    run.refresh_from_db()
    assert run.status == Status.CANCELLED
    assert 2 <= run.processed <= 2 + 2 * crews.IN_FLIGHT * 2
    before = said(run)
    services.runs.requeue(run=run, user=None, origin="command")
    assert run.workers == "local:2"
    services.runs.cancel(run=run)
    services.runs.requeue(run=run, user=None, origin="command", workers="here")
    assert (run.workers, run.crew) == ("", [])
    run = execute(run)
    assert (run.status, run.processed) == (Status.COMPLETED, IMAGES)
    after = said(run)
    assert all(row in after for row in before)
    assert len(after) == 5 * IMAGES


def test_a_stopping_process_interrupts_it_even_if_its_workers_are_gone(
    dataset: Dataset, cluster: Cluster, brake: Brake
) -> None:
    run, stop = create(dataset), threading.Event()
    thread = begun(run, brake, 2, stop)
    assert cluster.transport is not None
    for name in cluster.transport.names:  # as Ray's own end does
        cluster.transport.kill(name)
    stop.set()
    thread.join(PATIENCE)
    run.refresh_from_db()
    assert run.status == Status.INTERRUPTED
    assert "Resume to go on" in run.error


def test_workers_that_are_gone_for_minutes_fail_the_run_which_can_be_resumed(
    dataset: Dataset, cluster: Cluster, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(dataset)
    thread = begun(run, brake, 2)
    assert cluster.transport is not None
    monkeypatch.setattr(Again, "down", 10**6)
    for name in cluster.transport.names:
        cluster.transport.kill(name)
    brake.release()
    thread.join(PATIENCE)
    run.refresh_from_db()
    assert run.status == Status.FAILED
    assert "No worker has answered for 5 minutes" in run.error
    assert run.processed >= 2
    monkeypatch.setattr(Again, "down", 1)
    services.runs.requeue(run=run, user=None, origin="command")
    assert (execute(run).status, len({row[0] for row in said(run)})) == (Status.COMPLETED, IMAGES)


def test_a_worker_with_another_model_fails_the_run_by_name(
    dataset: Dataset, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Worker.load
    monkeypatch.setattr(Again, "load", lambda self: replace(load(self), revision="sha256:other"))
    run = execute(create(dataset))
    assert (run.status, run.processed) == (Status.FAILED, 0)
    assert "Worker" in run.error
    assert "has another model: sha256:other instead of" in run.error


def test_images_that_workers_do_not_see_fail_the_run_and_no_image(dataset: Dataset, cluster: Cluster) -> None:
    run = create(dataset)
    there = Path(dataset.root)
    there.rename(there.with_name("elsewhere"))
    run = execute(run)
    assert (run.status, run.processed, run.failed) == (Status.FAILED, 0, 0)
    assert f"there is no folder {dataset.root}" in run.error


def test_a_grey_image_is_asked_of_a_worker(dataset: Dataset, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.runs.blind.LEAST_IMAGES", 5)
    here = execute(create(dataset, workers=""))
    TaggingRun.objects.filter(pk=here.pk).update(blind={})
    run = execute(create(dataset, scope="all"))
    assert run.blind == here.blind != {}


# -- the doors -----------------------------------------------------------------------------------------------------------
def test_every_door_tells_of_them(
    dataset: Dataset, cluster: Cluster, client: Client, admin_user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("autotag", "photos", workers="local:2", json=True, no_progress=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["workers"], len(told["crew"])) == ("local:2", 2)
    assert sum(worker["images"] for worker in told["crew"]) == IMAGES
    call_command("autotag", "photos", workers="local:2", scope="all", no_progress=True)
    assert "times lost" in capsys.readouterr().out
    client.force_login(admin_user)
    state = client.get(reverse("auto_tag_progress", args=[dataset.pk]), headers={"accept": "application/json"}).json()
    assert state["workers"] == "local:2"
    assert [worker["state"] for worker in state["crew"]] == ["ended", "ended"]
    assert "cpu" in {worker["device"] for worker in state["crew"]}
    page = client.get(reverse("run", args=[state["run"]])).content.decode()
    assert 'id="live-crew"' in page
    assert page.count("<td>ended</td>") == 2


def test_the_setting_is_where_runs_work_that_say_nothing(dataset: Dataset, cluster: Cluster, settings: Any) -> None:
    settings.WORKERS = "local:3"
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    assert (execute(run).workers, len(run.crew or execute(run).crew)) == ("local:3", 3)


@pytest.mark.parametrize(
    "text", ["remote", "local:0", "local:x", "ray://", "ray://head", "ray://a b:1", "auto:2", "ray://u@h:1"]
)
def test_what_names_no_workers_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="names no workers: write here, local"):
        RunOptions(workers=text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("here", ""),
        ("local", "local"),
        ("local:4", "local:4"),
        ("auto", "auto"),
        (" ray://head:10001 ", "ray://head:10001"),
    ],
)
def test_workers_as_they_are_written(text: str, canonical: str) -> None:
    assert str(Workers.parse(text)) == canonical
    assert Workers.parse(canonical) == Workers.parse(text)
