"""Runs against real signals: kill -9, Ctrl-C, SIGTERM, and a second process that starts the same."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.checkpoints import make_checkpoint
from tests.images import make_images
from vlm.moondream import load_tagger
from vlm.vocabulary import DEFAULT_VOCABULARY

ROOT = Path(__file__).parent.parent
KILLS = 10
IMAGES = 40
SECONDS_PER_IMAGE = 0.06

# Imports everything once, then forks a worker per line that it reads; a worker goes on with the run until it ends.
WORKSHOP = """
import os, sys, threading
import django
django.setup()
from django.db import connections
import vlm.moondream.loading  # PyTorch, before the forks
from vlm import services
from vlm.models import TaggingRun
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    connections.close_all()
    run = TaggingRun.objects.get()
    TaggingRun.objects.filter(pk=run.pk, status__in=TaggingRun.ACTIVE).exclude(status="queued").update(heartbeat="2020-01-01T00:00Z")
    if run.status != "queued":
        services.runs.requeue(run=run, user=None, origin="command")
    services.runs.execute(run_id=run.pk, stop=threading.Event())
    os._exit(0)
"""


def slow_checkpoint(folder: Path) -> Path:
    """Write a checkpoint so deep that a run can be caught at work, however fast the machine is."""
    folder.mkdir()
    images = [Image.effect_noise((96, 72), 90).convert("RGB") for _ in range(3)]
    layers, seconds = 2, 0.0
    while seconds < SECONDS_PER_IMAGE:
        layers *= 2
        model = make_checkpoint(folder, layers=layers, width=64)
        tagger = load_tagger(str(model), device="cpu", dtype="float32", detail="low", batch_size=1)
        tagger.score(images, DEFAULT_VOCABULARY)
        began = time.monotonic()
        tagger.score(images, DEFAULT_VOCABULARY)
        seconds = (time.monotonic() - began) / len(images)
    return model


class Home:
    """A data folder with a data set, and commands that work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = make_images(folder / "photos", IMAGES)
        model = slow_checkpoint(folder / "checkpoint")
        self.environment = os.environ | {
            "DATAVISOR_DATA_DIR": str(folder / "data"),
            "DATAVISOR_VLM_MODEL": str(model),
            "DATAVISOR_VLM_DEVICE": "cpu",
            "DATAVISOR_VLM_DTYPE": "float32",
            "DATAVISOR_VLM_DETAIL": "low",
            "DATAVISOR_VLM_BATCH_SIZE": "1",
            "DATAVISOR_VLM_MIN_MASS": "0",
            "DATAVISOR_VLM_MIN_PROBABILITY": "0",
            "DJANGO_SETTINGS_MODULE": "datavisor.settings",
        }

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=self.environment, **pipes)  # type: ignore[call-overload]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        child = self.start("manage.py", *arguments)
        out, errors = child.communicate()
        return subprocess.CompletedProcess(arguments, child.returncode, out, errors)

    def python(self, script: str) -> str:
        child = self.start("-c", "import django; django.setup()\n" + script)
        out, errors = child.communicate()
        assert child.returncode == 0, errors
        return out

    def _newest(self) -> tuple[int, str, int]:
        with sqlite3.connect(self.folder / "data" / "datavisor.sqlite3", timeout=30) as connection:
            row = connection.execute(
                "select id, status, processed from vlm_taggingrun order by id desc limit 1"
            ).fetchone()
        return row or (0, "", 0)

    def last_run_id(self) -> int:
        return self._newest()[0]

    def last_run(self) -> tuple[str, int]:
        return self._newest()[1:]

    def wait_until_past(self, run: int, processed: int) -> None:
        """Wait until a run after ``run`` has processed more than ``processed`` samples."""
        deadline = time.monotonic() + 120
        while True:
            newest, status, count = self._newest()
            if newest > run and status in ("running", "completed") and count > processed:
                return
            assert time.monotonic() < deadline, (newest, status, count)
            time.sleep(0.05)


READ = """
import json
from vlm.process import sample_store
with sample_store().read() as cursor:
    tags = cursor.execute("select path, tags from samples order by path").fetchall()
    answers = cursor.execute("select sample_id, count(*), count(distinct dimension) from answers group by 1").fetchall()
print(json.dumps([tags, answers]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.manage("migrate", "-v0").returncode == 0
    done = home.manage("import_dataset", str(home.photos), "--name", "photos", "--json")
    assert json.loads(done.stdout)["samples"] == IMAGES
    return home


# A run from beginning to end, its result, and its revert; then a new run that waits for a worker.
UNDISTURBED = (
    """
import threading
from vlm import services
from vlm.models import Dataset, TaggingRun
for run in TaggingRun.objects.filter(reverted=None):  # of other tests
    services.runs.revert(run=run)
def create():
    return services.runs.create(dataset=Dataset.objects.get(), options=RunOptions(), user=None, origin="command")
run = services.runs.execute(run_id=create().pk, stop=threading.Event())
assert (run.status, run.failed) == ("completed", 0)
"""
    + READ
    + """
services.runs.revert(run=run)
TaggingRun.objects.all().delete()
create()
"""
)


def test_a_run_killed_ten_times_answers_everything_once(home: Home) -> None:
    """Each worker goes on where the last one was killed; the eleventh comes to the end."""
    expected, answers = json.loads(home.python(UNDISTURBED))
    assert [row[1:] for row in answers] == [[5, 5]] * IMAGES
    workshop = home.start("-c", WORKSHOP, stdin=subprocess.PIPE)
    assert workshop.stdout is not None
    assert workshop.stdin is not None
    assert workshop.stdout.readline() == "ready\n", workshop.communicate()[1]
    seen = []
    for kill in range(KILLS + 1):
        workshop.stdin.write("work\n")
        workshop.stdin.flush()
        worker = int(workshop.stdout.readline())
        if kill < KILLS:
            time.sleep(0.4 + 0.12 * kill)
            try:
                os.kill(worker, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it came to the end first
        assert workshop.stdout.readline() == "ended\n"
        seen.append(home.last_run())
    workshop.stdin.close()
    workshop.wait(20)
    assert seen[-1] == ("completed", IMAGES)
    assert any(status == "running" and 0 < processed < IMAGES for status, processed in seen)  # it was killed at work
    tags, answers = json.loads(home.python(READ))
    assert tags == expected
    assert [row[1:] for row in answers] == [[5, 5]] * IMAGES
    assert home.manage("check_store").returncode == 0


def test_signals_finish_the_batch_and_resume_goes_on(home: Home) -> None:
    """Ctrl-C, resume, SIGTERM, resume: each stop keeps what was done."""
    before = home.last_run_id()
    child = home.start("manage.py", "autotag", "photos", "--scope", "all", "--json", "--no-progress")
    done = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        home.wait_until_past(before, done)
        asked = time.monotonic()
        child.send_signal(number)
        out, errors = child.communicate(timeout=60)
        assert time.monotonic() - asked < 20
        result = json.loads(out)
        if result["status"] == "completed":  # it was done before the signal came
            break
        assert child.returncode == 130, errors
        assert result["status"] == "interrupted"
        assert done < result["processed"] < IMAGES
        done = result["processed"]
        child = home.start("manage.py", "autotag", "photos", "--resume", "--json", "--no-progress")
    else:
        out, errors = child.communicate()
        assert child.returncode == 0, errors
        result = json.loads(out)
    assert (result["status"], result["processed"]) == ("completed", IMAGES)
    assert done > 0


def test_of_two_starts_at_once_one_wins(home: Home) -> None:
    both = [home.start("manage.py", "autotag", "photos", "--scope", "all", "--no-progress") for _ in range(2)]
    ended = sorted((child.communicate()[1], child.returncode) for child in both)
    codes = sorted(code for _, code in ended)
    assert codes == [0, 2]
    assert any("is active" in errors for errors, code in ended if code == 2)
