"""Tables that users bring: a CSV with a row per file, such as ``file,dimension,value``.

Encoding, delimiter and header are found out; what is wrong is listed with its line and never guessed away. Which sample a
row means is found like any path that was written elsewhere; see ``vlm.formats.matching``.
"""

import codecs
import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, TextIO

from vlm.errors import Refusal
from vlm.formats.matching import Ambiguous, best, fold, name_of, readings

MAX_BYTES = 100_000_000
MAX_COLUMNS = 200
MAX_CELL = 10_000  # characters
MAX_HEADER = 1_000_000  # likewise, of the line that names the columns
PIECE = 1 << 20  # bytes
MAX_PROBLEMS = 10_000  # the rest is counted only
DELIMITERS = (",", ";", "\t", "|")
FILE_COLUMNS = (
    "file",
    "file_name",
    "filename",
    "path",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_name",
    "name",
)

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # what Excel writes, and reads, as a first line
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class TableBroken(Refusal):
    """A table cannot be read at all; the message says why and what to do."""

    title = "This table cannot be read"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a table that is not used, and why; ``line`` counts from 1, the header included."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"Line {self.line:,}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the file it is about, as written, and the other cells by the name of their column."""

    line: int
    file: str
    values: dict[str, str]


@dataclass
class Table:
    """A table that was read.

    Attributes:
        columns: names of the columns but that of the file, as written.
        file_column: name of the column that says which file a row is about.
        encoding: utf-8-sig, utf-16, utf-8, or cp1252 where it is none of them.
        delimiter: between the cells.
        key: the columns that tell rows of one file apart.
        rows: those that can be used.
        problems: the first 10,000 things that cannot, with their lines.
        problem_count: how many there are.
    """

    columns: tuple[str, ...]
    file_column: str
    encoding: str
    delimiter: str
    key: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    def complain(self, line: int, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(line, reason))

    def column(self, *names: str) -> str:
        """Return the name, as written, of the column that is called one of ``names`` (in any case).

        Raises:
            TableBroken: there is none.
        """
        by_name = {fold(column): column for column in self.columns}
        for name in names:
            if fold(name) in by_name:
                return by_name[fold(name)]
        there = ", ".join(f"“{column}”" for column in self.columns) or "none"
        raise TableBroken(f"The table has no column “{names[0]}”. Beside “{self.file_column}” there are: {there}.")


def read_table(content: bytes, *, key: Sequence[str] = ()) -> Table:
    """Read a table.

    Args:
        content: the file's bytes.
        key: names of the columns that tell rows of one file apart, such as ``dimension``: a row that repeats the file
            and all of these is a duplicate. The first one counts, the others are listed.

    Raises:
        TableBroken: it is too large, no text, has no header, or lacks a column of ``key``.
    """
    if len(content) > MAX_BYTES:
        raise TableBroken(f"The table has {len(content):,} bytes, more than the {MAX_BYTES:,} that are read. Split it.")
    with reading(io.BytesIO(content)) as (table, usable):
        table.key = tuple(table.column(name) for name in key)
        seen: dict[tuple[str, ...], int] = {}
        for row in usable:
            identity = (row.file, *(fold(row.values[name]) for name in table.key))
            if identity in seen:
                table.complain(row.line, f"it repeats line {seen[identity]:,}, which counts")
                continue
            seen[identity] = row.line
            table.rows.append(row)
    return table


@contextmanager
def reading(source: BinaryIO) -> Iterator[tuple[Table, Iterator[Row]]]:
    """Read a table from its beginning; gives the table, without rows, and its usable rows one by one. ``source`` stays open.

    Raises:
        TableBroken: it is no text, or has no header; or, while rows are read, its quotes do not match.
    """
    encoding = encoding_of(source)
    source.seek(0)
    file = io.TextIOWrapper(source, encoding, newline="")
    try:
        yield _begin(file, encoding)
    finally:
        file.detach()


def _begin(file: TextIO, encoding: str) -> tuple[Table, Iterator[Row]]:
    head = file.readline(MAX_HEADER)
    match = _SEPARATOR_LINE.fullmatch(head)
    delimiter = match[1] if match else ""
    before = [] if match else [head]
    while not delimiter:
        if not (line := before[-1]).strip() and line:
            before.append(file.readline(MAX_HEADER))
            continue
        delimiter = _delimiter(line)
    cells = _cells(csv.reader(chain(before, file), delimiter=delimiter))
    header = next(cells, None)
    names = [name.strip() for name in header[1]] if header else []
    if not any(names):
        raise TableBroken("The table is empty. Its first line must name its columns, such as “file,dimension,value”.")
    if len(names) > MAX_COLUMNS:
        raise TableBroken(f"The table has {len(names):,} columns; at most {MAX_COLUMNS} are read.")
    repeated = next((name for name in names if name and sum(fold(name) == fold(other) for other in names) > 1), None)
    if repeated is not None:
        raise TableBroken(f"Two columns are called “{repeated}”. Give each a name of its own.")
    file_place = next((names.index(name) for want in FILE_COLUMNS for name in names if fold(name) == want), None)
    if file_place is None:
        raise TableBroken(
            f"No column says which file a row is about. Call one of them “file”; there are: {', '.join(names)}."
        )
    others = [(place, name) for place, name in enumerate(names) if place != file_place and name]
    table = Table(tuple(name for _, name in others), names[file_place], encoding, delimiter)
    return table, _usable(table, cells, names, file_place, others, 1 if match else 0)


def _usable(
    table: Table,
    cells: Iterator[tuple[int, list[str]]],
    names: Sequence[str],
    file_place: int,
    others: Sequence[tuple[int, str]],
    above: int,
) -> Iterator[Row]:
    """Yield the rows that can be used; ``above`` lines stand before what is numbered 1."""
    for number, row in cells:
        line = number + above
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            table.complain(line, f"it has {len(row)} cells, the header {len(names)}")
            continue
        row = [cell.strip() for cell in row] + [""] * (len(names) - len(row))
        file = row[file_place]
        if not file:
            table.complain(line, f"“{table.file_column}” is empty")
            continue
        if any(len(cell) > MAX_CELL for cell in row):
            table.complain(line, f"a cell has more than {MAX_CELL:,} characters")
            continue
        yield Row(line, file, {name: row[place] for place, name in others})


def number(text: str, *, decimal_comma: bool = False) -> float:
    """Return the number that a cell holds.

    Args:
        decimal_comma: also read “0,5”, where the comma does not part the cells.

    Raises:
        ValueError: it is no finite number; the message says so.
    """
    plain = text.strip()
    if decimal_comma and _DECIMAL_COMMA.fullmatch(plain):
        plain = plain.replace(",", ".")
    value = float(plain) if len(plain) < 400 and _NUMBER.fullmatch(plain) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"“{text[:40]}” is no number")
    return value


def numbers(table: Table, column: str) -> Iterator[tuple[Row, float]]:
    """Yield the rows with the number of a column; empty cells are passed over, others are complained about."""
    for row in table.rows:
        if not row.values[column]:
            continue
        try:
            yield row, number(row.values[column], decimal_comma=table.delimiter != ",")
        except ValueError as error:
            table.complain(row.line, f"{error} (column “{column}”)")


def match_files(table: Table, known: Iterable[tuple[int, str]]) -> dict[int, int]:
    """Return the sample of each row, by the row's line; rows whose file is unknown or unclear are complained about.

    A file is meant by its path below the data set's root, or by an end of its path that no other file has. Where two rows
    spell the same file differently and the key columns do not tell them apart, the first counts.

    Args:
        known: id and path of every sample; it is gone through once and not kept.
    """
    wanted = {fold(parts[-1]) for row in table.rows for parts in readings(row.file)}
    asked = {row.file for row in table.rows}
    exact: dict[str, int] = {}
    by_name: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for sample, path in known:
        if path in asked:
            exact[path] = sample
        if (name := fold(name_of(path))) in wanted:
            by_name[name][path] = sample
    found: dict[int, int] = {}
    lines: dict[tuple[object, ...], int] = {}
    for row in table.rows:
        try:
            meant = exact[row.file] if row.file in exact else _by_end(row.file, by_name)
        except Ambiguous as error:
            table.complain(row.line, f"“{row.file}”: {error}")
            continue
        if meant is None:
            table.complain(row.line, f"“{row.file}” is no file of the data set")
            continue
        identity = (meant, *(fold(row.values[name]) for name in table.key))
        if identity in lines:
            table.complain(row.line, f"“{row.file}” is the file of line {lines[identity]:,}, which counts")
            continue
        lines[identity] = row.line
        found[row.line] = meant
    return found


def _by_end(written: str, by_name: dict[str, dict[str, int]]) -> int | None:
    for parts in readings(written):
        candidates = by_name.get(fold(parts[-1]), {})
        match = best(parts, candidates)
        if match is not None:
            return candidates[match]
    return None


def encoding_of(file: BinaryIO) -> str:
    """Return the encoding of a text, read from its beginning to its end a piece at a time.

    Raises:
        TableBroken: it is no text.
    """
    file.seek(0)
    head = file.read(4096)
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "")
    if (not marked and b"\0" in head) or head.startswith(codecs.BOM_UTF32_LE):
        raise TableBroken("The table is no text. Save it as CSV (UTF-8), not as a workbook or a picture.")
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):  # the last is what Excel writes in western Europe
        file.seek(0)
        decoder = codecs.getincrementaldecoder(encoding)()
        read = 0
        try:
            while piece := file.read(PIECE):
                decoder.decode(piece)
                read += len(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            if marked:
                raise TableBroken(
                    f"The table is no {encoding.upper()} text, though it begins so. Save it as UTF-8."
                ) from error
            broken = error, read + error.start + 1
        else:
            return encoding
    raise TableBroken(f"The table is no UTF-8 text (byte {broken[1]:,}). Save it as CSV (UTF-8).") from broken[0]


def _delimiter(text: str) -> str:
    """Return what parts the cells of the header: the delimiter that it has most of, outside quotes."""
    head = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").splitlines()[0] if text.strip() else "")
    return max(DELIMITERS, key=head.count)


def _cells(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row of a ``csv.reader`` that has any."""
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TableBroken(f"Line {begins:,} is no CSV: {error}. Check its quotes.") from error
        if row:
            yield begins, row
