"""What an archive says of itself: which files it has, with their checksums, and who wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from datavisor import __version__
from vlm.errors import Refusal
from vlm.samples import archive
from vlm.samples.database import digest_of

NAME, ROWS = "manifest.json", "rows.json"
FORMAT, VERSION = "DataVisor archive", 1
MOST = 64 << 20  # bytes of a manifest


class ArchiveFailed(Refusal):
    """An archive cannot be written or read; the message says why, and nothing has changed."""

    title = "No archive"


@dataclass(frozen=True, slots=True)
class File:
    """A file of an archive; ``rows`` of the table that it holds."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in an archive.

    Attributes:
        tables: version of the store's tables.
        datavisor: release that wrote it.
        datasets: names of the data sets.
        files: path below the folder → file.
    """

    tables: int
    datavisor: str
    made: datetime
    datasets: tuple[str, ...]
    samples: int
    runs: int
    files: Mapping[str, File]

    @property
    def counts(self) -> dict[str, int]:
        """Return the rows of the tables by the paths of their files."""
        return {name: file.rows for name, file in self.files.items() if name != ROWS}

    def write(self, folder: Path) -> None:
        told = {"format": FORMAT, "version": VERSION} | asdict(self) | {"made": self.made.isoformat()}
        (folder / NAME).write_text(json.dumps(told, indent=1, ensure_ascii=False))


def look(folder: Path) -> Manifest:
    """Return what an archive holds, after a look at every byte of it.

    Raises:
        ArchiveFailed: it is none, of a newer release, incomplete or damaged.
    """
    try:
        if (folder / NAME).stat().st_size > MOST:
            raise ValueError(f"{NAME} is too large")
        told = json.loads((folder / NAME).read_text())
        if told["format"] != FORMAT:
            raise ValueError(f"its format is “{told['format']}”")
        if _whole(told["version"]) > VERSION or _whole(told["tables"]) > archive.VERSION:
            raise ArchiveFailed(
                f"{folder} was written by DataVisor {str(told['datavisor'])[:40]}, which is newer. Install that release, or newer."
            )
        manifest = _manifest(told)
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {NAME}
        missing, wrong = sorted(set(manifest.files) - names), sorted(names - set(manifest.files))
        wrong += [
            name for name in sorted(names & set(manifest.files)) if not _is_whole(folder / name, manifest.files[name])
        ]
    except ArchiveFailed:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, archive.ArchiveUnfit) as error:
        said = f"{error!r}" if isinstance(error, KeyError) else str(error)
        raise ArchiveFailed(f"{folder} is no archive of DataVisor, or an incomplete one: {said}.") from error
    if missing:
        raise ArchiveFailed(f"{folder} is incomplete: {missing[0]} is not there. Take another copy of the archive.")
    if wrong:
        raise ArchiveFailed(
            f"{folder} is damaged: {wrong[0]} is not what was written. Take another copy of the archive."
        )
    return manifest


def described(path: Path, rows: int) -> File:
    """Return what a manifest says of a file."""
    return File(rows, path.stat().st_size, digest_of(path))


def made(*, datasets: tuple[str, ...], samples: int, runs: int, files: Mapping[str, File], when: datetime) -> Manifest:
    """Return the manifest of an archive that this release writes."""
    return Manifest(archive.VERSION, __version__, when, datasets, samples, runs, files)


def _manifest(told: Mapping[str, Any]) -> Manifest:
    files = {str(name): File(**file) for name, file in told["files"].items()}
    for name, file in files.items():
        if name != ROWS:
            archive.table_of(name)
        _whole(file.rows)
    if ROWS not in files:
        raise ValueError(f"it names no {ROWS}")
    names = told["datasets"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its data sets have no names")
    made = datetime.fromisoformat(told["made"])
    version = (_whole(told["tables"]), str(told["datavisor"]), made)
    return Manifest(*version, tuple(names), _whole(told["samples"]), _whole(told["runs"]), files)


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"“{str(value)[:40]}” is no count")
    return value


def _is_whole(path: Path, file: File) -> bool:
    return not path.is_symlink() and path.stat().st_size == file.bytes and digest_of(path) == file.sha256
