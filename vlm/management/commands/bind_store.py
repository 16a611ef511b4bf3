"""``bind_store``: let a store of samples and a database belong together that do not, since one was replaced or restored."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand


class Command(DoorCommand):
    help = (
        "Mend “samples and database do not belong together”. Best restore both from one backup. Else say --trust if they do belong "
        "together, or --forget to empty the store of samples: tags and answers go, and each data set is imported again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_mutually_exclusive_group(required=True)
        choice.add_argument("--trust", action="store_true", help="they belong together: both are of one moment")
        choice.add_argument("--forget", action="store_true", help="they do not: forget all images, tags and answers")

    def handle(self, *args: Any, **options: Any) -> None:
        count = services.datasets.bind_store(forget=options["forget"])
        forgotten = f" {count:,} images were forgotten; import the data sets again." if options["forget"] else ""
        self.stdout.write(f"Store and database belong together now.{forgotten}")
