"""Background jobs: who is dead is known to be dead, who lives is left alone, and a killed import leaves nothing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.children import PATIENCE, end, environment, wait_for
from tests.database import database_url
from tests.images import make_images
from tests.workshop import fork
from vlm import jobs, services
from vlm.models import Dataset, ImportJob, TaggingRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
HOUR = timedelta(hours=1)

BLOCKED_IMPORT = """
import sys, time, django
django.setup()
from pathlib import Path
from vlm.datasets import importing

def blocked(*args, **kwargs):
    print("filling", flush=True)
    time.sleep(3600)

importing.import_rows = blocked
importing.import_folder(path=Path(sys.argv[1]), name="killed")
"""


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """Another process of this machine."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def worker_of(pid: int, *, started: str | None = None, machine: str | None = None) -> str:
    return f"host:{pid}:{started or jobs._started(pid)}:{machine or jobs._machine()}:feedbeef"


def run_of(worker: str, **fields: object) -> TaggingRun:
    dataset = Dataset.objects.create(name="photos", root="/nowhere", format="folder")
    values = {"status": "running", "model": "m", "vocabulary_hash": "0" * 64, "heartbeat": timezone.now()} | fields
    return TaggingRun.objects.create(dataset=dataset, worker=worker, **values)


def test_a_dead_process_of_this_machine_is_known_at_once(process: "subprocess.Popen[bytes]") -> None:
    run = run_of(worker_of(process.pid))
    assert services.runs.fail_stale() == 0
    process.kill()
    process.wait()
    assert services.runs.fail_stale() == 1
    run.refresh_from_db()
    assert run.status == Status.INTERRUPTED
    assert services.runs.state(run=run).resumable


def test_a_process_that_lives_is_left_alone_however_old_its_heartbeat(process: "subprocess.Popen[bytes]") -> None:
    """A machine that slept, or a clock that was set forward."""
    run_of(worker_of(process.pid), heartbeat=timezone.now() - HOUR)
    assert services.runs.fail_stale() == 0


def test_a_number_that_another_process_has_by_now_is_not_it(process: "subprocess.Popen[bytes]") -> None:
    run_of(worker_of(process.pid, started="1"))
    assert services.runs.fail_stale() == 1


@pytest.mark.parametrize("worker", ["", "host:12:feedbeef", worker_of(1, started="1", machine="elsewhere")])
def test_of_another_machine_the_heartbeat_tells(worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does for who is not claimed yet, and for a run of the first release."""
    monkeypatch.setattr(jobs, "STALE_SECONDS", PATIENCE)  # a busy machine may look at a fresh heartbeat late
    run = run_of(worker)
    assert services.runs.fail_stale() == 0
    TaggingRun.objects.filter(pk=run.pk).update(heartbeat=timezone.now() - HOUR)
    assert services.runs.fail_stale() == 1


def test_a_clock_that_was_set_back_blocks_nothing() -> None:
    run = run_of(worker_of(1, started="1", machine="elsewhere"), heartbeat=timezone.now() + 24 * HOUR)
    assert services.runs.fail_stale() == 0
    run.refresh_from_db()
    assert run.heartbeat is not None
    assert run.heartbeat <= timezone.now()  # from now on its silence counts


def test_a_thread_that_is_gone_is_dead_at_once() -> None:
    run = run_of("", status="queued")
    rows = TaggingRun.objects.filter(pk=run.pk, worker="")
    with jobs.claimed(rows) as worker:
        assert worker
        assert services.runs.fail_stale() == 0
        with jobs.claimed(rows) as second:
            assert second == jobs.QUEUED
    assert services.runs.fail_stale() == 1


def test_a_process_that_ends_lets_its_jobs_finish() -> None:
    done = threading.Event()

    def work(stop: threading.Event) -> None:
        stop.wait(PATIENCE)
        done.set()

    jobs.launch("slow", work)
    jobs.stop_all()
    assert done.is_set()


def test_a_job_whose_row_is_another_s_halts() -> None:
    run = run_of("me")
    with jobs.beating(lambda: TaggingRun.objects.filter(pk=run.pk, worker="me"), stop=threading.Event()) as halt:
        TaggingRun.objects.filter(pk=run.pk).update(worker="another")
        assert halt.wait(PATIENCE)


def test_a_killed_import_leaves_nothing(data_dir: Path, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "photos", 2)
    child = fork("-c", BLOCKED_IMPORT, str(folder), env=environment(data_dir, DATABASE_URL=database_url()))
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "filling\n"
        assert Dataset.objects.filter(name="killed").exists()
        services.datasets.fail_stale_imports()
        assert Dataset.objects.filter(name="killed").exists()  # it lives
        os.kill(child.pid, signal.SIGKILL)
        child.wait(PATIENCE)
    finally:
        end(child)
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    assert "killed" not in client.get(reverse("datasets")).content.decode()
    assert not Dataset.objects.exists()
    other = make_images(tmp_path / "other", 1)
    assert services.datasets.import_folder(path=other, name="killed").total == 1
    assert services.datasets.check_store().is_sound


def test_every_door_sees_a_dead_import_as_dead(process: "subprocess.Popen[bytes]") -> None:
    job = ImportJob.objects.create(path="/p", name="n", worker=worker_of(process.pid), heartbeat=timezone.now())
    process.kill()
    process.wait()
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    page = client.get(reverse("import_job", args=[job.pk])).content.decode()
    assert "The server stopped during the import" in page
    job.refresh_from_db()
    assert job.status == ImportJob.Status.FAILED


@pytest.mark.parametrize("door", ["datasets", "dataset", "runs", "run", "auto_tag_progress"])
def test_every_door_sees_a_dead_run_as_dead(door: str, process: "subprocess.Popen[bytes]") -> None:
    run = run_of(worker_of(process.pid))
    process.kill()
    process.wait()
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    arguments = [] if door == "datasets" else [run.pk] if door == "run" else [run.dataset_id]
    if door == "runs":
        client.get(reverse("runs", args=arguments))
    else:
        client.get(reverse(door, args=arguments))
    run.refresh_from_db()
    assert run.status == Status.INTERRUPTED


def test_an_import_of_the_page_is_called_as_that_of_the_command(tmp_path: Path) -> None:
    """A path to the JSON of a data set gives it the folder's name."""
    folder = make_images(tmp_path / "mydata", 1)
    name = next(path.name for path in folder.iterdir())
    (folder / "a.json").write_text(
        f'{{"images": [{{"id": 1, "file_name": "{name}"}}], "annotations": [], "categories": []}}'
    )
    job = services.datasets.import_start(path=str(folder / "a.json"), user=None)
    wait_for(lambda: ImportJob.objects.get(pk=job.pk).status != ImportJob.Status.RUNNING)
    job.refresh_from_db()
    assert (job.status, job.error) == (ImportJob.Status.COMPLETED, "")
    assert job.dataset is not None
    assert (job.name, job.dataset.name) == ("mydata", "mydata")


def test_how_a_job_ended_is_told_as_soon_as_the_database_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_SECONDS", 0.01)
    run = run_of("")
    attempts: list[int] = []

    def write() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise OperationalError("database or disk is full")
        TaggingRun.objects.filter(pk=run.pk).update(status=Status.FAILED, error="The disk is full.")

    jobs.write_down(write, threading.Event())
    run.refresh_from_db()
    assert (len(attempts), run.status, run.error) == (3, Status.FAILED, "The disk is full.")
    attempts.clear()
    stop = threading.Event()
    stop.set()
    with pytest.raises(OperationalError):  # a process that is to stop does not wait for room
        jobs.write_down(write, stop)


def test_who_only_reads_is_not_kept_by_a_full_database(
    process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(worker_of(process.pid))
    process.kill()
    process.wait()

    def full(*args: object) -> int:
        raise OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("vlm.runs.state._interrupt", full)
        assert services.runs.fail_stale() == 0
    assert services.runs.fail_stale() == 1
