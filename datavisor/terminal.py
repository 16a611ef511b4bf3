"""What may be written to a terminal: no control characters of a file's name, and no character that it cannot show."""

import codecs
import logging
import re
import sys

# A terminal obeys what begins with ESC (0x1B) or CSI (0x9B); a carriage return or a bidi mark shows a name as another.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_IN_LINE = re.compile("[\t\n]")
_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "…": "...", "×": "x", "→": "->"})


def harmless(text: str) -> str:
    """Return ``text`` with its control characters written out, ESC as four plain ones; lines and tabs stay."""
    return _CONTROLS.sub(_written_out, text)


def in_one_line(text: str) -> str:
    """Return ``text`` as :func:`harmless` does, and in one line: for a file's name, which may hold line breaks too."""
    return _IN_LINE.sub(_written_out, harmless(text))


def _written_out(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def speak_any_terminal() -> None:
    """Have stdout and stderr write what their encoding lacks in its place, instead of ending in an error."""
    codecs.register_error("datavisor", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="datavisor")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the plain form of a quotation mark or dash, and of anything else its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_PLAIN)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


class HarmlessFormatter(logging.Formatter):
    """Writes a log line whose names of files cannot steer the terminal that it is read on."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))
