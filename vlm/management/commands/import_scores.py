"""``import_scores``: bring scores, flags and words in from a table with a row per file."""

import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandError

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import (
    USAGE,
    DoorCommand,
    find_dataset,
    print_table,
    result_console,
    to_json,
)

KINDS = ("number", "boolean", "word")
SHOWN = 50
PIECE = 1 << 20


class Command(DoorCommand):
    help = (
        "Bring columns in from a CSV with a column file (or path) and any number of others: numbers, flags (yes/no, true/false, "
        "1/0) or words, such as a detector's error. They become filters, orders, facets and a part of exports; a column takes the "
        "place of the one that has its name. All or nothing: unknown files, files named twice and wrong numbers are listed, and "
        "nothing is kept, unless --partly says otherwise."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("file", help="a CSV or TSV file; “-” is stdin")
        parser.add_argument(
            "--kind",
            action="append",
            type=kind,
            default=[],
            metavar="NAME=KIND",
            help="what a column holds, instead of finding out: number, boolean or word; may be repeated",
        )
        parser.add_argument(
            "--only", action="append", default=[], metavar="NAME", help="take this column alone; may be repeated"
        )
        parser.add_argument("--partly", action="store_true", help="keep what can be used")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset, path = find_dataset(options["dataset"]), options["file"]
        try:
            with _opened(path) as file:
                done = services.columns.import_scores(
                    dataset=dataset,
                    file=file,  # type: ignore[arg-type]
                    source="" if path == "-" else Path(path).name,
                    kinds=dict(options["kind"]),
                    only=options["only"],
                    partly=options["partly"],
                    user=None,
                )
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.", returncode=USAGE) from error
        if options["json"]:
            self.stdout.write(to_json(done.to_json()))
        for problem in done.problems[:SHOWN]:
            self.stderr.write(problem)
        if done.problem_count > SHOWN:
            self.stderr.write(f"… and {done.problem_count - SHOWN:,} more.")
        if not done.columns:
            raise CommandError(
                f"{counted(done.problem_count, 'thing')} cannot be used, so no column came in. Mend the table, or add --partly.",
                returncode=USAGE,
            )
        if not options["json"]:
            print_table(
                result_console(self.stdout),
                "",
                ["column", "kind", "values"],
                [[column.name, column.kind, f"{column.values:,}"] for column in done.columns],
                right=2,
            )


def kind(text: str) -> tuple[str, str]:
    name, _, of = text.rpartition("=")
    if not name or of not in KINDS:
        raise ArgumentTypeError(f"“{text}” is not like error=number; a kind is one of {', '.join(KINDS)}")
    return name, of


def _opened(path: str) -> IO[bytes]:
    """Open a table for reading it twice; stdin is put down first."""
    if path != "-":
        return Path(path).expanduser().open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - its reader closes it
    while piece := sys.stdin.buffer.read(PIECE):
        file.write(piece)
    return file
