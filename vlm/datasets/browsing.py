"""Finding a folder to import: what lies below the import roots, level by level, and what begins as somebody types."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from django.conf import settings

from vlm.datasets.places import allowed_folder, below_roots, below_urls, import_urls
from vlm.formats import ImportFailed
from vlm.roots import is_url

SHOWN = 200
LOOKED_AT = 20_000  # entries of one folder: among a million pictures, folders beyond stay unseen, and “more” says so
DESCRIPTIONS = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder, or a file that may describe a data set."""

    name: str
    path: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder: ``above`` is the folder around it, empty at an import root; ``more`` if not all is listed."""

    folder: str
    above: str
    entries: list[Entry]
    more: bool


def listing(*, path: str) -> Listing:
    """Return what lies in the folder ``path``, or, if there is none, what its end could become.

    Raises:
        ImportFailed: it does not lie below the import roots or URLs, or may not be read.
    """
    roots: list[Path] = settings.IMPORT_ROOTS
    typed = path.strip()
    urls = [url for url in map(str, import_urls()) if url.startswith(typed)]
    if is_url(typed) and (not urls or typed.rstrip("/") in urls):
        # What lies in a bucket is not listed, which can take as long as an import.
        return Listing(str(below_urls(typed)), "", [], more=False)
    if not typed and len(roots) == 1 and not settings.IMPORT_URLS:
        typed = str(roots[0])
    beginning = [root for root in roots if str(root).casefold().startswith(typed.casefold())]
    if not typed or urls or (beginning and not _is_folder(Path(typed))):  # not at a root yet
        places = [*map(str, beginning), *urls]
        return Listing("", "", [Entry(place, place, is_folder=True) for place in places], more=False)
    folder, begins = below_roots(typed), ""
    if not _is_folder(folder):
        folder, begins = allowed_folder(str(Path(typed).parent)), Path(typed).name
    try:
        with os.scandir(folder) as found:
            looked_at = list(islice(found, LOOKED_AT + 1))
    except OSError as error:
        raise ImportFailed(f"{folder} cannot be read: {error.strerror}. Choose another folder.") from error
    entries = sorted(_entries(looked_at, begins, roots), key=lambda entry: (not entry.is_folder, natural(entry.name)))
    above = "" if folder in roots else str(folder.parent)
    return Listing(str(folder), above, entries[:SHOWN], more=len(entries) > SHOWN or len(looked_at) > LOOKED_AT)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # longer than any path, or with a zero in it
        return False


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts “cam 9” before “cam 10”."""
    return [
        (int(part), "") if part.isdecimal() and part.isascii() and len(part) < 19 else (-1, part)
        for part in re.split(r"([0-9]+)", name.casefold())
    ]


def _entries(found: Iterable["os.DirEntry[str]"], begins: str, roots: list[Path]) -> Iterable[Entry]:
    for entry in found:
        if not entry.name.casefold().startswith(begins.casefold()) or (entry.name[0] == "." and begins[:1] != "."):
            continue
        try:
            entry.name.encode()  # what is no text cannot be sent back
            folder = entry.is_dir()
            leads_out = entry.is_symlink() and not any(
                Path(entry.path).resolve().is_relative_to(root) for root in roots
            )
        except (OSError, RuntimeError, UnicodeEncodeError):
            continue
        if not leads_out and (folder or entry.name.lower().endswith(DESCRIPTIONS)):
            yield Entry(entry.name, entry.path, is_folder=folder)
