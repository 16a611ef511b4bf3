"""Facets: what a filter could be narrowed to, counted. Inside ``SampleStore.read()``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .conditions import MARKS, SOURCES, STANDING, STATES, Words
from .cursor import Cursor
from .database import literal
from .filters import SampleFilter, where
from .ranges import FILE_SIZE_RANGES, MEGAPIXEL_RANGES, MEGAPIXELS, Span, span_of, span_of_bytes
from .records import Count, DimensionFacet, Facets
from .tallying import BYTES, COUNTS, FACETS, place, tallies

MAX_FACET = 200  # distinct user tags, splits, categories or cameras that are listed


def facets(
    cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words, memory: dict[Any, Any] | None = None
) -> Facets:
    """Count what the filter could be narrowed to.

    What a whole data set has is looked up (see ``tallying``). A dimension's words are counted without the filter's own choice among
    them, so that the alternatives keep their counts.

    Args:
        memory: counts of this data set and these words that are known at the present :func:`revision`; grows.
    """
    source, rest = _narrowed(cursor, dataset_id, chosen, words)
    known = memory if memory is not None and source == "samples" else {}
    counter = _Counter(cursor, dataset_id, words, source, known)
    tags = counter.tags(rest)
    vocabulary = {word for of in words.values() for word in of}
    dimensions = []
    for name, of in words.items():
        wider = _without(rest, name, of)
        counted = counter.tags(wider)
        lacking = counter.summary(wider)[0] - sum(counted.get(word, 0) for word in of) + counter.excess(wider, name)
        dimensions.append(DimensionFacet(name, tuple(Count(word, counted.get(word, 0)) for word in of), lacking))
    users = sorted(((n, tag) for tag, n in tags.items() if tag not in vocabulary), key=lambda pair: (-pair[0], pair[1]))
    states = counter.summary(replace(rest, state=""))[1:5]
    sources = counter.summary(replace(rest, source=""))[5:]
    return Facets(
        total=counter.summary(rest)[0],
        dimensions=tuple(dimensions),
        user_tags=tuple(Count(tag, n) for n, tag in users[:MAX_FACET]),
        splits=counter.values("s.split", "split", replace(rest, splits=())),
        categories=counter.values("unnest(s.categories)", "category", replace(rest, categories=())),
        states=tuple(Count(state, n) for state, n in zip(STATES, states, strict=True)),
        sources=tuple(Count(source, n) for source, n in zip(SOURCES, sources, strict=True)),
        marks=counter.marks(rest),
        cameras=counter.values("s.camera", "camera", replace(rest, cameras=())),
        taken=counter.times(rest),
        megapixels=counter.ranges(MEGAPIXELS, "megapixels", MEGAPIXEL_RANGES, span_of, replace(rest, megapixels=())),
        file_sizes=counter.ranges(BYTES, "bytes", FILE_SIZE_RANGES, span_of_bytes, replace(rest, file_sizes=())),
    )


def _narrowed(cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words) -> tuple[str, SampleFilter]:
    """Do the parts of a filter that are dear to evaluate, and that no facet leaves out, once for all facets.

    Returns:
        The table to count in, and the parts of the filter that are left.
    """
    dear, rest = chosen.in_two()
    if dear.is_empty:
        return "samples", chosen
    condition, values = where(dataset_id, dear, words)
    cursor.execute(
        "create or replace temp table narrowed as select s.id, s.dataset_id, s.split, s.categories, s.missing, s.tags, "
        f"s.user_count, s.discarded, s.failed, s.width, s.height, s.bytes, s.taken, s.camera from samples s where {condition}",
        values,
    ).fetchall()
    return "narrowed", rest


class _Counter:
    """Counts for the facets of one filter; what several facets need is counted once."""

    def __init__(self, cursor: Cursor, dataset_id: int, words: Words, source: str, known: dict[Any, Any]) -> None:
        self._cursor, self._dataset_id, self._words, self._source = cursor, dataset_id, words, source
        self._known = known

    def _rows(self, select: str, chosen: SampleFilter) -> list[tuple[Any, ...]]:
        key = (select, chosen)
        if key not in self._known:
            condition, values = where(self._dataset_id, chosen, self._words)
            sql = select.replace("SAMPLES", f"{self._source} s where {condition}")
            self._known[key] = self._cursor.execute(sql, values).fetchall()
        rows: list[tuple[Any, ...]] = self._known[key]
        return rows

    def _kept(self, chosen: SampleFilter) -> dict[str, dict[str, int]] | None:
        """Return what is kept of the whole data set, where that is what is to be counted."""
        if self._source != "samples" or not chosen.is_empty:
            return None
        if "kept" not in self._known:
            self._known["kept"] = tallies(self._cursor, self._dataset_id, *FACETS)
        kept: dict[str, dict[str, int]] = self._known["kept"]
        return kept

    def tags(self, chosen: SampleFilter) -> dict[str, int]:
        if (kept := self._kept(chosen)) is not None:
            return kept["tag"]
        return dict(
            self._rows("select tag, count(*) from (select unnest(s.tags) as tag from SAMPLES) group by 1", chosen)
        )

    def summary(self, chosen: SampleFilter) -> tuple[int, ...]:
        """Return how many there are, then how many in each state, then of each source."""
        if (kept := self._kept(chosen)) is not None:
            states, sources = (
                (kept["state"].get(state, 0) for state in STATES),
                (kept["source"].get(s, 0) for s in SOURCES),
            )
            return (kept["all"].get("", 0), *states, *sources)
        (row,) = self._rows(f"select {COUNTS} from SAMPLES", chosen)
        return row

    def values(self, column: str, facet: str, chosen: SampleFilter) -> tuple[Count, ...]:
        if (kept := self._kept(chosen)) is not None:
            found = sorted((-n, value) for value, n in kept[facet].items())
            return tuple(Count(value, -n) for n, value in found[:MAX_FACET])
        rows = self._rows(
            f"select value, count(*) from (select {column} as value from SAMPLES) where value <> '' "
            f"group by 1 order by 2 desc, 1 limit {MAX_FACET}",
            chosen,
        )
        return tuple(Count(*row) for row in rows)

    def ranges(
        self, value: str, facet: str, among: Sequence[str], span: Span, chosen: SampleFilter
    ) -> tuple[Count, ...]:
        """Count how many samples lie in which of the ranges, which follow one another; empty ones are left out."""
        if (kept := self._kept(chosen)) is not None:
            found = {int(place): n for place, n in kept[facet].items()}
        else:
            select = f"select {place(value, among, span)}, count(*) from SAMPLES and {value} is not null group by 1"
            found = dict(self._rows(select, chosen))
        return tuple(Count(text, found[place]) for place, text in enumerate(among) if place in found)

    def times(self, chosen: SampleFilter) -> tuple[Count, ...]:
        """Count the years in which samples were taken; the months of a year that was chosen, or the days of a month."""
        now = chosen.taken[0] if len(chosen.taken) == 1 else ""
        within: tuple[str, ...] = ()
        if _YEAR.fullmatch(now):
            part, within, length = "date_trunc('month', s.taken)::date", (now,), 7
        elif _MONTH.match(now) and ".." not in now:
            part, within, length = "s.taken::date", (now[:7],), 10
        else:
            part, length = "date_trunc('year', s.taken)::date", 4
        kept = self._kept(replace(chosen, taken=within))
        if kept is not None and not within:
            return tuple(Count(year, n) for year, n in sorted(kept["year"].items())[:MAX_FACET])
        rows = self._rows(
            f"select {part}, count(*) from SAMPLES and s.taken is not null group by 1 order by 1 limit {MAX_FACET}",
            replace(chosen, taken=within),
        )
        return tuple(Count(day.isoformat()[:length], n) for day, n in rows)

    def marks(self, chosen: SampleFilter) -> tuple[Count, ...]:
        found = dict(
            self._rows(
                "select m.kind, count(distinct m.sample_id) from marks m join (select s.id, s.dataset_id, s.tags from SAMPLES) s "
                f"on s.id = m.sample_id where m.dataset_id = {int(self._dataset_id)} and {STANDING} group by 1",
                chosen,
            )
        )
        return tuple(Count(kind, found[kind]) for kind in MARKS if kind in found)

    def excess(self, chosen: SampleFilter, name: str) -> int:
        """Return by how much the counts of a dimension's words exceed the samples that have one.

        Only users can give a sample two words of a dimension, unless a word belongs to two dimensions.
        """
        of = self._words[name]
        shared = any(word in other for key, other in self._words.items() if key != name for word in of)
        if not shared and name not in self._dimensions_with_two_words():
            return 0
        hits = " + ".join([f"list_contains(s.tags, {literal(word)})::int" for word in of])
        rows = self._rows(f"select coalesce(sum(greatest({hits} - 1, 0)), 0) from SAMPLES", chosen)
        return int(rows[0][0])

    def _dimensions_with_two_words(self) -> set[str]:
        if "doubled" not in self._known:
            rows = self._cursor.execute(
                "select list(distinct tag) from sample_tags where dataset_id = ? and source = 'user' and ended_by is null "
                "group by sample_id having count(distinct tag) > 1",
                [self._dataset_id],
            ).fetchall()
            self._known["doubled"] = {
                name for name, of in self._words.items() if any(sum(tag in of for tag in tags) > 1 for (tags,) in rows)
            }
        doubled: set[str] = self._known["doubled"]
        return doubled


_YEAR, _MONTH = re.compile(r"\d{4}"), re.compile(r"\d{4}-\d\d")


def _without(chosen: SampleFilter, name: str, of: Sequence[str]) -> SampleFilter:
    return replace(
        chosen,
        all_of=tuple(tag for tag in chosen.all_of if tag not in of),
        any_of=() if any(tag in of for tag in chosen.any_of) else chosen.any_of,
        none_of=tuple(tag for tag in chosen.none_of if tag not in of),
        lacking=tuple(other for other in chosen.lacking if other != name),
    )
