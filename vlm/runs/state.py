"""A run as viewers see it, and who is told when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db.models import Max, QuerySet
from django.utils import timezone

from vlm import errands, jobs, nudges
from vlm.demo import DEMO_CHECKPOINT
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.errors import RunActive
from vlm.samples import StoreError, progress
from vlm.scoring.member import WorkerState

logger = logging.getLogger(__name__)

Status = TaggingRun.Status

_subscribers: list[Callable[[int], None]] = []


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as viewers see it; ``rate`` in images per second, ``seconds`` and ``eta`` in seconds, downloads in bytes.

    ``asks`` are the questions’ names, ``within`` is the filter that narrows the run, and ``waits_for`` the run that has the
    model, while this one waits for it. With ``one_per_group`` one image of each group that is nearly the same is asked;
    ``shared`` of the processed took its answers. ``workers`` says where it works, empty for the model of its process; ``crew`` how
    each worker is.
    """

    run: int
    dataset: int
    status: str
    status_label: str
    total: int
    processed: int
    tagged: int
    discarded: int
    failed: int
    rate: float
    seconds: float
    eta: float | None
    download_done: int
    download_total: int
    error: str
    active: bool
    resumable: bool
    model: str
    device: str
    demonstration: bool
    reverted: bool
    started_by: str
    asks: tuple[str, ...]
    within: str
    waits_for: int | None
    one_per_group: bool
    shared: int
    workers: str
    crew: tuple[WorkerState, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def subscribe(callback: Callable[[int], None]) -> None:
    """Have ``callback(dataset_id)`` called, from a run's thread, whenever a run of this process changes."""
    _subscribers.append(callback)


def notify(dataset_id: int) -> None:
    """Tell the viewers of a data set, in whatever process, that its run has changed."""
    for callback in _subscribers:
        try:
            callback(dataset_id)
        except Exception:
            logger.exception("A viewer of data set %s could not be told", dataset_id)
    nudges.tell(dataset_id)


def run_state(*, run: TaggingRun) -> RunState:
    remaining = max(0, run.total - run.processed)
    return RunState(
        run=run.pk,
        dataset=run.dataset_id,
        status=run.status,
        status_label=str(Status(run.status).label),
        total=run.total,
        processed=run.processed,
        tagged=run.tagged,
        discarded=run.discarded,
        failed=run.failed,
        rate=round(run.rate, 3),
        seconds=round(run.seconds, 1),
        eta=round(remaining / run.rate, 1) if run.rate and run.is_active else None,
        download_done=run.download_done,
        download_total=run.download_total,
        error=run.error,
        active=run.is_active,
        resumable=is_resumable(run),
        model=run.model,
        device=run.device,
        demonstration=is_demonstration(run.model),
        reverted=run.reverted is not None,
        started_by=str(run.started_by or ""),
        asks=tuple(str(dimension["name"]) for dimension in run.vocabulary_json),
        within=run.filter_query,
        waits_for=_waits_for(run),
        one_per_group=run.one_per_group,
        shared=run.shared,
        workers=run.workers,
        crew=tuple(map(WorkerState.from_json, run.crew)),
    )


def _waits_for(run: TaggingRun) -> int | None:
    """Return the run that has the model while ``run`` is queued: the model works on one at a time."""
    if run.status != Status.QUEUED:
        return None
    busy = TaggingRun.objects.filter(status__in=(Status.LOADING, Status.RUNNING, Status.CANCELLING)).exclude(pk=run.pk)
    return busy.order_by("pk").values_list("pk", flat=True).first()


def active() -> list[TaggingRun]:
    """Return the active runs of all data sets, in the order in which they began."""
    fail_stale()
    return list(
        TaggingRun.objects.filter(status__in=TaggingRun.ACTIVE).select_related("dataset", "started_by").order_by("pk")
    )


def is_resumable(run: TaggingRun) -> bool:
    return run.status in TaggingRun.RESUMABLE and run.reverted is None


def is_demonstration(model: str) -> bool:
    """Whether ``model`` is the bundled checkpoint, whose words are good for a demonstration only."""
    return bool(model) and Path(model).expanduser().resolve() == DEMO_CHECKPOINT.resolve()


def current(*, dataset: Dataset) -> TaggingRun | None:
    """Return the active run, else the newest."""
    fail_stale()
    runs = TaggingRun.objects.filter(dataset=dataset).select_related("started_by")
    return runs.filter(status__in=TaggingRun.ACTIVE).first() or runs.first()


def newest() -> dict[int, TaggingRun]:
    """Return the newest run of every data set that has one, by the data set's number."""
    last = TaggingRun.objects.order_by().values("dataset").annotate(last=Max("pk")).values("last")
    return {run.dataset_id: run for run in TaggingRun.objects.filter(pk__in=last).select_related("dataset")}


def active_of(dataset_id: int) -> TaggingRun | None:
    """Return the run that has a data set for itself, ``None`` if nobody has."""
    return TaggingRun.objects.filter(dataset_id=dataset_id, status__in=TaggingRun.ACTIVE).first()


def check_idle(dataset_id: int) -> None:
    """Raise ``RunActive`` while a run has the data set for itself; one whose process died has not."""
    fail_stale()
    if (active := active_of(dataset_id)) is not None:
        raise RunActive(active)


def fail_stale() -> int:
    """Mark runs whose process died as interrupted; returns how many. What it left undone is finished by the way."""
    errands.finish_soon()
    return jobs.sweep(TaggingRun.objects.filter(status__in=TaggingRun.ACTIVE), _interrupt)


def _interrupt(rows: QuerySet[TaggingRun], heartbeat: datetime | None) -> int:
    keys = list(rows.values_list("pk", flat=True))
    ended = rows.update(
        status=Status.INTERRUPTED,
        finished=heartbeat or timezone.now(),
        rate=0,
        error="The process that worked on it ended without a word. Resume to go on where it was.",
    )
    # What it committed last may not have come into its row any more.
    with suppress(StoreError), sample_store().read() as cursor:
        for key in keys:
            counts = progress.named_counts(cursor, key)
            TaggingRun.objects.filter(pk=key).exclude(status__in=TaggingRun.ACTIVE).update(**counts)
    return ended
