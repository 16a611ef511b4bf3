"""The files of a data set in a folder of this machine."""

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from vlm.formats.files import (
    FILE,
    FOLDER,
    LINK_OUTSIDE,
    LINKED_FOLDER,
    NOT_UNICODE,
    OTHER,
    Entry,
    Files,
    Refused,
    Status,
)
from vlm.imaging import Source
from vlm.roots import LocalRoot
from vlm.roots.local import lies_in

SMALL_READ = 1 << 16  # bytes that one call of the system reads for sure


class LocalFiles(Files):
    """Files below a folder, whatever a symbolic link says: a path is used only where it lies below the root once links are resolved."""

    root: LocalRoot

    def __init__(self, root: Path) -> None:
        resolved = os.path.realpath(root)
        super().__init__(LocalRoot(resolved), prefix=resolved.rstrip("/") + "/")
        # Most files of a data set share a few folders; each is resolved once.
        self._folder_is_inside = lru_cache(maxsize=65_536)(self._resolves_inside)

    def status(self, path: str) -> Status | None:
        full = self._prefix + path
        try:
            status = os.lstat(full)
            if not self._folder_is_inside(full.rpartition("/")[0]):
                raise Refused(LINK_OUTSIDE)
            if stat.S_ISLNK(status.st_mode):
                if not self._resolves_inside(full):
                    raise Refused(LINK_OUTSIDE)
                status = os.stat(full)  # noqa: PTH116 - called once per image of a million
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeEncodeError:
            raise Refused(NOT_UNICODE) from None
        except (OSError, ValueError) as error:
            raise Refused(f"It cannot be looked at ({getattr(error, 'strerror', None) or error}).") from error
        if not stat.S_ISREG(status.st_mode):
            raise Refused("It is no regular file.")
        return Status(status.st_size, f"{status.st_size}-{status.st_mtime_ns}", status.st_mtime)

    def entries(self, folder: str) -> Iterator[Entry]:
        try:
            with os.scandir(self._prefix + folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise Refused(f"The folder cannot be read ({error.strerror}).") from error
        return ((entry.name, _kind(entry)) for entry in found)

    def is_folder(self, path: str) -> bool:
        full = self._prefix + path
        try:
            return os.path.isdir(full) and self._resolves_inside(full)  # noqa: PTH112
        except (OSError, ValueError):
            return False

    def is_link(self, path: str) -> bool:
        return Path(self._prefix + path).is_symlink()

    def read_head(self, path: str, size: int) -> bytes:
        full = self._prefix + path
        try:
            if size > SMALL_READ:
                with Path(full).open("rb") as file:
                    return file.read(size)
            # Once per image of a million: without the layers of Python's files.
            descriptor = os.open(full, os.O_RDONLY)
            try:
                return os.read(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Refused(f"It cannot be read ({error.strerror}).") from error

    def open_text(self, path: str, *, errors: str = "strict") -> TextIO:
        return Path(self._prefix + path).open(encoding="utf-8-sig", errors=errors)

    def picture(self, path: str) -> Source:
        return Path(self._prefix + path)

    def _resolves_inside(self, full: str) -> bool:
        return lies_in(str(self.root), os.path.realpath(full))


def _kind(entry: "os.DirEntry[str]") -> str:
    """Tell what an entry is; one that leads round in circles leads to nothing."""
    if entry.is_file(follow_symlinks=False):
        return FILE
    if entry.is_dir(follow_symlinks=False):
        return FOLDER
    try:
        if entry.is_dir():
            return LINKED_FOLDER
        return FILE if entry.is_file() else OTHER
    except OSError:
        return OTHER
