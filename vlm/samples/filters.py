"""One typed filter for page, command, export and run scope; the page's address is its text form.

A part of the filter stands in one place: a field of :class:`SampleFilter`, made by :func:`part`, says its key in the
address, how a value is read, which samples it means, and what its chips say.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from .errors import FilterError
from .names import search_key
from .schema import EDITED_TABLES

STATES = {
    "untagged": "Untagged",
    "discarded": "Answers discarded",
    "missing": "File is gone",
    "failed": "Could not be read",
}
SOURCES = {"user": "Tagged by a user", "model": "Tagged by the model"}
MEASURES = {  # what they are called; see ``vlm.measures``
    "luminance": "brightness",
    "p05": "dark tones",
    "p95": "light tones",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "noise": "noise",
    "colourfulness": "colourfulness",
    "aspect": "width to height",
}
MARKS = {  # what can be found about samples; see ``finding``
    "contradiction": "Contradicts its tags",
    "near": "Nearly the same",
    "leak": "Leaks between splits",
}
# Of a mark ``m`` and its sample ``s``: a contradiction that the tag has outlived, and nobody decided to be right.
STANDING = """(m.kind <> 'contradiction' or (list_contains(s.tags, m.word) and not exists (select 1 from labels l
    where l.dataset_id = s.dataset_id and l.sample_id = s.id and l.ended_by is null and l.word = m.word)))"""
MAX_IDS = 10_000
MAX_PARTS = 100  # values of all parts together, ids apart
MAX_LENGTH = 200  # characters of one value
MAX_QUERY = 250_000  # characters of a filter's text: room for the ids
MAX_FIELDS = 1000  # keys with their values in an address, what belongs to the page included
PAGE_KEYS = frozenset(
    {"order", "size", "shape", "after", "before", "at", "from", "loaded", "limit", "format", "ids"}
)  # of the page's address, and no filter

Condition = tuple[str, list[Any]]
Words = Mapping[str, Sequence[str]]  # dimension → its words, in the vocabulary's order
Chosen = tuple["SampleFilter", int, Words]  # what a condition is made of: the filter, its data set, the vocabulary


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
        each: give every value of the field a chip of its own.
        dear: evaluated once for all facets, since none of them leaves it out.
    """

    key: str
    read: Callable[[str, Sequence[str]], Any]
    where: Callable[[Any, Chosen], Condition] | None
    label: Callable[[Any, "SampleFilter"], str] | None
    each: bool = False
    dear: bool = False


# -- reading values ------------------------------------------------------------------------------------------------------
def _last(key: str, given: Sequence[str]) -> str:
    return given[-1].strip()


def _all(key: str, given: Sequence[str]) -> tuple[str, ...]:
    return tuple(given)


def _number_of(key: str, given: Sequence[str]) -> int:
    return _whole(given[-1], key)


def _ids(key: str, given: Sequence[str]) -> tuple[int, ...]:
    return tuple(_whole(text, key) for value in given for text in value.split(",") if text.strip())


def _probability(key: str, given: Sequence[str]) -> float:
    try:
        value = float(given[-1])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise FilterError(f"{key} “{given[-1][:40]}” is not a probability between 0 and 1.")
    return value


def _whole(text: str, key: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise FilterError(f"{key} “{text[:40]}” is not a number of a sample, run or edit.")
    return value


# -- conditions ----------------------------------------------------------------------------------------------------------
# Several ``list_contains`` stand where ``list_has_all`` would read better: it is ten times slower.
def _listed(column: str) -> Callable[[Sequence[str], Chosen], Condition]:
    return lambda values, _: (_any(column, values), list(values))


def _any(column: str, values: Sequence[Any]) -> str:
    return "(" + " or ".join([f"list_contains(s.{column}, ?)"] * len(values)) + ")"


def _all_of(values: Sequence[str], _: Chosen) -> Condition:
    return " and ".join(["list_contains(s.tags, ?)"] * len(values)), list(values)


def _every_category(values: Sequence[str], _: Chosen) -> Condition:
    return " and ".join(["list_contains(s.categories, ?)"] * len(values)), list(values)


def _none_of(values: Sequence[str], _: Chosen) -> Condition:
    return f"not {_any('tags', values)}", list(values)


def _lacking(names: Sequence[str], chosen: Chosen) -> Condition:
    parts: list[str] = []
    values: list[Any] = []
    for name in names:
        if not (of := chosen[2].get(name)):
            raise FilterError(f"There is no dimension “{name}”.")
        parts.append(f"not {_any('tags', of)}")
        values += of
    return " and ".join(parts), values


def _state(state: str, _: Chosen) -> Condition:
    return {
        "untagged": "len(s.tags) = 0",
        "discarded": "s.discarded > 0",
        "missing": "s.missing",
        "failed": "s.failed",
    }[state], []


def _source(source: str, _: Chosen) -> Condition:
    return ("s.user_count > 0" if source == "user" else "len(s.tags) > s.user_count"), []


def _sure(chosen: Chosen) -> Condition | None:
    """The range of probability: of the best word in the filter's dimension, or of the least certain answer."""
    own, dataset_id, _ = chosen
    if own.min_probability is None and own.max_probability is None:
        return None
    low = own.min_probability if own.min_probability is not None else 0.0
    high = own.max_probability if own.max_probability is not None else 1.0
    if not own.dimension:
        return "s.certainty between ? and ?", [low, high]
    return (
        "s.id in (select sample_id from answers where dataset_id = ? and current and dimension = ? "
        "and probability between ? and ?)",
        [dataset_id, own.dimension, low, high],
    )


def _in_rows(table: str, condition: str) -> Callable[[Any, Chosen], Condition]:
    return lambda value, _: (f"s.id in (select sample_id from {table} where {condition})", [value])


_RANGE = re.compile(r"(?P<low>[-+.0-9e]*?)\.\.(?P<below><?)(?P<high>[-+.0-9e]*)", re.IGNORECASE)


def span_of(text: str) -> tuple[float, float] | None:
    """Return the bounds of a range such as ``0.5..2``, ``0.5..<2``, ``..3`` or ``7..``; ``None`` if ``text`` is none.

    Both bounds belong to the range; ``..<2`` ends with the number before 2.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found["low"] or found["high"]):
        return None
    try:
        low = float(found["low"]) if found["low"] else float("-inf")
        high = float(found["high"]) if found["high"] else float("inf")
    except ValueError:
        return None
    return low, math.nextafter(high, -math.inf) if found["below"] else high


def _among(ids: Sequence[int], _: Chosen) -> Condition:
    return "s.id in (select unnest(?::bigint[]))", [list(ids)]  # ten times as fast as a mark for each


def column_of(part: str) -> str:
    """Return the column that a part such as ``error:0..1`` is about."""
    return part.partition(":")[0]


def said_range(text: str) -> str:
    """Return a range as people read it: “below 0.5”, “0.5 to 1”, “from 1 on”; another value as it is."""
    low, dots, high = text.partition("..")
    high = high.removeprefix("<")
    if not dots or span_of(text) is None:
        return text
    if not low:
        return f"below {high}" if "<" in text else f"up to {high}"
    return f"{low} to {high}" if high else f"from {low} on"


def _said_column(part: str, _: "SampleFilter") -> str:
    name, value = part.split(":", 1) if ":" in part else (part, "")
    return f"{name} {said_range(value)}" if span_of(value) else f"{name}: {value}"


def _columns(values: Sequence[str], chosen: Chosen) -> Condition:
    """``NAME:RANGE``, ``NAME:yes``, ``NAME:no`` or ``NAME:WORD``, as the column's kind has it; of one column any of them."""
    of: dict[str, list[str]] = {}
    for value in values:
        name, colon, wanted = value.partition(":")
        if not colon or not wanted:
            raise FilterError(f"column “{value}” names no value: write it like error:0.5..1, flag:yes or camera:front.")
        of.setdefault(name, []).append(wanted)
    parts, given = [], []
    for name, several in of.items():
        each = (
            "case c.kind when 'word' then v.word = ? when 'boolean' then v.number = ? else v.number between ? and ? end"
        )
        parts.append(
            "s.id in (select v.sample_id from column_values v join columns c on c.id = v.column_id "
            f"where c.dataset_id = ? and v.dataset_id = c.dataset_id and c.name = ? and ({' or '.join([each] * len(several))}))"
        )
        given += [chosen[1], name]
        for wanted in several:
            given += [wanted, {"yes": 1.0, "no": 0.0}.get(wanted), *(span_of(wanted) or (None, None))]
    return " and ".join(parts), given


def _valued(sign: str) -> Callable[[Sequence[str], Chosen], Condition]:
    part = (
        f"s.id {sign} (select v.sample_id from column_values v join columns c on c.id = v.column_id "
        "where c.dataset_id = ? and v.dataset_id = c.dataset_id and c.name = ?)"
    )
    return lambda names, chosen: (
        " and ".join([part] * len(names)),
        [value for name in names for value in (chosen[1], name)],
    )


def _measures(values: Sequence[str], chosen: Chosen) -> Condition:
    parts, given = [], []
    for value in values:
        name, _, wanted = value.partition(":")
        if name not in MEASURES:
            raise FilterError(f"There is no measure “{name}”; there are {', '.join(MEASURES)}.")
        if (span := span_of(wanted)) is None:
            raise FilterError(f"measure “{value}” has no range: write it like {name}:0.2..0.4.")
        parts.append(f"s.id in (select sample_id from measures where dataset_id = ? and {name} between ? and ?)")
        given += [chosen[1], *span]
    return " and ".join(parts), given


def _said_measure(value: str, _: "SampleFilter") -> str:
    name, wanted = value.split(":", 1) if ":" in value else (value, "")
    low, high = wanted.split("..", 1) if ".." in wanted else (wanted, "")
    bounds = f"{low} to {high}" if low and high else f"from {low} on" if low else f"up to {high}"
    return f"{MEASURES.get(name, name)} {bounds}"


def _labels(sign: str) -> Callable[[Sequence[str], Chosen], Condition]:
    """``DIMENSION``, or ``DIMENSION:WORD``; an empty word after the colon is “cannot tell”."""

    def condition(values: Sequence[str], chosen: Chosen) -> Condition:
        parts, given = [], []
        for value in values:
            dimension, colon, word = value.partition(":")
            only = " and word = ?" if colon else ""
            parts.append(
                f"s.id {sign} (select sample_id from labels where dataset_id = ? and ended_by is null and dimension = ?{only})"
            )
            given += [chosen[1], dimension, *([word] if colon else [])]
        return " and ".join(parts), given

    return condition


def _edited_by(name: str, chosen: Chosen) -> Condition:
    return _by_edits("user_name = ?", chosen[1], name)


def _edit(edit_id: int, chosen: Chosen) -> Condition:
    return _by_edits("id = ?", chosen[1], edit_id)


def _by_edits(condition: str, dataset_id: int, value: str | int) -> Condition:
    of = f"(select id from edits where dataset_id = ? and {condition})"
    rows = [f"select sample_id from {table} where dataset_id = ? and edit_id in {of}" for table in EDITED_TABLES]
    return f"s.id in ({' union all '.join(rows)})", [dataset_id, dataset_id, value] * len(rows)


def _marks(values: Sequence[str], chosen: Chosen) -> Condition:
    """``KIND`` or ``KIND:WORD``."""
    parts, given = [], []
    for value in values:
        kind, colon, word = value.partition(":")
        only = " and m.word = ?" if colon else ""
        parts.append(
            "s.id in (select m.sample_id from marks m join samples s on s.id = m.sample_id where m.dataset_id = ? "
            f"and s.dataset_id = ? and m.kind = ?{only} and {STANDING})"
        )
        given += [chosen[1], chosen[1], kind, *([word] if colon else [])]
    return " and ".join(parts), given


def _said_mark(value: str, _: "SampleFilter") -> str:
    kind, word = value.split(":", 1) if ":" in value else (value, "")
    said = MARKS.get(kind, kind).lower()
    return f"{said}: {word}" if word else said


def _flip(value: str, chosen: Chosen) -> Condition:
    """``RUN,RUN,DIMENSION`` or ``RUN,RUN,DIMENSION,WORD,WORD``: what two runs answered differently."""
    first, second, dimension, *words = [*value.split(","), "", "", ""][: 5 if value.count(",") > 2 else 3]
    parts = "a.run_id = ? and b.run_id = ? and a.dimension = ?"
    given: list[Any] = [_whole(first, "flip"), _whole(second, "flip"), dimension]
    if words:
        parts += " and a.word = ? and b.word = ?"
        given += words
    return (
        "s.id in (select a.sample_id from answers a join answers b on b.sample_id = a.sample_id "
        f"and b.dimension = a.dimension where a.word <> b.word and a.dataset_id = ? and {parts})",
        [chosen[1], *given],
    )


# -- the filter ----------------------------------------------------------------------------------------------------------
def part(
    key: str,
    read: Callable[[str, Sequence[str]], Any],
    where: Callable[[Any, Chosen], Condition] | None,
    label: str | Callable[[Any, "SampleFilter"], str] | None,
    *,
    each: bool = False,
    dear: bool = False,
) -> Any:
    """Declare a part of the filter (see :class:`Part`); its default follows from how it is read."""
    default: Any = "" if read is _last else () if read in (_all, _ids) else None
    said = (lambda value, _: label.format(value)) if isinstance(label, str) else label
    return field(default=default, metadata={"part": Part(key, read, where, said, each, dear)})


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Which samples of a data set; all parts must hold.

    Attributes:
        text: part of the file name, in any case, however accents are written.
        splits, categories: any of them; every_category: all of them.
        all_of, any_of, none_of: tags.
        lacking: dimensions of which the sample has no word; only of the vocabulary’s.
        state: one of ``STATES``.
        source: one of ``SOURCES``.
        dimension, min_probability, max_probability: range of the best word's probability in that dimension, or
            (without a dimension) of the sample's least certain answer.
        columns: of the values that users brought along: ``error:0.5..1``, ``flag:yes``, ``camera:front``; of one column
            any of the values, of several columns all.
        has_value, no_value: columns that have a value for the sample, or none.
        measures: of what the pixels say: ``luminance:0.2..0.4``.
        labelled, unlabelled: dimensions in which somebody decided, or nobody; ``weather:sunny`` for a decision.
        edited_by, edit: what that user changed by hand, what that edit changed.
        marks: what was found about the samples, such as ``contradiction`` or ``near``; ``KIND:WORD`` for a part of it.
        group: of samples that are nearly the same.
        slice: samples that were frozen under that number.
        flip: what two runs answered differently: ``3,7,weather`` or ``3,7,weather,sunny,cloudy``.
        run, failed_in, discarded_in: samples that the run finished, could not read, discarded an answer of.
        ids: any of these samples.

    Raises:
        FilterError: a value that means nothing, or is longer than ``MAX_LENGTH``.
    """

    text: str = part(
        "q", _last, lambda v, _: ("contains(s.search, ?)", [search_key(v)]), "file name has “{}”", dear=True
    )
    splits: tuple[str, ...] = part(
        "split", _all, lambda v, _: (f"s.split in ({', '.join('?' * len(v))})", list(v)), "split {}", each=True
    )
    categories: tuple[str, ...] = part("category", _all, _listed("categories"), "shows {}", each=True)
    every_category: tuple[str, ...] = part("shows", _all, _every_category, "shows {}", each=True)
    all_of: tuple[str, ...] = part("all", _all, _all_of, "{}", each=True)
    any_of: tuple[str, ...] = part("any", _all, _listed("tags"), lambda values, _: " or ".join(values))
    none_of: tuple[str, ...] = part("none", _all, _none_of, "not {}", each=True)
    lacking: tuple[str, ...] = part("lacking", _all, _lacking, "no {}", each=True)
    state: str = part("state", _last, _state, lambda value, _: STATES[value].lower())
    source: str = part("source", _last, _source, lambda value, _: SOURCES[value].lower())
    dimension: str = part("dimension", _last, None, None, dear=True)
    min_probability: float | None = part("pmin", _probability, None, None, dear=True)
    max_probability: float | None = part("pmax", _probability, None, None, dear=True)
    columns: tuple[str, ...] = part("column", _all, _columns, _said_column, each=True, dear=True)
    has_value: tuple[str, ...] = part("hasvalue", _all, _valued("in"), "has a value of {}", each=True, dear=True)
    no_value: tuple[str, ...] = part("novalue", _all, _valued("not in"), "no value of {}", each=True, dear=True)
    measures: tuple[str, ...] = part("measure", _all, _measures, _said_measure, each=True, dear=True)
    labelled: tuple[str, ...] = part("labelled", _all, _labels("in"), "labelled {}", each=True, dear=True)
    unlabelled: tuple[str, ...] = part("unlabelled", _all, _labels("not in"), "not labelled {}", each=True, dear=True)
    edited_by: str = part("edited_by", _last, _edited_by, "edited by {}", dear=True)
    edit: int | None = part("edit", _number_of, _edit, "edit {}", dear=True)
    marks: tuple[str, ...] = part("mark", _all, _marks, _said_mark, each=True, dear=True)
    group: int | None = part(
        "group", _number_of, _in_rows("marks", "member_of = ?"), "nearly the same as number {}", dear=True
    )
    slice: int | None = part("slice", _number_of, _in_rows("slice_samples", "slice_id = ?"), "slice {}", dear=True)
    flip: str = part("flip", _last, _flip, "flip {}", dear=True)
    run: int | None = part("run", _number_of, _in_rows("run_samples", "run_id = ?"), "run {}", dear=True)
    failed_in: int | None = part(
        "failed_in",
        _number_of,
        _in_rows("run_samples", "run_id = ? and status = 'failed'"),
        "failed in run {}",
        dear=True,
    )
    discarded_in: int | None = part(
        "discarded_in", _number_of, _in_rows("answers", "run_id = ? and not accepted"), "discarded in run {}", dear=True
    )
    ids: tuple[int, ...] = part("id", _ids, _among, lambda values, _: f"{len(values)} selected", dear=True)

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
        for key, chosen, known in (("state", self.state, STATES), ("source", self.source, SOURCES)):
            if chosen and chosen not in known:
                raise FilterError(f"{key} “{chosen}” is not one of {', '.join(known)}.")
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
            if its.read is _ids:
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
        values = [getattr(self, own.name) for own, its in PARTS if its.read is not _ids]
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
        (_all, {"type": "array", "items": text, "maxItems": MAX_PARTS}),
        (_ids, {"type": "array", "items": number, "maxItems": MAX_IDS}),
        (_number_of, number),
        (_probability, {"type": "number", "minimum": 0, "maximum": 1}),
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
            if (sure := _sure(chosen)) is not None:
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
