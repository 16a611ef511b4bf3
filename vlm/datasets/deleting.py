"""Deleting a data set: what store and thumbnail cache hold of it goes with its row."""

from vlm import errands
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples.ingest import dataset_delete


def forget(*, dataset_id: int) -> None:
    """Remove what came into the store for a data set after its row was gone."""
    with sample_store().write() as cursor:
        dataset_delete(cursor, dataset_id=dataset_id)


def on_deleted(sender: type[Dataset], instance: Dataset, **kwargs: object) -> None:
    """Remove what store and thumbnail cache hold of a data set, once its row is gone for good.

    The row is gone then, so there is nobody to refuse it to: where the store is busy, it is done later.
    """
    errands.leave("forget", about=f"data set {instance.pk}", values={"dataset": instance.pk, "root": instance.root})
