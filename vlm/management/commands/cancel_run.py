"""``cancel_run``: stop a run, in whatever process it works."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from vlm import services
from vlm.management.commands._shared import find_run


class Command(BaseCommand):
    help = "Stop a run after the batch at hand; what it has done stays, and it can go on later."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        run = find_run(options["run"])
        if not services.run_cancel(run=run):
            raise CommandError(f"Run {run.pk} is not active: it is {run.get_status_display()}.", returncode=2)
        self.stdout.write(f"Run {run.pk} stops after the batch at hand.")
