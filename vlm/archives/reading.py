"""Reading an archive: looked through, staged and proved sound first; then rows in Django's database, and one transaction of the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.dateparse import parse_datetime

from vlm import jobs, nudges
from vlm.archives import manifest, rows
from vlm.archives.manifest import ArchiveFailed, Manifest
from vlm.archives.rows import Renumbering, Row, Rows
from vlm.models import Dataset, FrozenSlice, SavedView, TaggingRun, TagNote
from vlm.process import sample_store
from vlm.samples.archive import Numbers, Shift, Staged, archive_stage, opened, take_over
from vlm.samples.ingest import STAGED, incoming, staging_place

BEAT_SECONDS = 5.0
WHILE_IT_RAN = "It was at work when the archive was written."
MOST_NUMBERED = 10_000  # names that are tried for a data set whose own is taken


@dataclass(frozen=True, slots=True)
class Read:
    """What came of an archive: its data sets under their names here, and how many saved views had no user of their name here."""

    manifest: Manifest
    datasets: list[Dataset]
    views_left_out: int


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was looked through; ``names`` says what its data sets are called here, by their numbers there."""

    folder: Path
    manifest: Manifest
    rows: Rows
    names: Mapping[int, str]


def look(*, folder: Path, rename: bool = False) -> Archive:
    """Look through an archive.

    Args:
        rename: give a data set whose name is taken another one, with a number behind it.

    Raises:
        ArchiveFailed: it is none, or damaged, or a name is taken.
    """
    found = manifest.look(folder)
    told = rows.read((folder / manifest.ROWS).read_text())
    return Archive(folder, found, told, _names(told, rename))


def read(archive: Archive) -> Read:
    """Bring the data sets of an archive in, beside those that are there.

    Raises:
        ArchiveFailed, StoreError: nothing has changed.
    """
    runs = [row["number"] for row in archive.rows.runs]
    with staging_place(settings.DATA_DIR) as place:
        staged = place / STAGED
        with opened(staged, memory_limit=settings.DUCKDB_MEMORY, threads=settings.DUCKDB_THREADS) as connection:
            found = archive_stage(
                connection,
                staged,
                archive.folder,
                version=archive.manifest.tables,
                files=archive.manifest.counts,
                runs=runs,
                slices=[row["number"] for row in archive.rows.slices],
            )
        if not found.datasets <= set(archive.names):
            raise ArchiveFailed("The archive has samples of a data set that it does not name. Take another copy of it.")
        try:
            with _made(archive, found) as made:
                shift = _bring_in(staged, made)
                return _settle(archive, made, shift)
        except IntegrityError as error:
            raise ArchiveFailed("One of the names was taken meanwhile. Look again, then try again.") from error


# -- inside --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Made:
    """Rows that were made for an archive's, by their numbers there."""

    datasets: Mapping[int, Dataset]
    runs: Mapping[int, TaggingRun]
    slices: Mapping[int, FrozenSlice]
    users: Mapping[str, User]

    @property
    def numbers(self) -> Numbers:
        return Numbers(
            datasets={old: dataset.pk for old, dataset in self.datasets.items()},
            runs={old: run.pk for old, run in self.runs.items()},
            slices={old: one.pk for old, one in self.slices.items()},
            users={name: user.pk for name, user in self.users.items()},
        )


def _bring_in(staged: Path, made: _Made) -> Shift:
    patient = threading.Event()  # never set: what was staged took long, so better wait for the store
    with incoming(sample_store(), staged) as (name, attach), sample_store().write(stop=patient) as cursor:
        cursor.execute(attach).fetchall()
        return take_over(cursor, name, made.numbers)


def _names(told: Rows, rename: bool) -> dict[int, str]:
    taken = set(Dataset.objects.values_list("name", flat=True))
    names: dict[int, str] = {}
    for row in told.datasets:
        name = row["name"]
        if name in taken:
            if not rename:
                raise ArchiveFailed(f"There is a data set “{name}” already. Rename that one, or say --rename.")
            tails = (f" {number}" for number in range(2, MOST_NUMBERED))
            name = next(new for tail in tails if (new := f"{row['name'][: 200 - len(tail)]}{tail}") not in taken)
        taken.add(name)
        names[row["number"]] = name
    return names


@contextmanager
def _made(archive: Archive, found: Staged) -> Iterator[_Made]:
    """Make the rows as one's own while they are filled; they go if that fails, or if this process dies."""
    with transaction.atomic():
        made = _make(archive, found)
    ids = [dataset.pk for dataset in made.datasets.values()]
    new = Dataset.objects.filter(pk__in=ids, imported=None)
    try:
        with (
            jobs.claimed(new.filter(worker=jobs.QUEUED)) as worker,
            jobs.beating(lambda: new.filter(worker=worker), stop=threading.Event(), every=BEAT_SECONDS),
        ):
            yield made
    except BaseException:
        new.delete()
        raise


def _make(archive: Archive, found: Staged) -> _Made:
    told = archive.rows
    named = {row["by"] for row in (*told.runs, *told.slices, *told.views) if "by" in row}
    users = rows.users(named | found.users)
    datasets = {
        row["number"]: rows.put(Dataset, row, name=archive.names[row["number"]], imported=None) for row in told.datasets
    }
    runs: dict[int, TaggingRun] = {}
    for row in told.runs:
        ended = _ended(row, found) if row["status"] in TaggingRun.ACTIVE else {}
        first = runs.get(row.get("failed_of") or 0)
        by = users.get(row.get("by", ""))
        runs[row["number"]] = rows.put(
            TaggingRun, row, dataset=datasets[row["of"]], started_by=by, failed_of=first, **ended
        )
    slices = {
        row["number"]: rows.put(FrozenSlice, row, dataset=datasets[row["of"]], user=users.get(row.get("by", "")))
        for row in told.slices
    }
    for row in told.notes:
        rows.put(TagNote, row, dataset=datasets[row["of"]])
    return _Made(datasets, runs, slices, users)


def _ended(row: Row, found: Staged) -> Row:
    """Return how a run that was at work stands: as one that was interrupted, with what the store had of it."""
    done = dict(
        zip(("processed", "tagged", "discarded", "failed"), found.counts.get(row["number"], (0, 0, 0, 0)), strict=True)
    )
    return done | {"status": TaggingRun.Status.INTERRUPTED, "error": WHILE_IT_RAN}


def _settle(archive: Archive, made: _Made, shift: Shift) -> Read:
    """Let filters name the new numbers, and say that the data sets are there."""
    change = Renumbering(shift.samples, shift.edits, made.numbers.runs, made.numbers.slices)
    left_out = 0
    with transaction.atomic():
        for run in made.runs.values():
            TaggingRun.objects.filter(pk=run.pk).update(filter_query=change.query(run.filter_query))
        for one in made.slices.values():
            runs = [
                run | {"run": change.runs.get(run["run"], 0), "filter": change.query(run["filter"])} for run in one.runs
            ]
            FrozenSlice.objects.filter(pk=one.pk).update(query=change.query(one.query), runs=runs)
        for row in archive.rows.views:
            if (user := made.users.get(row["by"])) is None:
                left_out += 1
                continue
            rows.put(SavedView, row, dataset=made.datasets[row["of"]], user=user, query=change.query(row["query"]))
        for row in archive.rows.datasets:
            Dataset.objects.filter(pk=made.datasets[row["number"]].pk).update(
                imported=parse_datetime(row["imported"]), worker=jobs.QUEUED, heartbeat=None
            )
    ids = [dataset.pk for dataset in made.datasets.values()]
    nudges.count_change(*ids)
    found = Dataset.objects.in_bulk(ids)
    return Read(archive.manifest, [found[pk] for pk in ids if pk in found], left_out)
