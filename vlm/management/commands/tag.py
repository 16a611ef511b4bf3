"""``tag``: give tags to, take them from, or confirm them on all samples of a filter."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import USAGE, DoorCommand, add_filter_argument, find_dataset, read_filter


class Command(DoorCommand):
    help = "Edit tags from the command line, as a user would on the page."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        add_filter_argument(parser)
        parser.add_argument("--add", action="append", default=[], metavar="TAG", help="may be repeated, as the others")
        parser.add_argument(
            "--remove", action="append", default=[], metavar="TAG", help="for good: no run brings it back"
        )
        parser.add_argument(
            "--confirm", action="append", default=[], metavar="TAG", help="make the model's tag a user's"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        edits = [("add", services.tags.add), ("remove", services.tags.remove), ("confirm", services.tags.confirm)]
        if not any(options[name] for name, _ in edits):
            raise CommandError("Say what to do: --add TAG, --remove TAG or --confirm TAG.", returncode=USAGE)
        dataset, chosen = find_dataset(options["dataset"]), read_filter(options["filter"])
        for name, edit in edits:
            for tag in options[name]:
                change = edit(dataset=dataset, filter=chosen, tag=tag, user=None)
                done = {"add": "added to", "remove": "removed from", "confirm": "confirmed on"}[name]
                count = change.samples
                self.stdout.write(f"“{change.tag}” {done} {counted(count, 'sample')}.")
