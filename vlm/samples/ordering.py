"""Orders as SQL: what each sorts by, and the cursors that stand between two samples in it.

All inside ``SampleStore.read()``.
"""

import base64
import json
import math
from dataclasses import dataclass
from typing import Any

from .conditions import MEASURES, Words
from .cursor import Cursor
from .database import literal
from .errors import FilterError
from .orders import CONTRADICTING, ORDERS, parts_of
from .ranges import MEGAPIXELS

NO_NUMBER, NO_WORD = 1e300, "\U0010ffff"  # samples without a value come last, whichever way
MAX_CURSOR = 8000  # characters

NUMBERS = {  # of a sample: SQL that is null where there is none
    "uncertain": "s.certainty",
    "width": "s.width",
    "height": "s.height",
    "megapixels": MEGAPIXELS,
    "filesize": "s.bytes",
    "taken": "epoch(s.taken)",
}
WORDS = {"split": "nullif(s.split, '')", "camera": "nullif(s.camera, '')"}


@dataclass(frozen=True, slots=True)
class Key:
    """What an order sorts by.

    Attributes:
        sql: of ``samples s``, never null.
        kind: text or number.
        falling: the greatest comes first.
    """

    sql: str
    kind: type
    falling: bool = False

    @property
    def forward(self) -> str:
        down = " desc" if self.falling else ""
        return f"{self.sql}{down}, s.id{down}"

    @property
    def backward(self) -> str:
        down = "" if self.falling else " desc"
        return f"{self.sql}{down}, s.id{down}"

    def beyond(self, at: tuple[Any, int]) -> tuple[str, list[Any]]:
        """Return the condition on samples behind a cursor."""
        return self._beside("<" if self.falling else ">", "", at)

    def up_to(self, at: tuple[Any, int]) -> tuple[str, list[Any]]:
        """Return the condition on samples up to a cursor."""
        return self._beside(">" if self.falling else "<", "=", at)

    def _beside(self, sign: str, equal: str, at: tuple[Any, int]) -> tuple[str, list[Any]]:
        # The first comparison alone lets DuckDB skip whole blocks.
        return f"{self.sql} {sign}= ? and ({self.sql}, s.id) {sign}{equal} (?, ?)", [at[0], *at]


def key_of(cursor: Cursor, dataset_id: int, order: str, words: Words) -> Key:
    """Return what an order sorts by; ``orders`` says how orders are spelt.

    Raises:
        FilterError: there is no such order.
    """
    falling, kind, name = parts_of(order)
    if order == CONTRADICTING:
        found = f"marks v where v.dataset_id = {int(dataset_id)} and v.kind = 'contradiction'"
        return _number(_value("max(v.value)", found), falling=True)
    if kind == "added":
        return Key("-s.id" if falling else "s.id", int)
    if not name and kind in NUMBERS:
        return _number(NUMBERS[kind], falling)
    if kind == "name":
        return Key("s.sort", str, falling)
    if not name and kind in WORDS:
        return _word(WORDS[kind], falling)
    if kind == "own":
        known = ", ".join(literal(word) for of in words.values() for word in of)
        return _word(f"list_filter(s.tags, lambda x: not list_contains([{known}]::varchar[], x))[1]", falling)
    if kind == "tag" and (of := words.get(name)):
        places = " ".join(f"when list_contains(s.tags, {literal(word)}) then {at}" for at, word in enumerate(of))
        return _number(f"(case {places} end)", falling)
    if kind == "probability" and name in words:
        answers = f"answers v where v.dataset_id = {int(dataset_id)} and v.current and v.dimension = {literal(name)}"
        return _number(_value("any_value(v.probability)", answers), falling)
    if kind == "measure" and name in MEASURES:
        measures = f"measures v where v.dataset_id = {int(dataset_id)}"
        return _number(_value(f"any_value(v.{name})", measures), falling)
    if kind == "column" and (column := _column_named(cursor, dataset_id, name)) is not None:
        values = f"column_values v where v.column_id = {column[0]}"
        if column[1] == "word":
            return _word(_value("any_value(v.word)", values), falling)
        return _number(_value("any_value(v.number)", values), falling)
    raise FilterError(f"There is no order “{order[:100]}”; there are {', '.join(ORDERS)}.")


def _number(sql: str, falling: bool) -> Key:
    """Return a key of numbers. Those that are to fall rise as their opposites: so no value comes last either way."""
    return Key(f"coalesce({'-' if falling else ''}{sql}, {NO_NUMBER})", float)


def _word(sql: str, falling: bool) -> Key:
    return Key(f"coalesce({sql}, {literal('' if falling else NO_WORD)})", str, falling)


def _value(value: str, rows: str) -> str:
    """Return SQL for what other ``rows`` (of ``v``) say of a sample."""
    return f"(select {value} from {rows} and v.sample_id = s.id)"


def _column_named(cursor: Cursor, dataset_id: int, name: str) -> tuple[int, str] | None:
    rows = cursor.execute(
        "select id, kind from columns where dataset_id = ? and name = ?", [dataset_id, name]
    ).fetchall()
    return rows[0] if rows else None


# -- cursors -------------------------------------------------------------------------------------------------------------
def page_cursor(order: str, row: tuple[Any, int]) -> str:
    """Return the cursor behind the sample with this (key of the order, id)."""
    return base64.urlsafe_b64encode(json.dumps([order, *row]).encode()).decode().rstrip("=")


def unpack(cursor: str, order: str, key: Key) -> tuple[Any, int]:
    """Return the (key of the order, id) that a cursor stands behind. Raises ``FilterError``: it is of another order, or none."""
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        made_for, value, sample_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        fitting = made_for == order and _fits(value, key.kind) and type(sample_id) is int and 0 <= sample_id < 2**63
    except (ValueError, TypeError, OverflowError, RecursionError):
        fitting = False
    if not fitting:
        raise FilterError("This page of the list is no longer known; go back to the first one.")
    return value, sample_id


def _fits(value: object, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and bool(value.encode() or True)
    if kind is int:
        return type(value) is int and abs(value) < 2**63
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
