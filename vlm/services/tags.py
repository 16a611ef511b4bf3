"""Tags: what users add, take away, confirm and undo, on a sample or on a whole filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from django.contrib.auth.models import User

from vlm import nudges
from vlm.errors import Refusal
from vlm.models import Dataset, TagNote, words_by_dimension
from vlm.process import sample_store
from vlm.runs.state import notify
from vlm.samples import Cursor, Edit, EditError, EditRow, SampleFilter, TagError, Way, deriving, editing, reading, where
from vlm.samples.conditions import Condition, Words
from vlm.services.who import edit_by

Action = Literal["add", "remove", "confirm"]

MOST_NOTE = 500  # characters


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


def _tell(dataset_id: int) -> None:
    nudges.count_change(dataset_id)
    notify(dataset_id)


def add(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Give a tag to all samples of a filter that have it from no user yet.

    A word of a dimension takes the place of the user's other words of it. Raises ``TagError``.
    """
    return change(dataset=dataset, filter=filter, action="add", tags=[tag], user=user)[0]


def remove(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Take a tag away from all samples of a filter that have it, for good."""
    return change(dataset=dataset, filter=filter, action="remove", tags=[tag], user=user)[0]


def confirm(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> Change:
    """Make a model's tag the user's own wherever it stands in a filter and is not yet. Raises ``TagError``."""
    return change(dataset=dataset, filter=filter, action="confirm", tags=[tag], user=user)[0]


def change(
    *, dataset: Dataset, filter: SampleFilter, action: Action, tags: Sequence[str], user: User | None
) -> list[Change]:
    """Add, remove or confirm tags on the samples that a filter finds now: all of them, or none if one is refused.

    Raises:
        TagError: a tag cannot be one, or two of those to be given are words of one dimension.
    """
    words = words_by_dimension()
    typed = list(dict.fromkeys(editing.clean_tag(tag) for tag in tags))
    if action != "remove":
        _check_dimensions(typed, words)
    with sample_store().write() as cursor:
        target, by = where(dataset.pk, filter, words), edit_by(user, _way(filter))
        if len(typed) > 1:
            target = deriving.held(cursor, target)  # the first tag may change what the filter finds
        made = [_change(cursor, dataset.pk, target, action, tag, words, by) for tag in typed]
    _tell(dataset.pk)
    return made


def undo(*, dataset: Dataset, edits: Sequence[int], user: User | None) -> Change:
    """Take edits back, exactly, the last one first: all of them, or none if one is refused.

    Raises:
        EditError: one is none of this data set, or cannot be taken back (any more).
    """
    with sample_store().write() as cursor:
        rows = {row.id: row for row in reading.edits_by_id(cursor, edits) if row.dataset_id == dataset.pk}
        for edit in edits:
            if edit not in rows:
                raise EditError(f"There is no edit {edit} of this data set.")
        done = [editing.undo(cursor, edit, edit_by(user, "undo")) for edit in sorted(rows, reverse=True)]
    _tell(dataset.pk)
    row = rows[edits[0]]
    return Change(done[-1].id, max(one.samples for one in done), row.tag, row.dimension or "")


@dataclass(frozen=True, slots=True)
class OwnTag:
    """A tag that is no word of the vocabulary: how many images have it, and what users say that it means."""

    tag: str
    samples: int
    note: str = ""


class NoOwnTag(Refusal):
    """There is no such tag of one's own."""

    status = 404
    exit_code = 2


def own(*, dataset: Dataset) -> list[OwnTag]:
    """Return the tags of a data set that users gave and that are no words of the vocabulary, by name."""
    words = {word for of in words_by_dimension().values() for word in of}
    told = notes(dataset=dataset)
    with sample_store().read() as cursor:
        given = reading.users_tags(cursor, dataset.pk)
    return [OwnTag(tag, count, told.get(tag, "")) for tag, count in given.items() if tag not in words]


def notes(*, dataset: Dataset) -> dict[str, str]:
    """Return what users say that tags of their own mean."""
    return dict(TagNote.objects.filter(dataset=dataset).values_list("tag", "text"))


def describe(*, dataset: Dataset, tag: str, text: str) -> None:
    """Write down what a tag means; an empty text forgets it. Raises ``TagError``."""
    tag, text = editing.clean_tag(tag), " ".join(text.split())
    if len(text) > MOST_NOTE:
        raise TagError(f"A description has at most {MOST_NOTE} characters.")
    if text:
        TagNote.objects.update_or_create(dataset=dataset, tag=tag, defaults={"text": text})
    else:
        TagNote.objects.filter(dataset=dataset, tag=tag).delete()


def rename(*, dataset: Dataset, old: str, new: str, user: User | None) -> Change:
    """Call a tag of one's own otherwise on all images of a data set, or merge it into another tag or word.

    Raises:
        NoOwnTag: users have given no such tag, or it is a word of the vocabulary.
        TagError: the new name cannot be a tag, or is the old one.
    """
    words = words_by_dimension()
    new, dimension = _meant(editing.clean_tag(new), words)
    if new == _own(old, words):
        raise TagError("That is its name already.")
    with sample_store().write() as cursor:
        done = editing.tag_rename(
            cursor, dataset_id=dataset.pk, old=old, new=new, dimension=dimension, by=edit_by(user, "bulk")
        )
    if done.id is None:
        raise NoOwnTag(f"No image has the tag “{old}” from a user.")
    # The old name keeps its description: undoing brings it back.
    if dimension is None and (told := notes(dataset=dataset).get(old)):
        TagNote.objects.get_or_create(dataset=dataset, tag=new, defaults={"text": told})
    _tell(dataset.pk)
    return Change(done.id, done.samples, new, dimension or "", done.replaced)


def delete(*, dataset: Dataset, tag: str, user: User | None) -> Change:
    """Take a tag of one's own from all images of a data set. Raises ``NoOwnTag`` as :func:`rename` does."""
    tag = _own(tag, words_by_dimension())
    with sample_store().write() as cursor:
        done = editing.tag_delete(cursor, dataset_id=dataset.pk, tag=tag, by=edit_by(user, "bulk"))
    if done.id is None:
        raise NoOwnTag(f"No image has the tag “{tag}” from a user.")
    _tell(dataset.pk)
    return Change(done.id, done.samples, tag)


def edits(*, dataset: Dataset, limit: int = 50) -> list[EditRow]:
    """Return the newest edits of a data set, the last one first."""
    with sample_store().read() as cursor:
        return reading.edits(cursor, dataset.pk, limit=limit)


def suggestions(*, dataset: Dataset, prefix: str, limit: int = 20) -> list[str]:
    with sample_store().read() as cursor:
        return reading.tag_suggestions(cursor, dataset.pk, prefix, limit)


def _change(
    cursor: Cursor, dataset_id: int, target: Condition, action: Action, tag: str, words: Words, by: Edit
) -> Change:
    meant, dimension = _meant(tag, words)
    if action == "remove":
        done = editing.tags_remove(cursor, dataset_id=dataset_id, target=target, tag=tag, by=by)
        if done.samples or meant == tag:
            meant = tag
        else:
            done = editing.tags_remove(cursor, dataset_id=dataset_id, target=target, tag=meant, by=by)
    else:
        give = editing.tags_add if action == "add" else editing.tags_confirm
        done = give(cursor, dataset_id=dataset_id, target=target, tag=meant, dimension=dimension, by=by)
    return Change(done.id, done.samples, meant, dimension or "", done.replaced)


def _own(tag: str, words: Words) -> str:
    for dimension, of in words.items():
        if tag in of:
            raise NoOwnTag(
                f"“{tag}” is a word of {dimension}: it is renamed, merged and removed on the vocabulary’s page."
            )
    return tag


def _check_dimensions(tags: Sequence[str], words: Words) -> None:
    """Raise ``TagError`` if two of the tags are words of one dimension, of which an image has one."""
    seen: dict[str, str] = {}
    for word, dimension in (_meant(tag, words) for tag in tags):
        if dimension and seen.setdefault(dimension, word) != word:
            raise TagError(
                f"“{seen[dimension]}” and “{word}” are both words of {dimension}, and an image has one of them."
            )


def _way(filter: SampleFilter) -> Way:
    if filter.group is not None:
        return "group"
    return "single" if len(filter.ids) == 1 else "bulk"


def _meant(tag: str, words: Words) -> tuple[str, str | None]:
    """Return the word of the vocabulary that ``tag`` spells, in any case, with its dimension; or the tag, which is one's own."""
    for same in (lambda word: word == tag, lambda word: word.casefold() == tag.casefold()):
        for dimension, of in words.items():
            if (word := next(filter(same, of), None)) is not None:
                return word, dimension
    return tag, None
