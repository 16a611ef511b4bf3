"""Runs: starting, watching and changing them. What they do is in ``vlm.runs``."""

import threading
from collections.abc import Callable, Iterable, Mapping

from django.contrib.auth.models import User

from vlm import moondream
from vlm.models import Dataset, TaggingRun
from vlm.process import ModelSpec, keeper, sample_store
from vlm.runs import choosing, pace, steering, worker
from vlm.runs import state as states
from vlm.runs.choosing import Choice as Choice
from vlm.runs.choosing import Way as Way
from vlm.runs.options import RunOptions
from vlm.runs.scope import Extent
from vlm.runs.state import RunState
from vlm.runs.steering import Preview
from vlm.samples import Discard, Failure, Reapplied, WordCount, progress
from vlm.samples.merging import NO_WORDS
from vlm.statistics.priors import Prior

launch = worker.launch


# -- starting and stopping ---------------------------------------------------------------------------------------------------
def create(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Claim the data set for a new run.

    Raises ``RunActive``, ``NothingToTag``, ``NotGrouped``, ``VocabularyError``, ``FilterError``.
    """
    return steering.create(dataset=dataset, options=options, user=user, origin=origin)


def start(*, dataset: Dataset, options: RunOptions, user: User | None, origin: str) -> TaggingRun:
    """Start a run in a thread of this process. Raises as :func:`create` does."""
    run = create(dataset=dataset, options=options, user=user, origin=origin)
    launch(run)
    return run


def requeue(
    *, run: TaggingRun, user: User | None, origin: str, device: str = "", workers: str | None = None
) -> TaggingRun:
    """Make an unfinished run ready to go on. Raises ``NotResumable``, ``RunActive``, ``WorkersUnknown``."""
    return steering.requeue(run=run, user=user, origin=origin, device=device, workers=workers)


def resume(*, run: TaggingRun, user: User | None, origin: str) -> TaggingRun:
    """Go on with an unfinished run in a thread of this process. Raises ``NotResumable``, ``RunActive``."""
    run = requeue(run=run, user=user, origin=origin)
    launch(run)
    return run


def execute(
    *, run_id: int, stop: threading.Event, waited: Callable[[str, float], None] = lambda _, __: None
) -> TaggingRun:
    """Work on a queued run in this thread until it ends, or until the batch after ``stop`` is set."""
    return worker.execute(run_id=run_id, stop=stop, waited=waited)


def cancel(*, run: TaggingRun) -> bool:
    """Ask an active run to stop after the batch at hand; returns whether it was active."""
    return steering.cancel(run=run)


# -- what it would do, and what it did ---------------------------------------------------------------------------------------
def extent(*, dataset: Dataset, options: RunOptions) -> Extent:
    """Return how many images a run with these options would cover, and about how many it would ask. Raises ``NotGrouped``."""
    return steering.extent(dataset=dataset, options=options)


def expected(*, dataset: Dataset, options: RunOptions, count: int) -> pace.Expected | None:
    """Return how long asking about ``count`` images will take, by the last runs, else by what a machine like this one took.

    ``None`` where neither tells.
    """
    return pace.expected(dataset=dataset, options=options, count=count)


def preview(
    *, dataset: Dataset, options: RunOptions, report: Callable[[str, int, int], None] = lambda *_: None
) -> list[Preview]:
    """Score twenty samples of a scope and write nothing. Raises ``ModelUnavailable``, ``VocabularyError``."""
    return steering.preview(dataset=dataset, options=options, report=report)


def choose(
    *, dataset: Dataset, options: RunOptions, limit: int, report: Callable[[str, int, int], None] = lambda *_: None
) -> Choice:
    """Ask some images at each detail and number format, write nothing, and recommend one.

    Raises ``NothingToChoose``, ``ModelUnavailable``, ``VocabularyError``.
    """
    return choosing.choose(dataset=dataset, options=options, limit=limit, report=report)


def revert(*, run: TaggingRun) -> int:
    """Take back what a finished run added; returns how many samples it had answered. Raises ``RunActive``."""
    return steering.revert(run=run)


def reapply(
    *,
    run: TaggingRun,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Decide a finished run's answers by other thresholds. Raises ``Unchangeable``, ``RunError``."""
    return steering.reapply(
        run=run, min_probability=min_probability, min_mass=min_mass, dimension=dimension, words=words
    )


def reapply_preview(
    *,
    run: TaggingRun,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Tell what :func:`reapply` would change. Raises as it does."""
    return steering.reapply_preview(
        run=run, min_probability=min_probability, min_mass=min_mass, dimension=dimension, words=words
    )


# -- watching ----------------------------------------------------------------------------------------------------------------
def subscribe(callback: Callable[[int], None]) -> None:
    """Have ``callback(dataset_id)`` called, from a run's thread, whenever a run of this process changes."""
    states.subscribe(callback)


def fail_stale() -> int:
    """Mark runs whose process died as interrupted; returns how many."""
    return states.fail_stale()


def state(*, run: TaggingRun) -> RunState:
    return states.run_state(run=run)


def current(*, dataset: Dataset) -> TaggingRun | None:
    """Return the active run, else the newest."""
    return states.current(dataset=dataset)


def is_demonstration(model: str) -> bool:
    """Whether ``model`` is the bundled checkpoint, whose words are good for a demonstration only."""
    return states.is_demonstration(model)


def to_fetch(*, model: str) -> int:
    """Return how many bytes a model's first use will download; ``model`` is the settings' if empty."""
    return moondream.to_fetch(ModelSpec.from_settings(model=model).model)


def model_state() -> str:
    return keeper.state


# -- finding -----------------------------------------------------------------------------------------------------------------
def get(*, run_id: int) -> TaggingRun | None:
    fail_stale()
    return TaggingRun.objects.select_related("dataset", "started_by").filter(pk=run_id).first()


def history(*, dataset: Dataset | None = None, before: int | None = None, limit: int) -> list[TaggingRun]:
    """Return runs, newest first: of a data set, and older than the run ``before``, where these are given."""
    fail_stale()
    found = TaggingRun.objects.select_related("dataset", "started_by")
    if dataset is not None:
        found = found.filter(dataset=dataset)
    if before is not None:
        found = found.filter(pk__lt=before)
    return list(found[:limit])


def active(*, datasets: Iterable[Dataset] | None = None) -> list[TaggingRun]:
    """Return the active runs, of all data sets or of these, in the order in which they began."""
    found = states.active()
    if datasets is None:
        return found
    keys = {dataset.pk for dataset in datasets}
    return [run for run in found if run.dataset_id in keys]


def ended(*, limit: int) -> list[TaggingRun]:
    """Return the runs that nobody works on, newest first."""
    found = TaggingRun.objects.exclude(status__in=TaggingRun.ACTIVE).select_related("dataset", "started_by")
    return list(found[:limit])


def count(*, dataset: Dataset) -> int:
    return TaggingRun.objects.filter(dataset=dataset).count()


def last(*, dataset: Dataset) -> TaggingRun | None:
    """Return the newest run that was not reverted."""
    fail_stale()
    return TaggingRun.objects.filter(dataset=dataset, reverted=None).first()


def last_unfinished(*, dataset: Dataset) -> TaggingRun | None:
    """Return the newest run that can go on."""
    fail_stale()
    return TaggingRun.objects.filter(dataset=dataset, reverted=None, status__in=TaggingRun.RESUMABLE).first()


def interrupted() -> list[TaggingRun]:
    """Return the runs that ended with their process, each if it is its data set's newest and can go on."""
    fail_stale()
    return [run for run in states.newest().values() if run.status == TaggingRun.Status.INTERRUPTED and not run.reverted]


def last_model() -> str:
    """Return the model of the newest run of all; empty if there was none."""
    return TaggingRun.objects.order_by("-pk").values_list("model", flat=True).first() or ""


def models(*, run_ids: Iterable[int]) -> dict[int, str]:
    """Return which model each of these runs asked."""
    return dict(TaggingRun.objects.filter(pk__in=set(run_ids)).values_list("pk", "model"))


def words(*, run: TaggingRun) -> list[WordCount]:
    with sample_store().read() as cursor:
        return progress.run_words(cursor, run.pk)


def priors(*, run: TaggingRun) -> dict[str, Prior]:
    """Return dimension → the prior of each word over a run, and how many answers hardly depended on their picture."""
    return {name: Prior.from_json(record) for name, record in run.priors.items()}


def blind_lines(*, run: TaggingRun) -> list[str]:
    """Return what the blind check of a run found: a line with all shares, and a warning for each dimension that is high."""
    found = {name: prior for name, prior in priors(run=run).items() if prior.hardly_depending is not None}
    if not found:
        return []
    shares = ", ".join(f"{name} {prior.hardly_depending:.0%}" for name, prior in found.items())
    return [
        f"Answers that hardly depend on their picture: {shares}.",
        *(
            f"{name}: {prior.hardly_depending:.0%} of the answers are nearly those to a grey image. Its question may not fit "
            "these images, or the model; look at some of them, or try other words for it."
            for name, prior in found.items()
            if prior.is_blind
        ),
    ]


def failures(*, run: TaggingRun, limit: int = 200) -> list[Failure]:
    with sample_store().read() as cursor:
        return progress.run_failures(cursor, run.pk, limit)


def discards(*, run: TaggingRun, limit: int = 200) -> list[Discard]:
    with sample_store().read() as cursor:
        return progress.run_discards(cursor, run.pk, limit)


def changes(*, run: TaggingRun, since: int, limit: int = 200) -> tuple[list[int], int]:
    """Return the samples that a run has answered after the change ``since``, newest ``limit``, and the latest change."""
    with sample_store().read() as cursor:
        found = progress.changes(cursor, run.pk, since, limit)
    return [sample_id for _, sample_id in found], (found[-1][0] if found else since)
