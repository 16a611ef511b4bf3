"""A vocabulary as a TOML file, to be kept beside the data, shared, and edited by hand.

    [[dimension]]
    name = "weather"                       # letters, digits, “-” and “_”
    question = "What weather: sunny, rainy or foggy? One word."
    words = ["sunny", "rainy", "foggy"]    # in the order of the page
    # all of the following may be left out
    kind = "one-of"                        # or "ordered", or "yes-no" (with one word, the tag of a yes)
    levels = ["foggy", "rainy", "sunny"]   # of an ordered dimension, lowest first, if the words stand otherwise
    enabled = true                         # whether new runs ask it
    wordings = ["Which weather is it?"]    # further wordings; the answer is then the mean of all
    only = { dimension = "setting", words = ["outdoor"] }   # tags are made only there
    spellings = { rainy = ["rain"] }       # what else counts as the word
    label = "Wetter"                       # how the page calls it
    labels = { sunny = "sonnig" }

Several ``[[dimension]]`` tables follow one another in the order in which they are asked.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tomli_w

from vlm.vocabulary import Dimension, VocabularyError, check_vocabulary

MAX_FILE = 1 << 20  # bytes
MAX_DOTS = 100  # in a line; the parser's time grows with the square of the parts of a dotted key, and its memory too


@dataclass(frozen=True, slots=True)
class Entry:
    """A dimension of a vocabulary that is edited, and whether new runs ask it."""

    dimension: Dimension
    enabled: bool = True


def dump(entries: Iterable[Entry]) -> str:
    """Return the TOML text of a vocabulary; :func:`load` reads it back exactly."""
    tables: list[dict[str, Any]] = []
    for entry in entries:
        table = entry.dimension.to_json()
        if not entry.enabled:
            table["enabled"] = False
        tables.append(table)
    return tomli_w.dumps({"dimension": tables}, multiline_strings=False)


def load(content: bytes | str) -> tuple[Entry, ...]:
    """Read a TOML file.

    Raises:
        VocabularyError: it is no TOML, has a key that is none, or cannot be asked; the message says where and why.
    """
    if len(content) > MAX_FILE:
        raise VocabularyError(f"The file is larger than {MAX_FILE:,} bytes; a vocabulary is not.")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError:
        raise VocabularyError("The file is not UTF-8. Save it as UTF-8 and try again.") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS:
            raise VocabularyError(
                f"Line {number:,} has more than {MAX_DOTS} dots. Write its texts on lines of their own."
            )
    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no TOMLDecodeError
        raise VocabularyError(f"This is no valid TOML: {error}.") from None
    if unknown := sorted(set(value) - {"dimension"}):
        raise VocabularyError(f"“{unknown[0]}” has no meaning here: a vocabulary is a list of [[dimension]] tables.")
    tables = value.get("dimension", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise VocabularyError("The file has no [[dimension]] table.")
    entries = []
    for table in tables:
        enabled = table.pop("enabled", True)
        if not isinstance(enabled, bool):
            raise VocabularyError(f"“enabled” of “{table.get('name', '')}” must be true or false.")
        entries.append(Entry(Dimension.from_json(table), enabled))
    check_vocabulary(entry.dimension for entry in entries)
    return tuple(entries)
