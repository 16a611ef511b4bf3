r"""Which file is meant by a path that was written on another machine.

Labelling tools write paths of the machine they ran on: ``C:\data\a.jpg``, ``/content/drive/images/a.jpg``,
``/data/local-files/?d=images/a.jpg``, ``my%20photo.jpg``; file systems change the case of names and the form of accents.
Such a path stands for a file here if its end names just one: the file that shares the longest run of folders with it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import unquote

_SPLIT = re.compile(r"(train|training|val|valid|validation|dev|test|testing)(\d{4})?", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*/|[A-Za-z]:(?=/)")
_QUERY = re.compile(r"\?(?:.*&)?d=([^&#]+)")  # Label Studio's address of a local file
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file
_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


class Ambiguous(Exception):
    """A path fits several files alike; ``candidates`` are some of them."""

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(
            f"It fits several files alike ({', '.join(candidates)}), so it is not clear which one is meant."
        )
        self.candidates = candidates


def split_name(folder: str) -> str:
    """Return the split that a folder's name stands for ('train' for 'Train2017'), '' where it is no split."""
    match = _SPLIT.fullmatch(folder)
    return match[1].lower() if match else ""


@lru_cache(maxsize=65_536)
def split_in(folder: str) -> str:
    """Return the split that the first fitting part of a folder's path stands for."""
    return next(filter(None, map(split_name, folder.split("/"))), "")


def fold(text: str) -> str:
    """Return a name so that neither case nor the form of its accents matters."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def name_of(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def readings(written: str) -> list[tuple[str, ...]]:
    """Return what a written path may mean, likeliest first, as folders and a name without ``..`` and the like."""
    texts = [written]
    if query := _QUERY.search(written):
        texts.insert(0, query[1])
    elif "?" in written or "#" in written:
        texts.append(re.split(r"[?#]", written, maxsplit=1)[0])
    texts += [unquote(text) for text in texts if "%" in text]
    found = []
    for text in texts:
        text = _SCHEME.sub("", text.replace("\\", "/"), count=1)
        parts = tuple(part for part in text.split("/") if part not in ("", ".", ".."))
        if parts and parts not in found:
            found.append(parts)
    found += [(*parts[:-1], _UPLOADED.sub("", parts[-1])) for parts in found if _UPLOADED.match(parts[-1])]
    return found


def best(written: Sequence[str], candidates: Iterable[str]) -> str | None:
    """Return the candidate whose end is the written path's for the longest run of folders.

    Candidates are paths whose name is the written one, but for case and the form of accents; those of another split are
    not considered.

    Raises:
        Ambiguous: several fit alike.
    """
    folded = [fold(part) for part in reversed(written)]
    split = _common(split_in("/".join(written[:-1])))
    ranked: list[tuple[tuple[int, int], str]] = []
    for candidate in candidates:
        folder = candidate.rpartition("/")[0]
        if split and _common(split_in(folder)) not in ("", split):
            continue
        parts = candidate.split("/")[::-1]
        shared = _run(folded, [fold(part) for part in parts])
        if shared:
            exact = _run(written[::-1], parts)
            ranked.append(((shared, exact), candidate))
    if not ranked:
        return None
    ranked.sort(key=lambda item: item[0], reverse=True)
    first = [candidate for rank, candidate in ranked if rank == ranked[0][0]]
    if len(first) > 1:
        raise Ambiguous(sorted(first)[:3])
    return first[0]


def _common(split: str) -> str:
    return _SPLITS.get(split, split)


def _run(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many elements two sequences begin with alike."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
