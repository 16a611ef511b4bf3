"""One typed filter for page, command, export and run scope; the page's address is its text form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from .errors import FilterError

STATES = {
    "untagged": "Untagged",
    "discarded": "Answers discarded",
    "missing": "File is gone",
    "failed": "Could not be read",
}
SOURCES = {"user": "Tagged by a user", "model": "Tagged by the model"}
MAX_IDS = 10_000
PAGE_KEYS = frozenset({"order", "size", "after", "loaded", "format", "ids"})  # of the page's address, and no filter

# Field → key of the address, in the address's order.
KEYS = {
    "text": "q",
    "splits": "split",
    "categories": "category",
    "all_of": "all",
    "any_of": "any",
    "none_of": "none",
    "lacking": "lacking",
    "state": "state",
    "source": "source",
    "dimension": "dimension",
    "min_probability": "pmin",
    "max_probability": "pmax",
    "run": "run",
    "failed_in": "failed_in",
    "discarded_in": "discarded_in",
    "ids": "id",
}


@dataclass(frozen=True, slots=True)
class Chip:
    """An active part of a filter, with the filter that lacks it."""

    label: str
    without: "SampleFilter"


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Which samples of a data set; all parts must hold.

    Attributes:
        text: part of the file name, in any case.
        splits, categories: any of them.
        all_of, any_of, none_of: tags.
        lacking: dimensions of which the sample has no word (see :func:`where`).
        state: one of ``STATES``.
        source: one of ``SOURCES``.
        dimension, min_probability, max_probability: range of the best word's probability in that dimension, or
            (without a dimension) of the sample's least certain answer.
        run, failed_in, discarded_in: samples that the run finished, could not read, discarded an answer of.
        ids: any of these samples.
    """

    text: str = ""
    splits: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    state: str = ""
    source: str = ""
    dimension: str = ""
    min_probability: float | None = None
    max_probability: float | None = None
    run: int | None = None
    failed_in: int | None = None
    discarded_in: int | None = None
    ids: tuple[int, ...] = ()

    @classmethod
    def from_query(cls, query: str | Mapping[str, Sequence[str]]) -> Self:
        """Read a URL query, or its keys with their lists of values; keys of other parts of the page are ignored.

        Raises:
            FilterError: a value that means nothing.
        """
        values = parse_qs(query.lstrip("?"), keep_blank_values=False) if isinstance(query, str) else query
        known: dict[str, Any] = {}
        for field in fields(cls):
            given = [value for value in values.get(KEYS[field.name], ()) if value.strip()]
            if not given:
                continue
            if field.name == "ids":
                known["ids"] = tuple(
                    dict.fromkeys(_whole(part, "id") for value in given for part in value.split(",") if part)
                )
            elif isinstance(field.default, tuple):
                known[field.name] = tuple(dict.fromkeys(given))
            elif field.name in ("run", "failed_in", "discarded_in"):
                known[field.name] = _whole(given[-1], KEYS[field.name])
            elif field.name.endswith("probability"):
                known[field.name] = _probability(given[-1], KEYS[field.name])
            else:
                known[field.name] = given[-1].strip()
        result = cls(**known)
        if result.state and result.state not in STATES:
            raise FilterError(f"state “{result.state}” is not one of {', '.join(STATES)}.")
        if result.source and result.source not in SOURCES:
            raise FilterError(f"source “{result.source}” is not one of {', '.join(SOURCES)}.")
        if len(result.ids) > MAX_IDS:
            raise FilterError(f"A selection holds at most {MAX_IDS:,} samples; use a filter for more.")
        return result

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a filter that somebody wrote, or copied from the page's address.

        Raises:
            FilterError: a value that means nothing, or a key that is no part of a filter: a slip of the pen must not
                become the whole data set.
        """
        keys = parse_qs(text.strip().lstrip("?"), keep_blank_values=True)
        parts = KEYS.values()
        # “ids” is what the page calls a selection in its forms; written here, it is meant to be “id”.
        if unknown := next((key for key in keys if key not in parts and key not in PAGE_KEYS - {"ids"}), None):
            raise FilterError(f"“{unknown}” is no part of a filter; there are {', '.join(parts)}.")
        return cls.from_query(keys)

    def to_query(self) -> str:
        """Return the canonical URL query, empty for the filter that takes everything."""
        pairs: list[tuple[str, str]] = []
        for name, key in KEYS.items():
            value = getattr(self, name)
            if name == "ids":
                pairs += [(key, ",".join(map(str, value)))] if value else []
            elif isinstance(value, tuple):
                pairs += [(key, item) for item in value]
            elif value not in ("", None):
                pairs.append((key, str(value).removesuffix(".0")))
        return urlencode(pairs)

    @property
    def is_empty(self) -> bool:
        return self == SampleFilter()

    def chips(self) -> list[Chip]:
        """Return the active parts, each removable on its own."""
        chips = []

        def without(**parts: Any) -> SampleFilter:
            return replace(self, **parts)

        def lists(name: str, form: str) -> None:
            values: tuple[str, ...] = getattr(self, name)
            for value in values:
                rest = tuple(other for other in values if other != value)
                chips.append(Chip(form.format(value), without(**{name: rest})))

        if self.text:
            chips.append(Chip(f"file name has “{self.text}”", replace(self, text="")))
        lists("splits", "split {}")
        lists("categories", "shows {}")
        lists("all_of", "{}")
        if self.any_of:
            chips.append(Chip(" or ".join(self.any_of), replace(self, any_of=())))
        lists("none_of", "not {}")
        lists("lacking", "no {}")
        if self.state:
            chips.append(Chip(STATES[self.state].lower(), replace(self, state="")))
        if self.source:
            chips.append(Chip(SOURCES[self.source].lower(), replace(self, source="")))
        if self.min_probability is not None or self.max_probability is not None:
            low, high = self.min_probability or 0, 1 if self.max_probability is None else self.max_probability
            label = f"{self.dimension or 'least certain'} {low:.0%} to {high:.0%}"
            chips.append(Chip(label, replace(self, dimension="", min_probability=None, max_probability=None)))
        for name, form in (
            ("run", "run {}"),
            ("failed_in", "failed in run {}"),
            ("discarded_in", "discarded in run {}"),
        ):
            if (value := getattr(self, name)) is not None:
                chips.append(Chip(form.format(value), without(**{name: None})))
        if self.ids:
            chips.append(Chip(f"{len(self.ids)} selected", replace(self, ids=())))
        return chips


Condition = tuple[str, list[Any]]


def where(dataset_id: int, chosen: SampleFilter, words: Mapping[str, Sequence[str]]) -> Condition:
    """Return the SQL condition on ``samples s``, and its parameters.

    Several ``list_contains`` stand where ``list_has_all`` would read better: it is ten times slower.

    Args:
        words: dimension → its allowed words, which ``lacking`` is about.
    """
    parts, values = ["s.dataset_id = ?"], [dataset_id]

    def add(part: str, *given: Any) -> None:
        parts.append(part)
        values.extend(given)

    if chosen.text:
        add("contains(lower(s.file_name), lower(?))", chosen.text)
    if chosen.splits:
        add(f"s.split in ({_marks(chosen.splits)})", *chosen.splits)
    if chosen.categories:
        add(_any("categories", chosen.categories), *chosen.categories)
    for tag in chosen.all_of:
        add("list_contains(s.tags, ?)", tag)
    if chosen.any_of:
        add(_any("tags", chosen.any_of), *chosen.any_of)
    for tag in chosen.none_of:
        add("not list_contains(s.tags, ?)", tag)
    for dimension in chosen.lacking:
        if not (of := words.get(dimension)):
            raise FilterError(f"There is no dimension “{dimension}”.")
        add(f"not {_any('tags', of)}", *of)
    states = {
        "untagged": "len(s.tags) = 0",
        "discarded": "s.discarded > 0",
        "missing": "s.missing",
        "failed": "s.failed",
        "": "true",
    }
    if chosen.state:
        add(states[chosen.state])
    if chosen.source:
        add("s.user_count > 0" if chosen.source == "user" else "len(s.tags) > s.user_count")
    if chosen.min_probability is not None or chosen.max_probability is not None:
        low = chosen.min_probability if chosen.min_probability is not None else 0.0
        high = chosen.max_probability if chosen.max_probability is not None else 1.0
        if chosen.dimension:
            add(
                "s.id in (select sample_id from answers where dataset_id = ? and current and dimension = ? "
                "and probability between ? and ?)",
                dataset_id,
                chosen.dimension,
                low,
                high,
            )
        else:
            add("s.certainty between ? and ?", low, high)
    if chosen.run is not None:
        add("s.id in (select sample_id from run_samples where run_id = ?)", chosen.run)
    if chosen.failed_in is not None:
        add("s.id in (select sample_id from run_samples where run_id = ? and status = 'failed')", chosen.failed_in)
    if chosen.discarded_in is not None:
        add("s.id in (select sample_id from answers where run_id = ? and not accepted)", chosen.discarded_in)
    if chosen.ids:
        add("s.id in (select unnest(?::bigint[]))", list(chosen.ids))  # ten times as fast as a mark for each
    return " and ".join(parts), values


def _any(column: str, values: Sequence[Any]) -> str:
    return "(" + " or ".join([f"list_contains(s.{column}, ?)"] * len(values)) + ")"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _whole(text: str, key: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise FilterError(f"{key} “{text}” is not a number of a sample or run.")
    return value


def _probability(text: str, key: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise FilterError(f"{key} “{text}” is not a probability between 0 and 1.")
    return value
