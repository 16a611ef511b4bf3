"""``export_tags``: the samples of a filter with their tags, as a file or on stdout."""

import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from vlm import services
from vlm.formats import EXPORTS
from vlm.management.commands._shared import (
    DoorCommand,
    add_filter_argument,
    find_dataset,
    read_filter,
    to_stdout,
    whole_file,
)


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
                to_stdout(made.file)
                return
            with whole_file(output) as file:
                shutil.copyfileobj(made.file, file)
