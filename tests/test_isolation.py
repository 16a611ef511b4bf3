"""The tests see nothing of the machine they run on, and leave nothing in the checkout."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.children import PATIENCE, ROOT, end, finish

pytestmark = pytest.mark.processes

# What a developer's shell and checkout may hold, and what a test must not see of it.
SHELL = {
    "DJANGO_SETTINGS_MODULE": "datavisor.settings",
    "DATABASE_URL": "postgres://leaked:leaked@192.0.2.1/leaked",
    "DATAVISOR_DATA_DIR": "/nowhere/leaked",
    "DATAVISOR_VLM_MODEL": "/nowhere/leaked",
    "DATAVISOR_ALLOWED_HOSTS": "leaked.example.org",
    "DATAVISOR_VLM_DTYPE": "no such type",
    "HF_HOME": "/nowhere/leaked",
    "FORCE_COLOR": "1",
}
PROBE = """
import json, os, time
from pathlib import Path
from django.conf import settings
from django.contrib.auth.models import User

def test_what_is_seen(transactional_db):
    here = Path(os.environ["PROBE_FOLDER"])
    User.objects.create(username="ada")  # a second one in this database would be refused
    (here / f"{os.environ['PROBE_NAME']}.json").write_text(json.dumps({
        "data": str(settings.DATA_DIR), "database": str(settings.DATABASES["default"]["NAME"]),
        "engine": settings.DATABASES["default"]["ENGINE"], "model": settings.VLM_MODEL, "hosts": settings.ALLOWED_HOSTS,
        "environment": dict(os.environ),
    }))
    deadline = time.monotonic() + float(os.environ["PROBE_SECONDS"])
    while len(list(here.glob("*.json"))) < int(os.environ["PROBE_COUNT"]):  # until the others are here too
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of one's own with the probe as its only test, and with a data folder that `make run` has left there."""
    folder = tmp_path / "checkout"
    for name in ("vlm", "datavisor", "templates"):
        # Compiled modules come along, so that no child compiles them anew; not those that are being written.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("photos", "checkpoint", "*.pyc.*"))
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    for name in (
        "__init__.py",
        "settings.py",
        "conftest.py",
        "slow.txt",
        "outcome.py",
        "brake.py",
        "children.py",
        "database.py",
        "workshop.py",
    ):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    (folder / "tests" / "test_probe.py").write_text(PROBE)
    static = folder / "data" / "static"
    static.mkdir(parents=True)
    (static / "staticfiles.json").write_text('{"paths": {}, "version": "1.1", "hash": "0"}')
    (folder / "data" / "secret_key").write_text("")
    (folder / "data" / "datavisor.sqlite3").write_bytes(b"no database")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(checkout: Path, tmp_path: Path, *names: str) -> list[dict[str, Any]]:
    """Run the probe once for each name, all at the same time, and return what each has seen."""
    told = tmp_path / "told"
    told.mkdir(exist_ok=True)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
            cwd=checkout,
            env=os.environ
            | SHELL
            | {"PROBE_FOLDER": str(told), "PROBE_NAME": name, "PROBE_COUNT": str(len(names))}
            | {"PROBE_SECONDS": str(PATIENCE), "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in names
    ]
    try:
        for child in children:
            out, _ = finish(child)
            assert child.returncode == 0, out
    finally:
        for child in children:
            end(child)
    return [json.loads((told / f"{name}.json").read_text()) for name in names]


def test_nothing_of_the_shell_or_of_make_run_leaks_in(checkout: Path, tmp_path: Path) -> None:
    before = contents(checkout / "data")
    (seen,) = look(checkout, tmp_path, "one")
    assert not Path(seen["data"]).is_relative_to(checkout)
    assert Path(seen["database"]).is_relative_to(seen["data"])
    assert seen["engine"] == "datavisor.sqlite"
    assert (seen["model"], seen["hosts"][:1]) == ("vikhyatk/moondream2", ["localhost"])
    environment = seen["environment"]
    assert environment["DJANGO_SETTINGS_MODULE"] == "tests.settings"
    assert [name for name, value in environment.items() if "leaked" in value] == []
    assert "FORCE_COLOR" not in environment
    assert contents(checkout / "data") == before
    assert not Path(seen["data"]).exists()  # it went with its process


def test_two_runs_in_one_checkout_never_meet(checkout: Path, tmp_path: Path) -> None:
    one, other = look(checkout, tmp_path, "one", "other")
    assert one["data"] != other["data"]
    assert one["database"] != other["database"]


def test_this_very_run_is_on_its_own() -> None:
    assert not Path(settings.DATA_DIR).is_relative_to(ROOT)
    assert Path(settings.DATABASES["default"]["NAME"]).is_relative_to(settings.DATA_DIR)
    assert os.environ["DATAVISOR_DATA_DIR"] == str(settings.DATA_DIR)


HARMFUL = """
import signal, threading
import pytest
from tests.conftest import own_signal_handlers

def test_one_hangs_and_leaves_a_handler():
    signal.signal(signal.SIGTERM, lambda *_: None)
    # The alarm of its time limit comes soon from here on, and not before it hangs, however slow the machine.
    signal.setitimer(signal.ITIMER_REAL, 0.1); threading.Event().wait()

def test_another_is_none_the_worse():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""


def test_a_test_that_hangs_is_ended_and_breaks_nothing(checkout: Path) -> None:
    (checkout / "tests" / "test_probe.py").write_text(HARMFUL)
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    try:
        out, _ = finish(child)
    finally:
        end(child)
    assert "1 failed, 1 passed" in out
    assert "threading.Event().wait()" in out  # where it stood
