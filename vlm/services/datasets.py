"""Data sets: importing, deleting, checking and counting them."""

from collections.abc import Iterable

from vlm.datasets import importing
from vlm.datasets.importing import import_folder as import_folder
from vlm.datasets.importing import import_preview as import_preview
from vlm.datasets.importing import import_start as import_start
from vlm.datasets.moving import relocate as relocate
from vlm.datasets.moving import rename as rename
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.errors import RunActive
from vlm.runs.state import fail_stale
from vlm.samples import DatasetStats, reading
from vlm.samples.checking import Report
from vlm.samples.checking import check_store as check


def exists(*, dataset_id: int) -> bool:
    return Dataset.objects.filter(pk=dataset_id).exists()


def listed() -> list[Dataset]:
    """Return all data sets by name."""
    return list(Dataset.objects.all())


def stats(*, datasets: Iterable[Dataset]) -> dict[int, DatasetStats]:
    ids = [dataset.pk for dataset in datasets]
    with sample_store().read() as cursor:
        return reading.dataset_stats(cursor, ids)


def delete(*, dataset: Dataset) -> None:
    """Delete a data set with its samples, tags, answers and thumbnails; the images stay. Raises ``RunActive``."""
    fail_stale()
    active = TaggingRun.objects.filter(dataset=dataset, status__in=TaggingRun.ACTIVE).first()
    if active is not None:
        raise RunActive(active)
    dataset.delete()


def check_store(*, repair: bool = False) -> Report:
    """Prove that every sample's tags are what the ledger says, and find rows of data sets that are gone."""
    with sample_store().write() as cursor:
        # Read only now: an import that had the store until here may have made one.
        datasets = list(Dataset.objects.values_list("pk", flat=True))
        return check(cursor, datasets=datasets, repair=repair)


def fail_stale_imports() -> None:
    importing.fail_stale()
