"""Trials: a question asked of some images before it is saved, in a thread of this process; nothing but its row is kept."""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from vlm import jobs
from vlm.models import Dataset, Trial, words_by_dimension
from vlm.process import sample_store
from vlm.runs import trying
from vlm.runs.options import RunOptions
from vlm.runs.trying import TRIED_SAMPLES, Report, TrialReport, Tried
from vlm.samples import SampleFilter, SampleRow, reading
from vlm.vocabulary import MAX_WORDINGS, Dimension, VocabularyError, orders_of

logger = logging.getLogger(__name__)

STOPPED = "The server stopped during the trial. Try the question again."


@dataclass(frozen=True, slots=True)
class Shown:
    """A trial as the page draws it."""

    dimension: Dimension
    tried: tuple[Tried, ...]
    summary: TrialReport
    rated: tuple[dict[str, Any], ...]


def start(
    *, dimension: Dimension, replaces: str, dataset_id: str, sample_ids: str, orders: bool, user: User | None
) -> Trial:
    """Ask a draft of twenty images of a data set, or of the chosen ones among ``sample_ids`` (with commas between).

    Args:
        replaces: name of the dimension that the draft is of, empty for a new one.
        orders: ask it with its words in other orders, too.

    Raises:
        VocabularyError: there is no such data set, none of the images is there, or the words do not stand in the question.
    """
    dataset = Dataset.objects.filter(pk=int(dataset_id)).first() if _is_id(dataset_id) else None
    if dataset is None:
        raise VocabularyError("Choose a data set to try the question on.")
    parts = [part for part in sample_ids.split(",") if part]
    if not all(map(_is_id, parts)):
        raise VocabularyError("The selection cannot be read. Select the images again.")
    samples = samples_of(dataset=dataset, ids=list(map(int, parts))[:TRIED_SAMPLES])
    if not samples:
        raise VocabularyError(f"{dataset.name} has no image to try the question on.")
    trial = Trial.objects.create(
        dataset=dataset,
        name=dimension.name,
        replaces=replaces,
        asked=dimension.to_json(),
        tried_with=(with_orders(dimension) if orders else dimension).to_json(),
        sample_ids=[sample.id for sample in samples],
        total=len(samples),
        started_by=user,
        heartbeat=timezone.now(),
    )
    jobs.launch(f"trial-{trial.pk}", lambda stop: _work(trial.pk, stop))
    return trial


def with_orders(dimension: Dimension) -> Dimension:
    """Return the dimension with wordings in which its words stand in other orders. Raises ``VocabularyError`` for none."""
    more = orders_of(dimension, MAX_WORDINGS - len(dimension.questions))
    if not more:
        raise VocabularyError("The question does not list all of its words, so they cannot stand in another order.")
    return replace(dimension, wordings=(*dimension.wordings, *more))


def chosen(*, dimension: Dimension, choice: str) -> Dimension:
    """Return a dimension that was tried with the wording that was chosen alone (its number, from 1), or with “mean”, all of them.

    Raises ``VocabularyError`` where there is no such wording.
    """
    if choice == "mean":
        return dimension
    if not choice.isascii() or not choice.isdecimal() or not 0 < int(choice[:4]) <= len(dimension.questions):
        raise VocabularyError(
            f"Choose a wording by its number, from 1 to {len(dimension.questions)}, or “mean” for all."
        )
    return replace(dimension, question=dimension.questions[int(choice[:4]) - 1], wordings=())


def samples_of(
    *, dataset: Dataset, ids: list[int] | None = None, filter: SampleFilter | None = None, limit: int = TRIED_SAMPLES
) -> list[SampleRow]:
    """Return the samples of ``ids``, else ``limit`` from all over a filter."""
    if ids:
        with sample_store().read() as cursor:
            return reading.samples_by_id(cursor, dataset.pk, ids)
    return trying.chosen_samples(dataset, filter or SampleFilter(), limit)


def ask(
    *, dataset: Dataset, dimension: Dimension, samples: list[SampleRow], options: RunOptions, report: Report
) -> list[Tried]:
    """Ask a question of some images at once, in this thread. Raises ``ModelUnavailable``."""
    return trying.ask(dataset=dataset, samples=samples, dimension=dimension, options=options, report=report)


def summary(*, dataset: Dataset, dimension: Dimension, tried: list[Tried]) -> TrialReport:
    """Compare a question's wordings with each other, and with the labels that are there."""
    return trying.summary(dimension, tried, labels_of(dataset=dataset, dimension=dimension.name))


def labels_of(*, dataset: Dataset, dimension: str) -> dict[int, str]:
    """Return sample id → the word that somebody found right; “cannot tell” is left out."""
    with sample_store().read() as cursor:
        found = reading.labels(cursor, dataset.pk, dimension=dimension)
    return {label.sample_id: label.word for label in found if label.word}


def get(*, trial_id: int) -> Trial | None:
    jobs.sweep(Trial.objects.filter(pk=trial_id, status=Trial.Status.RUNNING), _fail)
    return Trial.objects.select_related("dataset").filter(pk=trial_id).first()


def report(*, trial: Trial) -> Shown:
    dimension = Dimension.from_json(trial.tried_with)
    tried = tuple(map(Tried.from_json, trial.results))
    found = trying.summary(dimension, tried, labels_of(dataset=trial.dataset, dimension=trial.name))
    return Shown(dimension, tried, found, rated(found))


def rated(found: TrialReport) -> tuple[dict[str, Any], ...]:
    """Return a row per wording, and one for their mean; nothing where there is one wording only."""
    if found.agreement is None:
        return ()
    same = {second: pair.same for first, second, pair in found.agreement.pairs if first == 0}
    rows = []
    for place, wording in enumerate(found.wordings):
        share = same.get(place)
        rows.append(wording.to_json() | {"same": f"{share.value:.0%}" if share is not None else ""})
    return (*rows, found.mean.to_json() | {"same": ""})


def as_json(*, trial: Trial) -> dict[str, Any]:
    shown = report(trial=trial)
    return {
        "trial": trial.pk,
        "status": trial.status,
        "error": trial.error,
        "done": trial.done,
        "total": trial.total,
        "dataset": trial.dataset_id,
        "asked": trial.asked,
        "images": [one.to_json() for one in shown.tried],
        "summary": shown.summary.to_json(),
    }


def _work(trial_id: int, stop: threading.Event) -> None:
    waiting = Trial.objects.filter(pk=trial_id, status=Trial.Status.RUNNING, worker=jobs.QUEUED)
    with jobs.claimed(waiting) as worker:
        if worker:
            own = Trial.objects.filter(pk=trial_id, worker=worker, status=Trial.Status.RUNNING)
            with jobs.beating(lambda: own, stop=stop) as halt:
                status, error = _ask_all(Trial.objects.select_related("dataset").get(pk=trial_id), own, halt)
            now = timezone.now()
            jobs.write_down(lambda: own.update(status=status, error=error, finished=now), stop)


def _ask_all(trial: Trial, own: QuerySet[Trial], halt: threading.Event) -> tuple[str, str]:
    """Ask about the trial's images, and return how that ended and why."""
    results: list[dict[str, Any]] = []

    def tell(one: Tried) -> None:
        results.append(one.to_json())
        own.update(results=results, done=len(results))

    try:
        trying.ask(
            dataset=trial.dataset,
            samples=samples_of(dataset=trial.dataset, ids=list(trial.sample_ids)),
            dimension=Dimension.from_json(trial.tried_with),
            options=RunOptions(),
            known=words_by_dimension().get(trial.replaces, ()),
            stopped=halt.is_set,
            tell=tell,
        )
    except Exception as error:
        if (problem := jobs.foreseen(error)) is not None:
            return Trial.Status.FAILED, problem.message
        logger.exception("Trial %s failed", trial.pk)
        return Trial.Status.FAILED, "The trial failed. The server's log has the details."
    return (Trial.Status.FAILED, STOPPED) if halt.is_set() else (Trial.Status.COMPLETED, "")


def _fail(rows: QuerySet[Trial], heartbeat: datetime | None) -> int:
    return rows.update(status=Trial.Status.FAILED, error=STOPPED, finished=heartbeat or timezone.now())


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
