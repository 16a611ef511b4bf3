from django.apps import AppConfig


class VlmConfig(AppConfig):
    """Nothing starts here: ``ready`` runs in every command, and twice under ``runserver``."""

    name = "vlm"
    verbose_name = "DataVisor"
