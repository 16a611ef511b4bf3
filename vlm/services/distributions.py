"""Distributions: how often each word and value is there, two of them against each other, and two sets of images side by side.

The statistics are ``vlm.statistics.tables``; here they meet the store, and every figure gets the filter that shows its images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from vlm.errors import Refusal
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Cursor, SampleFilter, distributions, reading, where
from vlm.samples.distributions import BOTH, FIRST, SECOND, Axis, Counted, Source
from vlm.services import subjects as sorted_by
from vlm.services.samples import counts_known
from vlm.services.subjects import Sides, Subject, Value
from vlm.statistics.histograms import BARS
from vlm.statistics.tables import CrossTable, ShareDifference, cross, share_differences

MOST_SUBJECTS = 30  # that are shown together
MOST_WORDS = 100  # of a dimension, which cannot have more, and of own tags; the rarer ones are counted together
MOST_VALUES = 30  # of all else
MOST_ROWS = 24  # of a table of two, and as many columns
FEW_BARS = 8  # of numbers in a table of two


class NotCompared(Refusal):
    """Two things that cannot be set against each other."""

    title = "This cannot be compared"
    status = 409


@dataclass(frozen=True, slots=True)
class Share:
    """A value with the images that have it."""

    value: Value
    images: int
    share: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often each value of a subject is there among ``images``."""

    subject: Subject
    images: int
    rows: tuple[Share, ...]

    @property
    def several(self) -> bool:
        """Whether an image can have more than one value."""
        return sum(row.images for row in self.rows) > self.images

    @property
    def has_values(self) -> bool:
        return any(row.images for row in self.rows if row.value.what != "none")

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.subject.key,
            "name": self.subject.title,
            "several": self.several,
            "values": [row.value.to_json() | {"images": row.images, "share": round(row.share, 6)} for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Distributions:
    """The distributions of a filter. ``left_out`` are subjects beyond the most that are shown together."""

    dataset: int
    filter: SampleFilter
    images: int
    shown: tuple[Distribution, ...]
    left_out: tuple[Subject, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "filter": self.filter.to_query(),
            "images": self.images,
            "distributions": [one.to_json() for one in self.shown],
            "left_out": [subject.key for subject in self.left_out],
        }


@dataclass(frozen=True, slots=True)
class Crossed:
    """Two subjects against each other. ``filters`` show the images of each cell, if it has any and “others” are not in it."""

    dataset: int
    filter: SampleFilter
    by: Subject
    across: Subject
    rows: tuple[Value, ...]
    columns: tuple[Value, ...]
    table: CrossTable
    filters: tuple[tuple[SampleFilter | None, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "filter": self.filter.to_query(),
            "by": self.by.key,
            "across": self.across.key,
            "row_values": [value.to_json() for value in self.rows],
            "column_values": [value.to_json() for value in self.columns],
            "filters": [[None if one is None else one.to_query() for one in row] for row in self.filters],
            **self.table.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One of two sets of images that are compared."""

    dataset: Dataset
    filter: SampleFilter
    images: int

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.pk,
            "name": self.dataset.name,
            "filter": self.filter.to_query(),
            "images": self.images,
        }


@dataclass(frozen=True, slots=True)
class Compared:
    """A value in both sets, with the images of each and the filters that show them."""

    subject: Subject
    values: tuple[Value, Value]
    images: tuple[int, int]
    difference: ShareDifference

    @property
    def label(self) -> str:
        return self.values[0].label

    def to_json(self) -> dict[str, Any]:
        first, second = (value.to_json() for value in self.values)
        told = {name: value for name, value in self.difference.to_json().items() if name != "word"}
        return {
            "value": first["value"],
            "what": first["what"],
            "images": list(self.images),
            "filters": [first["filter"], second["filter"]],
            **told,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of images side by side.

    Attributes:
        common: images that are in both.
        tried: values compared, for all of which the differences are corrected.
        shown: subjects with their values.
        asked: subjects that were left out since a filter asks for values of theirs, and
        left_out: since only one of the data sets has them, or they are beyond the most that are shown together.
    """

    first: Side
    second: Side
    common: int
    tried: int
    shown: tuple[tuple[Subject, tuple[Compared, ...]], ...]
    asked: tuple[Subject, ...]
    left_out: tuple[Subject, ...]

    @property
    def relation(self) -> Literal["apart", "first within", "second within", "overlapping"]:
        """How the two sets lie to each other, which decides what a difference means."""
        if not self.common:
            return "apart"
        if self.common == self.first.images:
            return "first within"
        return "second within" if self.common == self.second.images else "overlapping"

    @property
    def clear(self) -> tuple[Compared, ...]:
        """Return the values whose shares differ beyond chance, the largest difference first."""
        found = [one for _, rows in self.shown for one in rows if one.difference.sign]
        return tuple(sorted(found, key=lambda one: -abs(one.difference.difference)))

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "common": self.common,
            "relation": self.relation,
            "tried": self.tried,
            "clear": len(self.clear),
            "distributions": [
                {"by": subject.key, "name": subject.title, "values": [one.to_json() for one in rows]}
                for subject, rows in self.shown
            ],
            "asked": [subject.key for subject in self.asked],
            "left_out": [subject.key for subject in self.left_out],
        }


def subjects(*, dataset: Dataset) -> list[Subject]:
    """Return what the images of a data set can be sorted by, the vocabulary's dimensions first."""
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return sorted_by.there_are(cursor, dataset, words)


def overview(*, dataset: Dataset, filter: SampleFilter | None = None, by: Sequence[str] = ()) -> Distributions:
    """Count the values of what the images of a filter can be sorted by: of all that have any, or of those named.

    Kept in memory until the data set changes.

    Raises:
        NoSuchSubject: one that is named is not there.
        FilterError: the filter cannot be read.
    """
    filter, words = filter or SampleFilter(), words_by_dimension()
    sides, shown, key = [(dataset, filter)], [], ("distributions", filter, tuple(by))
    with sample_store().read() as cursor:
        known = counts_known(dataset.pk, words, reading.revision(cursor, dataset.pk))
        if key in known:
            kept: Distributions = known[key]
            return kept
        there = sorted_by.there_are(cursor, dataset, words)
        chosen = [sorted_by.named(there, name) for name in dict.fromkeys(by)] or there
        source = distributions.within(cursor, dataset.pk, filter, words)
        images = distributions.size(cursor, source)
        sources = _Sources(cursor, source)
        for subject in chosen[:MOST_SUBJECTS]:
            most = MOST_WORDS if subject.is_tags else MOST_VALUES
            axis = sorted_by.axis_of(cursor, sources.of(subject), sides, subject, words, most=most, bars=BARS)
            counts = distributions.count(cursor, sources.of(subject), axis).rows.tolist()
            rows = sorted_by.values_of(axis, subject, filter, counts)
            shares = (Share(row, counts[row.place], counts[row.place] / max(1, images)) for row in rows)
            shown.append(Distribution(subject, images, tuple(shares)))
    some = tuple(one for one in shown if by or one.has_values or one.subject.kind == "dimension")
    known[key] = kept = Distributions(dataset.pk, filter, images, some, tuple(chosen[MOST_SUBJECTS:]))
    return kept


def crossed(*, dataset: Dataset, by: str, across: str, filter: SampleFilter | None = None) -> Crossed:
    """Count the values of two subjects against each other, with what independence would give.

    Raises:
        NoSuchSubject: one of them is not there.
        NotCompared: they are the same.
        FilterError: the filter cannot be read.
    """
    filter, words = filter or SampleFilter(), words_by_dimension()
    sides = [(dataset, filter)]
    with sample_store().read() as cursor:
        there = sorted_by.there_are(cursor, dataset, words)
        ours, theirs = sorted_by.named(there, by), sorted_by.named(there, across)
        if ours == theirs:
            raise NotCompared(f"{ours.title} against itself says nothing: name two different ones.")
        source = distributions.within(cursor, dataset.pk, filter, words)
        first, second = (
            sorted_by.axis_of(cursor, source, sides, subject, words, most=MOST_ROWS, bars=FEW_BARS)
            for subject in (ours, theirs)
        )
        counted = distributions.count(cursor, source, first, second)
    rows = _there(first, ours, filter, counted.rows.tolist())
    columns = _there(second, theirs, filter, counted.columns.tolist())
    high, wide = [row.place for row in rows], [column.place for column in columns]
    table = cross(
        counted.cells[high][:, wide], rows=counted.rows[high], columns=counted.columns[wide], total=counted.total
    )
    filters = tuple(
        tuple(
            sorted_by.within(row.filter, second, theirs, column)
            if row.filter is not None and column.filter is not None and table.counts[i][j]
            else None
            for j, column in enumerate(columns)
        )
        for i, row in enumerate(rows)
    )
    return Crossed(dataset.pk, filter, ours, theirs, rows, columns, table, filters)


def comparison(
    *,
    dataset: Dataset,
    filter: SampleFilter | None = None,
    against: SampleFilter | None = None,
    other: Dataset | None = None,
    by: Sequence[str] = (),
) -> Comparison:
    """Compare the shares of values in two filters of a data set, or of two.

    Args:
        against: the second filter; everything by default.
        other: the second data set; the same by default.
        by: subjects to compare; by default all that both data sets have, but those that one of the filters asks for.

    Raises:
        NoSuchSubject: a subject that is named is not in both data sets.
        NotCompared: one of the filters shows nothing, or both show the same images.
        FilterError: a filter cannot be read.
    """
    words, second = words_by_dimension(), other or dataset
    sides = [(dataset, filter or SampleFilter()), (second, against or SampleFilter())]
    with sample_store().read() as cursor:
        both, left_out = sorted_by.in_both(cursor, dataset, second, words)
        asked = [one for one in both if any(sorted_by.asked_by(its, one, words) for _, its in sides)]
        chosen = [sorted_by.named(both, name) for name in dict.fromkeys(by)] or [
            one for one in both if one not in asked
        ]
        source = distributions.side_by_side(cursor, *(where(one.pk, its, words) for one, its in sides))
        alone, other_alone, common = distributions.sides(cursor, source)
        totals = alone + common, other_alone + common
        _check(sides, totals, common)
        sources, counted = _Sources(cursor, source), []
        for subject in chosen[:MOST_SUBJECTS]:
            of = sources.of(subject)
            axis = sorted_by.axis_of(cursor, of, sides, subject, words, most=MOST_VALUES, bars=FEW_BARS)
            counted.append((subject, axis, distributions.count_sides(cursor, of, axis)))
    rows = _compared(counted, sides, totals, common)
    shown = ((subject, tuple(one for one in rows if one.subject == subject)) for subject in chosen)
    return Comparison(
        first=Side(dataset, sides[0][1], totals[0]),
        second=Side(second, sides[1][1], totals[1]),
        common=common,
        tried=len(rows),
        shown=tuple((subject, its) for subject, its in shown if any(one.values[0].what != "none" for one in its)),
        asked=() if by else tuple(asked),
        left_out=() if by else (*left_out, *chosen[MOST_SUBJECTS:]),
    )


# -- inside --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Sources:
    """What several subjects are counted of: made once for all that have their tags, or their measures, in common."""

    cursor: Cursor
    whole: Source

    def of(self, subject: Subject) -> Source:
        if subject.is_tags:
            return self._tags
        return self._measures if subject.kind == "measure" else self.whole

    @cached_property
    def _tags(self) -> Source:
        return distributions.by_tags(self.cursor, self.whole)

    @cached_property
    def _measures(self) -> Source:
        return distributions.with_measures(self.cursor, self.whole)


def _there(axis: Axis, subject: Subject, filter: SampleFilter, counts: Sequence[int]) -> tuple[Value, ...]:
    """Return the rows of a table that have any image."""
    return tuple(value for value in sorted_by.values_of(axis, subject, filter, counts) if counts[value.place])


def _check(sides: Sides, totals: tuple[int, int], common: int) -> None:
    for (dataset, filter), images in zip(sides, totals, strict=True):
        if not images:
            of = "" if filter.is_empty else f" of the filter {filter.to_query()}"
            raise NotCompared(
                f"{dataset.name} has no image{of}, so there is nothing to compare. Choose another filter."
            )
    if common == totals[0] == totals[1]:
        raise NotCompared("Both filters show the same images, so there is nothing to compare. Choose another filter.")


def _compared(
    counted: Sequence[tuple[Subject, Axis, Counted]], sides: Sides, totals: tuple[int, int], common: int
) -> list[Compared]:
    """Compare all values of all subjects that either set has, together, so that each is corrected for all the others."""
    rows: list[tuple[Subject, tuple[Value, Value], tuple[int, int, int]]] = []
    for subject, axis, table in counted:
        counts = table.rows.tolist()
        both = (sorted_by.values_of(axis, subject, filter, counts) for _, filter in sides)
        for first, second in zip(*both, strict=True):
            if counts[first.place]:
                cells = table.cells[first.place].tolist()
                rows.append((subject, (first, second), (cells[FIRST], cells[SECOND], cells[BOTH])))
    cells = np.array([its for _, _, its in rows], dtype=np.int64).reshape(-1, 3)
    first, second, shared = cells[:, FIRST] + cells[:, BOTH], cells[:, SECOND] + cells[:, BOTH], cells[:, BOTH]
    names = [values[0].label for _, values, _ in rows]
    found = share_differences(first, second, names, totals=totals, common=shared, common_total=common)
    told = []
    for place, (subject, (one, other), _) in enumerate(rows):
        images = int(first[place]), int(second[place])
        shown = one if images[0] else replace(one, filter=None), other if images[1] else replace(other, filter=None)
        told.append(Compared(subject, shown, images, found[place]))
    return told
