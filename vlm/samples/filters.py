"""One typed filter for page, command, export and run scope; the page's address is its text form.

A part of the filter stands in one place: a field of :class:`SampleFilter`, made by :func:`part`, says its key in the
address, how a value is read, which samples it means, and what its chips say.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from . import conditions
from .conditions import SOURCES, STATES, WITHOUT, Check, Chosen, Condition, Words
from .errors import FilterError
from .names import search_key
from .ranges import MEGAPIXELS, Span, said_bytes, said_range, said_times, span_of, span_of_bytes, span_of_times

MAX_IDS = 10_000
MAX_PARTS = 100  # values of all parts together, ids apart
MAX_LENGTH = 500  # characters of one value: a category may have as many, see ``vlm.formats``
MAX_QUERY = 250_000  # characters of a filter's text: room for the ids
MAX_FIELDS = 1000  # keys with their values in an address, what belongs to the page included
PAGE_KEYS = frozenset(
    {"order", "size", "shape", "view", "after", "before", "at", "from", "loaded", "limit", "format", "ids"}
)  # of the page's address, and no filter


@dataclass(frozen=True, slots=True)
class Chip:
    """An active part of a filter, with the filter that lacks it."""

    label: str
    without: "SampleFilter"


@dataclass(frozen=True, slots=True)
class Part:
    """What a field of the filter is.

    Attributes:
        key: of the address.
        read: makes the field's value of the texts that the address gives for the key; raises ``FilterError``.
        where: returns the condition on ``samples s``, ``None`` where another field's covers it.
        label: what a chip says of a value; ``None`` where another field's chip covers it.
        check: raises ``FilterError`` for a text that the key cannot have.
        each: give every value of the field a chip of its own.
        dear: evaluated once for all facets, since none of them leaves it out.
    """

    key: str
    read: Callable[[str, Sequence[str]], Any]
    where: Callable[[Any, Chosen], Condition] | None
    label: Callable[[Any, "SampleFilter"], str] | None
    check: Check | None = None
    each: bool = False
    dear: bool = False


# -- the filter ----------------------------------------------------------------------------------------------------------
def part(
    key: str,
    read: Callable[[str, Sequence[str]], Any],
    where: Callable[[Any, Chosen], Condition] | None,
    label: str | Callable[[Any, "SampleFilter"], str] | None,
    *,
    check: Check | None = None,
    each: bool = False,
    dear: bool = False,
) -> Any:
    """Declare a part of the filter (see :class:`Part`); its default follows from how it is read."""
    default: Any = "" if read is conditions.last else () if read in (conditions.texts, conditions.ids) else None
    said = (lambda value, _: label.format(value)) if isinstance(label, str) else label
    return field(default=default, metadata={"part": Part(key, read, where, said, check, each, dear)})


def ranges(
    key: str,
    value: str,
    span: Span,
    label: str,
    *examples: str,
    said: Callable[[str], str] = said_range,
    dear: bool = False,
) -> Any:
    """Declare a part that takes the samples of which ``value`` lies in one of its ranges, as ``span`` reads them."""
    where, check = conditions.within(value, span), conditions.a_range(span, *examples)
    return part(
        key, conditions.texts, where, lambda text, _: label.format(said(text)), check=check, each=True, dear=dear
    )


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Which samples of a data set; all parts must hold.

    Attributes:
        text: part of the file name, in any case, however accents are written.
        splits, categories: any of them; every_category: all of them.
        all_of, any_of, none_of: tags.
        lacking: dimensions of which the sample has no word; only of the vocabulary’s.
        without: what else the sample lacks: one of ``WITHOUT``.
        state: one of ``STATES``.
        source: one of ``SOURCES``.
        dimension, min_probability, max_probability: range of the best word's probability in that dimension, or
            (without a dimension) of the sample's least certain answer.
        columns: of the values that users brought along: ``error:0.5..1``, ``flag:yes``, ``camera:front``; of one column
            any of the values, of several columns all.
        has_value, no_value: columns that have a value for the sample, or none.
        measures: of what the pixels say: ``luminance:0.2..0.4``.
        widths, heights: of the upright picture in pixels: ``640..1920``; any of the ranges.
        megapixels: how many pixels it has, in millions: ``2..<8``.
        file_sizes: of the file: ``500kB..2MB``.
        taken: when, by the camera's clock: ``2024``, ``2024-05``, ``2024-05-01..2024-05-31``.
        cameras: any of them, by maker and name.
        labelled, unlabelled: dimensions in which somebody decided, or nobody; ``weather:sunny`` for a decision.
        edited_by, edit: what that user changed by hand, what that edit changed.
        marks: what was found about the samples, such as ``contradiction`` or ``near``; ``KIND:WORD`` for a part of it.
        group: of samples that are nearly the same.
        slice: samples that were frozen under that number.
        flip: what two runs answered differently: ``3,7,weather`` or ``3,7,weather,sunny,cloudy``.
        run, failed_in, discarded_in: samples that the run finished, could not read, discarded an answer of.
        shared_in: samples that took the answer of another one of their group in that run.
        ids: any of these samples.

    Raises:
        FilterError: a value that means nothing, or is longer than ``MAX_LENGTH``.
    """

    text: str = part(
        "q", conditions.last, lambda v, _: ("contains(s.search, ?)", [search_key(v)]), "file name has “{}”", dear=True
    )
    splits: tuple[str, ...] = part("split", conditions.texts, conditions.equals("s.split"), "split {}", each=True)
    categories: tuple[str, ...] = part(
        "category", conditions.texts, conditions.listed("categories"), "shows {}", each=True
    )
    every_category: tuple[str, ...] = part("shows", conditions.texts, conditions.every_category, "shows {}", each=True)
    all_of: tuple[str, ...] = part("all", conditions.texts, conditions.all_of, "{}", each=True)
    any_of: tuple[str, ...] = part(
        "any", conditions.texts, conditions.listed("tags"), lambda values, _: " or ".join(values)
    )
    none_of: tuple[str, ...] = part("none", conditions.texts, conditions.none_of, "not {}", each=True)
    lacking: tuple[str, ...] = part("lacking", conditions.texts, conditions.lacking, "no {}", each=True)
    without: tuple[str, ...] = part(
        "without",
        conditions.texts,
        conditions.without,
        "no {}",
        check=conditions.one_of(WITHOUT),
        each=True,
        dear=True,
    )
    state: str = part(
        "state",
        conditions.last,
        conditions.state,
        lambda value, _: STATES[value].lower(),
        check=conditions.one_of(STATES),
    )
    source: str = part(
        "source",
        conditions.last,
        conditions.source,
        lambda value, _: SOURCES[value].lower(),
        check=conditions.one_of(SOURCES),
    )
    dimension: str = part("dimension", conditions.last, None, None, dear=True)
    min_probability: float | None = part("pmin", conditions.probability, None, None, dear=True)
    max_probability: float | None = part("pmax", conditions.probability, None, None, dear=True)
    columns: tuple[str, ...] = part(
        "column", conditions.texts, conditions.columns, conditions.said_column, each=True, dear=True
    )
    has_value: tuple[str, ...] = part(
        "hasvalue", conditions.texts, conditions.valued("in"), "has a value of {}", each=True, dear=True
    )
    no_value: tuple[str, ...] = part(
        "novalue", conditions.texts, conditions.valued("not in"), "no value of {}", each=True, dear=True
    )
    measures: tuple[str, ...] = part(
        "measure", conditions.texts, conditions.measures, conditions.said_measure, each=True, dear=True
    )
    widths: tuple[str, ...] = ranges("width", "s.width", span_of, "{} pixels wide", "640..1920", dear=True)
    heights: tuple[str, ...] = ranges("height", "s.height", span_of, "{} pixels high", "..480", dear=True)
    megapixels: tuple[str, ...] = ranges("megapixels", MEGAPIXELS, span_of, "{} megapixels", "2..8")
    file_sizes: tuple[str, ...] = ranges(
        "filesize", "s.bytes", span_of_bytes, "file of {}", "500kB..2MB", said=said_bytes
    )
    taken: tuple[str, ...] = ranges(
        "taken", "s.taken", span_of_times, "taken {}", "2024-05", "2024-05-01..2024-05-31", said=said_times
    )
    cameras: tuple[str, ...] = part("camera", conditions.texts, conditions.equals("s.camera"), "camera {}", each=True)
    labelled: tuple[str, ...] = part(
        "labelled", conditions.texts, conditions.labels("in"), "labelled {}", each=True, dear=True
    )
    unlabelled: tuple[str, ...] = part(
        "unlabelled", conditions.texts, conditions.labels("not in"), "not labelled {}", each=True, dear=True
    )
    edited_by: str = part("edited_by", conditions.last, conditions.edited_by, "edited by {}", dear=True)
    edit: int | None = part("edit", conditions.number_of, conditions.edit, "edit {}", dear=True)
    marks: tuple[str, ...] = part(
        "mark", conditions.texts, conditions.marks, conditions.said_mark, each=True, dear=True
    )
    group: int | None = part(
        "group",
        conditions.number_of,
        conditions.in_rows("marks", "member_of = ?"),
        "nearly the same as number {}",
        dear=True,
    )
    slice: int | None = part(
        "slice", conditions.number_of, conditions.in_rows("slice_samples", "slice_id = ?"), "slice {}", dear=True
    )
    flip: str = part("flip", conditions.last, conditions.flip, "flip {}", dear=True)
    run: int | None = part(
        "run", conditions.number_of, conditions.in_rows("run_samples", "run_id = ?"), "run {}", dear=True
    )
    failed_in: int | None = part(
        "failed_in",
        conditions.number_of,
        conditions.in_rows("run_samples", "run_id = ? and status = 'failed'"),
        "failed in run {}",
        dear=True,
    )
    discarded_in: int | None = part(
        "discarded_in",
        conditions.number_of,
        conditions.in_rows("answers", "run_id = ? and not accepted"),
        "discarded in run {}",
        dear=True,
    )
    shared_in: int | None = part(
        "shared_in",
        conditions.number_of,
        conditions.in_rows("shares", f"run_id = ? and {conditions.TAKEN_OVER}"),
        "answer shared in run {}",
        dear=True,
    )
    ids: tuple[int, ...] = part(
        "id", conditions.ids, conditions.among, lambda values, _: f"{len(values)} selected", dear=True
    )

    def __post_init__(self) -> None:
        for own, its in PARTS:
            value = getattr(self, own.name)
            if isinstance(value, tuple):
                kept = tuple(dict.fromkeys(item for item in value if not isinstance(item, str) or item.strip()))
                object.__setattr__(self, own.name, kept)
                texts = [item for item in kept if isinstance(item, str)]
            elif isinstance(value, str):
                object.__setattr__(self, own.name, value.strip())
                texts = [value]
            else:
                texts = []
            for text in texts:
                _check_text(its.key, text)
                if text and its.check is not None:
                    its.check(its.key, text)
        if len(self.ids) > MAX_IDS:
            raise FilterError(f"A selection holds at most {MAX_IDS:,} samples; use a filter for more.")

    @classmethod
    def from_query(cls, query: str | Mapping[str, Sequence[str]]) -> Self:
        """Read a URL query, or its keys with their lists of values; keys of other parts of the page are ignored.

        Raises:
            FilterError: a value that means nothing, or more than ``MAX_PARTS`` of them.
        """
        values = _parsed(query.lstrip("?")) if isinstance(query, str) else query
        known: dict[str, Any] = {}
        for own, its in PARTS:
            if given := [value for value in values.get(its.key, ()) if value.strip()]:
                known[own.name] = its.read(its.key, given)
        chosen = cls(**known)
        chosen.check_size()
        return chosen

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a filter that somebody wrote, or copied from the page's address.

        Raises:
            FilterError: a value that means nothing, or a key that is no part of a filter: a slip of the pen must not
                become the whole data set.
        """
        keys = _parsed(text.strip().lstrip("?"), keep_blank=True)
        parts = [its.key for _, its in PARTS]
        # “ids” is what the page calls a selection in its forms; written here, it is meant to be “id”.
        if unknown := next((key for key in keys if key not in parts and key not in PAGE_KEYS - {"ids"}), None):
            raise FilterError(f"“{unknown[:MAX_LENGTH]}” is no part of a filter; there are {', '.join(parts)}.")
        return cls.from_query(keys)

    def to_query(self) -> str:
        """Return the canonical URL query, empty for the filter that takes everything."""
        pairs: list[tuple[str, str]] = []
        for own, its in PARTS:
            value = getattr(self, own.name)
            if its.read is conditions.ids:
                pairs += [(its.key, ",".join(map(str, value)))] if value else []
            elif isinstance(value, tuple):
                pairs += [(its.key, item) for item in value]
            elif isinstance(value, float):
                pairs.append((its.key, repr(value).removesuffix(".0")))
            elif value not in ("", None):
                pairs.append((its.key, str(value)))
        return urlencode(pairs)

    @property
    def is_empty(self) -> bool:
        return self == SampleFilter()

    @property
    def size(self) -> int:
        """How many values the parts hold, ids apart."""
        values = [getattr(self, own.name) for own, its in PARTS if its.read is not conditions.ids]
        return sum(len(value) if isinstance(value, tuple) else value not in ("", None) for value in values)

    def check_size(self) -> None:
        """Raise :class:`FilterError` if there are more than ``MAX_PARTS`` values."""
        if self.size > MAX_PARTS:
            raise FilterError(f"A filter has at most {MAX_PARTS} parts, this one has {self.size:,}.")

    def in_two(self) -> "tuple[SampleFilter, SampleFilter]":
        """Return the parts that are dear to evaluate, and the others."""
        plain = SampleFilter()
        dear: dict[str, Any] = {own.name: getattr(plain, own.name) for own, its in PARTS if its.dear}
        cheap: dict[str, Any] = {own.name: getattr(plain, own.name) for own, its in PARTS if not its.dear}
        return replace(self, **cheap), replace(self, **dear)

    def chips(self) -> list[Chip]:
        """Return the active parts, each removable on its own."""
        chips = []

        def less(name: str, value: Any) -> SampleFilter:
            change: dict[str, Any] = {name: value}
            return replace(self, **change)

        for own, its in PARTS:
            value = getattr(self, own.name)
            if own.name == "dimension" and (self.min_probability is not None or self.max_probability is not None):
                low, high = self.min_probability or 0, 1 if self.max_probability is None else self.max_probability
                label = f"{self.dimension or 'least certain'} {low:.0%} to {high:.0%}"
                chips.append(Chip(label, replace(self, dimension="", min_probability=None, max_probability=None)))
            elif its.label is None or value in ("", (), None):
                continue
            elif its.each:
                for item in value:
                    rest = tuple(other for other in value if other != item)
                    chips.append(Chip(its.label(item, self), less(own.name, rest)))
            else:
                chips.append(Chip(its.label(value, self), less(own.name, own.default)))
        return chips


PARTS: list[tuple[Field[Any], Part]] = [(own, own.metadata["part"]) for own in fields(SampleFilter)]


def described_parts() -> list[tuple[str, dict[str, Any], str]]:
    """Return each key of the address, the JSON schema of its value, and what it chooses, as :class:`SampleFilter` says."""
    said = dict(_ATTRIBUTE.findall(SampleFilter.__doc__ or ""))
    meanings = {name: " ".join(text.split()) for names, text in said.items() for name in names.split(", ")}
    return [(its.key, _schema(its), meanings.get(own.name, "")) for own, its in PARTS]


def _schema(its: Part) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    text = {"type": "string", "maxLength": MAX_LENGTH}
    known = {"state": STATES, "source": SOURCES}.get(its.key)
    shapes: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (conditions.texts, {"type": "array", "items": text, "maxItems": MAX_PARTS}),
        (conditions.ids, {"type": "array", "items": number, "maxItems": MAX_IDS}),
        (conditions.number_of, number),
        (conditions.probability, {"type": "number", "minimum": 0, "maximum": 1}),
    ]
    plain = text | ({"enum": list(known)} if known else {})
    return next((shape for read, shape in shapes if read is its.read), plain)


_ATTRIBUTE = re.compile(r"^ {8}(\w+(?:, \w+)*): (.+(?:\n {12}.+)*)", re.MULTILINE)


def where(dataset_id: int, chosen: SampleFilter, words: Words) -> Condition:
    """Return the SQL condition on ``samples s``, and its parameters.

    Args:
        words: dimension → its allowed words, which ``lacking`` is about.

    Raises:
        FilterError: a dimension or measure that is none, or more than ``MAX_PARTS`` values.
    """
    chosen.check_size()
    parts, values = ["s.dataset_id = ?"], [dataset_id]
    for condition, given in _conditions((chosen, dataset_id, words)):
        parts.append(condition)
        values += given
    return " and ".join(parts), values


def _conditions(chosen: Chosen) -> Iterator[Condition]:
    for own, its in PARTS:
        value = getattr(chosen[0], own.name)
        if own.name == "dimension":
            if (sure := conditions.sure(chosen)) is not None:
                yield sure
        elif its.where is not None and value not in ("", (), None):
            yield its.where(value, chosen)


def _parsed(query: str, *, keep_blank: bool = False) -> dict[str, list[str]]:
    if len(query) > MAX_QUERY:
        raise FilterError("This filter is too long to be read.")
    try:
        return parse_qs(query, keep_blank_values=keep_blank, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise FilterError(f"A filter has at most {MAX_PARTS} parts, this one has over {MAX_FIELDS:,}.") from error


def _check_text(key: str, text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise FilterError(f"{key} “{text[:40]}…” is longer than {MAX_LENGTH} characters.")
    if not _is_unicode(text):
        raise FilterError(f"{key} has characters that are no text.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
