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
    json_bytes,
    measure_object,
    tag_objects,
)


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


def _csv(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # the excel dialect is that of RFC 4180
    writer.writerow(("id", "file_name", "split", "tags", *_measured_names(context)))
    for row in rows:
        tags = json.dumps(tag_objects(row), ensure_ascii=False)
        writer.writerow((row.id, row.file_name, row.split, tags, *_measured(row, context)))
        if buffer.tell() >= CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _spreadsheet(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a CSV that may be opened without a thought: a column per dimension, and no cell that is taken for a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    dimensions = list(context.dimensions)
    writer.writerow(("id", "file_name", "split", *map(_harmless, dimensions), "other tags", *_measured_names(context)))
    yield codecs.BOM_UTF8
    for row in rows:
        words = {tag.dimension: tag.tag for tag in reversed(row.tags) if tag.dimension in context.dimensions}
        others = ", ".join(tag.tag for tag in row.tags if tag.dimension not in context.dimensions)
        cells = (row.file_name, row.split, *(words.get(name, "") for name in dimensions), others)
        writer.writerow((row.id, *map(_harmless, cells), *_measured(row, context)))
        if buffer.tell() >= CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _jsonl(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    for row in rows:
        yield json_bytes(_plain(row, context)) + b"\n"


def _parquet(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Let DuckDB turn the lines of ``jsonl`` into Parquet, from one temporary file to another."""
    with tempfile.TemporaryDirectory(prefix="datavisor-export-") as folder:
        lines, target = Path(folder, "rows.jsonl"), Path(folder, "rows.parquet")
        with lines.open("wb") as file:
            file.writelines(_jsonl(rows, context))
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
                    SELECT * FROM read_json($lines, format = 'newline_delimited', columns = {{
                        id: 'BIGINT',
                        file_name: 'VARCHAR',
                        split: 'VARCHAR',
                        tags: 'STRUCT(tag VARCHAR, dimension VARCHAR, source VARCHAR, probability DOUBLE, run BIGINT,
                            "user" VARCHAR, "time" TIMESTAMP, way VARCHAR)[]'{measures}
                    }})
                ) TO $target (FORMAT parquet, COMPRESSION zstd)
                """,  # noqa: S608  (names of measures)
                {"lines": str(lines), "target": str(target)},
            )
        lines.unlink()
        with target.open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece


SPREADSHEET = ExportFormat(
    "csv-spreadsheet",
    "for Excel and the like: a column per dimension, a byte order mark, and an apostrophe before a cell that begins with "
    "`=`, `+`, `-` or `@`",
    "text/csv; charset=utf-8",
    ".csv",
    _spreadsheet,
)
CSV = ExportFormat(
    "csv",
    "`id`, `file_name`, `split`, `tags` (a JSON list) and, where images were measured, a column per measure; names are never "
    "altered, so a spreadsheet may take one for a formula",
    "text/csv; charset=utf-8",
    ".csv",
    _csv,
)
JSONL = ExportFormat("jsonl", "one object per sample, with the same fields", "application/x-ndjson", ".jsonl", _jsonl)
PARQUET = ExportFormat("parquet", "the same as typed columns", "application/vnd.apache.parquet", ".parquet", _parquet)
