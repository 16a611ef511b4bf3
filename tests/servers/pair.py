"""Two server processes on one data folder, and somebody who speaks to either of them."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brake import Brake
from tests.checkpoints import small_model
from tests.children import wait_for
from tests.images import make_images
from tests.serving import Daphne, Listener, Wire

IMAGES = 12

IMPORT = """
import sys
import django; django.setup()
from django.core.management import call_command
call_command("import_dataset", sys.argv[1], name="photos", no_progress=True, verbosity=0)
"""


class Pair:
    """Servers ``one`` and ``other``, both up, with a data set of twelve pictures; runs have a brake."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.brake = Brake(folder / "brake.json")
        given = small_model(folder / "checkpoint") | self.brake.environment | variables
        self.one = Daphne(folder, **given)
        done = self.one.run("-c", IMPORT, str(make_images(folder / "photos", IMAGES)))
        assert done.returncode == 0, done.stderr
        self.other = self.one.beside()
        self.start()
        wire = Wire(self.one)
        assert wire.log_in() == 302
        self.cookies = wire.cookies
        wire.close()

    def start(self) -> None:
        """Start what is not up."""
        for server in (self.one, self.other):
            if not server.is_up:
                server.start()

    @contextmanager
    def visit(self, server: Daphne) -> Iterator[Wire]:
        """A connection to one of the servers, of somebody who has logged in at the first one."""
        wire = Wire(server)
        wire.cookies = dict(self.cookies)
        try:
            yield wire
        finally:
            wire.close()

    @contextmanager
    def listen(self, server: Daphne) -> Iterator[Listener]:
        with self.visit(server) as wire:
            yield wire.listen("/ws/datasets/1/progress/")

    def post(self, server: Daphne, path: str, **form: object) -> int:
        """Send a form as a page of that server does; returns the status of the answer."""
        with self.visit(server) as wire:
            return wire.post(path, form, Origin=wire.origin)[0]

    def look(self, server: Daphne) -> dict[str, object]:
        """Return the state of the newest run, as a server tells it."""
        with self.visit(server) as wire:
            status, _, body = wire.ask("GET", "/datasets/1/auto-tag/progress", Accept="application/json")
        assert status == 200, body
        found: dict[str, object] = json.loads(body)
        return found

    def start_run(self, server: Daphne, *, images: int) -> int:
        """Start a run over all images at a server, which stands still after some; returns its number."""
        self.brake.allow(images)
        assert self.post(server, "/datasets/1/auto-tag", scope="all") in (200, 302)
        self.brake.wait_until_reached()
        run = self.look(server)["run"]
        assert isinstance(run, int)
        return run

    def wait_for_end(self, server: Daphne) -> dict[str, object]:
        wait_for(lambda: not self.look(server)["active"], "The end of the run")
        return self.look(server)

    def check(self) -> "subprocess.CompletedProcess[str]":
        return self.one.run("-m", "datavisor", "check_store")

    @property
    def traces(self) -> int:
        """How many traces the servers have written since they were started."""
        return sum(server.log.read_text().count("Traceback") for server in (self.one, self.other))

    def close(self) -> None:
        self.brake.release()
        for server in (self.one, self.other):
            server.stop()
