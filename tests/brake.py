"""A brake for the runs of a server or command under test, so that a test need not be faster or slower than the machine.

A process whose settings are ``tests.braked`` commits every batch on its own, and after as many images as the test allows
it waits, at the safe point after a commit, until the test allows more, releases the brake, or the run is to stop. And it is
as patient as the tests are: with its workers, and with its own end.
"""

import json
import math
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.apps import AppConfig

from tests.children import PATIENCE, wait_for

VARIABLE = "TESTS_BRAKE"
LOOK_SECONDS = 0.02


class Brake:
    """The test's side. ``path`` is the file by which both sides speak; without it nothing is held up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {VARIABLE: str(path), "DJANGO_SETTINGS_MODULE": "tests.braked"}

    def allow(self, images: int) -> None:
        """Let runs commit ``images`` images from now on, and wait then."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"images": images, "token": secrets.token_hex(8)}))
        fresh.replace(self.path)

    def release(self) -> None:
        self.path.unlink(missing_ok=True)

    def wait_until_reached(self, seconds: float = PATIENCE) -> None:
        """Wait until a run stands still because it has used up what was allowed."""
        token = json.loads(self.path.read_text())["token"]
        wait_for(lambda: _read(_mark(self.path)) == token, "A run that reaches its brake", seconds)


class Lining:
    """The process's side: counts what was committed since the brake was last set, and waits."""

    def __init__(self, path: Path) -> None:
        self.path, self.token, self.left = path, "", 0

    def committed(self, images: int, stop: threading.Event) -> None:
        self._look()
        self.left -= images
        while self.token and self.left <= 0 and not stop.wait(LOOK_SECONDS):
            if _read(_mark(self.path)) != self.token:
                _mark(self.path).write_text(self.token)
            self._look()

    def _look(self) -> None:
        """Learn whether the brake was set anew or released."""
        text = _read(self.path)
        if not text:
            self.token = ""
        elif (said := json.loads(text))["token"] != self.token:
            self.token, self.left = said["token"], said["images"]


def _mark(path: Path) -> Path:
    return path.with_suffix(".reached")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def braked(tag_samples: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """Return the loop ``tag_samples`` with the brake of ``path`` in it."""
    lining = Lining(path)

    def loop(*args: Any, stop: threading.Event, publish: Callable[[Any], None] = lambda _: None, **options: Any) -> Any:
        def publish_and_wait(merged: Any) -> None:
            publish(merged)
            lining.committed(merged.processed, stop)

        return tag_samples(*args, stop=stop, publish=publish_and_wait, **options)

    return loop


class BrakeConfig(AppConfig):
    """Puts the brake into the runs of a process."""

    name = "tests.brake"
    label = "tests_brake"

    def ready(self) -> None:
        from vlm import jobs
        from vlm.runs import loop, worker
        from vlm.scoring import crew
        from vlm.views import autotag

        jobs.STOP_SECONDS = crew.START_SECONDS = PATIENCE
        loop.COMMIT_SECONDS = 0.0
        autotag.ASK_ABOVE_SECONDS = math.inf  # how long a run stood at the brake says nothing of the next one
        worker.tag_samples = braked(loop.tag_samples, Path(os.environ[VARIABLE]))
