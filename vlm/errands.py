"""Changes of both databases, which cannot commit together: what Django's says already and the store has still to do.

A change is written into Django's database first, in one transaction with an ``Errand`` that says what the store's part is.
Then the store does its part, and remembers the errand's key in the transaction that does it; then the errand goes. A process
that is killed in between leaves the errand behind, and whoever looks next finishes it: the key tells whether the store's part
was done. Every process looks as it opens the store, before anybody reads it, and every door that shows runs looks too. Where
the store refuses and the process lives, the change is taken back, so that it has not happened.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs, nudges, process
from vlm.errors import Refusal
from vlm.models import Dataset, Errand, TaggingRun, VocabularyChange
from vlm.process import sample_store
from vlm.roots import root_of
from vlm.samples import (
    Cursor,
    Edit,
    StoreBusy,
    StoreError,
    StoreFull,
    calibrating,
    ingest,
    merging,
    progress,
    rewording,
)
from vlm.samples.calibrating import Scaling
from vlm.samples.errands import errand_keep, errand_result
from vlm.thumbnails import remove_thumbnails

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
PAUSE_SECONDS = 60.0  # after an errand that failed as the store was opened

VOCABULARY = "vocabulary"  # what an edit of the vocabulary is about


def calibrations_of(dataset_id: int) -> str:
    """Return what a change of a data set's calibrations is about."""
    return f"calibrations of data set {dataset_id}"


_finishing = threading.Lock()
_paused_until = 0.0

Write = Callable[[], AbstractContextManager[Cursor]]


class ChangeUnderWay(Refusal):
    """The same thing is being changed by somebody else."""

    title = "A change is under way"
    status = 409
    retry_after = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of errand: the store's part, whose result is JSON, and what is written down of it in Django's database."""

    act: Callable[[Cursor, dict[str, Any]], Any]
    conclude: Callable[[dict[str, Any], Any], None] = lambda values, result: None


# -- the kinds -----------------------------------------------------------------------------------------------------------
def _revert(cursor: Cursor, values: dict[str, Any]) -> int:
    return merging.revert_run(cursor, run_id=values["run"])


def _reapply(cursor: Cursor, values: dict[str, Any]) -> dict[str, Any]:
    done = merging.apply_thresholds(
        cursor,
        run_id=values["run"],
        min_probability=values["min_probability"],
        min_mass=values["min_mass"],
        dimension=values["dimension"],
        words=values.get("words", {}),
    )
    _, tagged, discarded, _ = progress.run_counts(cursor, values["run"])
    return {"done": asdict(done), "counts": {"tagged": tagged, "discarded": discarded}}


def _keep_counts(values: dict[str, Any], result: dict[str, Any]) -> None:
    TaggingRun.objects.filter(pk=values["run"]).update(**result["counts"])


def _calibrate(cursor: Cursor, values: dict[str, Any]) -> dict[str, Any]:
    decisions = {int(run): (dict(words), mass) for run, (words, mass) in values["decisions"].items()}
    scaling, by = Scaling.from_json(values["scaling"]), Edit(**values["by"])
    done = calibrating.apply(cursor, values["dataset"], scaling, decisions, by)
    return {"done": asdict(done), "counts": _counts(cursor, decisions), "before": {}}


def _end_calibration(cursor: Cursor, values: dict[str, Any]) -> dict[str, Any]:
    dataset_id, dimension = values["dataset"], values["dimension"]
    before = calibrating.in_force(cursor, dataset_id)[dimension].before
    runs = calibrating.runs_calibrated(cursor, dataset_id, dimension)
    done = calibrating.end(cursor, dataset_id, dimension)
    return {"done": asdict(done), "counts": _counts(cursor, runs), "before": {str(run): before[run] for run in before}}


def _counts(cursor: Cursor, runs: Iterable[int]) -> dict[str, dict[str, int]]:
    found = {run: progress.run_counts(cursor, run) for run in runs}
    return {str(run): {"tagged": tagged, "discarded": discarded} for run, (_, tagged, discarded, _) in found.items()}


def _keep_calibrated(values: dict[str, Any], result: dict[str, Any]) -> None:
    """Write down the counts, and the thresholds of the dimension as they were before the calibration that has ended."""
    dimension = values["dimension"]
    for run in TaggingRun.objects.filter(pk__in=result["counts"]):
        changes: dict[str, Any] = dict(result["counts"][str(run.pk)])
        before = result["before"].get(str(run.pk))
        if before is not None:  # else it began under the calibration, or one begins
            own = {key: least for key, least in before.items() if key}
            if dimension not in own and before[""] != run.min_probability:
                own[dimension] = before[""]
            others = {key: least for key, least in run.thresholds.items() if key.partition(":")[0] != dimension}
            changes["thresholds"] = others | own
        TaggingRun.objects.filter(pk=run.pk).update(**changes)


def _reword(cursor: Cursor, values: dict[str, Any]) -> list[int]:
    return rewording.carry_out(cursor, **values["store"])


def _keep_edits(values: dict[str, Any], result: list[int]) -> None:
    VocabularyChange.objects.filter(pk=values["change"]).update(edits=result)


def _forget(cursor: Cursor, values: dict[str, Any]) -> None:
    ingest.dataset_delete(cursor, dataset_id=values["dataset"])


def _forget_pictures(values: dict[str, Any], result: None) -> None:
    if not Dataset.objects.filter(root=values["root"]).exists():
        remove_thumbnails(settings.THUMBNAIL_DIR, root_of(values["root"]))


def _relocate(cursor: Cursor, values: dict[str, Any]) -> None:
    ingest.relocated(cursor, dataset_id=values["dataset"])


KINDS: dict[str, Kind] = {
    "revert": Kind(_revert),
    "thresholds": Kind(_reapply, _keep_counts),
    "calibrate": Kind(_calibrate, _keep_calibrated),
    "end calibration": Kind(_end_calibration, _keep_calibrated),
    "vocabulary": Kind(_reword, _keep_edits),
    "forget": Kind(_forget, _forget_pictures),
    "relocate": Kind(_relocate),
}


# -- doing them ----------------------------------------------------------------------------------------------------------
def carry_out(what: str, *, about: str, change: Callable[[], dict[str, Any]], undo: Callable[[], object]) -> Any:
    """Change both databases, and return what came of the store's part.

    Args:
        what: one of ``KINDS``.
        about: the thing that is changed; nothing else may change it meanwhile.
        change: changes Django's database, within a transaction, and returns what the store's part needs to know (JSON).
        undo: takes that back where the store refuses.

    Raises:
        ChangeUnderWay: somebody else changes the same.
        StoreError, or what ``change`` raises: nothing has changed.
    """
    finish()
    with jobs.at_work() as worker:
        with transaction.atomic():
            errand = _note(what, about, worker)
            errand.values = change()
            errand.save(update_fields=["values"])
        done = False
        try:
            with sample_store().write() as cursor:
                result = _act(cursor, errand)
                done = True
        except BaseException:
            # An error in committing says nothing about what was kept; unless that is known, it is left to be finished.
            if not done or _was_kept(errand) is False:
                with transaction.atomic():
                    if Errand.objects.filter(pk=errand.pk, worker=worker).delete()[0]:
                        undo()
            raise
        _conclude(errand, result)
        return result


def leave(what: str, *, about: str, values: dict[str, Any]) -> None:
    """Note what the store has to do for a change that is made in this transaction, and that nothing takes back.

    It is done once the transaction is over: at once, or as soon as the store is free.
    """
    _note(what, about, jobs.QUEUED, values)
    transaction.on_commit(_finish_left)


def finish(write: Write | None = None) -> int:
    """Do what is left of errands whose process died; returns how many. It takes one query where there are none.

    Raises:
        StoreError: they are still left.
    """
    return jobs.sweep(Errand.objects.order_by("pk"), lambda rows, _: _finish(rows, write or sample_store().write))


def finish_soon() -> None:
    """Finish in a thread of this process, as soon as the store is free, if anything is left."""
    if jobs.sweep(Errand.objects.all(), lambda rows, _: 1):
        jobs.launch("errands", _finish_when_free)


def left() -> list[Errand]:
    """Return the errands whose process died, and which nobody could finish yet."""
    return [errand for errand in Errand.objects.order_by("pk") if jobs.is_alive(errand.worker) is not True]


def is_under_way(about: str) -> bool:
    """Return whether something is being changed, or left to be finished."""
    return Errand.objects.filter(about=about).exists()


# -- inside --------------------------------------------------------------------------------------------------------------
def _note(what: str, about: str, worker: str, values: dict[str, Any] | None = None) -> Errand:
    try:
        with transaction.atomic():
            return Errand.objects.create(
                key=secrets.token_hex(16),
                what=what,
                about=about,
                values=values or {},
                worker=worker,
                heartbeat=timezone.now(),
            )
    except IntegrityError:
        raise ChangeUnderWay("Somebody is changing this at the moment. Look again, then try again.") from None


def _act(cursor: Cursor, errand: Errand) -> Any:
    """Do the store's part, unless it was done: then return what came of it."""
    done, result = errand_result(cursor, errand.key)
    if not done:
        result = KINDS[errand.what].act(cursor, errand.values)
        errand_keep(cursor, errand.key, result)
    return result


def _conclude(errand: Errand, result: Any) -> None:
    with transaction.atomic():
        KINDS[errand.what].conclude(errand.values, result)
        Errand.objects.filter(pk=errand.pk).delete()
    nudges.count_change()


def _was_kept(errand: Errand) -> bool | None:
    """Return whether the store's part is done, ``None`` where nobody can look."""
    try:
        with sample_store().read() as cursor:
            return errand_result(cursor, errand.key)[0]
    except (StoreError, duckdb.Error):
        return None


def _finish(rows: QuerySet[Errand], write: Write) -> int:
    with jobs.at_work() as worker:
        if not rows.update(worker=worker, heartbeat=timezone.now()):
            return 0  # somebody else does
        errand = Errand.objects.get(worker=worker)
        with write() as cursor:
            result = _act(cursor, errand)
        _conclude(errand, result)
        logger.warning("What a process left undone is done: %s", errand)
        return 1


def _finish_left() -> None:
    """Do what this very process has left: now, or as soon as the store is free."""
    waiting = Errand.objects.filter(worker=jobs.QUEUED)
    try:
        for key in waiting.order_by("pk").values_list("pk", flat=True):
            _finish(waiting.filter(pk=key), sample_store().write)
    except StoreError as error:
        logger.warning("Some work of the store waits: %s", error)
        finish_soon()


def _finish_when_free(stop: threading.Event) -> None:
    if not _finishing.acquire(blocking=False):
        return  # a thread is at it
    try:
        while not stop.is_set():
            try:
                finish()
            except (StoreBusy, StoreFull):
                stop.wait(RETRY_SECONDS)
            except StoreError:
                logger.exception("What a process left undone cannot be done")
                return
            else:
                return
    finally:
        _finishing.release()


def _finish_at_open(connection: Cursor) -> None:
    """Finish as the store is opened. Whatever is wrong with that, the store opens: it can be read."""
    global _paused_until

    @contextmanager
    def write() -> Iterator[Cursor]:
        connection.begin()
        try:
            connection.execute("update revision set number = number + 1").fetchall()
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()

    if time.monotonic() < _paused_until:
        return
    try:
        finish(write)
    except OperationalError as error:
        logger.warning("Whether a process left something undone cannot be read: %s", error)
    except Exception:
        _paused_until = time.monotonic() + PAUSE_SECONDS
        logger.exception("What a process left undone cannot be done")


process.at_open.append(_finish_at_open)
