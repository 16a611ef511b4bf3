"""YAML as data sets use it: texts, lists and mappings, and nothing that grows.

Every scalar stays the text that was written, so that a class called “no” or “1e3” keeps its name. Aliases and merge keys are
refused: a few lines of them stand for gigabytes.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

MAX_BYTES = 2_000_000  # ten times the largest list of classes that is in use
_MAX_DEPTH = 20
_MAX_NODES = 200_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class YAMLBroken(Exception):
    """A text is no YAML, or not such a YAML; the message names the line and the reason."""


def load(text: str) -> Any:
    """Return the first document of a text: ``str``, ``list``, ``dict`` with texts as keys, or ``None`` where it is empty.

    Raises:
        YAMLBroken: it is no YAML, has aliases, merge keys or tags of its own, or is too large or too deep.
    """
    if len(text) > MAX_BYTES:
        raise YAMLBroken(f"it has more than {MAX_BYTES:,} characters")
    try:
        events = iter(yaml.parse(text, Loader=_LOADER))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                return _Composer(events).value(next(events), 0)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "; write paths with / or in single quotes" if "\\" in _line(text, line) else ""
        raise YAMLBroken(f"line {line}: {error.problem or error}{hint}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YAMLBroken(" ".join(str(error).split())) from error
    return None


def _line(text: str, number: int) -> str:
    return next(islice(text.splitlines(), number - 1, None), "")


def is_null(value: Any) -> bool:
    """Tell whether a value stands for nothing."""
    return value is None or (isinstance(value, str) and value in _NULL)


class _Composer:
    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._nodes = 0

    def value(self, event: Any, depth: int) -> Any:
        self._check(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        if isinstance(event, yaml.SequenceStartEvent):
            values = []
            while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
                values.append(self.value(following, depth + 1))
            return values
        mapping: dict[str, Any] = {}
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            if not isinstance(following, yaml.ScalarEvent | yaml.AliasEvent):
                raise _at(following, "a key must be a text")
            if isinstance(following, yaml.ScalarEvent) and following.value == "<<" and not following.style:
                raise _at(following, "merge keys (<<) are not read; write the values out")
            key = self.value(following, depth + 1)
            mapping[key] = self.value(next(self._events), depth + 1)
        return mapping

    def _check(self, event: Any, depth: int) -> None:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise _at(event, f"aliases (*{event.anchor}) are not read; write the values out")
        if (event.tag and not event.tag.startswith("tag:yaml.org,2002:")) or "python" in (event.tag or ""):
            raise _at(event, f"the tag “{event.tag}” is not read")
        if depth > _MAX_DEPTH:
            raise _at(event, f"it is nested deeper than {_MAX_DEPTH} levels")
        if self._nodes > _MAX_NODES:
            raise _at(event, f"it has more than {_MAX_NODES:,} values")


def _at(event: Any, reason: str) -> YAMLBroken:
    return YAMLBroken(f"line {event.start_mark.line + 1}: {reason}")
