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

        parser.add_argument(
            "--rename",
            nargs=2,
            action="append",
            default=[],
            metavar=("OLD", "NEW"),
            help="call a tag of your own otherwise on all images of the data set; merges it where NEW is there",
        )
        parser.add_argument(
            "--delete", action="append", default=[], metavar="TAG", help="a tag of your own, everywhere"
        )
        parser.add_argument(
            "--describe", nargs=2, action="append", default=[], metavar=("TAG", "TEXT"), help="what it means"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        edits = [("add", services.tags.add), ("remove", services.tags.remove), ("confirm", services.tags.confirm)]
        whole = [name for name in ("rename", "delete", "describe") if options[name]]
        if not whole and not any(options[name] for name, _ in edits):
            raise CommandError(
                "Say what to do: --add, --remove, --confirm, --delete TAG, --rename OLD NEW or --describe TAG TEXT.",
                returncode=USAGE,
            )
        dataset, chosen = find_dataset(options["dataset"]), read_filter(options["filter"])
        if whole and not chosen.is_empty:
            raise CommandError(f"--{whole[0]} is about the whole data set: leave --filter out.", returncode=USAGE)
        for name, edit in edits:
            for tag in options[name]:
                change = edit(dataset=dataset, filter=chosen, tag=tag, user=None)
                done = {"add": "added to", "remove": "removed from", "confirm": "confirmed on"}[name]
                self.stdout.write(f"“{change.tag}” {done} {counted(change.samples, 'image')}.")
        for old, new in options["rename"]:
            change = services.tags.rename(dataset=dataset, old=old, new=new, user=None)
            self.stdout.write(f"“{old}” is “{change.tag}” now on {counted(change.samples, 'image')}.")
        for tag in options["delete"]:
            change = services.tags.delete(dataset=dataset, tag=tag, user=None)
            self.stdout.write(f"“{tag}” is gone from {counted(change.samples, 'image')}.")
        for tag, text in options["describe"]:
            services.tags.describe(dataset=dataset, tag=tag, text=text)
            self.stdout.write(f"“{tag}” is described.")
