"""Deleting a data set: what store and thumbnail cache hold of it goes with its row."""

import logging
import threading
from pathlib import Path

from django.conf import settings
from django.db import transaction

from vlm import jobs
from vlm.imaging import remove_thumbnails
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import StoreBusy, StoreError
from vlm.samples.ingest import dataset_delete

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


def forget(*, dataset_id: int, root: str) -> None:
    """Remove what the thumbnail cache and the store hold of a deleted data set."""
    if not Dataset.objects.filter(root=root).exists():
        remove_thumbnails(settings.THUMBNAIL_DIR, Path(root))
    with sample_store().write() as cursor:
        dataset_delete(cursor, dataset_id=dataset_id)


def on_deleted(sender: type[Dataset], instance: Dataset, **kwargs: object) -> None:
    """Remove what store and thumbnail cache hold of a data set, once its row is gone for good."""
    dataset_id, root = instance.pk, instance.root
    transaction.on_commit(lambda: _forget_soon(dataset_id, root))


def _forget_soon(dataset_id: int, root: str) -> None:
    """Forget now, or as soon as the store is free: the row is gone already, so there is nobody to refuse it to."""
    try:
        forget(dataset_id=dataset_id, root=root)
    except StoreBusy:
        jobs.launch(f"forget-{dataset_id}", lambda stop: _forget_later(dataset_id, root, stop))
    except StoreError:
        logger.exception("The samples of data set %s stay behind; check_store --repair removes them", dataset_id)


def _forget_later(dataset_id: int, root: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            forget(dataset_id=dataset_id, root=root)
        except StoreBusy:
            stop.wait(RETRY_SECONDS)
        else:
            return
    logger.warning("The samples of data set %s stay behind; check_store --repair removes them", dataset_id)
