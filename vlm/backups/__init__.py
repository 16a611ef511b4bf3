"""Backups: store and database as they were at one moment, copied while the server runs, and put back.

Within the copying nobody writes to the store. What Django's database says beyond it is an errand (``vlm.errands``), which is
finished when the copy is first opened, so the two belong together. ``vlm.backups.database`` knows how each kind of database
is copied.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from vlm.backups.database import KINDS, PROGRAMS, own_kind
from vlm.backups.errors import BackupFailed
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.state import active
from vlm.samples import reading
from vlm.samples.database import copy_files, digest_of

STORE, MANIFEST = "samples.duckdb", "backup.json"
DATABASES = frozenset(kind.file for kind in KINDS.values())
# File → place and bytes by which it is known.
BEGINS = {STORE: (8, b"DUCK")} | {kind.file: (0, kind.begins) for kind in KINDS.values()}
FAILURES = (OSError, sqlite3.Error, subprocess.CalledProcessError)


@dataclass(frozen=True, slots=True)
class Backup:
    """What is in a backup; ``files`` holds the SHA-256 of each."""

    folder: Path
    made: datetime
    datasets: int
    runs: int
    samples: int
    files: dict[str, str]


def make(*, folder: Path) -> Backup:
    """Copy store and database into a new folder, which is its user's alone: it holds password hashes.

    Thumbnails are made anew when they are needed, the secret key and the model are not part of it.

    Raises:
        BackupFailed, StoreError: nothing is left behind.
    """
    own_kind()
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BackupFailed(f"{folder} is there already. A backup is a folder of its own: choose another.") from None
    except OSError as error:
        raise BackupFailed(f"{folder} cannot be made: {error.strerror}.") from error
    try:
        return _copy_into(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, FAILURES):
            raise BackupFailed(f"{folder} could not be written: {_said(error)}") from error
        raise


def look(*, folder: Path) -> Backup:
    """Return what a backup holds, after a look at every byte of it.

    Raises:
        BackupFailed: it is none, or damaged.
    """
    try:
        noted = json.loads((folder / MANIFEST).read_text())
        backup = Backup(**noted | {"folder": folder, "made": datetime.fromisoformat(noted["made"])})
        if unknown := sorted(set(backup.files) - {*BEGINS, f"{STORE}.wal"}):
            raise ValueError(f"“{unknown[0]}” is no file of a backup")
        wrong = [name for name, digest in backup.files.items() if not _is_whole(folder / name, digest)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BackupFailed(f"{folder} is no backup of DataVisor, or an incomplete one: {error}.") from error
    if wrong or STORE not in backup.files or len(DATABASES & set(backup.files)) != 1:
        raise BackupFailed(f"{folder} is damaged: {', '.join(wrong) or 'a file is missing'}. Take another backup.")
    return backup


def restore(*, folder: Path) -> tuple[Backup, Path]:
    """Put a backup in the place of store and database; returns it, and the folder to which the present ones were moved.

    Servers that run go on with what was put back; whoever was logged in may have to log in again.

    Raises:
        BackupFailed: it is none, or a run is active.
        StoreError: nothing has changed.
    """
    kind = own_kind()
    backup = look(folder=folder)
    if kind.file not in backup.files:
        (other,) = (kind.name for kind in KINDS.values() if kind.file in backup.files)
        raise BackupFailed(
            f"{folder} has its users, data sets and runs from {other}, but here they are in {kind.name}: it goes back where "
            "DATABASE_URL is what it was when the backup was made."
        )
    if at_work := active():
        raise BackupFailed(f"Run {at_work[0].pk} is active. Wait for its end, or cancel it.")
    aside = Path(settings.DATA_DIR) / f"before-restore-{timezone.now():%Y%m%dT%H%M%S%f}"
    connections.close_all()
    try:
        aside.mkdir(mode=0o700)
        with sample_store().replaced() as store, _moved_aside(store, aside):
            for name in backup.files:
                if name != kind.file:
                    shutil.copyfile(folder / name, store.with_name(store.name + name.removeprefix(STORE)))
            kind.out(aside / kind.file)
            kind.into(folder / kind.file)
    except BaseException as error:
        with suppress(OSError):
            (aside / kind.file).unlink(missing_ok=True)
            aside.rmdir()  # not if anything else is left in it
        if isinstance(error, FAILURES):
            raise BackupFailed(
                f"{folder} could not be put back: {_said(error)} Samples and database are as they were."
            ) from error
        raise
    connections.close_all()
    call_command("migrate", interactive=False, verbosity=0)  # it may be of an older release
    return backup, aside


def _copy_into(folder: Path) -> Backup:
    with sample_store().still() as (cursor, files):
        copy_files(files, folder / STORE)
        kind = own_kind()
        kind.out(folder / kind.file)
        held = reading.samples_held(cursor)
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        (folder / name).chmod(0o600)
    backup = Backup(
        folder,
        timezone.now(),
        Dataset.objects.count(),
        TaggingRun.objects.count(),
        held,
        {name: digest_of(folder / name) for name in names},
    )
    noted: dict[str, Any] = asdict(backup) | {"made": backup.made.isoformat()}
    del noted["folder"]
    (folder / MANIFEST).write_text(json.dumps(noted, indent=1))
    return backup


@contextmanager
def _moved_aside(store: Path, aside: Path) -> Iterator[None]:
    """Move the store's files away within the block, and back if it fails."""
    moved = [path for path in store.parent.glob(f"{store.name}*") if path.suffix not in (".lock", ".queue")]
    for path in moved:
        path.rename(aside / path.name)
    try:
        yield
    except BaseException:
        for path in (store, store.with_name(f"{store.name}.wal")):
            path.unlink(missing_ok=True)
        for path in moved:
            (aside / path.name).replace(path)
        raise


def _said(error: BaseException) -> str:
    """Return what went wrong, and what may help; of a process, what it complained of in the end."""
    advice = "Make room, or choose another disk."
    if not isinstance(error, subprocess.CalledProcessError):
        return f"{error}. {advice}"
    lines = error.stderr.decode(errors="replace").strip().splitlines() or ["it was killed"]
    if error.cmd[0] in PROGRAMS:  # PostgreSQL's own say why themselves, in a line or two
        return " ".join(line for line in lines[-2:] if line.startswith(error.cmd[0])) or lines[-1]
    return f"{lines[-1]}. {advice}"


def _is_whole(path: Path, digest: str) -> bool:
    """Tell whether a file of a backup is itself, has the bytes that were noted, and begins as its kind does."""
    place, mark = BEGINS.get(path.name, (0, b""))
    with path.open("rb") as file:
        begins = file.read(place + len(mark))[place:] == mark
    return begins and not path.is_symlink() and digest_of(path) == digest
