"""Tags: what users add, take away, confirm and undo, on a sample or on a whole filter."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User

from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.runs.state import notify
from vlm.samples import Edited, EditError, EditRow, SampleFilter, Way, editing, reading, where
from vlm.services.who import edit_by


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit did.

    Attributes:
        edit: by which it can be undone; ``None`` where there was nothing to change.
        samples: how many it changed.
        tag: as it is kept: a word of the vocabulary is written as there.
        dimension: of which the tag is a word, empty for a tag of one's own.
        replaced: on how many samples it took the place of another word that a user had given.
    """

    edit: int | None
    samples: int
    tag: str
    dimension: str = ""
    replaced: int = 0


_made: Counter[int] = Counter()  # edits per data set in this process


def made(*, dataset_id: int) -> int:
    """Return a number that grows with every edit of a data set in this process: its viewers look whether it has."""
    return _made[dataset_id]


def _tell(dataset_id: int) -> None:
    _made[dataset_id] += 1
    notify(dataset_id)


def add(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Give a tag to all samples of a filter that have it from no user yet.

    A word of a dimension takes the place of the user's other words of it. Raises ``TagError``.
    """
    return _give(editing.tags_add, dataset, filter, tag, user)


def remove(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Take a tag away from all samples of a filter that have it, for good."""
    words, tag = words_by_dimension(), editing.clean_tag(tag)
    meant, dimension = _meant(tag, words)
    with sample_store().write() as cursor:
        target, by = where(dataset.pk, filter, words), edit_by(user, _way(filter))
        done = editing.tags_remove(cursor, dataset_id=dataset.pk, target=target, tag=tag, by=by)
        if not done.samples and meant != tag:
            tag = meant
            done = editing.tags_remove(cursor, dataset_id=dataset.pk, target=target, tag=tag, by=by)
    _tell(dataset.pk)
    return Change(done.id, done.samples, tag, dimension or "")


def confirm(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Make a model's tag the user's own wherever it stands in a filter and is not yet. Raises ``TagError``."""
    return _give(editing.tags_confirm, dataset, filter, tag, user)


def undo(*, dataset: Dataset, edit: int, user: User | None) -> Change:
    """Take an edit back, exactly. Raises ``EditError``: it is none of this data set, or cannot be taken back (any more)."""
    with sample_store().write() as cursor:
        if not (rows := [row for row in reading.edits_by_id(cursor, [edit]) if row.dataset_id == dataset.pk]):
            raise EditError(f"There is no edit {edit} of this data set.")
        done = editing.undo(cursor, edit, edit_by(user, "undo"))
    _tell(dataset.pk)
    return Change(done.id, done.samples, rows[0].tag, rows[0].dimension or "")


def edits(*, dataset: Dataset, limit: int = 50) -> list[EditRow]:
    """Return the newest edits of a data set, the last one first."""
    with sample_store().read() as cursor:
        return reading.edits(cursor, dataset.pk, limit=limit)


def suggestions(*, dataset: Dataset, prefix: str, limit: int = 20) -> list[str]:
    with sample_store().read() as cursor:
        return reading.tag_suggestions(cursor, dataset.pk, prefix, limit)


def _give(edit: Callable[..., Edited], dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    words = words_by_dimension()
    tag, dimension = _meant(editing.clean_tag(tag), words)
    with sample_store().write() as cursor:
        target, by = where(dataset.pk, filter, words), edit_by(user, _way(filter))
        done = edit(cursor, dataset_id=dataset.pk, target=target, tag=tag, dimension=dimension, by=by)
    _tell(dataset.pk)
    return Change(done.id, done.samples, tag, dimension or "", done.replaced)


def _way(filter: SampleFilter) -> Way:
    if filter.group is not None:
        return "group"
    return "single" if len(filter.ids) == 1 else "bulk"


def _meant(tag: str, words: Mapping[str, Sequence[str]]) -> tuple[str, str | None]:
    """Return the word of the vocabulary that ``tag`` spells, in any case, with its dimension; or the tag, which is one's own."""
    for same in (lambda word: word == tag, lambda word: word.casefold() == tag.casefold()):
        for dimension, of in words.items():
            if (word := next(filter(same, of), None)) is not None:
                return word, dimension
    return tag, None
