"""Runs: starting, watching and changing them (see ``vlm.runs``)."""

from django.contrib.auth.models import User

from vlm.models import Dataset, TaggingRun
from vlm.process import keeper, sample_store
from vlm.runs.options import RunOptions
from vlm.runs.pace import expected_seconds as expected_seconds
from vlm.runs.state import RunState as RunState
from vlm.runs.state import active as active
from vlm.runs.state import current as current
from vlm.runs.state import fail_stale as fail_stale
from vlm.runs.state import is_demonstration as is_demonstration
from vlm.runs.state import run_state
from vlm.runs.state import subscribe as subscribe
from vlm.runs.steering import cancel as cancel
from vlm.runs.steering import create as create
from vlm.runs.steering import preview as preview
from vlm.runs.steering import reapply as reapply
from vlm.runs.steering import requeue as requeue
from vlm.runs.steering import revert as revert
from vlm.runs.steering import scope_count as scope_count
from vlm.runs.worker import execute as execute
from vlm.runs.worker import launch
from vlm.samples import Discard, Failure, Reapplied, WordCount, reading


def start(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Start a run in a thread of this process. Raises ``RunActive``, ``NothingToTag``, ``VocabularyError``."""
    run = create(dataset=dataset, options=options, user=user, origin=origin)
    launch(run)
    return run


def resume(*, run: TaggingRun, user: User | None, origin: str) -> TaggingRun:
    """Go on with an unfinished run in a thread of this process. Raises ``NotResumable``, ``RunActive``."""
    run = requeue(run=run, user=user, origin=origin)
    launch(run)
    return run


def reapply_preview(*, run: TaggingRun, min_probability: float, min_mass: float) -> Reapplied:
    """Tell what :func:`reapply` would change. Raises ``RunError``."""
    return reapply(run=run, min_probability=min_probability, min_mass=min_mass, preview=True)


def state(*, run: TaggingRun) -> RunState:
    return run_state(run=run)


def last(*, dataset: Dataset) -> TaggingRun | None:
    """Return the newest run that was not reverted."""
    fail_stale()
    return TaggingRun.objects.filter(dataset=dataset, reverted=None).first()


def last_unfinished(*, dataset: Dataset) -> TaggingRun | None:
    """Return the newest run that can go on."""
    return TaggingRun.objects.filter(dataset=dataset, reverted=None, status__in=TaggingRun.RESUMABLE).first()


def words(*, run: TaggingRun) -> list[WordCount]:
    with sample_store().read() as cursor:
        return reading.run_words(cursor, run.pk)


def failures(*, run: TaggingRun, limit: int = 200) -> list[Failure]:
    with sample_store().read() as cursor:
        return reading.run_failures(cursor, run.pk, limit)


def discards(*, run: TaggingRun, limit: int = 200) -> list[Discard]:
    with sample_store().read() as cursor:
        return reading.run_discards(cursor, run.pk, limit)


def changes(*, run: TaggingRun, since: int, limit: int = 200) -> tuple[list[int], int]:
    """Return the samples that a run has answered after the change ``since``, newest ``limit``, and the latest change."""
    with sample_store().read() as cursor:
        found = reading.changes(cursor, run.pk, since, limit)
    return [sample_id for _, sample_id in found], (found[-1][0] if found else since)


def model_state() -> str:
    return keeper.state
