"""What a root is, whatever lies behind it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from vlm.imaging import Source

MOST_BYTES = 256 << 20  # of a picture in a bucket: it is held in memory while it is decoded

Seen = TypeVar("Seen")


class Root(Protocol):
    """The place below which all files of a data set lie. Paths are relative to it, with '/' between folders.

    Two roots are equal where they name the same place. Its text, ``str(root)``, is what a data set keeps, and ``root_of`` makes
    the same root of it again, in another process or on another machine too.

    What is read of a file raises ``ImageUnreadable`` where that file is at fault (gone, not to be read, outside), and
    ``RootAway`` where the whole place does not answer; of a folder that is away every file is gone.
    """

    @property
    def at_once(self) -> int:
        """How many threads that read at the same time are of use."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path, or its bucket and prefix, part by part."""

    def base(self) -> str:
        """Return what stands before a path in what other programs call that file: a whole path or a URL, with its slash."""

    def source(self, path: str) -> Source:
        """Return a picture as ``vlm.imaging`` reads it: a file's path, or an object's bytes, got in one request."""

    def look(self, path: str, look: Callable[[Source], Seen]) -> Seen:
        """Call ``look`` with a picture of which the head may be enough; of an object no more is got than is read."""

    def read(self, path: str, *, most: int = MOST_BYTES) -> bytes:
        """Return a file's bytes; one that has more than ``most`` is refused before they are read."""

    def size(self, path: str) -> int:
        """Return how many bytes a file has."""

    def has(self, path: str) -> bool:
        """Tell whether there is such a file."""

    def probe(self) -> None:
        """Return if the place answers. Raises ``RootAway``, and ``RootRefused`` where it lets nobody in or is not there."""
