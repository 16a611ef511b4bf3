"""``review_sample``: draw images to be labelled elsewhere, each with the chance that it had."""

import csv
from argparse import ArgumentParser
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from vlm import services
from vlm.management.commands._shared import (
    DoorCommand,
    add_filter_argument,
    find_dataset,
    from_zero,
    positive,
    read_filter,
    whole_file,
)
from vlm.statistics.draws import Design

HEADER = ["path", "dimension", "value", "said", "probability", "stratum", "draw"]


class Command(DoorCommand):
    help = (
        "Draw images to decide one dimension of, and write them as CSV: fill in the column “value” (leave it empty where nobody "
        "can tell) and bring the file back with import_labels. The draw is open on the review page, too."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--dimension", required=True, metavar="D")
        parser.add_argument("--size", type=positive, default=services.review.BATCH, metavar="N", help="images to draw")
        parser.add_argument(
            "--design",
            choices=[design.value for design in Design],
            default=Design.MIXED.value,
            help="mixed (default): 40 %% at random, the rest by doubt, rare words more often; uniform; stratified by word",
        )
        parser.add_argument("--seed", type=from_zero, metavar="N", help="the same seed draws the same images")
        parser.add_argument("--output", default="-", metavar="FILE", help="“-” (default) is stdout")
        add_filter_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        dataset, dimension = find_dataset(options["dataset"]), options["dimension"]
        batch = services.review.draw(
            dataset=dataset,
            dimension=dimension,
            size=options["size"],
            design=Design(options["design"]),
            filter=read_filter(options["filter"]),
            seed=options["seed"],
        )
        rows = services.review.drawn_rows(dataset=dataset, dimension=dimension, batch=batch)
        table = [
            [
                sample.path,
                dimension,
                "",
                drawn.stratum or "no",
                "" if drawn.probability is None else repr(drawn.probability),
                drawn.stratum,
                batch,
            ]
            for sample, drawn in rows
        ]
        if options["output"] == "-":
            csv.writer(self.stdout).writerows([HEADER, *table])
            return
        path = Path(options["output"])
        with whole_file(path) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as written:
            csv.writer(written).writerows([HEADER, *table])
        self.stderr.write(f"{len(table):,} images are in {path}.")
