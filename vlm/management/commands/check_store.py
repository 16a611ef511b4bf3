"""``check_store``: prove that the tags that everybody sees are what the ledger says."""

import sys
from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand


class Command(DoorCommand):
    help = (
        "Compare every sample with the ledger, and both databases with each other; find rows of deleted data sets. Exit code 1 "
        "if something differs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--repair",
            action="store_true",
            help="derive differing images anew, remove orphans, have the store follow the database",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = services.datasets.check_store(repair=options["repair"])
        self.stdout.write(f"{report.samples:,} images checked, {report.differing:,} differ from the ledger.")
        if report.examples:
            self.stdout.write(f"Samples: {', '.join(map(str, report.examples))}")
        if report.tallies:
            self.stdout.write(f"Data sets whose kept counts are wrong: {', '.join(map(str, report.tallies))}.")
        for table, count in report.orphans.items():
            self.stdout.write(f"{count:,} rows of {table} belong to nothing.")
        for what, count in report.between.items():
            self.stdout.write(f"{count:,} {what}: database and store differ.")
        if not report.is_sound:
            if not options["repair"]:
                self.stdout.write("check_store --repair mends this.")
                sys.exit(1)
            self.stdout.write("Repaired.")
