"""Watching: a data set that looks into its folder every so often, imports what is new there and tags it.

A look is an import that tells only what changed, and a run over what lacks an answer. Nothing new makes no run and no row.
The server looks for all data sets that have a ``Watch`` (``attend``, which claims its row, so of two servers one looks); the
command ``watch`` for the one that it is given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError, connections
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs
from vlm.datasets.importing import import_folder
from vlm.datasets.places import allowed_place
from vlm.errors import Refusal
from vlm.formats import ImportFailed
from vlm.models import Dataset, TaggingRun, Watch
from vlm.runs import scope, steering, worker
from vlm.runs.errors import NothingToTag, NotResumable, RunActive
from vlm.runs.options import RunOptions

logger = logging.getLogger(__name__)

ATTEND_SECONDS = 5.0  # between two looks at which data sets are due
BEAT_SECONDS = 5.0
LEAST_SECONDS, MOST_SECONDS = 10, 31 * 24 * 3600

Status = TaggingRun.Status


class NotWatchable(Refusal):
    """A data set cannot be watched as asked."""

    title = "Not watched"


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found, and the run that it asks for: queued, and nobody works on it yet.

    ``changed`` counts what is new, changed, renamed, back again and gone since the look before; it is empty if nothing is.
    """

    changed: dict[str, int] = field(default_factory=dict)
    run: TaggingRun | None = None


# -- the setting -----------------------------------------------------------------------------------------------------------
def watch(*, dataset: Dataset, seconds: int, tag: bool, user: User | None) -> Watch:
    """Have the server look into a data set's folder, the first time at once.

    Raises:
        NotWatchable: the time between two looks is too short or too long.
        ImportFailed: the folder does not lie below the import roots.
    """
    check_seconds(seconds)
    allowed_place(dataset.root)
    found, _ = Watch.objects.update_or_create(
        dataset=dataset,
        defaults={"seconds": seconds, "tag": tag, "started_by": user, "due": timezone.now(), "error": ""},
    )
    return found


def unwatch(*, dataset: Dataset) -> bool:
    """Look no more; a look that goes on stops and leaves nothing behind. Returns whether it was watched."""
    return bool(Watch.objects.filter(dataset=dataset).delete()[0])


def check_seconds(seconds: int) -> None:
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise NotWatchable("Between two looks lie 10 seconds to 31 days, such as 10m or 2h.")


# -- one look --------------------------------------------------------------------------------------------------------------
def look(*, dataset: Dataset, tag: bool, user: User | None, wanted: Callable[[], bool] = lambda: True) -> Look:
    """Import what is new, and queue a run over what lacks an answer.

    A run of a look that was interrupted, or that failed and would be asked the same again, goes on. One that was cancelled
    or taken back stays so until something new comes in: somebody did not want it.

    Args:
        wanted: asked while the folder is read; a look that nobody wants any more ends.

    Raises:
        ImportFailed: the folder cannot be imported, or the look was given up. Nothing was written.
        StoreError, VocabularyError
    """

    def report(done: int, total: int | None) -> None:
        if not wanted():
            raise ImportFailed("The look was given up and left nothing behind.")

    gone = dataset.missing_count
    done = import_folder(path=dataset.root, name=dataset.name, format=dataset.format, report=report, wanted=wanted)
    dataset.refresh_from_db()
    counts = {name: count for name, count in done.summary.items() if name not in ("known", "gone") and count}
    if dataset.missing_count > gone:
        counts["gone"] = dataset.missing_count - gone
    return Look(counts, _queue(dataset, user, anything_new=bool(counts)) if tag and wanted() else None)


def _queue(dataset: Dataset, user: User | None, *, anything_new: bool) -> TaggingRun | None:
    last = TaggingRun.objects.filter(dataset=dataset).first()
    try:
        if last is not None and last.origin == TaggingRun.Origin.WATCH:
            unwanted = last.reverted is not None or last.status == Status.CANCELLED
            if unwanted and not anything_new:
                return None
            if not unwanted and last.status in (Status.INTERRUPTED, Status.FAILED) and _asks_the_same(last):
                return steering.requeue(run=last, user=user, origin=TaggingRun.Origin.WATCH)
        return steering.create(dataset=dataset, options=RunOptions(), user=user, origin=TaggingRun.Origin.WATCH)
    except (NothingToTag, NotResumable, RunActive):  # the next look asks again
        return None


def _asks_the_same(run: TaggingRun) -> bool:
    fresh = scope.draft(run.dataset, RunOptions())
    return scope.questions(fresh) == scope.questions(run)


# -- the server's looks ----------------------------------------------------------------------------------------------------
def attend(stop: threading.Event) -> None:
    """Look at the data sets that are due until ``stop`` is set; whatever goes wrong is told on the data set's page."""
    while not stop.wait(ATTEND_SECONDS):
        try:
            look_at_due(stop)
        except DatabaseError:  # not migrated yet, or locked for long
            logger.debug("The watched data sets could not be read", exc_info=True)
            connections.close_all()


def look_at_due(stop: threading.Event) -> int:
    """Look at every data set that is due, and start the runs that this asks for; returns how many were looked at."""
    jobs.sweep(Watch.objects.exclude(worker=jobs.QUEUED), lambda rows, _: rows.update(worker=jobs.QUEUED))
    due = Watch.objects.filter(due__lte=timezone.now(), worker=jobs.QUEUED).order_by("due")
    looked = 0
    for key in list(due.values_list("pk", flat=True)):
        if stop.is_set():
            break
        with jobs.claimed(due.order_by().filter(pk=key)) as name:
            if name:
                _attend(Watch.objects.filter(pk=key, worker=name), stop)
                looked += 1
    return looked


def _attend(own: QuerySet[Watch], stop: threading.Event) -> None:
    watched = own.select_related("dataset", "started_by").first()
    if watched is None:
        return
    with jobs.beating(lambda: own, stop=stop, every=BEAT_SECONDS) as halt:
        told = _look(watched, halt)
    now = timezone.now()
    if halt.is_set():  # the next server looks at once
        own.update(worker=jobs.QUEUED, heartbeat=None)
    else:
        due = now + timedelta(seconds=watched.seconds)
        own.update(worker=jobs.QUEUED, heartbeat=None, looked=now, due=due, **told)


def _look(watched: Watch, halt: threading.Event) -> dict[str, Any]:
    """Look, and return what is to be written down about it."""
    try:
        allowed_place(watched.dataset.root)  # the settings may have changed since
        found = look(
            dataset=watched.dataset, tag=watched.tag, user=watched.started_by, wanted=lambda: not halt.is_set()
        )
    except Exception as error:
        if (problem := jobs.foreseen(error)) is not None:
            return {"error": problem.message}
        logger.exception("The look at data set %s failed", watched.dataset_id)
        return {"error": f"The look failed ({type(error).__name__}). The server's log has the details."}
    if found.run is not None:
        worker.launch(found.run)
    if found.changed:
        logger.info(
            "Data set %s: %s", watched.dataset_id, ", ".join(f"{n} {what}" for what, n in found.changed.items())
        )
        return {"error": "", "changed": timezone.now(), "summary": found.changed}
    return {"error": ""}
