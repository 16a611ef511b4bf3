"""``distributions``: how often each word and value is there, two against each other, two sets of images side by side."""

from argparse import ArgumentParser
from typing import Any

from rich.console import Console

from vlm import services
from vlm.figures import counted, number, percent_1, points, rate, share, tenths
from vlm.management.commands._shared import (
    DoorCommand,
    add_filter_argument,
    find_dataset,
    print_table,
    read_filter,
    result_console,
    to_json,
)
from vlm.samples import SampleFilter
from vlm.services.distributions import Comparison, Crossed, Distributions, NotCompared, Side

EVERYTHING = "everything"
SIGNS = {1: "▲ ", 0: "", -1: "▼ "}
RELATIONS = {
    "apart": "No image is in both.",
    "first within": "The first lies within the second: a difference is that from the rest of it, in proportion.",
    "second within": "The second lies within the first: a difference is that from the rest of it, in proportion.",
    "overlapping": "{common} are in both: they count for both shares, and differences rest on those in one alone.",
}


class Command(DoorCommand):
    help = (
        "Print how often each word and value is there: of dimensions, own tags, splits, categories, columns and measures. Two of "
        "them against each other with --across; two filters, or two data sets, side by side with --against and --other: where "
        "the shares differ, with 95 %% intervals, corrected for having compared them all (Benjamini-Hochberg)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        add_filter_argument(parser)
        parser.add_argument(
            "--by",
            action="append",
            default=[],
            metavar="NAME",
            help="a dimension, “own tags”, split, category, a column or a measure (default: all); may be repeated. Where two have "
            "one name: dimension:NAME, column:NAME, measure:NAME",
        )
        parser.add_argument("--across", metavar="NAME", help="set what --by names against this")
        parser.add_argument(
            "--against", metavar="QUERY", help=f"compare with the images of this filter; “{EVERYTHING}” for all of them"
        )
        parser.add_argument("--other", metavar="DATASET", help="compare with this data set, or with --against in it")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset, filter = find_dataset(options["dataset"]), read_filter(options["filter"])
        by, across, against = options["by"], options["across"], options["against"]
        compared = against is not None or options["other"] is not None
        if across and compared:
            raise NotCompared(
                "Two against each other, or two sets of images: leave out --across, or --against and --other."
            )
        if across and len(by) != 1:
            raise NotCompared("Two against each other need one --by beside --across.")
        found: Crossed | Comparison | Distributions
        if across:
            found = services.distributions.crossed(dataset=dataset, by=by[0], across=across, filter=filter)
        elif compared:
            second = SampleFilter() if against in (None, "", EVERYTHING) else read_filter(against)
            other = find_dataset(options["other"]) if options["other"] is not None else None
            found = services.distributions.comparison(
                dataset=dataset, filter=filter, against=second, other=other, by=by
            )
        else:
            found = services.distributions.overview(dataset=dataset, filter=filter, by=by)
        if options["json"]:
            self.stdout.write(to_json(found.to_json()))
            return
        console = result_console(self.stdout)
        if isinstance(found, Crossed):
            print_crossed(console, found)
        elif isinstance(found, Comparison):
            print_comparison(console, found)
        else:
            print_distributions(console, found)
        if not isinstance(found, Crossed) and found.left_out:
            console.print(f"Not shown: {', '.join(subject.key for subject in found.left_out)}.")


def print_distributions(console: Console, found: Distributions) -> None:
    console.print(f"{counted(found.images, 'image')}.")
    for one in found.shown:
        rows = [[row.value.label, number(row.images), share(row.images, one.images)] for row in one.rows]
        print_table(console, "", [one.subject.title, "images", "share"], rows)


def print_crossed(console: Console, found: Crossed) -> None:
    table = found.table
    console.print(f"{counted(table.total, 'image')}.")
    if table.cramers_v is not None and table.p_value is not None:
        rough = "; rough, as many cells expect fewer than five images" if table.sparse else ""
        console.print(
            f"Cramér's V {table.cramers_v:.2f} (0: independent, 1: one says the other), p {rate(table.p_value)}{rough}."
        )
    rows = [
        [
            value.label,
            *(
                f"{SIGNS[table.sign(i, j)]}{number(table.counts[i][j])} ({tenths(table.expected[i][j])})"
                for j in range(len(found.columns))
            ),
            number(table.rows[i]),
        ]
        for i, value in enumerate(found.rows)
    ]
    head = [f"{found.by.title} / {found.across.title}", *(value.label for value in found.columns), "all"]
    print_table(console, "", head, [*rows, ["all", *map(number, table.columns), number(table.total)]])
    console.print(
        "In brackets: if they were independent. ▲ more, ▼ fewer than that, beyond chance, corrected for all cells."
    )


def print_comparison(console: Console, found: Comparison) -> None:
    for name, side in (("First", found.first), ("Second", found.second)):
        console.print(f"{name}: {_said(side)}, {counted(side.images, 'image')}.")
    console.print(RELATIONS[found.relation].format(common=counted(found.common, "image")))
    console.print(
        f"{number(len(found.clear))} of {number(found.tried)} shares differ beyond chance (▲ higher, ▼ lower in the second)."
    )
    for subject, lines in found.shown:
        rows = [
            [
                one.label,
                f"{percent_1(one.difference.first.value)} ({number(one.images[0])})",
                f"{percent_1(one.difference.second.value)} ({number(one.images[1])})",
                f"{SIGNS[one.difference.sign]}{points(one.difference.difference)} "
                f"({points(one.difference.low)} to {points(one.difference.high)})",
                rate(one.difference.discovery_rate),
            ]
            for one in lines
        ]
        print_table(console, "", [subject.title, "first", "second", "points (95 %)", "false discovery"], rows)
    if found.asked:
        names = ", ".join(subject.title for subject in found.asked)
        console.print(f"Left out, since a filter asks for it: {names}. Name it with --by to see it.")


def _said(side: Side) -> str:
    return f"{side.dataset.name}, {', '.join(chip.label for chip in side.filter.chips()) or 'all images'}"
