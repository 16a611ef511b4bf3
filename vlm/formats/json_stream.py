"""A large JSON object as a stream: the elements of its top-level arrays, one by one.

The standard library's decoder, which is written in C, decodes one element at a time from a sliding window of the file.
A COCO JSON has its images and annotations in such arrays, in any order, and one pass is enough for all of them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

_WINDOW = 1 << 20  # characters that are read at once
# Characters. A broken quote would otherwise draw the rest of the file into memory, and decoded, brackets take 20 times as much.
_MAX_ELEMENT = 1 << 24
_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
# What may stand behind a value. Anything else is broken, or a number that the end of the window has cut (“1e|5”).
_AFTER_VALUE = frozenset(",]}: \t\r\n")
_DECODER = json.JSONDecoder()


class JSONBroken(Exception):
    """The text is no JSON object; the message says where."""


class _Window:
    """The part of the text that is in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0
        self._lines = 0  # line ends before the window
        self._columns = 0  # characters of the window's first line that lie before the window
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is no white space, '' at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text):
                return self._text[self._position]
            if self._ended:
                return ""
            self._grow(_WINDOW)

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self.broken(f"“{expected}” is missing")
        self._position += 1

    def value(self) -> Any:
        """Decode and return the next value."""
        size = _WINDOW
        if not self.peek():
            raise self.broken("the file ends too early")
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._position > _MAX_ELEMENT:
                    raise self.broken(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
                raise self.broken(str(error)) from error
            else:
                if self._text[end : end + 1] in _AFTER_VALUE or self._ended:
                    self._position = end
                    return value
            self._grow(min(size, max(_WINDOW, self._position + _MAX_ELEMENT + 1 - len(self._text))))
            size *= 2

    def following(self) -> Iterator[Any]:
        """Yield the values that follow, each behind a comma, as far as they lie in the window, and one more.

        This is the loop that a million elements pass through, so it is written without calls that can be spared.
        """
        text, position = self._text, self._position
        decode, separator = _DECODER.raw_decode, _SEPARATOR.match
        while match := separator(text, position):
            try:
                value, end = decode(text, match.end())
            except (ValueError, RecursionError):
                break  # cut off by the end of the window, or broken: the careful way finds out
            if text[end : end + 1] not in _AFTER_VALUE:
                break
            self._position = position = end
            yield value
        if self.peek() == ",":
            self.take(",")
            yield self.value()

    def broken(self, what: str, position: int | None = None) -> JSONBroken:
        at = self._position if position is None else position
        lines, columns = self._place(at)
        return JSONBroken(f"line {lines + 1:,}, column {columns + 1:,}: {what}")

    def _place(self, at: int) -> tuple[int, int]:
        """Return the line ends before a position of the window, and the characters since the last of them."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._lines + lines, at - self._text.rfind("\n", 0, at) - 1
        return self._lines, self._columns + at

    def _grow(self, size: int) -> None:
        self._lines, self._columns = self._place(self._position)
        try:
            more = self._file.read(size)
        except UnicodeDecodeError as error:
            raise JSONBroken(f"after line {self._lines + 1:,}: it is not UTF-8 text") from error
        self._ended = not more
        self._text = self._text[self._position :] + more
        self._position = 0


class Section(NamedTuple):
    """A key of the top level: the elements of its array, or the one value where it is none."""

    key: str
    is_array: bool
    elements: Iterator[Any]


def stream_sections(file: TextIO) -> Iterator[Section]:
    """Yield the keys of the top level in their order.

    The elements of a key come while the file is read: what is left of them when the next key is asked for is lost.

    Args:
        file: opened as text, UTF-8.

    Raises:
        JSONBroken: the text is no JSON object, or breaks off.
    """
    window = _Window(file)
    window.take("{")
    if window.peek() != "}":
        while True:
            key = window.value()
            if not isinstance(key, str):
                raise window.broken("a key must be a text")
            window.take(":")
            is_array = window.peek() == "["
            section = Section(key, is_array, _elements(window) if is_array else iter((window.value(),)))
            yield section
            for _ in section.elements:
                pass
            if window.peek() != ",":
                break
            window.take(",")
    window.take("}")
    if window.peek():
        raise window.broken("something follows the end of the object")


def _elements(window: _Window) -> Iterator[Any]:
    window.take("[")
    if window.peek() != "]":
        yield window.value()
        while window.peek() == ",":
            yield from window.following()
    window.take("]")
