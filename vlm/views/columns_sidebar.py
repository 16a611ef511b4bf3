"""The sidebar's facets of columns: histograms whose bars are links, and words and flags as choices."""

from collections.abc import Iterable
from dataclasses import dataclass

from vlm.samples import Column, ColumnFacet
from vlm.samples.ranges import said_range, span_of
from vlm.views.place import Place
from vlm.views.sidebar import Choice


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram, its height in percent; its link switches its range on or off."""

    label: str
    count: int
    url: str
    chosen: bool
    height: int

    @property
    def above(self) -> int:
        return 100 - self.height


@dataclass(frozen=True, slots=True)
class Drawn:
    """A column's facet. ``low`` and ``high`` say what its ends are, ``begins`` and ``ends`` the range that is asked for."""

    id: int
    name: str
    open: bool
    bars: tuple[Bar, ...]
    choices: tuple[Choice, ...]
    low: str
    high: str
    begins: str
    ends: str


def column_facets(dataset_id: int, place: Place, facets: Iterable[ColumnFacet]) -> list[Drawn]:
    """Return the facets of columns of ``place``, with their counts."""
    return [_drawn(dataset_id, place, facet) for facet in facets]


def column_orders(columns: Iterable[Column]) -> dict[str, str]:
    """Return the orders that columns add, with their labels."""
    found = {}
    for column in columns:
        if column.kind == "word":
            found[f"column:{column.name}"] = column.name
        else:
            found[f"-column:{column.name}"] = f"{column.name}, highest first"
            found[f"column:{column.name}"] = f"{column.name}, lowest first"
    return found


def _drawn(dataset_id: int, place: Place, facet: ColumnFacet) -> Drawn:
    name, now = facet.column.name, place.filter
    asked = [part.partition(":")[2] for part in now.columns if part.startswith(f"{name}:")]
    most = max([1, facet.lacking, *(count.count for count in facet.counts)])
    is_number = facet.column.kind == "number"
    choices = [] if is_number else [(count.value, count.value, count.count) for count in facet.counts]
    chosen_range = [span for value in asked if is_number and (span := span_of(value)) is not None]
    lone = asked[0].partition("..") if len(chosen_range) == 1 else ("", "", "")
    return Drawn(
        id=facet.column.id,
        name=name,
        open=bool(asked) or name in now.no_value,
        bars=_bars(dataset_id, place, facet, asked) if is_number and facet.counts else (),
        choices=(
            *(
                Choice(label, count, _percent(count, most), value in asked, _toggled(dataset_id, place, name, value))
                for label, value, count in choices
            ),
            *_lacking(dataset_id, place, facet, most),
        ),
        low=_end(facet, 0),
        high=_end(facet, -1),
        begins=lone[0],
        ends=lone[2].removeprefix("<"),
    )


def _bars(dataset_id: int, place: Place, facet: ColumnFacet, asked: list[str]) -> tuple[Bar, ...]:
    most = max([1, *(count.count for count in facet.counts)])
    return tuple(
        Bar(
            said_range(count.value),
            count.count,
            _toggled(dataset_id, place, facet.column.name, count.value),
            count.value in asked,
            _percent(count.count, most),
        )
        for count in facet.counts
    )


def _end(facet: ColumnFacet, place: int) -> str:
    if not facet.edges:
        return ""
    return said_range(facet.counts[place].value)


def _toggled(dataset_id: int, place: Place, name: str, value: str) -> str:
    """Switch a value of a column on or off; of one column several can be on."""
    part = f"{name}:{value}"
    now = place.filter.columns
    return place.filtered(
        columns=tuple(one for one in now if one != part) if part in now else (*now, part),
        no_value=tuple(one for one in place.filter.no_value if one != name),
    ).url(dataset_id)


def _lacking(dataset_id: int, place: Place, facet: ColumnFacet, most: int) -> list[Choice]:
    name, now = facet.column.name, place.filter
    chosen = name in now.no_value
    if not (facet.lacking or chosen):
        return []
    without = tuple(one for one in now.no_value if one != name)
    others = tuple(part for part in now.columns if not part.startswith(f"{name}:"))
    url = place.filtered(columns=others, no_value=without if chosen else (*without, name)).url(dataset_id)
    return [Choice("no value", facet.lacking, _percent(facet.lacking, most), chosen, url)]


def _percent(count: int, scale: int) -> int:
    return min(100, -(-100 * count // scale))
