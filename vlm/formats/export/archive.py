"""Zips written piece by piece into a sink that cannot seek."""

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from vlm.formats.base import CHUNK, ExportRow, tag_objects

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can write: the same samples make the same bytes


class Sink(io.RawIOBase):
    """Takes what is written and gives it away again; it cannot seek, as a socket cannot."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class Lines:
    """Text that grows in a temporary file until it becomes a member of an archive: there may be a million lines of it."""

    def __init__(self, stack: ExitStack) -> None:
        file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115 - the stack closes it
        self.file = stack.enter_context(file)

    def write_to(self, archive: zipfile.ZipFile, name: str) -> None:
        self.file.seek(0)
        with archive.open(name, "w", force_zip64=True) as target:
            while piece := self.file.read(CHUNK):
                target.write(piece.encode())


class Listing(Lines):
    """The table that lies beside files which cannot hold it themselves: id, file, split and tags of every image."""

    name = "samples.csv"

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self._writer = csv.writer(self.file)
        self._writer.writerow(("id", "file", "split", "tags"))

    def of(self, rows: Iterable[ExportRow]) -> Iterator[ExportRow]:
        """Yield the rows, and put each into the table."""
        for row in rows:
            self._writer.writerow((row.id, row.path, row.split, json.dumps(tag_objects(row), ensure_ascii=False)))
            yield row
