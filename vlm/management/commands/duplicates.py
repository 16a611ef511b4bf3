"""``duplicates``: images that are nearly the same, and which of them lie in several splits."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import (
    DoorCommand,
    find_dataset,
    positive,
    print_table,
    result_console,
    to_json,
)

LISTED = 50
PATHS = 3


class Command(DoorCommand):
    help = (
        "Group the images that are nearly the same, by the hashes that measure (or a run) made, and list the largest groups. "
        "The filters group=NUMBER, mark=near and mark=leak show them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument(
            "--distance",
            type=int,
            metavar="BITS",
            help="of 64 bits, how many may differ: 0 to 12 (default: as the last time, at first 4)",
        )
        parser.add_argument("--leaking", action="store_true", help="list only groups that lie in several splits")
        parser.add_argument("--limit", type=positive, default=LISTED, metavar="N", help="groups to list")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        services.pixels.find_groups(dataset=dataset, distance=options["distance"])
        found = services.pixels.nearly_same(
            dataset=dataset, listed=options["limit"], pictures=PATHS, leaking=options["leaking"]
        )
        if options["json"]:
            self.stdout.write(to_json(found.to_json() | {"dataset": dataset.pk}))
            return
        left = services.pixels.measured(dataset=dataset).left
        self.stdout.write(
            f"{found.samples:,} images are in {found.groups:,} groups; {found.leaking:,} leak between splits."
        )
        if left:
            self.stdout.write(f"{left:,} images are not measured yet: the command measure does it.")
        console = result_console(self.stdout)
        if found.leaks:
            rows = [[one.split, one.other, f"{one.groups:,}", f"{one.samples:,}"] for one in found.leaks]
            print_table(console, "", ["split", "and split", "groups", "images"], rows, right=2)
        rows = [
            [str(group.number), ", ".join(group.splits), ", ".join(one.path for one in samples), f"{group.size:,}"]
            for group, samples in found.listed
        ]
        if rows:
            print_table(console, "", ["group", "splits", "first images", "images"], rows, right=3)
