"""The filter sidebar: every control is a link to the place that it leads to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vlm.samples import SOURCES, STATES, Count, DimensionFacet, Facets, SampleFilter
from vlm.samples.conditions import MARKS
from vlm.samples.ranges import said_bytes, said_range
from vlm.views.place import Place

FILE_RANGES = {  # fields of the filter that the form of ranges writes
    "widths": "width in pixels",
    "heights": "height in pixels",
    "megapixels": "megapixels",
    "file_sizes": "file size, such as 500 kB",
    "taken": "day taken, such as 2024-05-01",
}
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
    note: str = ""


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
    marks: tuple[Choice, ...]
    cameras: tuple[Choice, ...]
    taken: tuple[Choice, ...]
    megapixels: tuple[Choice, ...]
    file_sizes: tuple[Choice, ...]


def sidebar(dataset_id: int, place: Place, facets: Facets, notes: Mapping[str, str]) -> Sidebar:
    """Return the sidebar of ``place``, with the counts of ``facets``; ``notes`` say what tags of one's own mean."""
    draw = _Drawer(dataset_id, place)
    return Sidebar(
        dimensions=tuple(draw.dimension(facet) for facet in facets.dimensions),
        user_tags=WordGroup(
            "",
            tuple(
                replace(choice, note=notes.get(choice.word, "")) for choice in draw.words(facets.user_tags[:LISTED], ())
            ),
            None,
        ),
        states=draw.single("state", STATES, facets.states, place.filter.state),
        sources=draw.single("source", SOURCES, facets.sources, place.filter.source),
        splits=draw.several("splits", facets.splits, place.filter.splits),
        categories=draw.several("categories", facets.categories[:LISTED], place.filter.categories),
        marks=draw.marks(facets.marks, place.filter.marks),
        cameras=draw.several("cameras", facets.cameras[:LISTED], place.filter.cameras),
        taken=draw.times(facets.taken, place.filter.taken),
        megapixels=draw.several(
            "megapixels", facets.megapixels, place.filter.megapixels, lambda text: f"{said_range(text)} MP"
        ),
        file_sizes=draw.several("file_sizes", facets.file_sizes, place.filter.file_sizes, said_bytes),
    )


@dataclass(frozen=True, slots=True)
class _Drawer:
    dataset_id: int
    place: Place

    def dimension(self, facet: DimensionFacet) -> WordGroup:
        siblings = tuple(count.value for count in facet.words)
        scale = _scale([*facet.words, Count("", facet.lacking)])
        free = _let_go(self.place.filter, facet.name, siblings)
        chosen = facet.name in self.place.filter.lacking
        lacking = Choice(
            "no word",
            facet.lacking,
            _percent(facet.lacking, scale),
            chosen,
            self._to(
                self.place.filtered(lacking=_without(self.place.filter.lacking, facet.name)).filter
                if chosen
                else replace(free, lacking=(*free.lacking, facet.name))
            ),
        )
        return WordGroup(facet.name, self.words(facet.words, siblings, scale, facet.name), lacking)

    def words(
        self, counts: Sequence[Count], siblings: Sequence[str], scale: int = 0, name: str = ""
    ) -> tuple[WordChoice, ...]:
        scale = scale or _scale(counts)
        return tuple(self.word(count, siblings, scale, name) for count in counts)

    def word(self, count: Count, siblings: Sequence[str], scale: int, name: str) -> WordChoice:
        """Draw a word. An image has one word of a dimension, so requiring one lets go of whatever else is asked of it.

        That is how the word was counted, too: its link leads to as many images as stand beside it.
        """
        now, word = self.place.filter, count.value
        mode = next((m for m in ("all", "any", "none") if word in getattr(now, f"{m}_of")), "")
        free = replace(
            now,
            all_of=_without(now.all_of, word),
            any_of=_without(now.any_of, word),
            none_of=_without(now.none_of, word),
        )

        def to(wanted: str, change: Callable[[SampleFilter], SampleFilter]) -> str:
            return self._to(free if mode == wanted else change(free))

        return WordChoice(
            word,
            count.count,
            _percent(count.count, scale),
            mode,
            require=to("all", lambda f: _requiring(_let_go(now, name, siblings) if siblings else f, word)),
            one_of=to("any", lambda f: replace(f, any_of=(*f.any_of, word))),
            exclude=to("none", lambda f: replace(f, none_of=(*f.none_of, word))),
        )

    def _to(self, target: SampleFilter) -> str:
        return replace(self.place, filter=target).url(self.dataset_id)

    def single(self, key: str, labels: dict[str, str], counts: Iterable[Count], now: str) -> tuple[Choice, ...]:
        known = {count.value: count.count for count in counts}
        scale = max([1, *known.values()])
        return tuple(
            Choice(
                label,
                known.get(value, 0),
                _percent(known.get(value, 0), scale),
                value == now,
                self.place.filtered(**{key: "" if value == now else value}).url(self.dataset_id),
            )
            for value, label in labels.items()
        )

    def several(
        self, key: str, counts: Sequence[Count], now: tuple[str, ...], label: Callable[[str], str] = str
    ) -> tuple[Choice, ...]:
        scale = _scale(counts)
        return tuple(
            Choice(
                label(count.value),
                count.count,
                _percent(count.count, scale),
                count.value in now,
                self.place.filtered(**{key: _toggled(now, count.value)}).url(self.dataset_id),
            )
            for count in counts
            if count.value
        )

    def times(self, counts: Sequence[Count], now: tuple[str, ...]) -> tuple[Choice, ...]:
        """Draw years, or what lies in the one that was chosen: each leads into itself, and out of it once it is chosen."""
        scale = _scale(counts)

        def choice(count: Count) -> Choice:
            chosen = count.value in now
            outside = (count.value[:-3],) if len(count.value) > 4 else ()
            url = self.place.filtered(taken=outside if chosen else (count.value,)).url(self.dataset_id)
            return Choice(count.value, count.count, _percent(count.count, scale), chosen, url)

        return tuple(map(choice, counts))

    def marks(self, counts: Sequence[Count], now: tuple[str, ...]) -> tuple[Choice, ...]:
        """Draw what was found about the samples; of a kind that is chosen also where there is none."""
        known = {count.value: count.count for count in counts}
        scale = _scale(counts)
        return tuple(
            Choice(
                label,
                known.get(kind, 0),
                _percent(known.get(kind, 0), scale),
                kind in now,
                self.place.filtered(marks=_toggled(now, kind)).url(self.dataset_id),
            )
            for kind, label in MARKS.items()
            if kind in known or kind in now
        )


def _scale(counts: Iterable[Count]) -> int:
    """Return what fills a bar: the greatest count of the group. Under a filter a group’s counts are of several results."""
    return max([1, *(count.count for count in counts)])


def _percent(count: int, scale: int) -> int:
    return min(100, -(-100 * count // scale))


def _let_go(now: SampleFilter, name: str, words: Sequence[str]) -> SampleFilter:
    """Return the filter without what it asks about one dimension."""
    return replace(
        now,
        all_of=_without(now.all_of, *words),
        any_of=() if any(word in words for word in now.any_of) else now.any_of,
        none_of=_without(now.none_of, *words),
        lacking=_without(now.lacking, name),
    )


def _requiring(now: SampleFilter, word: str) -> SampleFilter:
    return replace(now, all_of=(*now.all_of, word))


def _toggled(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    return _without(values, value) if value in values else (*values, value)


def _without(values: tuple[str, ...], *dropped: str) -> tuple[str, ...]:
    return tuple(value for value in values if value not in dropped)
