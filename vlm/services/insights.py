"""Insights: which tags, splits, categories and columns explain a score.

The statistics are ``vlm.statistics``; here they meet the store, and every figure gets the filter that shows its images.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm.errors import Refusal
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Column, Cursor, SampleFilter, columns, insights, reading, where
from vlm.samples.conditions import column_of
from vlm.samples.insights import Sorting
from vlm.samples.ranges import overlap, said_range
from vlm.services import accuracy
from vlm.services.columns import unknown
from vlm.statistics.slices import SUPPORT, TagQuality, work
from vlm.statistics.slices import explain as explained

AMONG = {"tags": "tags", "split": "splits", "category": "categories", "column": "other columns"}
MOST_FEATURES = 120
MOST_CATEGORIES = 30
MOST_WORK = 400_000_000  # words of 64 samples that are gone through: some seconds
KEPT = 8  # explanations in memory
FEWEST = 30  # samples with a score
SMALLEST = 8  # samples of a slice in a small data set; in one of 300 and more it is vlm.statistics.slices.SUPPORT


class NotExplained(Refusal):
    """A score that nothing can be said about."""

    title = "This cannot be explained"
    status = 409
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that samples have: what it is called, what it is of, and the filter that asks for it."""

    name: str
    of: str
    sorting: Sorting
    value: str

    def within(self, filter: SampleFilter) -> SampleFilter:
        """Return the filter narrowed to the samples that have it."""
        return narrowed(filter, self.sorting, self.value)


@dataclass(frozen=True, slots=True)
class Found:
    """A slice with its figures. ``hits`` is how many of its samples are flagged, ``None`` for a number.

    ``filter`` shows its samples, ``hit_filter`` those of them that are flagged.
    """

    features: tuple[Feature, ...]
    samples: int
    hits: int | None
    value: float
    rest: float
    lift: float | None
    difference: float
    low: float
    high: float
    discovery_rate: float
    corrected: float | None
    filter: SampleFilter
    hit_filter: SampleFilter | None
    folded: tuple["Found", ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "features": [{"name": one.name, "of": one.of} for one in self.features],
            "filter": self.filter.to_query(),
            "samples": self.samples,
            "hits": self.hits,
            **{
                key: None if (value := getattr(self, key)) is None else round(value, 6)
                for key in ("value", "rest", "lift", "difference", "low", "high", "corrected")
            },
            "discovery_rate": self.discovery_rate,
            "folded": [other.to_json() for other in self.folded],
        }


@dataclass(frozen=True)
class Explained:
    """What goes with a score.

    Attributes:
        score: the column, and of a column of words the word after a colon.
        samples: those of the filter that have a score.
        base: the share of flagged ones, or the mean.
        tried: slices that were tested, all of which the discovery rates are corrected for.
        features: how many were tried alone, and ``longest`` how many at most together.
        left_out: features beyond the most that are tried.
        support: fewest samples of a slice, and outside of it.
        measured: dimension → the share of its tags that is right, where that was measured.
    """

    dataset: int
    score: str
    column: Column
    lower: bool
    filter: SampleFilter
    samples: int
    base: float
    tried: int
    features: int
    longest: int
    left_out: int
    support: int
    measured: dict[str, float]
    slices: tuple[Found, ...]

    @property
    def is_flag(self) -> bool:
        return self.column.kind != "number"

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "score": self.score,
            "kind": "flag" if self.is_flag else "number",
            "lower": self.lower,
            "filter": self.filter.to_query(),
            "samples": self.samples,
            "base": round(self.base, 6),
            "tried": self.tried,
            "features": self.features,
            "longest": self.longest,
            "left_out": self.left_out,
            "support": self.support,
            "right_tags": {name: round(value, 6) for name, value in self.measured.items()},
            "slices": [found.to_json() for found in self.slices],
        }


_kept: dict[tuple[Any, ...], Explained] = {}
_kept_lock = threading.Lock()


def explain(
    *,
    dataset: Dataset,
    score: str,
    filter: SampleFilter | None = None,
    lower: bool = False,
    among: Sequence[str] = tuple(AMONG),
) -> Explained:
    """Find what raises a score: words, splits, categories and values of other columns, alone, in pairs and triples.

    Kept in memory until the data set changes.

    Args:
        score: name of a column of numbers or flags; ``NAME:WORD`` for a word of a column of words.
        lower: find what lowers it.
        among: which of ``AMONG`` may explain it.

    Raises:
        NoSuchColumn: there is no such column.
        NotExplained: a column of words without a word, or too few samples.
        FilterError: the filter cannot be read.
    """
    filter = filter or SampleFilter()
    words = words_by_dimension()
    among = tuple(kind for kind in AMONG if kind in among)
    with sample_store().read() as cursor:
        column, word = _score(cursor, dataset, score)
        known = (
            dataset.pk,
            reading.revision(cursor, dataset.pk),
            tuple(words.items()),
            column,
            word,
            filter,
            lower,
            among,
        )
        if known in _kept:
            return _kept[known]
        target = where(dataset.pk, filter, words)
        asked = {column_of(part) for part in filter.columns} | {column.name}
        sortings = list(_candidates(cursor, dataset.pk, target, words, among, asked))
        chosen, left_out = _cut(sortings)
        found = insights.features(cursor, target, column, chosen, word=word)
    if len(found.scores) < FEWEST:
        raise NotExplained(
            f"Only {len(found.scores):,} of these images have a value of {column.name}; {FEWEST} are needed to say anything."
        )
    is_flag = column.kind != "number"
    values: Any = found.scores > 0.5 if is_flag else found.scores
    features = [feature for sorting in chosen for feature in _features(sorting)]
    longest = _longest(chosen, len(values), is_flag)
    measured, quality = _quality(dataset, features)
    support = min(SUPPORT, max(SMALLEST, len(values) // 10))
    result = explained(found.has, values, support=support, longest=longest, lower=lower, quality=quality)
    base = filter if len(values) == _count(dataset, filter) else _with_score(filter, column)
    hits = narrowed(filter, _flag_sorting(column), word or "yes") if is_flag else None
    told = Explained(
        dataset=dataset.pk,
        score=score,
        column=column,
        lower=lower,
        filter=filter,
        samples=result.samples,
        base=result.base,
        tried=result.tested,
        features=len(features),
        longest=longest,
        left_out=left_out,
        support=support,
        measured=measured,
        slices=tuple(_found(one, features, base, hits) for one in result.slices),
    )
    with _kept_lock:
        if len(_kept) >= KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[known] = told
    return told


def narrowed(filter: SampleFilter, sorting: Sorting, value: str) -> SampleFilter:
    """Return a filter narrowed to the samples that have a value."""
    if sorting.kind in ("dimension", "own"):
        return replace(filter, all_of=(*filter.all_of, value))
    if sorting.kind == "split":
        return replace(filter, splits=(value,))
    if sorting.kind == "category":
        return replace(filter, every_category=(*filter.every_category, value))
    if sorting.kind == "measure":
        return replace(filter, measures=(*filter.measures, f"{sorting.name}:{value}"))
    asked = [part.partition(":")[2] for part in filter.columns if column_of(part) == sorting.name]
    common = [both for one in asked if (both := overlap(one, value))] or [value]
    others = tuple(part for part in filter.columns if column_of(part) != sorting.name)
    return replace(filter, columns=(*others, *(f"{sorting.name}:{both}" for both in common)))


def title(sorting: Sorting, value: str) -> str:
    """Return a value as people read it beside others."""
    if sorting.column is None:
        return value
    return f"{sorting.name} {said_range(value)}" if sorting.column.kind == "number" else f"{sorting.name}: {value}"


# -- inside --------------------------------------------------------------------------------------------------------------
def _score(cursor: Cursor, dataset: Dataset, score: str) -> tuple[Column, str]:
    there = columns.columns(cursor, dataset.pk)
    name, _, word = score.partition(":")
    column = next((one for one in there if one.name == name), None)
    if column is None:
        raise unknown(name, there)
    if (column.kind == "word") != bool(word):
        raise NotExplained(
            f"{name} holds words. Say which one: {name}:WORD."
            if column.kind == "word"
            else f"{name} is no column of words, so it is asked for by its name alone."
        )
    return column, word


def _candidates(
    cursor: Cursor,
    dataset_id: int,
    target: tuple[str, list[Any]],
    words: dict[str, tuple[str, ...]],
    among: Sequence[str],
    asked: set[str],
) -> Iterator[Sorting]:
    """Yield what may explain a score, the vocabulary first."""
    if "tags" in among:
        yield from (Sorting("dimension", name, of) for name, of in words.items())
        vocabulary = tuple(dict.fromkeys(word for of in words.values() for word in of))
        own = insights.values_there(cursor, target, Sorting("own", "own tags", vocabulary))
        yield Sorting("own", "own tags", own)
    if "split" in among:
        yield Sorting("split", "split", insights.values_there(cursor, target, Sorting("split", "split", ())))
    if "column" in among:
        for column in columns.columns(cursor, dataset_id):
            if column.name in asked:
                continue
            if column.kind == "number":
                yield insights.by_ranges(column, insights.quarters(cursor, target, column))
            elif column.kind == "boolean":
                yield Sorting("column", column.name, ("yes", "no"), column)
            else:
                bare = Sorting("column", column.name, (), column)
                yield replace(bare, values=insights.values_there(cursor, target, bare, limit=MOST_CATEGORIES))
    if "category" in among:
        bare = Sorting("category", "category", ())
        yield replace(bare, values=insights.values_there(cursor, target, bare, limit=MOST_CATEGORIES))


def _cut(sortings: Sequence[Sorting]) -> tuple[list[Sorting], int]:
    """Return at most ``MOST_FEATURES`` values in all, and how many were left out."""
    chosen, room, left_out = [], MOST_FEATURES, 0
    for sorting in sortings:
        values = sorting.values[:room]
        left_out += len(sorting.values) - len(values)
        room -= len(values)
        if values:
            chosen.append(replace(sorting, values=values))
    return chosen, left_out


def _longest(sortings: Sequence[Sorting], samples: int, is_flag: bool) -> int:
    """Return how many features can be looked at together in some seconds."""
    several = ("own", "category")  # of which a sample has any number
    groups = [
        size for one in sortings for size in ([1] * len(one.values) if one.kind in several else [len(one.values)])
    ]
    enough = (length for length in (3, 2) if work(groups, samples, flag=is_flag, longest=length) <= MOST_WORK)
    return next(enough, 1)


def _features(sorting: Sorting) -> list[Feature]:
    return [Feature(title(sorting, value), sorting.name, sorting, value) for value in sorting.values]


def _quality(dataset: Dataset, features: Sequence[Feature]) -> tuple[dict[str, float], dict[int, TagQuality]]:
    """Return per dimension the share of right tags, and per feature how right it is, where labels say so."""
    measured: dict[str, float] = {}
    quality: dict[int, TagQuality] = {}
    names = {feature.of for feature in features if feature.sorting.kind == "dimension"}
    with sample_store().read() as cursor:
        labelled = {label.dimension for label in reading.labels(cursor, dataset.pk) if label.probability is not None}
    for name in sorted(names & labelled):
        evaluation = accuracy.evaluate(dataset=dataset, dimension=name).evaluation
        if evaluation is None or evaluation.accuracy is None:
            continue
        measured[name] = evaluation.accuracy.value
        of = {word.word: word for word in evaluation.words}
        for place, feature in enumerate(features):
            word = of.get(feature.value) if feature.of == name and feature.sorting.kind == "dimension" else None
            if word is not None and word.precision is not None and word.recall is not None:
                quality[place] = TagQuality(word.precision.value, word.recall.value)
    return measured, quality


def _found(one: Any, features: Sequence[Feature], base: SampleFilter, hits: SampleFilter | None) -> Found:
    members = tuple(features[place] for place in one.features)
    shown, hit = base, hits
    for feature in members:
        shown = feature.within(shown)
        hit = feature.within(hit) if hit is not None else None
    return Found(
        features=members,
        samples=one.samples,
        hits=None if hits is None else round(one.value * one.samples),
        value=one.value,
        rest=one.rest,
        lift=one.lift,
        difference=one.difference,
        low=one.low,
        high=one.high,
        discovery_rate=one.discovery_rate,
        corrected=one.corrected,
        filter=shown,
        hit_filter=hit,
        folded=tuple(_found(other, features, base, hits) for other in one.folded),
    )


def _count(dataset: Dataset, filter: SampleFilter) -> int:
    words = words_by_dimension()
    with sample_store().read() as cursor:
        return reading.count(cursor, dataset.pk, filter, words)


def _flag_sorting(column: Column) -> Sorting:
    return Sorting("column", column.name, (), column)


def _with_score(filter: SampleFilter, column: Column) -> SampleFilter:
    """Return the filter narrowed to the samples that have a value of the column."""
    return replace(filter, has_value=tuple(dict.fromkeys((*filter.has_value, column.name))))
