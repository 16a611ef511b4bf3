"""What the parts of a filter mean: how their values are read, which samples they take, and what their chips say.

``SampleFilter`` (``filters.py``) lists them; each part there names three of these functions. Values travel as
parameters, never inside the statement.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .errors import FilterError
from .ranges import Span, said_range, span_of
from .schema import EDITED_TABLES
from .tallying import FLAGS


class Sureness(Protocol):
    """What several parts of a filter say together: how probable the answers are, of which dimension."""

    @property
    def dimension(self) -> str: ...
    @property
    def min_probability(self) -> float | None: ...
    @property
    def max_probability(self) -> float | None: ...


Condition = tuple[str, list[Any]]
Words = Mapping[str, Sequence[str]]  # dimension → its words, in the vocabulary's order
Chosen = tuple[Sureness, int, Words]  # what a condition is made of: the filter, its data set, the vocabulary
Check = Callable[[str, str], None]  # takes the key and a value; raises FilterError


def near(column: str) -> str:
    """Return what a look-up of rows about samples is to say, so that :func:`bounded` can confine it; ``column`` is their sample's id."""
    return f"/* near {column} */ true"


def bounded(condition: Condition, low: int, high: int) -> Condition:
    """Return a condition on ``samples s`` that means the same of ids from ``low`` to ``high``, and reads no rows about others."""
    sql, values = condition
    span = f"between {low:d} and {high:d}"
    confined = _NEAR.sub(lambda found: f"{found[1]} {span}", sql)
    return f"s.id {span} and {confined}", values


_NEAR = re.compile(r"/\* near ([\w.]+) \*/ true")

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
WITHOUT = {  # what a sample may lack beside words of a dimension (``lacking``) and values of columns (``novalue``)
    "split": "s.split = ''",
    "category": "len(s.categories) = 0",
    "own tag": "len(list_filter(s.tags, lambda tag: not list_contains(?::varchar[], tag))) = 0",
    "measure": f"s.id not in (select sample_id from measures where dataset_id = ? and {near('sample_id')})",
}
# Of a mark ``m`` and its sample ``s``: a contradiction that the tag has outlived, and nobody decided to be right.
STANDING = """(m.kind <> 'contradiction' or (list_contains(s.tags, m.word) and not exists (select 1 from labels l
    where l.dataset_id = s.dataset_id and l.sample_id = s.id and l.ended_by is null and l.word = m.word)))"""
# Of a row of ``shares``: the sample has the answer.
TAKEN_OVER = f"""exists (select 1 from run_samples r where r.run_id = shares.run_id and r.sample_id = shares.sample_id
    and {near("r.sample_id")})"""


# -- reading values ------------------------------------------------------------------------------------------------------
def last(key: str, given: Sequence[str]) -> str:
    return given[-1].strip()


def texts(key: str, given: Sequence[str]) -> tuple[str, ...]:
    return tuple(given)


def number_of(key: str, given: Sequence[str]) -> int:
    return whole(given[-1], key)


def ids(key: str, given: Sequence[str]) -> tuple[int, ...]:
    return tuple(whole(text, key) for value in given for text in value.split(",") if text.strip())


def probability(key: str, given: Sequence[str]) -> float:
    try:
        value = float(given[-1])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise FilterError(f"{key} “{given[-1][:40]}” is not a probability between 0 and 1.")
    return value


def whole(text: str, key: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise FilterError(f"{key} “{text[:40]}” is not a number of a sample, run or edit.")
    return value


# -- what may be written ---------------------------------------------------------------------------------------------------
def one_of(known: Mapping[str, Any]) -> Check:
    def check(key: str, value: str) -> None:
        if value not in known:
            raise FilterError(f"{key} “{value}” is not one of {', '.join(known)}.")

    return check


def a_range(span: Span, *examples: str) -> Check:
    """Return a check that a value is a range as ``span`` reads it; a refusal shows the ``examples``."""

    def check(key: str, value: str) -> None:
        if span(value) is None:
            raise FilterError(
                f"{key} “{value}” is no range: write it like {' or '.join(f'{key}={e}' for e in examples)}."
            )

    return check


# -- conditions ----------------------------------------------------------------------------------------------------------
# Several ``list_contains`` stand where ``list_has_all`` would read better: it is ten times slower.
def listed(column: str) -> Callable[[Sequence[str], Chosen], Condition]:
    return lambda values, _: (_any(column, values), list(values))


def _any(column: str, values: Sequence[Any]) -> str:
    return "(" + " or ".join([f"list_contains(s.{column}, ?)"] * len(values)) + ")"


def all_of(values: Sequence[str], _: Chosen) -> Condition:
    return " and ".join(["list_contains(s.tags, ?)"] * len(values)), list(values)


def every_category(values: Sequence[str], _: Chosen) -> Condition:
    return " and ".join(["list_contains(s.categories, ?)"] * len(values)), list(values)


def none_of(values: Sequence[str], _: Chosen) -> Condition:
    return f"not {_any('tags', values)}", list(values)


def lacking(names: Sequence[str], chosen: Chosen) -> Condition:
    parts: list[str] = []
    values: list[Any] = []
    for name in names:
        if not (of := chosen[2].get(name)):
            raise FilterError(f"There is no dimension “{name}”.")
        parts.append(f"not {_any('tags', of)}")
        values += of
    return " and ".join(parts), values


def without(names: Sequence[str], chosen: Chosen) -> Condition:
    given: dict[str, list[Any]] = {
        "own tag": [list({word for of in chosen[2].values() for word in of})],
        "measure": [chosen[1]],
    }
    return " and ".join(WITHOUT[name] for name in names), [value for name in names for value in given.get(name, [])]


def state(state: str, _: Chosen) -> Condition:
    return FLAGS["state", state], []


def source(source: str, _: Chosen) -> Condition:
    return FLAGS["source", source], []


def sure(chosen: Chosen) -> Condition | None:
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
        f"and probability between ? and ? and {near('sample_id')})",
        [dataset_id, own.dimension, low, high],
    )


def in_rows(table: str, condition: str) -> Callable[[Any, Chosen], Condition]:
    rows = f"select sample_id from {table} where {condition} and {near('sample_id')}"
    return lambda value, _: (f"s.id in ({rows})", [value])


def within(value: str, span: Span) -> Callable[[Sequence[str], Chosen], Condition]:
    """Any of the ranges, of what ``value`` is of a sample."""

    def condition(values: Sequence[str], _: Chosen) -> Condition:
        bounds = [bound for text in values for bound in span(text) or (None, None)]
        return "(" + " or ".join([f"{value} between ? and ?"] * len(values)) + ")", bounds

    return condition


def equals(value: str) -> Callable[[Sequence[str], Chosen], Condition]:
    return lambda values, _: (f"{value} in ({', '.join('?' * len(values))})", list(values))


def among(ids: Sequence[int], _: Chosen) -> Condition:
    return "s.id in (select unnest(?::bigint[]))", [list(ids)]  # ten times as fast as a mark for each


def column_of(part: str) -> str:
    """Return the column that a part such as ``error:0..1`` is about."""
    return part.partition(":")[0]


def said_column(part: str, _: Sureness) -> str:
    name, value = part.split(":", 1) if ":" in part else (part, "")
    return f"{name} {said_range(value)}" if span_of(value) else f"{name}: {value}"


def columns(values: Sequence[str], chosen: Chosen) -> Condition:
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
            f"where c.dataset_id = ? and v.dataset_id = c.dataset_id and c.name = ? and {near('v.sample_id')} "
            f"and ({' or '.join([each] * len(several))}))"
        )
        given += [chosen[1], name]
        for wanted in several:
            given += [wanted, {"yes": 1.0, "no": 0.0}.get(wanted), *(span_of(wanted) or (None, None))]
    return " and ".join(parts), given


def valued(sign: str) -> Callable[[Sequence[str], Chosen], Condition]:
    part = (
        f"s.id {sign} (select v.sample_id from column_values v join columns c on c.id = v.column_id "
        f"where c.dataset_id = ? and v.dataset_id = c.dataset_id and c.name = ? and {near('v.sample_id')})"
    )
    return lambda names, chosen: (
        " and ".join([part] * len(names)),
        [value for name in names for value in (chosen[1], name)],
    )


def measures(values: Sequence[str], chosen: Chosen) -> Condition:
    parts, given = [], []
    for value in values:
        name, _, wanted = value.partition(":")
        if name not in MEASURES:
            raise FilterError(f"There is no measure “{name}”; there are {', '.join(MEASURES)}.")
        if (span := span_of(wanted)) is None:
            raise FilterError(f"measure “{value}” has no range: write it like {name}:0.2..0.4.")
        parts.append(
            f"s.id in (select sample_id from measures where dataset_id = ? and {name} between ? and ? and {near('sample_id')})"
        )
        given += [chosen[1], *span]
    return " and ".join(parts), given


def said_measure(value: str, _: Sureness) -> str:
    name, wanted = value.split(":", 1) if ":" in value else (value, "")
    return f"{MEASURES.get(name, name)} {said_range(wanted)}"


def labels(sign: str) -> Callable[[Sequence[str], Chosen], Condition]:
    """``DIMENSION``, or ``DIMENSION:WORD``; an empty word after the colon is “cannot tell”."""

    def condition(values: Sequence[str], chosen: Chosen) -> Condition:
        parts, given = [], []
        for value in values:
            dimension, colon, word = value.partition(":")
            only = " and word = ?" if colon else ""
            parts.append(
                f"s.id {sign} (select sample_id from labels where dataset_id = ? and ended_by is null and dimension = ?{only} "
                f"and {near('sample_id')})"
            )
            given += [chosen[1], dimension, *([word] if colon else [])]
        return " and ".join(parts), given

    return condition


def edited_by(name: str, chosen: Chosen) -> Condition:
    return _by_edits("user_name = ?", chosen[1], name)


def edit(edit_id: int, chosen: Chosen) -> Condition:
    return _by_edits("id = ?", chosen[1], edit_id)


def _by_edits(condition: str, dataset_id: int, value: str | int) -> Condition:
    of = f"(select id from edits where dataset_id = ? and {condition})"
    rows = [
        f"select sample_id from {table} where dataset_id = ? and edit_id in {of} and {near('sample_id')}"
        for table in EDITED_TABLES
    ]
    return f"s.id in ({' union all '.join(rows)})", [dataset_id, dataset_id, value] * len(rows)


def marks(values: Sequence[str], chosen: Chosen) -> Condition:
    """``KIND`` or ``KIND:WORD``."""
    parts, given = [], []
    for value in values:
        kind, colon, word = value.partition(":")
        only = " and m.word = ?" if colon else ""
        parts.append(
            "s.id in (select m.sample_id from marks m join samples s on s.id = m.sample_id where m.dataset_id = ? "
            f"and s.dataset_id = ? and m.kind = ?{only} and {near('m.sample_id')} and {near('s.id')} and {STANDING})"
        )
        given += [chosen[1], chosen[1], kind, *([word] if colon else [])]
    return " and ".join(parts), given


def said_mark(value: str, _: Sureness) -> str:
    kind, word = value.split(":", 1) if ":" in value else (value, "")
    said = MARKS.get(kind, kind).lower()
    return f"{said}: {word}" if word else said


def flip(value: str, chosen: Chosen) -> Condition:
    """``RUN,RUN,DIMENSION`` or ``RUN,RUN,DIMENSION,WORD,WORD``: what two runs answered differently."""
    first, second, dimension, *words = [*value.split(","), "", "", ""][: 5 if value.count(",") > 2 else 3]
    parts = "a.run_id = ? and b.run_id = ? and a.dimension = ?"
    given: list[Any] = [whole(first, "flip"), whole(second, "flip"), dimension]
    if words:
        parts += " and a.word = ? and b.word = ?"
        given += words
    return (
        "s.id in (select a.sample_id from answers a join answers b on b.sample_id = a.sample_id "
        f"and b.dimension = a.dimension where a.word <> b.word and a.dataset_id = ? and {near('a.sample_id')} "
        f"and {near('b.sample_id')} and {parts})",
        [chosen[1], *given],
    )
