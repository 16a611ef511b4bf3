"""Which engine a run gets: the model of this process, or workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vlm import jobs
from vlm.models import TaggingRun
from vlm.moondream import ModelUnavailable, identity
from vlm.process import ModelSpec, keeper
from vlm.scoring import ray_cluster
from vlm.scoring.crew import Crew, Terms
from vlm.scoring.engine import Engine, Local
from vlm.scoring.member import WorkerState
from vlm.scoring.places import Workers
from vlm.scoring.worker import Outfit

if TYPE_CHECKING:
    from vlm.moondream import LoadProgress


@contextmanager
def engine_of(
    run: TaggingRun,
    spec: ModelSpec,
    *,
    waiting: Callable[[], None],
    loading: Callable[[], None],
    progress: Callable[[LoadProgress], None],
    tell: Callable[[list[WorkerState]], None],
    away: Callable[[str], None],
) -> Iterator[Engine]:
    """Yield what scores a run's samples, with a model at hand.

    Args:
        waiting: called now and then until there is one; may raise to give up.
        loading: called before a model is loaded.
        progress: called with what this process downloads and loads.
        tell: called with how the run's workers are, whenever that has changed.
        away: called with what the threads of this process wait for, and an empty text once it is there again.

    Raises:
        ModelUnavailable: with what to do about it.
        WorkersLost: none came up.
    """
    workers = Workers.parse(run.workers)
    if workers.kind == "here":
        with keeper.use(spec, waiting=waiting, loading=loading, progress=progress) as tagger:
            yield Local(tagger, away)
        return
    prepare(workers)
    with keeper.lent(waiting=waiting):
        loading()
        with ray_cluster.cluster(workers, outfit(spec)) as transport:
            terms = Terms(run.dataset.root, expected_revision(spec))
            crew = Crew(transport, terms, run.vocabulary, waiting, tell)
            crew.gather()
            try:
                yield crew
            finally:
                tell([replace(state, state="ended", rate=0.0) for state in crew.states()])


def prepare(workers: Workers) -> None:
    """Import Ray, whose own end of the process would else come before the last batch's. Raises ``WorkersUnavailable``."""
    ray_cluster.load(workers)
    jobs.stop_first()


def outfit(spec: ModelSpec) -> Outfit:
    return Outfit(spec.model, spec.revision, spec.device, spec.dtype)


def expected_revision(spec: ModelSpec) -> str:
    """Return what the workers' model must be: what it is on this machine, where it is there at all."""
    try:
        return spec.revision or identity(spec.model)
    except ModelUnavailable:  # whether it is on the workers' machines they tell
        return ""
