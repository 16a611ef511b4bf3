"""``export_store``: write data sets with all that is known of them into an archive of Parquet files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import DoorCommand, find_dataset, to_json


class Command(DoorCommand):
    help = (
        "Write data sets with samples, tags, answers, edits, runs, slices and views into a new folder of Parquet files."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="made by this")
        parser.add_argument("datasets", nargs="*", metavar="DATASET", help="name or number (default: all)")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"].expanduser().absolute()
        chosen = [find_dataset(text) for text in options["datasets"]] or services.datasets.listed()
        done = services.archives.write(folder=folder, datasets=chosen)
        size = sum(file.bytes for file in done.files.values())
        told = {"datasets": list(done.datasets), "runs": done.runs, "samples": done.samples, "bytes": size}
        if options["json"]:
            self.stdout.write(to_json({"folder": str(folder), **told}))
            return
        self.stdout.write(
            f"{counted(len(done.datasets), 'data set')}, {counted(done.runs, 'run')}, {counted(done.samples, 'sample')} are in "
            f"{folder}: {size / 1e6:,.1f} MB. The images are not part of it."
        )
