"""What ``check``, and with it every command, says before it begins: paths that would fail later with less to go by."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from datavisor.private import trouble_with


@register("datavisor")
def check_data_dir(**_: Any) -> list[CheckMessage]:
    """The data folder can be made, written to, and is this user's."""
    if complaint := trouble_with(Path(settings.DATA_DIR)):
        return [Error(complaint, id="datavisor.E001")]
    return []


@register("datavisor")
def check_import_roots(**_: Any) -> list[CheckMessage]:
    """The folders from below which the page imports are there."""
    return [
        Warning(
            f"DATAVISOR_IMPORT_ROOTS names {root}, which is no folder here: the page can import nothing from it.",
            id="datavisor.W001",
        )
        for root in settings.IMPORT_ROOTS
        if not Path(root).is_dir()
    ]
