"""``revert_run``: take back what a run added."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand, find_run


class Command(DoorCommand):
    help = "Take back what a run added, and show again what it had replaced. Users' tags stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, help="number of the run; the command runs lists them")

    def handle(self, *args: Any, **options: Any) -> None:
        run = find_run(options["run"])
        count = services.runs.revert(run=run)
        self.stdout.write(f"Run {run.pk} is taken back: its answers about {count:,} images are gone.")
