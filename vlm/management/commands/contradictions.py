"""``contradictions``: images whose pixels speak against a tag of theirs."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import (
    DoorCommand,
    find_dataset,
    positive,
    print_table,
    result_console,
    share,
    to_json,
)

LISTED = 100


class Command(DoorCommand):
    help = (
        "List images whose pixels contradict a tag: a “dark” one that is brighter than 98 %% of the dark ones, a “sharp” one that is "
        "more blurred or noisier than 98 %% of the sharp ones; the strongest first. The filter mark=contradiction shows them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument(
            "--beyond",
            type=share,
            metavar="SHARE",
            help="of a word's own images, how many it must be beyond (default: as the last time, at first 0.98)",
        )
        parser.add_argument("--limit", type=positive, default=LISTED, metavar="N", help="images to list")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        services.pixels.find_contradictions(dataset=dataset, beyond=options["beyond"])
        found = services.pixels.contradictions(dataset=dataset)
        strongest = services.pixels.strongest(dataset=dataset, limit=options["limit"])
        if options["json"]:
            rows = [
                {
                    "id": sample.id,
                    "path": sample.path,
                    "word": one.word,
                    "measure": one.rule.measure,
                    "side": one.rule.side,
                    "beyond": round(one.beyond, 6),
                }
                for one, sample in strongest
            ]
            self.stdout.write(to_json(found.to_json() | {"dataset": dataset.pk, "listed": rows}))
            return
        self.stdout.write(f"{found.samples:,} images contradict a tag of theirs.")
        if left := services.pixels.measured(dataset=dataset).left:
            self.stdout.write(f"{left:,} images are not measured yet: the command measure does it.")
        table = [
            [sample.path, one.word, f"{one.rule.more} than {100 * one.beyond:.1f} % of its images"]
            for one, sample in strongest
        ]
        if table:
            print_table(result_console(self.stdout), "", ["image", "tag", "but"], table, right=9)
