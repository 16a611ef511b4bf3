"""``backup``: copy store and database into a folder, while the server runs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.utils.timezone import localtime

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import DoorCommand, to_json


class Command(DoorCommand):
    help = "Copy samples, tags, data sets, runs, vocabulary and users, as they are at one moment, into a new folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "folder", nargs="?", type=Path, help="made by this (default: backup-DATE-TIME in the present folder)"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"] or Path(f"backup-{localtime():%Y%m%d-%H%M%S}")
        done = services.backups.make(folder=folder.expanduser().absolute())
        counts = {"datasets": done.datasets, "runs": done.runs, "samples": done.samples}
        if options["json"]:
            self.stdout.write(to_json({"folder": str(done.folder), **counts}))
            return
        told = ", ".join(counted(counts[name], name[:-1].replace("dataset", "data set")) for name in counts)
        self.stdout.write(f"{told} are in {done.folder}. It holds password hashes: keep it as safe as the data folder.")
