"""``restore``: put a backup in the place of store and database."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import DoorCommand


class Command(DoorCommand):
    help = "Put back what backup has copied. What is there now is moved into a folder beside it, not deleted."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="that backup made")

    def handle(self, *args: Any, **options: Any) -> None:
        backup, aside = services.backups.restore(folder=options["folder"].expanduser().absolute())
        self.stdout.write(
            f"{counted(backup.samples, 'sample')} of {counted(backup.datasets, 'data set')} are as they were on "
            f"{backup.made:%Y-%m-%d %H:%M} UTC. What was there before is in {aside}; delete it when you are sure."
        )
