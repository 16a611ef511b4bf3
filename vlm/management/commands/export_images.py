"""``export_images``: the pictures of a filter as a folder of links or copies."""

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
        "Lay the pictures of a filter out below a folder, as links or copies, in folders by split or by a dimension's word. "
        "What is there already is never written over."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        add_filter_argument(parser)
        parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="made if it is not there")
        parser.add_argument(
            "--by",
            action="append",
            default=[],
            metavar="NAME",
            help="folders by “split” or by the word of a dimension; repeat it for folders in folders",
        )
        parser.add_argument("--copy", action="store_true", help="copy the files instead of linking to them")

    def handle(self, *args: Any, **options: Any) -> None:
        done = services.folders.lay_out(
            dataset=find_dataset(options["dataset"]),
            filter=read_filter(options["filter"]),
            into=options["into"],
            by=options["by"],
            copy=options["copy"],
        )
        tell_laid_out(self, done, "picture" if options["copy"] else "link")
        if done.failed:
            raise CommandError(f"{done.failed:,} could not be laid out.", returncode=SOME_FAILED)
