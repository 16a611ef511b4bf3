"""``export_tags``: the samples of a filter with their tags, as a file or on stdout."""

import os
import shutil
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import IO, Any

from vlm import services
from vlm.formats import EXPORTS
from vlm.management.commands._shared import DoorCommand, add_filter_argument, find_dataset, read_filter, whole_file


class Command(DoorCommand):
    help = "Write the images of a filter with their tags to a file, or to stdout."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        add_filter_argument(parser)
        parser.add_argument("--format", required=True, choices=list(EXPORTS), help="of the file")
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="instead of stdout; put in place when it is complete"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        output: Path | None = options["output"]
        chosen = read_filter(options["filter"])
        with services.exports.make(dataset=dataset, filter=chosen, format=options["format"]) as made:
            if output is None:
                _to_stdout(made.file)
                return
            with whole_file(output) as file:
                shutil.copyfileobj(made.file, file)


def _to_stdout(made: IO[bytes]) -> None:
    try:
        shutil.copyfileobj(made, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
