"""``cancel_run``: stop a run, in whatever process it works."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from vlm import services
from vlm.management.commands._shared import USAGE, DoorCommand, find_run


class Command(DoorCommand):
    help = "Stop a run after the batch at hand; what it has done stays, and it can go on later."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, help="number of the run; the command runs lists them")

    def handle(self, *args: Any, **options: Any) -> None:
        run = find_run(options["run"])
        if not services.runs.cancel(run=run):
            raise CommandError(f"Run {run.pk} is not active: it is {run.get_status_display()}.", returncode=USAGE)
        self.stdout.write(f"Run {run.pk} stops after the batch at hand.")
