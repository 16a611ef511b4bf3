"""Runs against real signals: kill -9, Ctrl-C, SIGTERM, and a second process that starts the same."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brake import Brake
from tests.checkpoints import small_model
from tests.children import PATIENCE, completed, end, environment, finish, wait_for
from tests.images import make_images
from tests.workshop import Forked, fork

pytestmark = pytest.mark.processes

KILLS = 10
IMAGES = 40

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


class Home:
    """A data folder with a data set, and commands that work on it, with a brake for their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = make_images(folder / "photos", IMAGES)
        self.brake = Brake(folder / "brake.json")
        self.environment = environment(
            folder / "data",
            **self.brake.environment,
            **small_model(folder / "checkpoint"),
        )
        self.children: list[Forked] = []

    def start(self, *arguments: str, stdin: bool = False) -> Forked:
        self.children.append(fork(*arguments, env=self.environment, stdin=stdin))
        return self.children[-1]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return completed(self.start("manage.py", *arguments))

    def python(self, script: str) -> str:
        child = self.start("-c", "import django; django.setup()\n" + script)
        out, errors = finish(child)
        assert child.returncode == 0, errors
        return out

    def last_run(self) -> tuple[str, int]:
        """Return the state of the newest run, and how many samples it has processed."""
        with sqlite3.connect(self.folder / "data" / "datavisor.sqlite3", timeout=120) as connection:
            return connection.execute("select status, processed from vlm_taggingrun order by id desc").fetchone()


READ = """
import json
from vlm.process import sample_store
with sample_store().read() as cursor:
    tags = cursor.execute("select path, tags from samples order by path").fetchall()
    answers = cursor.execute("select sample_id, count(*), count(distinct dimension) from answers group by 1").fetchall()
    shared = cursor.execute("select sum(shared)::integer from run_totals").fetchone()[0]
print(json.dumps([tags, answers, shared]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.manage("migrate", "-v0").returncode == 0
    done = home.manage("import_dataset", str(home.photos), "--name", "photos", "--json")
    assert json.loads(done.stdout)["samples"] == IMAGES
    return home


@pytest.fixture
def home(made: Home) -> Iterator[Home]:
    """The home without a run, and without a child that outlives the test."""
    made.brake.release()
    made.python(EMPTY)
    yield made
    for child in made.children:
        end(child)
    made.children.clear()


EMPTY = """
from vlm import services
from vlm.models import TaggingRun
for run in TaggingRun.objects.all():
    TaggingRun.objects.filter(pk=run.pk, status__in=TaggingRun.ACTIVE).update(status="cancelled")
    if not run.reverted:
        services.runs.revert(run=TaggingRun.objects.get(pk=run.pk))
TaggingRun.objects.all().delete()
"""


# Every image has another one that is nearly the same.
PAIRS = """
import numpy as np
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples.finding import groups_put
dataset = Dataset.objects.get().pk
with sample_store().write() as cursor:
    ids = np.array([row[0] for row in cursor.execute("select id from samples order by 1").fetchall()])
    groups_put(cursor, dataset_id=dataset, ids=ids, groups=np.arange(len(ids)) % (len(ids) // 2), distance=4)
"""

# A run from beginning to end, its result, and its revert; then a new run that waits for a worker.
UNDISTURBED = (
    PAIRS
    + """
import threading
from vlm import services
from vlm.models import Dataset, TaggingRun
from vlm.runs.options import RunOptions
def create():
    options = RunOptions(one_per_group=ONE_PER_GROUP)
    return services.runs.create(dataset=Dataset.objects.get(), options=options, user=None, origin="command")
run = services.runs.execute(run_id=create().pk, stop=threading.Event())
assert (run.status, run.failed) == ("completed", 0)
"""
    + READ
    + """
services.runs.revert(run=run)
TaggingRun.objects.all().delete()
"""
    + PAIRS  # at its end the run has looked for groups itself
    + """
create()
"""
)


@pytest.mark.parametrize(("one_per_group", "kills"), [(False, KILLS), (True, KILLS // 2)])
def test_a_run_killed_again_and_again_answers_everything_once(home: Home, one_per_group: bool, kills: int) -> None:
    """Each worker goes on where the last one was killed; the one after them comes to the end."""
    expected, answers, shared = json.loads(home.python(f"ONE_PER_GROUP = {one_per_group}\n{UNDISTURBED}"))
    assert shared == (IMAGES // 2 if one_per_group else 0)
    assert [row[1:] for row in answers] == [[5, 5]] * IMAGES
    workshop = home.start("-c", WORKSHOP, stdin=True)
    assert workshop.stdout is not None
    assert workshop.stdin is not None
    assert workshop.stdout.readline() == "ready\n", finish(workshop)[1]
    chance = random.Random(5)
    reached = 0
    for kill in range(kills + 1):
        if kill == kills:
            home.brake.release()
        else:
            home.brake.allow(3)
        workshop.stdin.write("work\n")
        workshop.stdin.flush()
        worker = int(workshop.stdout.readline())
        if kill < kills:
            # At work on one of its three images, at whatever step; the brake keeps it from ever coming to the end.
            wait_for(lambda: home.last_run()[1] > reached, "A first commit of the worker")  # noqa: B023
            time.sleep(chance.random() * 0.1)
            os.kill(worker, signal.SIGKILL)
        assert workshop.stdout.readline() == "ended\n"
        status, reached = home.last_run()
        if kill < kills:
            # A worker that learns from the store what the last one could not write down any more says so as it loads.
            assert status in ("loading", "running")
            assert 0 < reached <= 4 * (kill + 1) < IMAGES + 4
    workshop.stdin.close()
    workshop.wait(PATIENCE)
    assert home.last_run() == ("completed", IMAGES)
    tags, answers, now_shared = json.loads(home.python(READ))
    assert (tags, now_shared) == (expected, shared)
    assert [row[1:] for row in answers] == [[5, 5]] * IMAGES
    assert home.manage("check_store").returncode == 0


def test_signals_keep_what_was_done_and_resume_goes_on(home: Home) -> None:
    """Ctrl-C, resume, SIGTERM, resume: each stop keeps what was done."""
    home.brake.allow(3)
    child = home.start("manage.py", "autotag", "photos", "--scope", "all", "--json", "--no-progress")
    for number, done in ((signal.SIGINT, 3), (signal.SIGTERM, 7)):
        home.brake.wait_until_reached()
        child.send_signal(number)
        out, errors = finish(child)
        assert child.returncode == 130, errors
        assert (json.loads(out)["status"], json.loads(out)["processed"]) == ("interrupted", done)
        home.brake.allow(4)
        child = home.start("manage.py", "autotag", "photos", "--resume", "--json", "--no-progress")
    home.brake.release()
    out, errors = finish(child)
    assert child.returncode == 0, errors
    assert (json.loads(out)["status"], json.loads(out)["processed"]) == ("completed", IMAGES)


def test_of_two_starts_at_once_one_wins(home: Home) -> None:
    """The loser ends while the winner is still at work: the brake holds until then."""
    home.brake.allow(1)
    both = [home.start("manage.py", "autotag", "photos", "--scope", "all", "--no-progress") for _ in range(2)]
    wait_for(lambda: any(child.poll() is not None for child in both), "The end of one of the two")
    home.brake.release()
    ended = {child.wait(): errors for child in both for _, errors in [finish(child)]}
    assert sorted(ended) == [0, 2]
    assert "is active" in ended[2]


LATER = """
import atexit
from vlm import jobs
atexit.register(print, "what was registered later", flush=True)
jobs.stop_first()
jobs.launch("job", lambda stop: stop.wait() and print("the job", flush=True))
"""


def test_jobs_end_before_what_they_work_with(home: Home) -> None:
    """A library that is imported for a run, as Ray is, registers its own end after that of jobs."""
    assert home.python(LATER).splitlines() == ["the job", "what was registered later"]
