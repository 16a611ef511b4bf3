"""Promises: thresholds from which on so much of what is tagged is right, and tagging by them without the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from vlm.errors import Refusal
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs import steering
from vlm.runs.options import NEVER
from vlm.samples import Reapplied, trust
from vlm.services.accuracy import Accuracy
from vlm.statistics.thresholds import Kept


class NoPromise(Refusal):
    """The labels cannot give the promise."""

    title = "These labels cannot promise that"
    status = 409
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which probability on answers of a dimension become tags: from one on, or word by word.

    Attributes:
        least: of the whole dimension, if ``words`` is empty.
        words: of each word its own; ``NEVER`` for one that is not to become a tag.
    """

    dimension: str
    least: float = 0.0
    words: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what each word becomes a tag from; ``null`` for one that does not become one."""
        own = {word: None if least == NEVER else least for word, least in self.words.items()}
        return {"dimension": self.dimension} | ({"words": own} if own else {"min_probability": self.least})


def thresholds_of(
    found: Accuracy, *, by_word: bool = False, words: tuple[str, ...] = (), drop: bool = False
) -> Thresholds:
    """Return the thresholds that keep a promise.

    Args:
        by_word: a threshold for each word that can keep it, instead of one for all;
        words: of these words alone, if any are named;
        drop: words that cannot keep it are tagged no more. Else their tags stay as they are, and nothing is promised of them.

    Raises:
        NoPromise: it cannot be kept.
    """
    if not by_word:
        if not isinstance(found.promise, Kept):
            raise NoPromise(_why(found))
        return Thresholds(found.dimension, least=found.promise.threshold)
    least = {}
    for word, promise in found.word_promises.items():
        if words and word not in words:
            continue
        if isinstance(promise, Kept):
            least[word] = promise.threshold
        elif drop and word:
            least[word] = NEVER
    if not any(value <= 1 for value in least.values()):
        raise NoPromise(_why(found))
    return Thresholds(found.dimension, words=least)


def preview(*, dataset: Dataset, thresholds: Thresholds) -> Reapplied:
    """Tell what :func:`apply` would change. Raises as it does."""
    return _in_every_run(steering.reapply_preview, dataset, thresholds)


def apply(*, dataset: Dataset, thresholds: Thresholds) -> Reapplied:
    """Decide the answers of a dimension by thresholds, in every run whose answers are the current ones, without the model.

    Raises:
        NoPromise: there is no answer to decide.
        Unchangeable: a run is active.
        RunError: a threshold is no probability.
    """
    preview(dataset=dataset, thresholds=thresholds)  # what is refused is refused before anything has changed
    return _in_every_run(steering.reapply, dataset, thresholds)


def runs(*, dataset: Dataset, dimension: str) -> list[TaggingRun]:
    """Return the runs that the current answers of a dimension are of. Raises ``NoPromise`` where there is none."""
    with sample_store().read() as cursor:
        ids = trust.runs_of(cursor, dataset.pk, dimension)
    if not (found := list(TaggingRun.objects.filter(pk__in=ids, dataset=dataset).order_by("pk"))):
        raise NoPromise(f"The model has not answered {dimension} yet. Auto-tag first.")
    return found


def _in_every_run(decide: Callable[..., Reapplied], dataset: Dataset, thresholds: Thresholds) -> Reapplied:
    """Call ``decide`` (``reapply`` or its preview) for each run, and return what that comes to in all."""
    return reduce(
        add,
        (
            decide(
                run=run,
                min_probability=thresholds.least,
                min_mass=run.min_mass,
                dimension=thresholds.dimension,
                words=thresholds.words,
            )
            for run in runs(dataset=dataset, dimension=thresholds.dimension)
        ),
    )


def _why(found: Accuracy) -> str:
    more = getattr(found.promise, "more", None)
    told = (
        f" Label about {more:,} more."
        if more
        else " More labels of the same kind would not help."
        if found.labels
        else " Review some images first."
    )
    return f"The labels of {found.dimension} cannot promise that.{told}"
