"""Backups of store and database. What they are is in ``vlm.backups``."""

from pathlib import Path

from vlm import backups
from vlm.backups import Backup


def make(*, folder: Path) -> Backup:
    """Copy store and database, as they are at one moment, into a new folder. Raises ``BackupFailed``, ``StoreError``."""
    return backups.make(folder=folder)


def restore(*, folder: Path) -> tuple[Backup, Path]:
    """Put a backup back; returns it, and where the present data were moved. Raises ``BackupFailed``, ``StoreError``."""
    return backups.restore(folder=folder)
