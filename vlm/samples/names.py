"""Keys that are made of a file's name: to find it whatever way it was typed, and to put 2 before 10."""

import re
import unicodedata

DIGITS = re.compile(r"[0-9]+")


def search_key(text: str) -> str:
    """Return what a search compares: without case, and with accents composed, as a Mac's file system does not write them."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def sort_key(name: str) -> str:
    """Return a text that sorts as people count: a number has its length in front of its digits.

    ``img 2`` becomes ``img 12`` and ``img 10`` becomes ``img 210``. Lengths beyond nine are a row of nines and the rest.
    """
    return DIGITS.sub(_counted, search_key(name))


def _counted(found: re.Match[str]) -> str:
    digits = found[0].lstrip("0") or "0"
    nines, rest = divmod(len(digits), 9)
    return f"{'9' * nines}{rest}{digits}"
