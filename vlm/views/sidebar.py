"""The filter sidebar: every control is a link to the place that it leads to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from vlm.samples import SOURCES, STATES, Count, DimensionFacet, Facets, SampleFilter
from vlm.views.place import Place

LISTED = 100  # categories and user tags; the search field finds the rest


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a facet that is on or off."""

    label: str
    count: int
    percent: int
    chosen: bool
    url: str


@dataclass(frozen=True, slots=True)
class WordChoice:
    """One word of a tag facet. ``mode`` is “all”, “any”, “none” or empty; each address switches its mode on or off."""

    word: str
    count: int
    percent: int
    mode: str
    require: str
    one_of: str
    exclude: str


@dataclass(frozen=True, slots=True)
class WordGroup:
    name: str
    words: tuple[WordChoice, ...]
    lacking: Choice | None


@dataclass(frozen=True, slots=True)
class Sidebar:
    dimensions: tuple[WordGroup, ...]
    user_tags: WordGroup
    states: tuple[Choice, ...]
    sources: tuple[Choice, ...]
    splits: tuple[Choice, ...]
    categories: tuple[Choice, ...]


def sidebar(dataset_id: int, place: Place, facets: Facets) -> Sidebar:
    """Return the sidebar of ``place``, with the counts of ``facets``."""
    draw = _Drawer(dataset_id, place, max(facets.total, 1))
    return Sidebar(
        dimensions=tuple(draw.dimension(facet) for facet in facets.dimensions),
        user_tags=WordGroup("", tuple(draw.word(count, ()) for count in facets.user_tags[:LISTED]), None),
        states=draw.single("state", STATES, facets.states, place.filter.state),
        sources=draw.single("source", SOURCES, facets.sources, place.filter.source),
        splits=draw.several("splits", facets.splits, place.filter.splits),
        categories=draw.several("categories", facets.categories[:LISTED], place.filter.categories),
    )


@dataclass(frozen=True, slots=True)
class _Drawer:
    dataset_id: int
    place: Place
    total: int

    def percent(self, count: int) -> int:
        return min(100, -(-100 * count // self.total))

    def dimension(self, facet: DimensionFacet) -> WordGroup:
        siblings = tuple(count.value for count in facet.words)
        chosen = facet.name in self.place.filter.lacking
        lacking = Choice(
            "no word",
            facet.lacking,
            self.percent(facet.lacking),
            chosen,
            self.place.filtered(lacking=_toggled(self.place.filter.lacking, facet.name)).url(self.dataset_id),
        )
        return WordGroup(facet.name, tuple(self.word(count, siblings) for count in facet.words), lacking)

    def word(self, count: Count, siblings: Sequence[str]) -> WordChoice:
        """Draw a word. An image has one word of a dimension, so requiring one lets go of its ``siblings``."""
        now, word = self.place.filter, count.value
        mode = next((m for m in ("all", "any", "none") if word in getattr(now, f"{m}_of")), "")
        free = replace(
            now,
            all_of=_without(now.all_of, word),
            any_of=_without(now.any_of, word),
            none_of=_without(now.none_of, word),
        )

        def to(wanted: str, change: Callable[[SampleFilter], SampleFilter]) -> str:
            target = free if mode == wanted else change(free)
            return replace(self.place, filter=target).url(self.dataset_id)

        return WordChoice(
            word,
            count.count,
            self.percent(count.count),
            mode,
            require=to("all", lambda f: replace(f, all_of=(*_without(f.all_of, *siblings), word))),
            one_of=to("any", lambda f: replace(f, any_of=(*f.any_of, word))),
            exclude=to("none", lambda f: replace(f, none_of=(*f.none_of, word))),
        )

    def single(self, key: str, labels: dict[str, str], counts: Iterable[Count], now: str) -> tuple[Choice, ...]:
        known = {count.value: count.count for count in counts}
        return tuple(
            Choice(
                label,
                known.get(value, 0),
                self.percent(known.get(value, 0)),
                value == now,
                self.place.filtered(**{key: "" if value == now else value}).url(self.dataset_id),
            )
            for value, label in labels.items()
        )

    def several(self, key: str, counts: Iterable[Count], now: tuple[str, ...]) -> tuple[Choice, ...]:
        return tuple(
            Choice(
                count.value,
                count.count,
                self.percent(count.count),
                count.value in now,
                self.place.filtered(**{key: _toggled(now, count.value)}).url(self.dataset_id),
            )
            for count in counts
            if count.value
        )


def _toggled(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    return _without(values, value) if value in values else (*values, value)


def _without(values: tuple[str, ...], *dropped: str) -> tuple[str, ...]:
    return tuple(value for value in values if value not in dropped)
