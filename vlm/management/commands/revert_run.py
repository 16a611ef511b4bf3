"""``revert_run``: take back what a run added."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from vlm import services
from vlm.management.commands._shared import find_run
from vlm.samples import StoreError


class Command(BaseCommand):
    help = "Take back what a run added, and show again what it had replaced. Users' tags stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        run = find_run(options["run"])
        try:
            count = services.run_revert(run=run)
        except (services.RunError, StoreError) as error:
            raise CommandError(str(error), returncode=2) from error
        self.stdout.write(f"Run {run.pk} is reverted: its answers about {count:,} samples are gone.")
