"""Watched data sets: setting them, and looking. What a look does is in ``vlm.datasets.watching``."""

import threading

from django.contrib.auth.models import User

from vlm import jobs
from vlm.datasets import watching
from vlm.datasets.watching import Look
from vlm.models import Dataset, Watch


def get(*, dataset: Dataset) -> Watch | None:
    return Watch.objects.filter(dataset=dataset).first()


def watch(*, dataset: Dataset, seconds: int, tag: bool, user: User | None) -> Watch:
    """Have the server look into a data set's folder every so often. Raises ``NotWatchable``, ``ImportFailed``."""
    return watching.watch(dataset=dataset, seconds=seconds, tag=tag, user=user)


def unwatch(*, dataset: Dataset) -> bool:
    """Look no more; returns whether it was watched."""
    return watching.unwatch(dataset=dataset)


def check_seconds(*, seconds: int) -> None:
    """Raise ``NotWatchable`` if that is no time between two looks."""
    watching.check_seconds(seconds)


def look(*, dataset: Dataset, tag: bool, stop: threading.Event) -> Look:
    """Import what is new now, and queue a run for it. Raises ``ImportFailed``, ``StoreError``, ``VocabularyError``."""
    return watching.look(dataset=dataset, tag=tag, user=None, wanted=lambda: not stop.is_set())


def look_at_due(*, stop: threading.Event) -> int:
    """Look at each data set whose time has come; returns how many there were."""
    return watching.look_at_due(stop)


def attend() -> None:
    """Look at the data sets that are due, in a thread, for as long as this process lives."""
    jobs.launch("watching", watching.attend)
