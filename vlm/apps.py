"""The application, and the one signal that it listens to."""

from django.apps import AppConfig
from django.db.models.signals import post_delete


class VlmConfig(AppConfig):
    """Nothing starts here: ``ready`` runs in every command, and twice under ``runserver``."""

    name = "vlm"
    verbose_name = "DataVisor"

    def ready(self) -> None:
        import datavisor.checks  # noqa: F401  (registers them)
        from vlm.datasets.deleting import on_deleted
        from vlm.models import Dataset

        # A signal, since the admin deletes by query, where no method of the model is called.
        post_delete.connect(on_deleted, sender=Dataset, dispatch_uid="dataset_deleted")
