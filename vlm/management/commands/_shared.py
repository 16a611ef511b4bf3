"""What the commands share: errors as exit codes, finding things by name, filters, progress on stderr, tables, JSON."""

import json
import os
import re
import shutil
import signal
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import DatabaseError, DataError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from datavisor.private import as_the_user_wants
from datavisor.terminal import harmless, in_one_line
from vlm import services
from vlm.errors import DatabaseUnusable, Refusal, Unstorable, Unwritable
from vlm.figures import counted
from vlm.models import Dataset, TaggingRun
from vlm.samples import FilterError, SampleFilter

SOME_FAILED, USAGE, NO_MODEL, INTERRUPTED = 1, 2, 3, 130
MOST = 2**31 - 1  # of what is counted
FILE_WIDTH = 1000  # columns of a table that goes into a file or a pipe: nothing is folded there

STAGES = {
    "download": "fetching the model",
    "verify": "checking the model",
    "load": "loading the model",
    "ask": "asking",
}

FILTER_HELP = 'as in the page\'s address, such as "all=dark&none=indoor&q=cam1"'


def program() -> str:
    """Return how this very program is called on the command line."""
    return "python manage.py" if settings.IS_CHECKOUT else "datavisor"


class HarmlessOutput(OutputWrapper):
    """A command's stdout or stderr, on which the name of a file cannot steer the terminal."""

    def __init__(self, out: Any) -> None:
        while isinstance(out, OutputWrapper):  # a command that another one calls is handed that one's
            out = out._out
        super().__init__(out)

    def write(self, msg: str = "", style_func: Any = None, ending: str | None = None) -> None:  # type: ignore[override]
        super().write(harmless(msg), style_func, ending)


class HarmlessConsole(Console):
    """A console whose own colours are the only control sequences."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(harmless(item) if isinstance(item, str) else item for item in objects), **options)


class DoorCommand(BaseCommand):
    """A command whose expected errors end in a sentence and an exit code, never in a trace."""

    @property
    def stdout(self) -> OutputWrapper:
        return self._stdout

    @stdout.setter
    def stdout(self, out: OutputWrapper) -> None:
        self._stdout = HarmlessOutput(out)

    @property
    def stderr(self) -> OutputWrapper:
        return self._stderr

    @stderr.setter
    def stderr(self, out: OutputWrapper) -> None:
        self._stderr = HarmlessOutput(out)

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            refusal = (Unstorable if isinstance(error, DataError) else DatabaseUnusable).of(error)
            raise CommandError(refusal.message, returncode=refusal.exit_code) from error
        except Refusal as error:
            raise CommandError(error.message, returncode=error.exit_code) from error
        except OSError as error:
            if (full := Unwritable.of(error)) is None:
                raise
            raise CommandError(full.message, returncode=full.exit_code) from error
        except KeyboardInterrupt as error:
            raise CommandError("Stopped.", returncode=INTERRUPTED) from error


def find_dataset(text: str) -> Dataset:
    """Return the data set of that name, or of that number.

    Raises:
        CommandError: there is none; the message lists those that are there.
    """
    found = services.datasets.find(text=text)
    if found is not None:
        return found
    names = services.datasets.names()[:20]
    there = f"There are: {', '.join(names)}." if names else "There is none yet; import_dataset makes one."
    raise CommandError(f"No data set “{text}”. {there}", returncode=USAGE)


def find_run(number: int) -> TaggingRun:
    run = services.runs.get(run_id=number)
    if run is None:
        raise CommandError(f"There is no run {number}. The command runs lists them.", returncode=USAGE)
    return run


def read_filter(query: str) -> SampleFilter:
    try:
        return SampleFilter.from_text(query)
    except FilterError as error:
        raise CommandError(f"The filter cannot be read: {error}", returncode=USAGE) from error


def add_filter_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--filter", default="", metavar="QUERY", help=f"only these images: {FILTER_HELP}")


def tell_laid_out(command: BaseCommand, done: services.folders.LaidOut, what: str) -> None:
    """Say what was made, what was there already, and what could not be done."""
    for problem in done.problems:
        command.stderr.write(problem)
    kept = f"; {done.kept:,} were there already and stay as they are" if done.kept else ""
    command.stdout.write(f"{counted(done.made, what)} made{kept}.")


def to_stdout(made: IO[bytes]) -> None:
    """Write what was made to stdout, as far as its reader wants it."""
    try:
        shutil.copyfileobj(made, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of ``path`` when the block has ended well; until then, and else, all stays as it was.

    Raises:
        CommandError: it cannot be written, on a full disk for instance.
    """
    path = path.expanduser()
    try:
        if path.exists() and not path.is_file():  # a pipe or a device, in whose place nothing can be put
            with path.open("wb") as file:
                yield file
            return
        path = path.resolve()  # what a link leads to, not the link
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with as_the_user_wants():
                opened = partial.open("wb")
            with opened as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise CommandError(
            f"{path} cannot be written: {why}. Choose another with --output.", returncode=USAGE
        ) from error


def positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or not 0 < int(text) <= MOST:
        raise ArgumentTypeError(f"“{text[:40]}” is not a whole number from 1 to {MOST:,}")
    return int(text)


def from_zero(text: str) -> int:
    return 0 if text == "0" else positive(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"“{text}” is not a probability between 0 and 1")
    return value


def progress_console() -> Console:
    return HarmlessConsole(stderr=True)


def progress_bar(console: Console, *, hidden: bool) -> Progress:
    """Return one line: what goes on, a bar as wide as there is room, and the counts."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[counts]}"),
        console=console,
        disable=hidden,
        expand=True,
        transient=True,
    )


@contextmanager
def stage_bar(*, hidden: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar while the model is fetched, loaded and asked; gives what is to be told the stage, how much is done, of how much."""
    with progress_bar(progress_console(), hidden=hidden) as bar:
        task = bar.add_task("starting", total=None, counts="")

        def report(stage: str, done: int, total: int) -> None:
            counts = f"{done}/{total}" if stage == "ask" else gigabytes(done, total)
            bar.update(task, description=STAGES[stage], completed=done, total=total or None, counts=counts)

        yield report


@contextmanager
def stopped_by(*numbers: int) -> Iterator[threading.Event]:
    """Yield an event that any of these signals sets while the block lasts; a second Ctrl-C waits for nothing any more."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gigabytes(done: int, total: int) -> str:
    return f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"


def result_console(stdout: OutputWrapper) -> Console:
    """Return a console on a command's stdout: plain text where that is no terminal. Nothing in a text means a colour."""
    width = None if stdout.isatty() else FILE_WIDTH
    return HarmlessConsole(
        file=cast(TextIO, getattr(stdout, "_out", stdout)), highlight=False, markup=False, emoji=False, width=width
    )


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]], *, right: int = 1) -> None:
    """Print a table whose columns from ``right`` on hold numbers."""
    if title:
        console.print(title)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        if place < right:
            table.add_column(Text(name), overflow="fold")
        else:
            table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        # As texts: a file may be called “[red]”.
        table.add_row(*(Text(in_one_line(cell)) for cell in row))
    console.print(table)


def to_json(value: Any) -> str:
    """Return JSON that any terminal can show: where it cannot, or would obey, a character stands as its number."""
    plain = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    text = json.dumps(value, ensure_ascii=plain, default=str)
    return re.sub("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: f"\\u{ord(found.group()):04x}", text)
