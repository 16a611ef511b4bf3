"""Importing data sets: at once for the command, in a background thread for page and admin."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs, nudges
from vlm.datasets.deleting import forget
from vlm.datasets.heads import heads_read
from vlm.datasets.places import allowed_place, allowed_places
from vlm.datasets.previewing import preview, summary
from vlm.errors import RootAway
from vlm.formats import ImportFailed, Scan, Skip, scan
from vlm.formats.records import is_unicode
from vlm.imaging import ImageUnreadable, file_digest
from vlm.models import Dataset, ImportJob
from vlm.process import sample_store
from vlm.roots import LocalRoot, ObjectRoot, ObjectURL, Root, root_of
from vlm.samples import Imported, StoreError
from vlm.samples.ingest import import_rows, staged
from vlm.vocabulary import is_plain

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
BEAT_SECONDS = 5.0
KEPT_SKIPS = 1000
EXAMPLES = 5
SAY_NOTHING = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "train", "training", "val", "valid", "validation", "test"}
)  # folders of these names lie in every other data set

Report = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class ImportDone:
    """What an import did; ``dataset`` is ``None`` after a dry run."""

    dataset: Dataset | None
    root: Root
    format: str
    total: int
    imported: Imported
    skips: list[Skip]
    skip_count: int

    @property
    def summary(self) -> dict[str, int]:
        """How many samples are new, known, changed and so on."""
        return summary(self.imported)


@dataclass(frozen=True, slots=True)
class ImportPreview:
    """What an import would find, and what the data set would be called."""

    root: Root
    name: str
    format: str
    total: int
    skips: list[Skip]
    skip_count: int
    examples: list[str]
    summary: dict[str, int]  # see ``previewing.summary``


def import_folder(
    *,
    path: Path | str,
    name: str = "",
    format: str = "auto",
    within: Sequence[Path | ObjectURL] = (),
    dry_run: bool = False,
    report: Report = lambda _, __: None,
    looked: Report = lambda _, __: None,
    wanted: Callable[[], bool] = lambda: True,
) -> ImportDone:
    """Import a folder, or import it again: new samples are added, absent ones marked missing, tags stay.

    Args:
        path: of the folder or the file that describes it; a URL as a text.
        name: of the data set; see ``name_of`` if empty.
        within: the folders and URLs that the data set's root may not lie above.
        report: called with the samples read so far, and how many are expected.
        looked: called with how many files' heads were read after that, and of how many (see ``heads``).
        wanted: asked while heads are read; the import itself is done by then.

    Raises:
        ImportFailed, RootRefused, RootAway: nothing was written.
        StoreError: nothing was written.
    """
    fail_stale()  # what was killed must not keep its name
    found = scan(path, format, within=within)
    name = name.strip() or name_of(found.root)
    if dry_run:
        would = preview(found, name=name, report=lambda count: report(count, found.total))
        there = would.total - would.missing
        return ImportDone(None, found.root, found.format, there, would, found.skips, found.skip_count)
    _check_name(name, found)  # before the long reading
    # One transaction, after everything was read: an error half-way leaves the samples as they were.
    with staged(found, settings.DATA_DIR, report=lambda count: report(count, found.total)) as source:
        dataset = _named(name, found)
        with _brought_in(dataset):
            looks = partial(_digest, found.root)
            done = import_rows(sample_store(), dataset_id=dataset.pk, source=source, digest=looks)
            _settle(dataset, found, done)
    _look_at_heads(dataset, looked, wanted)
    nudges.count_change(dataset.pk)
    return ImportDone(dataset, found.root, found.format, done.total - done.missing, done, found.skips, found.skip_count)


def import_preview(*, path: str, name: str = "", format: str = "auto") -> ImportPreview:
    """Look through a folder below the import roots and write nothing.

    Raises:
        ImportFailed: it cannot be imported; the message says what to do.
    """
    found = scan(_said(allowed_place(path)), format, within=allowed_places())
    examples = [record.path for record in islice(found, EXAMPLES)]
    name = name.strip() or name_of(found.root)
    would = preview(found, name=name)
    total = would.total - would.missing
    return ImportPreview(found.root, name, found.format, total, found.skips, found.skip_count, examples, summary(would))


def import_start(*, path: str, name: str = "", format: str = "auto", user: User | None) -> ImportJob:
    """Import in a thread of this process.

    Raises:
        ImportFailed: the path is not below the import roots or URLs.
    """
    place = allowed_place(path)
    # A file that describes a data set gives no name: the folder that turns out to be its root does.
    named = ObjectRoot(place) if isinstance(place, ObjectURL) else None if place.is_file() else LocalRoot(place)
    name = name.strip() or ("" if named is None else name_of(named))
    job = ImportJob.objects.create(path=str(place), name=name, format=format, started_by=user, heartbeat=timezone.now())

    jobs.launch(f"import-{job.pk}", lambda stop: _work(job, stop))
    return job


def fail_stale() -> None:
    """End the imports whose process died: what they had begun to make is removed, with the name it took."""
    jobs.sweep(ImportJob.objects.filter(status=ImportJob.Status.RUNNING), _fail)
    jobs.sweep(Dataset.objects.filter(imported=None).exclude(worker=jobs.QUEUED), _remove)


def _fail(rows: QuerySet[ImportJob], heartbeat: datetime | None) -> int:
    return rows.update(
        status=ImportJob.Status.FAILED,
        finished=timezone.now(),
        error="The server stopped during the import, which left nothing behind. Import again.",
    )


def _remove(rows: QuerySet[Dataset], heartbeat: datetime | None) -> int:
    return rows.delete()[0]


def name_of(root: Root) -> str:
    """Return what a data set is called that nobody named: as before, if there is one of that folder; else as its folder.

    A folder that says only that it holds images (“train/images”) is called with those around it: “street/train/images”.
    """
    if (known := Dataset.objects.filter(root=str(root)).order_by("pk").first()) is not None:
        return known.name
    parts = root.parts
    named = next((place for place in range(len(parts) - 1, -1, -1) if parts[place].casefold() not in SAY_NOTHING), 0)
    return "/".join(parts[named:])[-200:] or "images"


def _said(place: Path | ObjectURL) -> Path | str:
    return place if isinstance(place, Path) else str(place)


def _digest(root: Root, path: str) -> str | None:
    """Return what the bytes of a file are, to tell one that changed from one that only got another time or place."""
    try:
        return file_digest(root.source(path))
    except ImageUnreadable:
        return None


def _check_name(name: str, found: Scan) -> None:
    if len(name) > 200:
        raise ImportFailed("The name is longer than 200 characters. Give a shorter one.")
    dataset = Dataset.objects.filter(name=name).first() if is_unicode(name) else None
    if dataset is None and not is_plain(name):
        raise ImportFailed(
            "The data set's name has control characters, or bytes that are no text. Give it another one."
        )
    if dataset is not None and root_of(dataset.root) != found.root:
        raise ImportFailed(
            f"The name “{name}” belongs to the data set of {dataset.root}. Choose another name for {found.root}."
        )


def _look_at_heads(dataset: Dataset, looked: Report, wanted: Callable[[], bool]) -> None:
    """Read what the files say of themselves. The data set is there; nothing that goes wrong from here on takes it away."""
    try:
        heads_read(dataset=dataset, wanted=wanted, report=looked)
    except (StoreError, RootAway) as error:
        logger.warning("Data set %s: the heads of its files were not read to the end: %s", dataset.pk, error)


def _named(name: str, found: Scan) -> Dataset:
    """Return the data set of that name, made if there is none."""
    dataset, _ = Dataset.objects.get_or_create(name=name, defaults={"root": str(found.root), "format": found.format})
    _check_name(name, found)  # another import may have made it meanwhile
    return dataset


def _settle(dataset: Dataset, found: Scan, done: Imported) -> None:
    """Write down what a data set holds from now on."""
    dataset.format, dataset.imported = found.format, timezone.now()
    dataset.sample_count, dataset.missing_count = done.total, done.missing
    dataset.worker, dataset.heartbeat = jobs.QUEUED, None
    fields = ("format", "imported", "sample_count", "missing_count", "worker", "heartbeat")
    if not Dataset.objects.filter(pk=dataset.pk).update(**{field: getattr(dataset, field) for field in fields}):
        forget(dataset_id=dataset.pk)
        raise ImportFailed(f"The data set “{dataset.name}” was deleted during the import. Import it again.")


@contextmanager
def _brought_in(dataset: Dataset) -> Iterator[None]:
    """Keep a data set that is new as one's own while it is filled; it goes if that fails, or if this process dies."""
    new = Dataset.objects.filter(pk=dataset.pk, imported=None)
    try:
        if connection.in_atomic_block:  # nobody else sees the row before the end, or could write beside us
            yield
            return
        with jobs.claimed(new.filter(worker=jobs.QUEUED)) as worker:
            if not worker:  # it was there before, or another import fills it
                yield
                return
            with jobs.beating(lambda: new.filter(worker=worker), stop=threading.Event(), every=BEAT_SECONDS):
                yield
    except BaseException:
        new.delete()
        raise


def _work(job: ImportJob, stop: threading.Event) -> None:
    queued = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.RUNNING, worker=jobs.QUEUED)
    with jobs.claimed(queued) as worker:
        if worker:
            own = ImportJob.objects.filter(pk=job.pk, worker=worker, status=ImportJob.Status.RUNNING)
            with jobs.beating(lambda: own, stop=stop, every=BEAT_SECONDS) as halt:
                ended = _run_job(job, own, halt)
            now = timezone.now()
            jobs.write_down(lambda: own.update(finished=now, heartbeat=now, **ended), stop)


def _run_job(job: ImportJob, own: QuerySet[ImportJob], halt: threading.Event) -> dict[str, Any]:
    """Import, and return what is to be written down about it."""
    reported = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal reported
        if halt.is_set():
            raise ImportFailed("The import was stopped and left nothing behind. Import again.")
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            own.update(done=done, total=total or 0)

    def looked(done: int, total: int | None) -> None:
        own.update(done=done, total=total or 0)

    try:
        done = import_folder(
            path=job.path,
            name=job.name,
            format=job.format,
            within=allowed_places(),
            report=report,
            looked=looked,
            wanted=lambda: not halt.is_set(),
        )
    except Exception as error:
        if (problem := jobs.foreseen(error)) is not None:
            return {"status": ImportJob.Status.FAILED, "error": problem.message}
        logger.exception("The import of %s failed", job.path)
        why = f"The import failed ({type(error).__name__}) and left nothing behind. The server's log has the details."
        return {"status": ImportJob.Status.FAILED, "error": why}
    return {
        "status": ImportJob.Status.COMPLETED,
        "dataset": done.dataset,
        "name": done.dataset.name if done.dataset else job.name,
        "done": done.total,
        "total": done.total,
        "summary": done.summary,
        "skipped": [{"path": skip.path, "reason": skip.reason} for skip in done.skips[:KEPT_SKIPS]],
    }
