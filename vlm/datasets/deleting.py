"""Deleting a data set: what store and thumbnail cache hold of it goes with its row."""

from pathlib import Path

from django.conf import settings
from django.db import transaction

from vlm.imaging import remove_thumbnails
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples.merging import dataset_delete


def forget(*, dataset_id: int, root: str) -> None:
    """Remove what the store and the thumbnail cache hold of a deleted data set."""
    with sample_store().write() as cursor:
        dataset_delete(cursor, dataset_id=dataset_id)
    if not Dataset.objects.filter(root=root).exists():
        remove_thumbnails(settings.THUMBNAIL_DIR, Path(root))


def on_deleted(sender: type[Dataset], instance: Dataset, **kwargs: object) -> None:
    """Remove what store and thumbnail cache hold of a data set, once its row is gone for good."""
    dataset_id, root = instance.pk, instance.root
    transaction.on_commit(lambda: forget(dataset_id=dataset_id, root=root))
