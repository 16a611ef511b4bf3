"""Importing data sets: at once for the command, in a background thread for page and admin."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError, connections
from django.utils import timezone

from vlm.datasets.deleting import forget
from vlm.formats import ImportFailed, Scan, Skip, scan
from vlm.models import Dataset, ImportJob
from vlm.process import sample_store
from vlm.samples import Imported, StoreError
from vlm.samples.ingest import import_rows, staged

logger = logging.getLogger(__name__)

STALE_SECONDS = 60.0
BEAT_SECONDS = 5.0
REPORT_SECONDS = 0.5
KEPT_SKIPS = 1000
EXAMPLES = 5

Report = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class ImportDone:
    """What an import did; ``dataset`` is ``None`` after a dry run."""

    dataset: Dataset | None
    root: Path
    format: str
    total: int
    imported: Imported
    skips: list[Skip]
    skip_count: int


@dataclass(frozen=True, slots=True)
class ImportPreview:
    """What an import would find."""

    root: Path
    format: str
    total: int
    skips: list[Skip]
    skip_count: int
    examples: list[str]


def import_folder(
    *,
    path: Path,
    name: str = "",
    format: str = "auto",
    within: Sequence[Path] = (),
    dry_run: bool = False,
    report: Report = lambda _, __: None,
) -> ImportDone:
    """Import a folder, or import it again: new samples are added, absent ones marked missing, tags stay.

    Args:
        name: of the data set; the folder's name if empty.
        within: the folders that the data set's root may not lie above.
        report: called with the samples read so far, and how many are expected.

    Raises:
        ImportFailed: nothing was written.
        StoreError: nothing was written.
    """
    found = scan(path, format, within=within)
    name = (name or found.root.name or "images").strip()
    if dry_run:
        total = sum(1 for _ in found)
        return ImportDone(None, found.root, found.format, total, Imported(total=total), found.skips, found.skip_count)
    _check_name(name, found)  # before the long reading
    # One transaction, after everything was read: an error half-way leaves the samples as they were.
    with staged(found, settings.DATA_DIR, report=lambda count: report(count, found.total)) as source:
        dataset = _claim(name, found)
        try:
            done = import_rows(sample_store(), dataset_id=dataset.pk, source=source)
        except BaseException:
            Dataset.objects.filter(pk=dataset.pk, imported=None).delete()  # unless it was there before
            raise
    dataset.format, dataset.imported = found.format, timezone.now()
    dataset.sample_count, dataset.missing_count = done.total, done.missing
    fields = ("format", "imported", "sample_count", "missing_count")
    if not Dataset.objects.filter(pk=dataset.pk).update(**{field: getattr(dataset, field) for field in fields}):
        forget(dataset_id=dataset.pk, root=dataset.root)
        raise ImportFailed(f"The data set “{name}” was deleted during the import. Import it again.")
    return ImportDone(dataset, found.root, found.format, done.total - done.missing, done, found.skips, found.skip_count)


def import_preview(*, path: str, format: str = "auto") -> ImportPreview:
    """Look through a folder below the import roots and write nothing.

    Raises:
        ImportFailed: it cannot be imported; the message says what to do.
    """
    found = scan(allowed_path(path), format, within=settings.IMPORT_ROOTS)
    records = iter(found)
    examples = [record.path for record in islice(records, EXAMPLES)]
    total = len(examples) + sum(1 for _ in records)
    return ImportPreview(found.root, found.format, total, found.skips, found.skip_count, examples)


def import_start(*, path: str, name: str = "", format: str = "auto", user: User | None) -> ImportJob:
    """Import in a thread of this process.

    Raises:
        ImportFailed: the path is not below the import roots.
    """
    folder = allowed_path(path)
    # A file that describes a data set gives no name: the folder that turns out to be its root does.
    name = name.strip() or ("" if folder.is_file() else folder.name)
    job = ImportJob.objects.create(
        path=str(folder), name=name, format=format, started_by=user, heartbeat=timezone.now()
    )

    def work() -> None:
        try:
            _run_job(job)
        except Exception:
            logger.exception("Import job %s ended badly", job.pk)
        finally:
            connections.close_all()

    threading.Thread(target=work, name=f"import-{job.pk}", daemon=True).start()
    return job


def fail_stale() -> None:
    """Mark imports whose process died as failed; their transaction left nothing behind."""
    stale = timezone.now() - timedelta(seconds=STALE_SECONDS)
    dead = ImportJob.objects.filter(status=ImportJob.Status.RUNNING, heartbeat__lt=stale)
    if dead.exists():  # pages ask all the time, and should not write for it
        dead.update(
            status=ImportJob.Status.FAILED,
            finished=timezone.now(),
            error="The server stopped during the import, which left nothing behind. Import again.",
        )


def allowed_path(path: str) -> Path:
    """Return the folder or file that ``path`` names, if it lies below the import roots.

    Raises:
        ImportFailed: it does not, or there are no import roots.
    """
    roots: list[Path] = settings.IMPORT_ROOTS
    if not roots:
        raise ImportFailed(
            "Importing from the page is off. Set DATAVISOR_IMPORT_ROOTS to the folders it may import from."
        )
    allowed = f"Choose a folder below {' or '.join(map(str, roots))}."
    if not path.strip():
        raise ImportFailed(f"Name a folder. {allowed}")
    try:
        folder = Path(path.strip()).expanduser()
        if not folder.is_absolute():
            folder = roots[0] / folder
        folder = folder.resolve()
    except (OSError, RuntimeError, ValueError):
        raise ImportFailed(f"“{path}” is not a path. {allowed}") from None
    # Asked before anything is looked up, so that the answer tells nothing about other folders.
    if not any(folder.is_relative_to(root) for root in roots):
        raise ImportFailed(f"{folder} is not below the import roots. {allowed}")
    return folder


def _check_name(name: str, found: Scan) -> None:
    if len(name) > 200:
        raise ImportFailed("The name is longer than 200 characters. Give a shorter one.")
    dataset = Dataset.objects.filter(name=name).first()
    if dataset is not None and Path(dataset.root) != found.root:
        raise ImportFailed(
            f"The name “{name}” belongs to the data set of {dataset.root}. Choose another name for {found.root}."
        )


def _claim(name: str, found: Scan) -> Dataset:
    """Return the data set of that name, made if there is none."""
    dataset, _ = Dataset.objects.get_or_create(name=name, defaults={"root": str(found.root), "format": found.format})
    _check_name(name, found)  # another import may have made it meanwhile
    return dataset


@contextmanager
def _beating(job: ImportJob) -> Iterator[None]:
    """Show that the process lives: looking a large folder over, and the transaction at the end, report nothing."""
    over = threading.Event()

    def beat() -> None:
        try:
            while not over.wait(BEAT_SECONDS):
                try:
                    ImportJob.objects.filter(pk=job.pk).update(heartbeat=timezone.now())
                except DatabaseError:
                    logger.warning("Import job %s could not show that it lives", job.pk, exc_info=True)
        finally:
            connections.close_all()

    pulse = threading.Thread(target=beat, name=f"pulse-import-{job.pk}", daemon=True)
    pulse.start()
    try:
        yield
    finally:
        over.set()
        pulse.join()


def _run_job(job: ImportJob) -> None:
    reported = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            ImportJob.objects.filter(pk=job.pk).update(done=done, total=total or 0, heartbeat=timezone.now())

    try:
        with _beating(job):
            done = import_folder(
                path=Path(job.path), name=job.name, format=job.format, within=settings.IMPORT_ROOTS, report=report
            )
    except (ImportFailed, StoreError) as error:
        job.status, job.error = ImportJob.Status.FAILED, str(error)
    except Exception as error:
        logger.exception("The import of %s failed", job.path)
        job.status = ImportJob.Status.FAILED
        job.error = (
            f"The import failed ({type(error).__name__}) and left nothing behind. The server's log has the details."
        )
    else:
        job.status, job.dataset = ImportJob.Status.COMPLETED, done.dataset
        job.name = done.dataset.name if done.dataset else job.name
        job.done = job.total = done.total
        job.skipped = [{"path": skip.path, "reason": skip.reason} for skip in done.skips[:KEPT_SKIPS]]
    job.finished = job.heartbeat = timezone.now()
    job.save()
