"""Writing an archive: from a copy of the store as it is at one moment, while everybody goes on working with the store itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from vlm.archives import manifest, rows
from vlm.archives.manifest import ArchiveFailed, File, Manifest
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import StoreError
from vlm.samples.archive import archive_write, opened
from vlm.samples.database import copy_files

COPY = "copy.duckdb"  # of the store, while the archive is written


def write(*, folder: Path, datasets: Sequence[Dataset], vocabulary: str) -> Manifest:
    """Write data sets into a new folder, which is their user's alone.

    Args:
        vocabulary: as a TOML file.

    Raises:
        ArchiveFailed, StoreError: nothing is left behind.
    """
    if folder.exists() or folder.is_symlink():
        raise ArchiveFailed(f"{folder} is there already. An archive is a folder of its own: choose another.")
    place: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        done = _write_into(place, datasets, vocabulary)
        place.rename(folder)
    except BaseException as error:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, OSError):
            raise ArchiveFailed(
                f"{folder} could not be written: {error}. Make room, or choose another disk."
            ) from error
        raise
    return done


def _write_into(place: Path, datasets: Sequence[Dataset], vocabulary: str) -> Manifest:
    with sample_store().still() as (_, files):
        copy_files(files, place / COPY)
        # Read only now: what a run or an import has written meanwhile is in the store, too.
        there = [Dataset.objects.filter(pk=dataset.pk).exclude(imported=None).first() for dataset in datasets]
        found = [dataset for dataset in there if dataset is not None]
        if len(found) < len(datasets):
            raise ArchiveFailed(
                "A data set was deleted meanwhile, or its import is not over. Look again, then try again."
            )
        told = rows.told(found, vocabulary)
    (place / manifest.ROWS).write_text(told.to_json())
    try:
        with opened(place / COPY, memory_limit=settings.DUCKDB_MEMORY, threads=settings.DUCKDB_THREADS) as connection:
            counts = archive_write(connection, place, [dataset.pk for dataset in found])
    except StoreError as error:  # of the copy, whose disk is the archive's
        raise ArchiveFailed(f"The archive could not be written: {error}") from error
    for left in place.glob(f"{COPY}*"):
        with suppress(FileNotFoundError):
            left.unlink()
    described: dict[str, File] = {
        name: manifest.described(place / name, count) for name, count in [(manifest.ROWS, 0), *counts.items()]
    }
    done = manifest.made(
        datasets=tuple(dataset.name for dataset in found),
        samples=sum(count for name, count in counts.items() if name.endswith("/samples.parquet")),
        runs=len(told.runs),
        files=described,
        when=timezone.now(),
    )
    done.write(place)
    return done
