"""Data sets: importing, finding, deleting, checking and counting them, and the views of them that users saved."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from django.contrib.auth.models import User
from django.db.models import QuerySet

from vlm import errands, nudges
from vlm.datasets import browsing, importing, moving
from vlm.datasets.importing import ImportDone, ImportPreview, Report
from vlm.errors import Refusal
from vlm.models import Dataset, ImportJob, SavedView, TaggingRun
from vlm.process import accepting_store, sample_store
from vlm.roots import LocalRoot, root_of
from vlm.runs import state as runs_state
from vlm.samples import Cursor, DatasetStats, SampleFilter, SampleRow, checking, ingest, progress, reading, rewording
from vlm.services import vocabulary

Named = TypeVar("Named", Dataset, SavedView)

MOST_VIEWS = 100  # of one user, of one data set


class TooManyViews(Refusal):
    """A user has as many saved views of a data set as one may have."""

    status = 409


# -- finding ---------------------------------------------------------------------------------------------------------------
def get(*, dataset_id: int) -> Dataset | None:
    return Dataset.objects.filter(pk=dataset_id).first()


def exists(*, dataset_id: int) -> bool:
    return Dataset.objects.filter(pk=dataset_id).exists()


def listed() -> list[Dataset]:
    """Return all data sets by name."""
    return list(Dataset.objects.all())


def find(*, text: str) -> Dataset | None:
    """Return the data set of that name, or of that number."""
    found = Dataset.objects.filter(name=text).first()
    if found is None and text.isdecimal() and len(text) < 19:
        found = Dataset.objects.filter(pk=int(text)).first()
    return found


def root_named(*, text: str) -> str | None:
    """Return the root that a folder or URL is, as data sets keep it; ``None`` where there is no such folder. Raises ``RootRefused``."""
    root = root_of(text)
    if isinstance(root, LocalRoot):
        return str(root.path.resolve()) if root.path.is_dir() else None
    return str(root)


def of_root(*, root: str) -> Dataset | None:
    return Dataset.objects.filter(root=root).first()


def name_of(*, root: str) -> str:
    """Return what the data set of a folder or URL is called where nobody names it."""
    return importing.name_of(root_of(root))


def named(*, words: Iterable[str], limit: int) -> list[Dataset]:
    """Return the data sets whose names have all of ``words`` in them, in any case."""
    return list(_having(Dataset.objects.all(), words)[:limit])


def names(*, beginning: str = "") -> list[str]:
    """Return the names of the data sets in order, of those that begin so."""
    return list(Dataset.objects.filter(name__startswith=beginning).values_list("name", flat=True))


@dataclass(frozen=True, slots=True)
class Card:
    """A data set on the first page: its figures, its newest run, and its first pictures."""

    dataset: Dataset
    run: TaggingRun | None
    state: runs_state.RunState | None
    stats: DatasetStats | None = None
    pictures: Sequence[SampleRow] = ()


def newest_runs() -> list[Card]:
    """Return all data sets with their newest runs: three queries, however many there are."""
    runs_state.fail_stale()
    importing.fail_stale()
    runs = runs_state.newest()
    found = [(dataset, runs.get(dataset.pk)) for dataset in Dataset.objects.all()]
    return [Card(dataset, run, runs_state.run_state(run=run) if run else None) for dataset, run in found]


def cards(*, pictures: int) -> list[Card]:
    """Return all data sets with their figures and first ``pictures``: the store is read once for all of them."""
    found = newest_runs()
    everything = SampleFilter()
    with sample_store().read() as cursor:
        stats = reading.dataset_stats(cursor, [card.dataset.pk for card in found])
        first = {
            card.dataset.pk: reading.samples_page(cursor, card.dataset.pk, everything, {}, limit=pictures).samples
            for card in found
        }
    return [
        Card(card.dataset, card.run, card.state, stats.get(card.dataset.pk), first[card.dataset.pk]) for card in found
    ]


def changes(*, dataset_id: int) -> int:
    """Return a number that grows when somebody changes what a data set's pages show, in whatever process."""
    return nudges.changes(dataset_id)


def stats(*, datasets: Iterable[Dataset]) -> dict[int, DatasetStats]:
    ids = [dataset.pk for dataset in datasets]
    with sample_store().read() as cursor:
        return reading.dataset_stats(cursor, ids)


# -- importing and deleting ------------------------------------------------------------------------------------------------
def import_folder(
    *,
    path: Path | str,
    name: str = "",
    format: str = "auto",
    dry_run: bool = False,
    report: Report = lambda _, __: None,
    looked: Report = lambda _, __: None,
) -> ImportDone:
    """Import a folder in this thread. Raises ``ImportFailed``, ``RootRefused``, ``RootAway``, ``StoreError``: nothing was written then.

    ``looked`` is told how many files' heads were read after that; whoever breaks off there loses no more than the others'.
    """
    return importing.import_folder(path=path, name=name, format=format, dry_run=dry_run, report=report, looked=looked)


def folders(*, path: str) -> browsing.Listing:
    """Return the folders in a folder below the import roots, or those whose path begins so. Raises ``ImportFailed``."""
    return browsing.listing(path=path)


def import_preview(*, path: str, name: str = "", format: str = "auto") -> ImportPreview:
    """Look through a folder below the import roots and write nothing. Raises ``ImportFailed``."""
    return importing.import_preview(path=path, name=name, format=format)


def import_start(*, path: str, name: str = "", format: str = "auto", user: User | None) -> ImportJob:
    """Import in a thread of this process. Raises ``ImportFailed`` on a path that is not below the import roots."""
    return importing.import_start(path=path, name=name, format=format, user=user)


def import_job(*, job_id: int) -> ImportJob | None:
    fail_stale_imports()
    return ImportJob.objects.select_related("dataset").filter(pk=job_id).first()


def recent_imports(*, limit: int) -> list[ImportJob]:
    fail_stale_imports()
    return list(ImportJob.objects.select_related("dataset")[:limit])


def fail_stale_imports() -> None:
    """End the imports whose process died."""
    importing.fail_stale()


def rename(*, dataset: Dataset, name: str) -> None:
    """Give a data set another name. Raises ``ImportFailed``."""
    moving.rename(dataset=dataset, name=name)


def relocate(*, dataset: Dataset, path: str) -> moving.Found:
    """Have a data set read its images below another folder. Raises ``ImportFailed``, ``RunActive``."""
    return moving.relocate(dataset=dataset, path=path)


def delete(*, dataset: Dataset) -> None:
    """Delete a data set with its samples, tags, answers and thumbnails; the images stay. Raises ``RunActive``."""
    runs_state.check_idle(dataset.pk)
    dataset.delete()


def check_store(*, repair: bool = False) -> checking.Report:
    """Prove that every sample's tags are what the ledger says, and that both databases say the same of what is in both."""
    if repair:
        errands.finish()
    with _alone(writing=repair) as cursor:
        # Read only now: an import that had the store until here may have made one.
        datasets = {dataset.pk: dataset for dataset in Dataset.objects.all()}
        report = checking.check_store(cursor, datasets=datasets, repair=repair)
        report.between = _between(cursor, datasets, repair)
    return report


@contextmanager
def _alone(*, writing: bool) -> Iterator[Cursor]:
    """Yield a cursor to the store while nobody else writes to it; one that only reads can have it on a full disk, too."""
    if writing:
        with sample_store().write() as cursor:
            yield cursor
    else:
        with sample_store().still() as (cursor, _):
            yield cursor


def _between(cursor: Cursor, datasets: dict[int, Dataset], repair: bool) -> dict[str, int]:
    """Compare what this database and the store say of the same things; returns what differs, counted."""
    idle = TaggingRun.objects.exclude(status__in=TaggingRun.ACTIVE)
    told = [
        checking.Told(run.pk, run.reverted is not None, run.min_probability, run.min_mass, run.thresholds)
        for run in idle.only("reverted", "min_probability", "min_mass", "thresholds")
    ]
    found = checking.check_runs(cursor, told, repair=repair)
    wrong_runs = 0
    for run in idle.filter(reverted=None).only("processed", "tagged", "discarded", "failed", "shared"):
        counts = progress.named_counts(cursor, run.pk)
        if any(getattr(run, name) != count for name, count in counts.items()):
            wrong_runs += 1
            if repair:
                TaggingRun.objects.filter(pk=run.pk).update(**counts)
    wrong_sets = 0
    for dataset in datasets.values():
        there = reading.dataset_totals(cursor, dataset.pk)
        if dataset.imported is not None and there != (dataset.sample_count, dataset.missing_count):
            wrong_sets += 1
            if repair:
                total, missing = there
                Dataset.objects.filter(pk=dataset.pk).update(sample_count=total, missing_count=missing)
    conditions = vocabulary.conditions()
    same = rewording.conditions_kept(cursor) == conditions
    if repair and not same:
        rewording.conditions_keep(cursor, conditions)
    found |= {
        "runs with other counts": wrong_runs,
        "data sets with other numbers of samples": wrong_sets,
        "conditions of the vocabulary": int(not same),
        "changes that were left undone": len(errands.left()),
    }
    return {what: count for what, count in found.items() if count}


def bind_store(*, forget: bool) -> int:
    """Let the store of samples belong to this database from now on; returns how many samples were forgotten.

    Args:
        forget: they do not belong together: forget all that the store holds, so that the data sets are imported again.
    """
    with accepting_store(), sample_store().write() as cursor:
        count = reading.samples_held(cursor) if forget else 0
        for dataset_id in reading.datasets_held(cursor) if forget else ():
            ingest.dataset_delete(cursor, dataset_id=dataset_id)
    return count


# -- saved views -----------------------------------------------------------------------------------------------------------
def saved_views(*, dataset: Dataset, user: User) -> list[SavedView]:
    return list(SavedView.objects.filter(dataset=dataset, user=user))


def views_named(*, user: User, words: Iterable[str], limit: int) -> list[SavedView]:
    """Return the user's saved views, of all data sets, whose names have all of ``words`` in them."""
    return list(_having(SavedView.objects.filter(user=user).select_related("dataset"), words)[:limit])


def saved_view(*, dataset: Dataset, user: User, query: str) -> SavedView | None:
    """Return the saved view that has this very filter."""
    return SavedView.objects.filter(dataset=dataset, user=user, query=query).first()


def save_view(*, dataset: Dataset, user: User, name: str, query: str) -> None:
    """Save a filter under a name, in place of the one that has it. Raises ``TooManyViews``."""
    if SavedView.objects.filter(dataset=dataset, user=user).exclude(name=name).count() >= MOST_VIEWS:
        raise TooManyViews(f"You have {MOST_VIEWS} saved views of this data set. Forget one first.")
    SavedView.objects.update_or_create(dataset=dataset, user=user, name=name, defaults={"query": query})


def forget_view(*, dataset: Dataset, user: User, view_id: int) -> None:
    SavedView.objects.filter(pk=view_id, dataset=dataset, user=user).delete()


def _having(rows: QuerySet[Named], words: Iterable[str]) -> QuerySet[Named]:
    for word in words:
        rows = rows.filter(name__icontains=word)
    return rows
