"""``write_sidecars``: the tags of pictures as XMP files beside them."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from vlm import services
from vlm.management.commands._shared import (
    SOME_FAILED,
    DoorCommand,
    add_filter_argument,
    find_dataset,
    read_filter,
    tell_laid_out,
)


class Command(DoorCommand):
    help = (
        "Write the tags of a filter's pictures as XMP sidecars (photo.jpg.xmp) beside them, where Lightroom, digiKam and darktable "
        "read them. A sidecar that is there is never written over, and the pictures are not touched."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        add_filter_argument(parser)
        parser.add_argument(
            "--into", type=Path, metavar="FOLDER", help="write them below this folder, and nothing beside the pictures"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        done = services.folders.write_sidecars(
            dataset=find_dataset(options["dataset"]), filter=read_filter(options["filter"]), into=options["into"]
        )
        tell_laid_out(self, done, "sidecar")
        if done.failed:
            raise CommandError(f"{done.failed:,} could not be written.", returncode=SOME_FAILED)
