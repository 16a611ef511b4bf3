"""Runs on a real cluster of Ray whose workers and nodes are killed at random, and whose drivers are."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.brake import Brake
from tests.checkpoints import small_model
from tests.children import completed, end, environment, finish, wait_for
from tests.images import make_images
from tests.scoring.ray_nodes import Nodes, end_all, processes, uncounted
from tests.workshop import Forked, fork

# Each worker that comes up reads PyTorch anew, several at a time, and Ray's own processes besides.
LONG = 800.0  # seconds
pytestmark = [pytest.mark.processes, pytest.mark.ray, pytest.mark.timeout(LONG + 100)]

IMAGES = 120
KILLS = 10
SEED = 18

READ = """
import json
from vlm.process import sample_store
with sample_store().read() as cursor:
    rows = cursor.execute(
        "select s.path, a.dimension, a.word, a.probability, a.accepted from answers a join samples s on s.id = a.sample_id "
        "where a.run_id = %s order by all").fetchall()
print(json.dumps(rows))
"""


class Home:
    """A data folder with a data set whose images are answered already, by a run here; and commands that work on it."""

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        self.folder, self.nodes = folder, nodes
        self.brake = Brake(folder / "brake.json")
        self.environment = environment(
            folder / "data",
            **nodes.environment,
            **self.brake.environment,
            **small_model(folder / "checkpoint"),
        )
        self.children: list[Forked] = []
        assert self.manage("migrate", "-v0").returncode == 0
        done = self.manage("import_dataset", str(make_images(folder / "photos", IMAGES)), "--name", "photos", "--json")
        assert json.loads(done.stdout)["samples"] == IMAGES
        here = json.loads(self.manage("autotag", "photos", "--json").stdout)
        assert here["processed"] == IMAGES
        self.expected = self.answers(here["run"])

    def start(self, *arguments: str, **variables: str) -> Forked:
        self.children.append(fork(*arguments, env=self.environment | variables))
        return self.children[-1]

    def manage(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return completed(self.start("manage.py", *arguments, **variables), LONG)

    def answers(self, run: int) -> list[list[object]]:
        child = self.start("-c", f"import django; django.setup()\n{READ % run}")
        out, errors = finish(child, LONG)
        assert child.returncode == 0, errors
        return list(json.loads(out))

    def last_run(self) -> dict[str, Any]:
        """Return the newest run's row."""
        with closing(sqlite3.connect(self.folder / "data" / "datavisor.sqlite3", timeout=120)) as connection:
            connection.row_factory = sqlite3.Row
            return dict(connection.execute("select * from vlm_taggingrun order by id desc").fetchone())

    def crew(self) -> list[dict[str, Any]]:
        return list(json.loads(self.last_run()["crew"]))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes(2)
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def made(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), nodes)


@pytest.fixture
def home(made: Home) -> Iterator[Home]:
    made.brake.release()
    yield made
    for child in made.children:
        end(child)
    made.children.clear()


def test_ten_deaths_at_random_change_no_answer(home: Home) -> None:
    chance = random.Random(SEED)
    home.brake.allow(3)
    child = home.start(
        "manage.py", "autotag", "photos", "--scope", "all", "--workers", "auto", "--json", "--no-progress"
    )
    killed, number = 0, 0
    while killed < KILLS - 2:
        home.brake.wait_until_reached(LONG)
        assert home.last_run()["processed"] < IMAGES - 8  # else there was too little to do for so many deaths
        if number in (3, 7):
            home.nodes.kill(home.nodes.nodes.pop(chance.randrange(2)))
            home.nodes.nodes.append(home.nodes.add())
        else:
            alive = processes(home.nodes.folder)
            at_work = [worker["pid"] for worker in home.crew() if worker["state"] == "ready" and worker["pid"] in alive]
            # Two workers have four images at hand at most: of three rounds at least one finds one of them alive, in the others
            # both are on their way back, and what they had answered before is being kept.
            if at_work:
                killed += kill(chance.choice(at_work))
        number += 1
        home.brake.allow(chance.randint(2, 4))
    home.brake.wait_until_reached(LONG)
    home.brake.release()
    out, errors = finish(child, LONG)
    told = json.loads(out)
    assert (told["status"], told["processed"], told["failed"]) == ("completed", IMAGES, 0), errors
    assert home.answers(told["run"]) == home.expected
    assert sum(worker["deaths"] for worker in told["crew"]) >= 2


def kill(pid: int) -> bool:
    """Kill a worker, unless it has died meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_a_driver_that_is_killed_takes_its_workers_along_and_its_run_goes_on_elsewhere(home: Home) -> None:
    home.brake.allow(4)
    child = home.start("manage.py", "autotag", "photos", "--scope", "all", "--workers", "auto", "--no-progress")
    home.brake.wait_until_reached(LONG)
    workers = [worker["pid"] for worker in home.crew() if worker["pid"]]
    assert workers
    child.kill()
    child.wait()
    home.brake.release()
    wait_for(lambda: not set(workers) & processes(home.nodes.folder), "The end of the workers", LONG)
    done = home.manage("autotag", "photos", "--resume", "--workers", "here", "--json")
    told = json.loads(done.stdout)
    assert (told["status"], told["processed"], told["failed"]) == ("completed", IMAGES, 0), done.stderr
    assert home.answers(told["run"]) == home.expected


# The run is a background job of a process whose main thread ends, as that of a server does.
SERVER = """
import os, sys, time
import django
django.setup()
from vlm import services
from vlm.models import Dataset
from vlm.runs.options import RunOptions
options = RunOptions(scope="all", workers="auto")
services.runs.start(dataset=Dataset.objects.get(), options=options, user=None, origin="page")
sys.stdin.read()
"""


def test_a_server_that_stops_interrupts_its_run_and_keeps_what_was_at_hand(home: Home) -> None:
    home.brake.allow(3)
    child = fork("-c", SERVER, env=home.environment, stdin=True)
    home.children.append(child)
    home.brake.wait_until_reached(LONG)
    finish(child, LONG)  # which closes its input
    run = home.last_run()
    assert run["status"] == "interrupted"
    assert "Resume to go on" in run["error"]
    assert 3 <= run["processed"] < IMAGES
    assert len({row[0] for row in home.answers(run["id"])}) == run["processed"]


def test_workers_of_this_machine_need_no_home(home: Home) -> None:
    """Nothing of the test's cluster is told to it: its settings are the product's own."""
    own = {name: value for name, value in uncounted(home.environment).items() if not name.startswith("RAY_")}
    folder = Path(tempfile.mkdtemp(prefix="dv-ray-"))
    own |= {
        "HOME": "/dev/null/home",
        "RAY_TMPDIR": str(folder),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_niceness": "0",
    }
    command = ("manage.py", "autotag", "photos", "--scope", "all", "--limit", "5", "--workers", "local:2", "--json")
    try:
        child = fork(*command, env=own)
        home.children.append(child)
        out, errors = finish(child, LONG)
        told = json.loads(out)
        assert (told["status"], told["processed"], len(told["crew"])) == ("completed", 5, 2), errors
    finally:
        end_all(folder)
