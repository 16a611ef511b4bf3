"""Rows and columns: CSV, JSON lines, Parquet."""

import codecs
import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from vlm.formats.base import (
    CHUNK,
    MEASURED,
    ExportContext,
    ExportFormat,
    ExportRow,
    column_heads,
    json_bytes,
    measure_object,
    tag_objects,
)
from vlm.samples.columns import plain

FIELDS = ("id", "file_name", "split", "tags")
TYPES = {"number": "DOUBLE", "boolean": "BOOLEAN", "word": "VARCHAR"}


def _plain(row: ExportRow, context: ExportContext) -> dict[str, Any]:
    plain = {"id": row.id, "file_name": row.file_name, "split": row.split, "tags": tag_objects(row)}
    return plain | {"measures": measure_object(row)} if context.measured else plain


def _measured(row: ExportRow, context: ExportContext) -> list[Any]:
    """Return the cells behind all others: the measures, empty where the image has none."""
    if not context.measured:
        return []
    found = measure_object(row) or {}
    return [found.get(name, "") for name in MEASURED]


def _measured_names(context: ExportContext) -> tuple[str, ...]:
    return MEASURED if context.measured else ()


def _cell(value: float | bool | str | None) -> str:
    """Return a column's value as a cell: empty for none, “true” and “false” for flags, numbers in full."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else plain(value)


def _csv(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # the excel dialect is that of RFC 4180
    head = (*FIELDS, *_measured_names(context))
    writer.writerow((*head, *column_heads(context, head).values()))
    for row in rows:
        tags = json.dumps(tag_objects(row), ensure_ascii=False)
        writer.writerow((row.id, row.file_name, row.split, tags, *_measured(row, context), *_cells(row, context)))
        if buffer.tell() >= CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _cells(row: ExportRow, context: ExportContext) -> list[str]:
    return [_cell(row.values.get(name)) for name in context.columns]


def _spreadsheet(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a CSV that may be opened without a thought: a column per dimension, and no cell that is taken for a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    dimensions = list(context.dimensions)
    head = ("id", "file_name", "split", *dimensions, "other tags", *_measured_names(context))
    writer.writerow(map(_harmless, (*head, *column_heads(context, head).values())))
    yield codecs.BOM_UTF8
    for row in rows:
        words = {tag.dimension: tag.tag for tag in reversed(row.tags) if tag.dimension in context.dimensions}
        others = ", ".join(tag.tag for tag in row.tags if tag.dimension not in context.dimensions)
        cells = (row.file_name, row.split, *(words.get(name, "") for name in dimensions), others)
        own = (
            _harmless(cell) if context.columns[name] == "word" else cell
            for name, cell in zip(context.columns, _cells(row, context), strict=True)
        )
        writer.writerow((row.id, *map(_harmless, cells), *_measured(row, context), *own))
        if buffer.tell() >= CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _jsonl(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    for row in rows:
        own = {"columns": dict(row.values)} if context.columns else {}
        yield json_bytes(_plain(row, context) | own) + b"\n"


def _parquet(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Let DuckDB turn lines of JSON into Parquet, from one temporary file to another."""
    keys = {name: f"column_{place}" for place, name in enumerate(context.columns)}
    heads = column_heads(context, (*FIELDS, "measures"))
    types = "".join(f", {key}: '{TYPES[context.columns[name]]}'" for name, key in keys.items())
    selected = "".join(f", {key} AS {_quoted(heads[name])}" for name, key in keys.items())
    with tempfile.TemporaryDirectory(prefix="datavisor-export-") as folder:
        lines, target = Path(folder, "rows.jsonl"), Path(folder, "rows.parquet")
        with lines.open("wb") as file:
            for row in rows:
                values = {keys[name]: value for name, value in row.values.items() if name in keys}
                file.write(json_bytes(_plain(row, context) | values) + b"\n")
        settings: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": folder,
            "memory_limit": "1GB",
            "autoinstall_known_extensions": False,
        }
        numbers = ", ".join(f"{name} {'VARCHAR' if name == 'phash' else 'DOUBLE'}" for name in _measured_names(context))
        measures = f", measures: 'STRUCT({numbers})'" if numbers else ""
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.execute(
                f"""
                COPY (
                    SELECT id, file_name, split, tags{", measures" if measures else ""}{selected}
                    FROM read_json($lines, format = 'newline_delimited', columns = {{
                        id: 'BIGINT',
                        file_name: 'VARCHAR',
                        split: 'VARCHAR',
                        tags: 'STRUCT(tag VARCHAR, dimension VARCHAR, source VARCHAR, probability DOUBLE, run BIGINT,
                            "user" VARCHAR, "time" TIMESTAMP, way VARCHAR, shared_from BIGINT)[]'
                        {measures}{types}
                    }})
                ) TO $target (FORMAT parquet, COMPRESSION zstd)
                """,  # noqa: S608  (names of measures; and of columns, which are quoted)
                {"lines": str(lines), "target": str(target)},
            )
        lines.unlink()
        with target.open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


SPREADSHEET = ExportFormat(
    "csv-spreadsheet",
    "for Excel and the like: a column per dimension and per column of yours, a byte order mark, and an apostrophe before a "
    "word that begins with `=`, `+`, `-` or `@`",
    "text/csv; charset=utf-8",
    ".csv",
    _spreadsheet,
)
CSV = ExportFormat(
    "csv",
    "`id`, `file_name`, `split`, `tags` (a JSON list), a column per measure where images were measured, then your columns; names "
    "are never altered, so a spreadsheet may take one for a formula",
    "text/csv; charset=utf-8",
    ".csv",
    _csv,
)
JSONL = ExportFormat(
    "jsonl",
    "one object per sample, with the same fields; your columns below `columns`",
    "application/x-ndjson",
    ".jsonl",
    _jsonl,
)
PARQUET = ExportFormat("parquet", "the same as typed columns", "application/vnd.apache.parquet", ".parquet", _parquet)
