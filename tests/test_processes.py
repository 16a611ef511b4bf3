"""Runs against real signals: kill -9, Ctrl-C, SIGTERM, and a second process that starts the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint
from tests.images import make_images

ROOT = Path(__file__).parent.parent
KILLS = 10
IMAGES = 60

# Imports everything once, then forks a worker per line that it reads; a worker goes on with the run until it ends.
WORKSHOP = """
import os, sys, threading
import django
django.setup()
from django.db import connections
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
        services.run_requeue(run=run, user=None, origin="command")
    services.run_execute(run_id=run.pk, stop=threading.Event())
    os._exit(0)
"""


class Home:
    """A data folder with a data set, and commands that work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = make_images(folder / "photos", IMAGES)
        (folder / "checkpoint").mkdir()
        # Slow enough to be caught at work.
        model = make_checkpoint(folder / "checkpoint", layers=8, width=64)
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


READ = """
import json
from vlm.store import sample_store
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


def processed(home: Home) -> int:
    return int(home.python("from vlm.models import TaggingRun; print(TaggingRun.objects.first().processed)"))


def test_a_run_killed_ten_times_answers_everything_once(home: Home) -> None:
    """Each kill -9 comes after the worker has committed something; the last worker goes on to the end."""
    undisturbed = home.manage("autotag", "photos", "--json", "--no-progress")
    assert undisturbed.returncode == 0, undisturbed.stderr
    result = json.loads(undisturbed.stdout)
    assert (result["status"], result["processed"], result["failed"]) == ("completed", IMAGES, 0)
    expected, _ = json.loads(home.python(READ))
    assert home.manage("revert_run", str(result["run"])).returncode == 0
    home.python(
        "from vlm import services; from vlm.models import Dataset, TaggingRun; TaggingRun.objects.all().delete()\n"
        "services.run_create(dataset=Dataset.objects.get(), options=services.RunOptions(), user=None, origin='command')"
    )
    workshop = home.start("-c", WORKSHOP, stdin=subprocess.PIPE)
    assert workshop.stdout is not None
    assert workshop.stdin is not None
    assert workshop.stdout.readline() == "ready\n", workshop.communicate()[1]
    for kill in range(KILLS):
        workshop.stdin.write("work\n")
        workshop.stdin.flush()
        worker = int(workshop.stdout.readline())
        time.sleep(0.8 + 0.13 * kill)
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it came to the end first
        assert workshop.stdout.readline() == "ended\n"
    workshop.stdin.write("work\n")
    workshop.stdin.flush()
    workshop.stdout.readline()
    assert workshop.stdout.readline() == "ended\n"
    workshop.stdin.close()
    workshop.wait(20)
    tags, answers = json.loads(home.python(READ))
    assert tags == expected
    assert [row[1:] for row in answers] == [[5, 5]] * IMAGES
    status = home.python("from vlm.models import TaggingRun; print(TaggingRun.objects.get().status)")
    assert status.strip() == "completed"
    assert home.manage("check_store").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_batch_and_resume_goes_on(home: Home, number: signal.Signals) -> None:
    child = home.start("manage.py", "autotag", "photos", "--scope", "all", "--json", "--no-progress")
    deadline = time.monotonic() + 60
    while True:
        listed = json.loads(home.python(
            "import json\nfrom vlm.models import TaggingRun\n"
            "run = TaggingRun.objects.first(); print(json.dumps([run.status, run.processed] if run else ['', 0]))"
        ))  # fmt: skip
        if listed[0] == "running" and listed[1]:
            break
        assert time.monotonic() < deadline
    second = home.manage("autotag", "photos", "--scope", "all")
    assert second.returncode == 2
    assert "is active" in second.stderr
    asked = time.monotonic()
    child.send_signal(number)
    out, errors = child.communicate(timeout=30)
    if child.returncode == 0:  # it was done before the signal came
        assert json.loads(out)["status"] == "completed"
        return
    assert time.monotonic() - asked < 15
    assert child.returncode == 130, errors
    interrupted = json.loads(out)
    assert interrupted["status"] == "interrupted"
    assert 0 < interrupted["processed"] < IMAGES
    resumed = home.manage("autotag", "photos", "--resume", "--json", "--no-progress")
    assert resumed.returncode == 0, resumed.stderr
    done = json.loads(resumed.stdout)
    assert (done["run"], done["status"], done["processed"]) == (interrupted["run"], "completed", IMAGES)
