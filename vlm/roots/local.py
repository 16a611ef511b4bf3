"""A folder of this machine."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm.imaging import ImageUnreadable, Source
from vlm.roots.base import MOST_BYTES, Seen


@dataclass(frozen=True, slots=True, init=False)
class LocalRoot:
    """A folder. Links are followed, and what they lead to must lie below it."""

    path: Path

    def __init__(self, path: Path | str) -> None:
        object.__setattr__(self, "path", Path(path))

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def at_once(self) -> int:
        return min(8, os.cpu_count() or 2)  # Pillow lets go of the interpreter while it decodes

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.path.parts if part != self.path.anchor)

    def base(self) -> str:
        return str(self.path.resolve()).rstrip("/") + "/"

    def source(self, path: str) -> Path:
        return locate(self.path, path)

    def look(self, path: str, look: Callable[[Source], Seen]) -> Seen:
        return look(self.source(path))

    def read(self, path: str, *, most: int = MOST_BYTES) -> bytes:
        file = self.source(path)
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                raise ImageUnreadable("It is no regular file.")
            if status.st_size > most:
                raise too_large(path, status.st_size, most)
            return file.read_bytes()
        except OSError as error:
            raise ImageUnreadable(f"{path} cannot be read ({error.strerror}).") from error

    def size(self, path: str) -> int:
        try:
            return self.source(path).stat().st_size
        except OSError as error:
            raise ImageUnreadable(f"{path} cannot be looked at ({error.strerror}).") from error

    def has(self, path: str) -> bool:
        try:
            return (self.path / path).is_file()
        except (OSError, ValueError):
            return False

    def probe(self) -> None:
        """Of a folder that is away every file is gone: there is nothing to wait for."""


def locate(root: Path, path: str) -> Path:
    """Return the file of a sample, which must lie below the root whatever links have been laid since the import.

    Raises:
        ImageUnreadable: it is gone, or leads out of ``root``.
    """
    try:
        base = os.path.realpath(root, strict=True)
        found = os.path.realpath(Path(base, path), strict=True)
    except (OSError, RuntimeError, ValueError):
        raise gone(path) from None
    if not lies_in(base, found):
        raise outside(path)
    return Path(found)


def lies_in(root: str, resolved: str) -> bool:
    """Tell whether a path is ``root`` or below it; both have been resolved."""
    return resolved == root or resolved.startswith(root.rstrip("/") + "/")


def gone(path: str) -> ImageUnreadable:
    return ImageUnreadable(f"The file {path} is not there (any more).")


def outside(path: str) -> ImageUnreadable:
    return ImageUnreadable(f"{path} leads out of the data set's folder, so it is not read.")


def too_large(path: str, size: int, most: int) -> ImageUnreadable:
    return ImageUnreadable(f"{path} has {size:,} bytes, more than the {most:,} that are read of a picture.")
