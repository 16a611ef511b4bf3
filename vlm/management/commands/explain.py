"""``explain``: which tags, splits, categories and other columns go with a score."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.figures import counted, figure, number, percent_1, points, rate
from vlm.management.commands._shared import (
    DoorCommand,
    add_filter_argument,
    find_dataset,
    print_table,
    read_filter,
    result_console,
    to_json,
)
from vlm.services.insights import AMONG, Explained, Found


class Command(DoorCommand):
    help = (
        "Print which words, splits, categories and values of other columns raise a score, alone, in pairs and in triples: against "
        "the images that lack them, with 95 % intervals, corrected for having tried them all (Benjamini-Hochberg)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument(
            "--score", required=True, metavar="COLUMN", help="a column of numbers or flags; NAME:WORD for a word of one"
        )
        parser.add_argument("--lower", action="store_true", help="find what lowers it")
        parser.add_argument(
            "--among", action="append", choices=list(AMONG), help="what may explain it (default: all); may be repeated"
        )
        add_filter_argument(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        found = services.insights.explain(
            dataset=find_dataset(options["dataset"]),
            score=options["score"],
            filter=read_filter(options["filter"]),
            lower=options["lower"],
            among=options["among"] or tuple(AMONG),
        )
        if options["json"]:
            self.stdout.write(to_json(found.to_json()))
            return
        console = result_console(self.stdout)
        console.print(headline(found))
        if found.measured:
            told = ", ".join(f"{percent_1(right)} of {name}" for name, right in found.measured.items())
            console.print(f"Right tags: {told}. “If right” takes that into account.")
        else:
            console.print("How many of the tags are right was not measured (see review_sample).")
        if not found.slices:
            console.print("Nothing explains it more clearly than chance would.")
            return
        says = percent_1 if found.is_flag else figure
        apart = points if found.is_flag else figure
        rows = []
        for one, inner in ((one, inner) for head in found.slices for one, inner in _with_folded(head)):
            name = " and ".join(feature.name for feature in one.features)
            rows.append(
                [
                    f"  {name}" if inner else name,
                    number(one.samples),
                    says(one.value),
                    says(one.rest),
                    "–" if one.lift is None else f"{one.lift:.2f}",
                    f"{apart(one.difference)} ({apart(one.low)} to {apart(one.high)})",
                    says(one.corrected),
                    rate(one.discovery_rate),
                ]
            )
        print_table(
            console,
            "",
            ["images with", "images", "score", "others", "lift", "difference (95 %)", "if right", "false discovery"],
            rows,
        )


def headline(found: Explained) -> str:
    """Return what all slices stand against."""
    base = (
        f"{percent_1(found.base)} of {counted(found.samples, 'image')} are {found.score}"
        if found.is_flag
        else f"{figure(found.base)} is the mean {found.score} of {counted(found.samples, 'image')}"
    )
    together = {3: "", 2: ", no triples", 1: ", no pairs"}[found.longest]
    return f"{base}. {found.tried:,} slices of {found.features:,} values were tried{together}."


def _with_folded(found: Found) -> list[tuple[Found, bool]]:
    return [(found, False), *((other, True) for other in found.folded)]
