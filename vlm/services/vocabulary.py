"""The vocabulary: reading and editing it, and what an edit does to the tags that are there.

An edit changes two things that must agree: the questions in Django's database, and the tags and answers in the store. So it is
an errand (see ``vlm.errands``): neither is changed without the other. What was there before stands in a ``VocabularyChange``,
and can be put back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from vlm import errands
from vlm.errors import Refusal
from vlm.models import Dataset, Dimension, TaggingRun, VocabularyChange, Word, current_vocabulary, words_by_dimension
from vlm.process import sample_store
from vlm.runs import calibrating
from vlm.samples import SampleDetail, rewording
from vlm.services.who import edit_by
from vlm.vocabulary import (
    DEFAULT_VOCABULARY,
    Only,
    Vocabulary,
    VocabularyError,
    check_vocabulary,
    differences,
    normalise,
)
from vlm.vocabulary import Dimension as AskedDimension
from vlm.vocabulary_file import Entry

Removed = Literal["", "keep", "take"]
Step = dict[str, Any]  # see ``rewording.carry_out``

SHOWN_CHANGES = 20


class TagsAtStake(Refusal):
    """Words would go that images are tagged with, and nobody said what is to become of the tags.

    ``counts``: word → how many images have it.
    """

    title = "Images have these tags"
    status = 409
    exit_code = 2

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        listed = ", ".join(f"“{word}” ({count:,})" for word, count in counts.items())
        super().__init__(f"Images are tagged with {listed}. Say whether the tags are kept as your own, or taken away.")


class VocabularyBusy(Refusal):
    """A run is under way that asks what is to be changed."""

    title = "A run is active"
    status = 409
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Stake:
    """What an edit of the vocabulary touches: the tag, and how many images have it."""

    word: str
    samples: int


# -- reading -------------------------------------------------------------------------------------------------------------
def current() -> Vocabulary:
    """Return the dimensions that new runs ask. Raises ``VocabularyError`` if nothing can be asked like this."""
    return current_vocabulary()


def enabled() -> list[Dimension]:
    """Return the dimensions that are switched on, in their order, whether or not they can be asked."""
    return list(Dimension.objects.filter(enabled=True))


def words() -> dict[str, tuple[str, ...]]:
    """Return the words of every dimension, switched off ones included: their tags may be there."""
    return words_by_dimension()


def entries() -> tuple[Entry, ...]:
    """Return every dimension in its order, switched off ones included. Raises ``VocabularyError`` for one without words."""
    rows = Dimension.objects.prefetch_related("words")
    return tuple(Entry(dimension.asked(), dimension.enabled) for dimension in rows)


def entry(*, name: str) -> Entry | None:
    return next((found for found in entries() if found.dimension.name == name), None)


def default_entries() -> tuple[Entry, ...]:
    return tuple(Entry(dimension) for dimension in DEFAULT_VOCABULARY)


def changes(*, limit: int = SHOWN_CHANGES) -> list[VocabularyChange]:
    """Return the latest edits, newest first."""
    return list(VocabularyChange.objects.select_related("user")[:limit])


def change(*, change_id: int) -> VocabularyChange | None:
    return VocabularyChange.objects.filter(pk=change_id).first()


def changed_since(*, run: TaggingRun) -> tuple[str, ...]:
    """Say what has changed in the dimensions that a run asked since it began."""
    asked = run.vocabulary
    now = {found.dimension.name: found.dimension for found in entries()}
    return differences(asked, [now[name] for name in asked.names if name in now])


def withheld(*, detail: SampleDetail) -> dict[str, str]:
    """Return, per dimension whose accepted answer makes no tag of a sample, the condition that it does not meet."""
    tags = {tag.tag for tag in detail.sample.tags}
    of = {tag.dimension for tag in detail.sample.tags if tag.source == "user"}
    conditions = {found.dimension.name: found.dimension.only for found in entries() if found.dimension.only is not None}
    return {
        answer.dimension: str(conditions[answer.dimension])
        for answer in detail.answers
        if answer.accepted
        and answer.word
        and answer.dimension in conditions
        and answer.word not in tags
        and answer.word not in detail.rejected
        and answer.dimension not in of
    }


def conditions() -> dict[str, tuple[str, ...]]:
    """Return, for each dimension that has a condition, the words that a sample must have one of."""
    return _conditions(entries())


def stakes(*, words: Iterable[str]) -> list[Stake]:
    """Count the images that have each of ``words`` as a tag, in all data sets; words without images are left out."""
    with sample_store().read() as cursor:
        counts = rewording.tag_counts(cursor, list(words))
    return [Stake(word, counts[word]) for word in words if counts.get(word)]


# -- editing -------------------------------------------------------------------------------------------------------------
def save(*, entry: Entry, name: str = "", removed: Removed = "", user: User | None) -> VocabularyChange | None:
    """Add a dimension, or put ``entry`` in the place of the one called ``name``; returns ``None`` if nothing changed.

    A word that is not in ``entry`` any more goes, and ``removed`` says what becomes of its tags: ``keep`` makes them users'
    own tags, ``take`` takes them away.

    Raises:
        VocabularyError: it cannot be asked, or there is no dimension of that name.
        TagsAtStake: words with tags would go, and ``removed`` is empty.
        VocabularyBusy: a run is active.
    """
    before = entries()
    if name and name not in {found.dimension.name for found in before}:
        raise VocabularyError(f"There is no dimension “{name}” any more. Go back to the vocabulary.")
    after = tuple(entry if found.dimension.name == name else found for found in before) if name else (*before, entry)
    new_name = entry.dimension.name
    if name and name != new_name:
        after = _following(after, name, new_name)
    verb = f"Changed {name}" if name else f"Added {new_name}"
    renamed = {name: new_name} if name and name != new_name else {}
    return _replace(before, after, text=verb, removed=removed, user=user, renamed=renamed)


def replace_all(
    *, wanted: Sequence[Entry], removed: Removed = "", user: User | None, text: str = "Imported a vocabulary"
) -> VocabularyChange | None:
    """Put another vocabulary in the place of the present one. Raises as :func:`save`."""
    return _replace(entries(), tuple(wanted), text=text, removed=removed, user=user)


def reset(*, removed: Removed = "", user: User | None) -> VocabularyChange | None:
    """Put the vocabulary back that DataVisor comes with. Raises as :func:`save`."""
    return replace_all(
        wanted=default_entries(),
        removed=removed,
        user=user,
        text="Went back to the vocabulary that DataVisor comes with",
    )


def follow(
    *, before: tuple[Entry, ...], renamed: dict[str, str], removed: Removed = "", text: str, user: User | None
) -> VocabularyChange | None:
    """Let tags, answers and conditions follow what was written into the rows within this transaction (Django's admin does).

    The store does its part once the transaction is over. Raises as :func:`save`: then let the transaction fail.
    """
    for old, new in renamed.items():
        Dimension.objects.filter(only_dimension=old).update(only_dimension=new)
    return _replace(before, entries(), text=text, removed=removed, user=user, renamed=renamed, is_written=True)


def check_words(*, words: Sequence[str], but: int | None) -> None:
    """Raise ``VocabularyError`` if one of ``words`` is a word of a dimension other than the row ``but``."""
    owners = Word.objects.exclude(dimension=but).values_list("text", "dimension__name")
    owner = {text.casefold(): name for text, name in owners}
    for word in words:
        if word.casefold() in owner:
            raise VocabularyError(
                f"“{word}” is a word of “{owner[word.casefold()]}”, too: a tag must say which question it answers."
            )


def move(*, name: str, by: int, user: User | None) -> VocabularyChange | None:
    """Move a dimension up (negative) or down in the order."""
    before = entries()
    order = list(before)
    place = next((index for index, found in enumerate(order) if found.dimension.name == name), None)
    if place is None:
        raise VocabularyError(f"There is no dimension “{name}” any more. Go back to the vocabulary.")
    order.insert(max(0, place + by), order.pop(place))
    return _replace(before, tuple(order), text=f"Moved {name}", removed="", user=user)


def switch(*, name: str, enabled: bool, user: User | None) -> VocabularyChange | None:
    """Ask a dimension in new runs, or leave it out; its tags stay."""
    before = entries()
    after = tuple(replace(found, enabled=enabled) if found.dimension.name == name else found for found in before)
    return _replace(before, after, text=f"Switched {name} {'on' if enabled else 'off'}", removed="", user=user)


def remove(*, name: str, removed: Removed = "", user: User | None) -> VocabularyChange | None:
    """Take a dimension out. Raises as :func:`save`."""
    before = entries()
    after = tuple(found for found in before if found.dimension.name != name)
    if len(after) == len(before):
        raise VocabularyError(f"There is no dimension “{name}” any more. Go back to the vocabulary.")
    return _replace(before, after, text=f"Removed {name}", removed=removed, user=user)


def rename_word(*, name: str, old: str, new: str, user: User | None) -> VocabularyChange:
    """Call a word of the dimension ``name`` otherwise, in all tags and answers; or merge it into another of its words.

    What the model answered stays an answer: ``old`` becomes a spelling of ``new``, and nothing is asked again. A calibration of the
    dimension is taken back.

    Raises:
        VocabularyError: there is no such word, or the new one cannot be.
        VocabularyBusy: a run is active.
    """
    before, new = entries(), normalise(new)
    found = next((one for one in before if one.dimension.name == name), None)
    if found is None or old not in found.dimension.words:
        raise VocabularyError(f"There is no word “{old}” in “{name}” any more. Go back to the vocabulary.")
    if new == old:
        raise VocabularyError("The new word is the old one.")
    dimension = reworded(found.dimension, old, new)
    after = tuple(
        replace(one, dimension=dimension if one is found else _condition_reworded(one.dimension, name, old, new))
        for one in before
    )
    merged = new in found.dimension.words
    text = f"Merged {name}: {old} into {new}" if merged else f"Renamed {name}: {old} to {new}"

    _end_calibrations([name])
    step = {
        "do": "rename word",
        "before": found.dimension.to_json(),
        "after": dimension.to_json(),
        "old": old,
        "new": new,
    }
    return _change(before, after, text=text, user=user, steps=[step])


def undo(*, change: VocabularyChange, user: User | None) -> VocabularyChange:
    """Put back what an edit changed: the questions, the tags and the answers.

    Raises:
        VocabularyError: it is taken back already, or the vocabulary was edited since.
        VocabularyBusy: a run is active.
    """
    if change.undone is not None:
        raise VocabularyError("This edit is taken back already.")
    before = entries()
    if [_as_json(found) for found in before] != change.after:
        raise VocabularyError("The vocabulary was edited since: take the later edits back first.")
    if change.edits or change.renamed:
        asked = TaggingRun.objects.filter(created__gt=change.created, processed__gt=0, reverted=None).first()
        if asked is not None:
            raise VocabularyError(
                f"Run {asked.pk} has asked the changed questions since. Take that run back first, or edit the words anew."
            )
    after = tuple(_from_json(value) for value in change.before)

    if change.edits:
        _end_calibrations([one.dimension.name for one in before if one not in after])
    steps: list[Step] = [{"do": "undo", "edits": change.edits}] if change.edits else []
    steps += [{"do": "rename dimension", "old": new, "new": old} for old, new in change.renamed.items()]
    return _change(before, after, text=f"Took back: {change.text}", user=user, steps=steps, undoing=change)


# -- inside --------------------------------------------------------------------------------------------------------------
def reworded(dimension: AskedDimension, old: str, new: str) -> AskedDimension:
    """Return the dimension with ``new`` in the place of ``old``, which becomes a spelling of it."""
    merged = new in dimension.words

    def renamed(words: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(new if word == old else word for word in words))

    if dimension.kind == "yes-no":
        return replace(dimension, words=(new,), labels={new: dimension.labels[old]} if old in dimension.labels else {})
    spellings = {word: others for word, others in dimension.spellings.items() if word not in (old, new)}
    kept = [*dimension.spellings.get(new, ()), old, *dimension.spellings.get(old, ())]
    spellings[new] = tuple(dict.fromkeys(word for word in kept if word.casefold() != new.casefold()))
    labels = {word: label for word, label in dimension.labels.items() if word != old}
    if not merged and old in dimension.labels:
        labels[new] = dimension.labels[old]
    if merged and len(dimension.words) == 2:
        raise VocabularyError(f"“{dimension.name}” has two words only; remove the dimension instead.")
    return replace(
        dimension, words=renamed(dimension.words), levels=renamed(dimension.levels), spellings=spellings, labels=labels
    )


def _condition_reworded(dimension: AskedDimension, name: str, old: str, new: str) -> AskedDimension:
    if dimension.only is None or dimension.only.dimension != name:
        return dimension
    words = tuple(dict.fromkeys(new if word == old else word for word in dimension.only.words))
    return replace(dimension, only=Only(name, words))


def _following(found: Sequence[Entry], old: str, new: str) -> tuple[Entry, ...]:
    """Let conditions follow a dimension to its new name."""
    return tuple(
        replace(one, dimension=replace(one.dimension, only=Only(new, one.dimension.only.words)))
        if one.dimension.only is not None and one.dimension.only.dimension == old
        else one
        for one in found
    )


def _replace(
    before: tuple[Entry, ...],
    after: tuple[Entry, ...],
    *,
    text: str,
    removed: Removed,
    user: User | None,
    renamed: dict[str, str] | None = None,
    is_written: bool = False,
) -> VocabularyChange | None:
    """Put ``after`` in the place of ``before``, and do with the tags of words that go what ``removed`` says."""
    if before == after:
        return None
    check_vocabulary(found.dimension for found in after)
    staying = {word for found in after for word in found.dimension.words}
    gone = [word for found in before for word in found.dimension.words if word not in staying]
    counts = {stake.word: stake.samples for stake in stakes(words=gone)}
    if counts and not removed:
        raise TagsAtStake(counts)
    names = renamed or {}
    with sample_store().read() as cursor:
        used = [new for new in names.values() if rewording.dimension_is_used(cursor, new)]
    if used:
        raise VocabularyError(
            f"Answers of an earlier dimension “{used[0]}” are kept, and would be mixed up with these. Take another name."
        )
    steps: list[Step] = [{"do": "rename dimension", "old": old, "new": new} for old, new in names.items()]
    if counts:
        steps.append({"do": "remove words", "words": list(counts), "keep": removed == "keep"})
        text += f"; tags of {', '.join(counts)} {'kept as own tags' if removed == 'keep' else 'taken away'}"
    return _change(before, after, text=text, user=user, steps=steps, renamed=names, is_written=is_written)


def _end_calibrations(dimensions: Sequence[str]) -> None:
    """Take back the calibrations of dimensions whose words are about to be others: they were fitted for these."""
    _check_idle()
    for dataset_id, dimension in calibrating.calibrated(dimensions):
        calibrating.end(dataset=Dataset.objects.get(pk=dataset_id), dimension=dimension)


def _check_idle() -> None:
    if (active := TaggingRun.objects.filter(status__in=TaggingRun.ACTIVE).first()) is not None:
        raise VocabularyBusy(f"Run {active.pk} is active, and tags with these words. Wait for its end, or cancel it.")


def _change(
    before: tuple[Entry, ...],
    after: tuple[Entry, ...],
    *,
    text: str,
    user: User | None,
    steps: Sequence[Step],
    renamed: dict[str, str] | None = None,
    undoing: VocabularyChange | None = None,
    is_written: bool = False,
) -> VocabularyChange:
    check_vocabulary(found.dimension for found in after)
    made: list[VocabularyChange] = []
    following = renamed or {new: old for old, new in (undoing.renamed if undoing else {}).items()}

    def change() -> dict[str, Any]:
        if steps:
            _check_idle()
        if not is_written and entries() != before:
            raise errands.ChangeUnderWay("The vocabulary was edited meanwhile. Look again, then try again.")
        if not is_written:
            _write(after)
        _rename_in_runs(following)
        made.append(
            VocabularyChange.objects.create(
                user=user,
                text=text[:500],
                before=[_as_json(found) for found in before],
                after=[_as_json(found) for found in after],
                renamed=renamed or {},
            )
        )
        if undoing is not None:
            VocabularyChange.objects.filter(pk=undoing.pk).update(undone=timezone.now())
        by = asdict(edit_by(user, "vocabulary"))
        return {"change": made[0].pk, "store": {"steps": steps, "conditions": _conditions(after), "by": by}}

    def undo() -> None:
        _write(before)
        _rename_in_runs({new: old for old, new in following.items()})
        made[0].delete()
        if undoing is not None:
            VocabularyChange.objects.filter(pk=undoing.pk).update(undone=None)

    concerns_store = bool(steps) or _conditions(before) != _conditions(after)
    if is_written and concerns_store:
        errands.leave("vocabulary", about=errands.VOCABULARY, values=change())
    elif concerns_store:
        edits = errands.carry_out("vocabulary", about=errands.VOCABULARY, change=change, undo=undo)
        made[0].edits = edits
    else:
        with transaction.atomic():
            change()
    return made[0]


def _rename_in_runs(names: dict[str, str]) -> None:
    """Let the thresholds that were set for a dimension's answers follow it to its new name."""
    for run in TaggingRun.objects.exclude(thresholds={}) if names else ():
        thresholds = {names.get(name, name): least for name, least in run.thresholds.items()}
        TaggingRun.objects.filter(pk=run.pk).update(thresholds=thresholds)


def _conditions(found: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    return {one.dimension.name: one.dimension.only.words for one in found if one.dimension.only is not None}


def _write(wanted: Sequence[Entry]) -> None:
    """Make Django's rows say ``wanted``. Rows are kept where a dimension keeps its name."""
    rows = {row.name: row for row in Dimension.objects.all()}
    for name in rows.keys() - {found.dimension.name for found in wanted}:
        rows.pop(name).delete()
    for position, found in enumerate(wanted):
        asked = found.dimension
        row = rows.get(asked.name) or Dimension(name=asked.name)
        row.question, row.kind, row.label, row.enabled = asked.question, asked.kind, asked.label, found.enabled
        row.position = position
        row.levels, row.wordings = list(asked.levels), list(asked.wordings)
        row.spellings = {word: list(others) for word, others in asked.spellings.items()}
        row.labels = dict(asked.labels)
        row.only_dimension = asked.only.dimension if asked.only else ""
        row.only_words = list(asked.only.words) if asked.only else []
        row.save()
        if tuple(row.words.values_list("text", flat=True)) != asked.words:
            row.words.all().delete()
            Word.objects.bulk_create(
                Word(dimension=row, text=text, position=place) for place, text in enumerate(asked.words)
            )


def _as_json(found: Entry) -> dict[str, object]:
    return found.dimension.to_json() | {"enabled": found.enabled}


def _from_json(value: dict[str, object]) -> Entry:
    rest = {key: given for key, given in value.items() if key != "enabled"}
    return Entry(AskedDimension.from_json(rest), bool(value["enabled"]))
