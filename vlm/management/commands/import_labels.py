"""``import_labels``: bring in what is right about images, decided elsewhere."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from vlm import services
from vlm.management.commands._shared import USAGE, DoorCommand, find_dataset

SHOWN = 50


class Command(DoorCommand):
    help = (
        "Bring labels in from a CSV with the columns file (or path), dimension and value. With a column probability, as "
        "review_sample writes it, or with --random, they count for the accuracy of the data set. All or nothing: lines that "
        "cannot be used are listed, and nothing is kept, unless --partly says otherwise."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("file", help="a CSV or TSV file; “-” is stdin")
        parser.add_argument(
            "--random", action="store_true", help="the labelled images are a uniform random sample of the data set"
        )
        parser.add_argument("--partly", action="store_true", help="keep the lines that can be used")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset, path = find_dataset(options["dataset"]), options["file"]
        try:
            content = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.", returncode=USAGE) from error
        done = services.review.import_labels(
            dataset=dataset, content=content, random=options["random"], strict=not options["partly"], user=None
        )
        for problem in done.problems[:SHOWN]:
            self.stderr.write(problem)
        if done.problem_count > SHOWN:
            self.stderr.write(f"… and {done.problem_count - SHOWN:,} more.")
        if done.problem_count and not options["partly"]:
            raise CommandError(
                f"{done.problem_count:,} lines cannot be used, so no label came in. Mend them, or add --partly.",
                returncode=USAGE,
            )
        counted = (
            ""
            if done.probability
            else " They carry no probability, so they do not count for the accuracy; see --random."
        )
        self.stdout.write(f"{done.labels:,} labels came in.{counted}")
