"""What the commands share: finding things by name, filters, progress bars on stderr, JSON on stdout."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any, TextIO, cast

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console
from rich.table import Table

from vlm.models import Dataset, TaggingRun
from vlm.samples import FilterError, SampleFilter

FILTER_HELP = 'as in the page\'s address, such as "all=dark&none=indoor&q=cam1"'


def find_dataset(text: str) -> Dataset:
    """Return the data set of that name, or of that number.

    Raises:
        CommandError: there is none; the message lists those that are there.
    """
    found = Dataset.objects.filter(name=text).first()
    if found is None and text.isdecimal():
        found = Dataset.objects.filter(pk=int(text)).first()
    if found is not None:
        return found
    names = list(Dataset.objects.values_list("name", flat=True)[:20])
    there = f"There are: {', '.join(names)}." if names else "There is none yet; import_dataset makes one."
    raise CommandError(f"No data set “{text}”. {there}", returncode=2)


def find_run(number: int) -> TaggingRun:
    run = TaggingRun.objects.select_related("dataset").filter(pk=number).first()
    if run is None:
        raise CommandError(f"There is no run {number}. The command runs lists them.", returncode=2)
    return run


def read_filter(query: str) -> SampleFilter:
    try:
        return SampleFilter.from_query(query)
    except FilterError as error:
        raise CommandError(f"The filter cannot be read: {error}", returncode=2) from error


def add_filter_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--filter", default="", metavar="QUERY", help=f"only these samples: {FILTER_HELP}")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"“{text}” is not a whole number above 0")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"“{text}” is not a probability between 0 and 1")
    return value


def progress_console() -> Console:
    return Console(stderr=True)


def result_console(stdout: OutputWrapper) -> Console:
    """Return a console on a command's stdout: plain text where that is no terminal."""
    return Console(file=cast(TextIO, stdout), highlight=False, soft_wrap=not stdout.isatty())


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]], *, right: int = 1) -> None:
    """Print a table whose columns from ``right`` on hold numbers. Texts come from data: no markup is read in them."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < right else "right", overflow="fold")
    for row in rows:
        table.add_row(*[cell.replace("[", r"\[") for cell in row])
    console.print(table)


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
