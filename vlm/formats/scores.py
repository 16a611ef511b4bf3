"""A table of scores: any number of columns with a number, a flag or a word for each file, read in two streams.

The first reading finds out what each column holds and which files are written otherwise than here; the second takes the values.
What is kept is an array per column, so a table of a million rows needs no more memory than its numbers.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from vlm.formats.matching import Ambiguous, best, fold, name_of, readings
from vlm.formats.table import Row, Table, TableBroken, number, reading
from vlm.samples.columns import MAX_WORD, check_name
from vlm.samples.errors import FilterError

Kind = Literal["number", "boolean", "word"]
KINDS: tuple[Kind, ...] = ("number", "boolean", "word")

MAX_BYTES = 2_000_000_000
MAX_ROWS = 20_000_000
CLEARLY = 0.8  # of the cells with something in them, from which on the others are mistakes and not words
NOTHING = frozenset({"", "nan", "null", "none", "n/a", "na", "-"})  # of numbers and flags: no value
TRUE = frozenset({"true", "yes", "t", "y", "1"})
FALSE = frozenset({"false", "no", "f", "n", "0"})
_SPELT = (TRUE | FALSE) - {"0", "1"}


@dataclass
class Scored:
    """A column of a table: the samples that have a value, and the values, in the order of the table."""

    name: str
    kind: Kind
    ids: NDArray[np.int64]
    values: NDArray[Any]


@dataclass
class Scores:
    """What a table of scores holds.

    Attributes:
        columns: those with a value at least.
        rows: those that were used.
        problems: the first 10,000 things that are not used, each with its line; ``problem_count`` of them in all.
    """

    columns: list[Scored] = field(default_factory=list)
    rows: int = 0
    problems: tuple[str, ...] = ()
    problem_count: int = 0


def read_scores(
    source: BinaryIO,
    known: Callable[[], Iterable[tuple[int, str]]],
    *,
    kinds: Mapping[str, Kind] | None = None,
    only: Iterable[str] = (),
) -> Scores:
    """Read a table of scores. Unknown files, files named twice and cells that are none of their column's kind are complained about.

    A column is one of flags if its cells are yes and no, true and false, or 1 and 0; of numbers if they are numbers; of words
    otherwise. Where four fifths of the cells are of one kind, the others are mistakes.

    Args:
        source: of bytes, can be read twice.
        known: returns id and path of every sample of the data set; asked up to three times.
        kinds: of columns that are not to be found out.
        only: columns to take; all without any.

    Raises:
        TableBroken: it is too large, no table, or lacks a column that is asked for; or a column's name is none.
    """
    size = source.seek(0, 2)
    if size > MAX_BYTES:
        raise TableBroken(
            f"The table has {size:,} bytes, more than the {MAX_BYTES:,} that are read. Split its columns."
        )
    with reading(source) as (table, rows):
        names = _wanted(table, tuple(only), kinds or {})
        paths = {path: sample for sample, path in known()}
        seen = {name: _Seen() for name in names}
        elsewhere: set[str] = set()
        for row in rows:
            if row.file not in paths:
                elsewhere.add(row.file)
            for name in names:
                if name not in (kinds or {}):
                    seen[name].add(row.values[name])
        chosen = {name: (kinds or {}).get(name) or seen[name].kind for name in names}
    with reading(source) as (table, rows):
        return _taken(table, rows, chosen, paths | _by_their_ends(elsewhere, known))


class _Seen:
    """What the cells of a column look like."""

    def __init__(self) -> None:
        self.filled = self.numbers = self.truths = self.bits = 0

    def add(self, cell: str) -> None:
        text = cell.lower()
        if text in NOTHING:
            return
        self.filled += 1
        self.numbers += _is_number(cell)
        self.truths += text in _SPELT
        self.bits += text in ("0", "1", "0.0", "1.0")

    @property
    def kind(self) -> Kind:
        enough = max(1, math.ceil(CLEARLY * self.filled))
        if self.bits == self.filled or self.truths + self.bits >= enough > self.numbers:
            return "boolean"
        return "number" if self.numbers >= enough else "word"


def _is_number(cell: str) -> bool:
    if cell[0] not in "+-.0123456789":
        return False
    try:
        number(cell, decimal_comma=True)
    except ValueError:
        return cell.lower().lstrip("+-") in ("inf", "infinity")
    return True


def _wanted(table: Table, only: tuple[str, ...], kinds: Mapping[str, Kind]) -> list[str]:
    """Return the columns to take, and see to it that they can be filtered by."""
    names = [table.column(name) for name in only] if only else list(table.columns)
    for name in kinds:
        table.column(name)
    if not names:
        raise TableBroken(f"The table has no column beside “{table.file_column}”, so there is nothing to bring in.")
    for name in names:
        try:
            check_name(name)
        except FilterError as error:
            raise TableBroken(f"{error} Rename it, or leave it out.") from error
    return names


def _by_their_ends(written: set[str], known: Callable[[], Iterable[tuple[int, str]]]) -> dict[str, int | Ambiguous]:
    """Return which samples paths mean that are written otherwise than here; unknown ones are left out."""
    if not written:
        return {}
    wanted = {fold(parts[-1]) for file in written for parts in readings(file)}
    candidates: dict[str, dict[str, int]] = {}
    for sample, path in known():
        if (name := fold(name_of(path))) in wanted:
            candidates.setdefault(name, {})[path] = sample
    found: dict[str, int | Ambiguous] = {}
    for file in written:
        try:
            for parts in readings(file):
                of = candidates.get(fold(parts[-1]), {})
                if (match := best(parts, of)) is not None:
                    found[file] = of[match]
                    break
        except Ambiguous as error:
            found[file] = error
    return found


def _taken(
    table: Table, rows: Iterable[Row], kinds: Mapping[str, Kind], samples: Mapping[str, int | Ambiguous]
) -> Scores:
    lines: dict[int, int] = {}
    ids = {name: array("q") for name in kinds}
    numbers = {name: array("d") for name, kind in kinds.items() if kind != "word"}
    words: dict[str, list[str]] = {name: [] for name, kind in kinds.items() if kind == "word"}
    kept: dict[str, str] = {}  # one text for all cells that say the same
    comma = table.delimiter != ","
    for row in rows:
        sample = samples.get(row.file)
        if sample is None:
            table.complain(row.line, f"“{row.file[:200]}” is no file of the data set")
            continue
        if isinstance(sample, Ambiguous):
            table.complain(row.line, f"“{row.file[:200]}”: {sample}")
            continue
        if sample in lines:
            table.complain(row.line, f"“{row.file[:200]}” is the file of line {lines[sample]:,}, too")
            continue
        lines[sample] = row.line
        if len(lines) > MAX_ROWS:
            raise TableBroken(f"The table has more than {MAX_ROWS:,} rows.")
        for name, kind in kinds.items():
            cell = row.values[name]
            if not cell or (kind != "word" and cell.lower() in NOTHING):
                continue
            try:
                if kind == "word":
                    words[name].append(kept.get(cell) or kept.setdefault(cell, _word(cell)))
                elif kind == "number":
                    numbers[name].append(number(cell, decimal_comma=comma))
                else:
                    numbers[name].append(_truth(cell))
            except ValueError as error:
                table.complain(row.line, f"{error} (column “{name}”)")
                continue
            ids[name].append(sample)
    columns = [
        Scored(
            name,
            kind,
            np.frombuffer(ids[name], dtype=np.int64),
            np.array(words[name], dtype=object) if kind == "word" else np.frombuffer(numbers[name], dtype=np.float64),
        )
        for name, kind in kinds.items()
        if ids[name]
    ]
    return Scores(columns, len(lines), tuple(map(str, table.problems)), table.problem_count)


def _truth(cell: str) -> float:
    text = cell.lower().removesuffix(".0")
    if text in TRUE:
        return 1.0
    if text in FALSE:
        return 0.0
    raise ValueError(f"“{cell[:40]}” is neither yes nor no")


def _word(cell: str) -> str:
    if len(cell) > MAX_WORD or not cell.isprintable():
        raise ValueError(f"“{cell[:40]}…” is longer than {MAX_WORD} characters, or no plain text")
    return cell
