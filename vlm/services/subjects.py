"""What images can be sorted by, the values that a table of it has, and the filter of each.

A part of :mod:`vlm.services.distributions`, which counts them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm.errors import Refusal
from vlm.figures import figure
from vlm.models import Dataset
from vlm.samples import Column, Cursor, SampleFilter, columns, distributions, insights, reading, values, where
from vlm.samples.columns import plain, ranges_of
from vlm.samples.conditions import MEASURES, column_of
from vlm.samples.distributions import Axis, Source
from vlm.samples.insights import Sorting, SortingKind
from vlm.samples.ranges import said_range, span_of
from vlm.services.insights import narrowed
from vlm.services.samples import counts_known
from vlm.statistics.histograms import edges

WITHOUT = {"split": "split", "category": "category", "own": "own tag", "measure": "measure"}  # as a filter calls it

Words = dict[str, tuple[str, ...]]
Sides = Sequence[tuple[Dataset, SampleFilter]]  # the sets of images that a table is about


class NoSuchSubject(Refusal):
    """Something by which images cannot be sorted."""

    title = "There is no such distribution"
    status = 404


@dataclass(frozen=True, slots=True)
class Subject:
    """What images can be sorted by: a dimension, own tags, split, category, a column, a measure of the pixels.

    ``other`` is the column of that name in the second of two data sets.
    """

    kind: SortingKind
    name: str
    column: Column | None = None
    other: Column | None = None

    @property
    def key(self) -> str:
        """What it is called without doubt: ``split``, ``dimension:weather``, ``column:error``."""
        return self.kind if self.kind in ("split", "category", "own") else f"{self.kind}:{self.name}"

    @property
    def title(self) -> str:
        return MEASURES[self.name] if self.kind == "measure" else self.name

    @property
    def is_tags(self) -> bool:
        return self.kind in ("dimension", "own")

    @property
    def is_number(self) -> bool:
        return self.kind == "measure" or (self.column is not None and self.column.kind == "number")


@dataclass(frozen=True, slots=True)
class Value:
    """A row or column of a table. ``filter`` shows its images; there is none for “others”, and where there is no image.

    ``what`` is ``value``, ``others`` (the rarer ones together) or ``none``; ``place`` is where the table has it.
    """

    label: str
    what: str
    place: int
    filter: SampleFilter | None

    def to_json(self) -> dict[str, Any]:
        query = None if self.filter is None else self.filter.to_query()
        return {"value": self.label, "what": self.what, "filter": query}


def there_are(cursor: Cursor, dataset: Dataset, words: Words) -> list[Subject]:
    """Return what the images of a data set can be sorted by, the vocabulary's dimensions first."""
    found = [Subject("dimension", name) for name, of in words.items() if of]
    found += [Subject("own", "own tags"), Subject("split", "split"), Subject("category", "category")]
    found += [Subject("column", column.name, column) for column in columns.columns(cursor, dataset.pk)]
    if values.has_measures(cursor, dataset.pk):
        found += [Subject("measure", name) for name in MEASURES]
    return found


def in_both(cursor: Cursor, dataset: Dataset, other: Dataset, words: Words) -> tuple[list[Subject], list[Subject]]:
    """Return what both data sets can be sorted by, and what only one can. Columns are the same by name and kind."""

    def same(subject: Subject) -> tuple[str, str]:
        return subject.key, subject.column.kind if subject.column else ""

    ours = there_are(cursor, dataset, words)
    theirs = ours if other == dataset else there_are(cursor, other, words)
    twins = {same(one): one for one in theirs}
    shared = [replace(one, other=twins[same(one)].column) for one in ours if same(one) in twins]
    keys = {one.key for one in shared}
    return shared, list({one.key: one for one in (*ours, *theirs) if one.key not in keys}.values())


def named(there: Iterable[Subject], name: str) -> Subject:
    """Return the subject of that key or name. Raises ``NoSuchSubject``, which says which there are."""
    there = list(there)
    found = [one for one in there if name == one.key] or [one for one in there if name in (one.name, one.title)]
    if len(found) == 1:
        return found[0]
    keys = ", ".join(one.key for one in (found or there)[:40])
    if found:
        raise NoSuchSubject(f"“{name[:80]}” may be several things. Say which: {keys}.")
    raise NoSuchSubject(f"Images cannot be sorted by “{name[:80]}” here. There are: {keys}.")


def asked_by(filter: SampleFilter, subject: Subject, words: Words) -> bool:
    """Return whether a filter itself asks for values of a subject, so that its shares say no more than the filter does."""
    tags = {*filter.all_of, *filter.any_of, *filter.none_of}
    if subject.kind == "dimension":
        return subject.name in filter.lacking or not tags.isdisjoint(words[subject.name])
    if subject.kind == "own":
        return "own tag" in filter.without or not tags <= {word for of in words.values() for word in of}
    if subject.kind == "split":
        return bool(filter.splits) or "split" in filter.without
    if subject.kind == "category":
        return bool(filter.categories or filter.every_category) or "category" in filter.without
    if subject.kind == "measure":
        return any(column_of(part) == subject.name for part in filter.measures)
    return subject.name in {*map(column_of, filter.columns), *filter.has_value, *filter.no_value}


def axis_of(
    cursor: Cursor, source: Source, sides: Sides, subject: Subject, words: Words, *, most: int, bars: int
) -> Axis:
    """Return a subject with its values: the vocabulary's words, ranges of numbers, or the most frequent values of all sides.

    Args:
        most: values that get a row of their own; the rarer ones are counted together.
        bars: about how many ranges of numbers there are.
    """
    bare = Sorting(subject.kind, subject.name, (), subject.column)
    if subject.kind == "dimension":
        return _of_dimension(cursor, source, replace(bare, values=words[subject.name]), most)
    own = {sides[-1][0]: subject.other or subject.column, sides[0][0]: subject.column}
    ids = tuple(column.id for column in own.values() if column is not None)
    if subject.is_number:
        ranges, ends = _ranges(cursor, own, subject, words, bars)
        return Axis(replace(bare, values=ranges, edges=ends), column_ids=ids)
    if subject.column is not None and subject.column.kind == "boolean":
        return Axis(replace(bare, values=("yes", "no")), column_ids=ids)
    vocabulary = tuple(dict.fromkeys(word for of in words.values() for word in of)) if subject.kind == "own" else ()
    found = [
        insights.values_there(
            cursor,
            where(dataset.pk, filter, words),
            Sorting(subject.kind, subject.name, vocabulary, own[dataset]),
            limit=most,
        )
        for dataset, filter in sides
    ]
    return Axis(replace(bare, values=distributions.in_turn(found, most)), ignored=vocabulary, column_ids=ids)


def values_of(axis: Axis, subject: Subject, filter: SampleFilter, counts: Sequence[int]) -> tuple[Value, ...]:
    """Return the rows of a table, each with its filter: all values, and “others” and “none” where ``counts`` has any."""
    sorting = axis.sorting
    found = [
        Value(_said(subject, value), "value", place, narrowed(filter, sorting, value) if counts[place] else None)
        for place, value in enumerate(sorting.values)
    ]
    if counts[axis.place_of_others]:
        found.append(Value("others", "others", axis.place_of_others, None))
    if counts[axis.place_of_none]:
        found.append(Value("none", "none", axis.place_of_none, _lacking(filter, subject)))
    return tuple(found)


def within(filter: SampleFilter, axis: Axis, subject: Subject, value: Value) -> SampleFilter:
    """Return a filter narrowed to the samples that have a value, or none where that is the value."""
    if value.what == "none":
        return _lacking(filter, subject)
    return narrowed(filter, axis.sorting, axis.sorting.values[value.place])


# -- inside --------------------------------------------------------------------------------------------------------------
def _of_dimension(cursor: Cursor, source: Source, sorting: Sorting, most: int) -> Axis:
    """Return a dimension with its words, in the vocabulary's order; of very many the most frequent."""
    if len(sorting.values) <= most:
        return Axis(sorting)
    counts = distributions.count(cursor, source, Axis(sorting)).rows
    kept = set(sorted(range(len(sorting.values)), key=lambda place: -counts[place])[:most])
    return Axis(
        replace(sorting, values=tuple(word for place, word in enumerate(sorting.values) if place in kept)),
        others=tuple(word for place, word in enumerate(sorting.values) if place not in kept),
    )


def _ranges(
    cursor: Cursor, own: Mapping[Dataset, Column | None], subject: Subject, words: Words, bars: int
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return ranges of numbers and what is between them, by all values of the data sets, so that they are the same for every filter."""
    found = [_span(cursor, dataset, subject, column, words) for dataset, column in own.items()]
    spans = [span for span in found if span is not None]
    if not spans:
        return (), ()
    low, high = min(span[0] for span in spans), max(span[3] for span in spans)
    ends = edges(low, high, min(span[1] for span in spans), max(span[2] for span in spans), bars=bars)
    return (tuple(ranges_of(ends)) if ends else (f"{plain(low)}..{plain(high)}",)), ends


def _span(
    cursor: Cursor, dataset: Dataset, subject: Subject, column: Column | None, words: Words
) -> tuple[float, float, float, float] | None:
    """Return the least value, two quantiles near the ends, and the greatest value; ``None`` where there is no value."""
    known = counts_known(dataset.pk, words, reading.revision(cursor, dataset.pk))
    if subject.kind == "measure":
        if "spreads" not in known:
            known["spreads"] = values.measures_spread(cursor, dataset.pk)[0]
        return next(
            ((one.least, one.low, one.high, one.most) for one in known["spreads"] if one.name == subject.name), None
        )
    key = ("span", subject.key)
    if column is not None and key not in known:
        known[key] = columns.span(cursor, column)
    span = known.get(key)
    return None if span is None else (span.low, span.first, span.last, span.high)


def _said(subject: Subject, value: str) -> str:
    """Return a value as people read it beside others of its subject."""
    if not subject.is_number:
        return value
    span = span_of(value)
    return figure(span[0]) if span is not None and span[0] == span[1] else said_range(value)


def _lacking(filter: SampleFilter, subject: Subject) -> SampleFilter:
    """Return a filter narrowed to the samples that have no value of a subject."""
    if subject.kind == "dimension":
        return replace(filter, lacking=(*filter.lacking, subject.name))
    if subject.kind == "column":
        return replace(filter, no_value=(*filter.no_value, subject.name))
    return replace(filter, without=(*filter.without, WITHOUT[subject.kind]))
