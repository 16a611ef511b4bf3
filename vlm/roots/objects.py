"""A prefix of a bucket, through obstore: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint are taken from the environment of this process, as the makers of these stores call them.
obstore's own words about an error hold addresses and answers of servers, so none of them is repeated or logged.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from vlm.errors import RootAway, RootRefused
from vlm.imaging import ImageUnreadable, Source
from vlm.roots.base import MOST_BYTES, Seen
from vlm.roots.local import gone, outside, too_large
from vlm.roots.urls import ObjectURL, is_key

if TYPE_CHECKING:
    from obstore.store import ObjectStore

AT_ONCE = 32  # requests: a store answers each after tens of milliseconds, and many at a time
HEAD_BYTES = 1 << 15  # in which most pictures say their size, time and camera
WINDOW = 8 << 20  # bytes of a large file that are got together
KEYS_AT_ONCE = 5000
INSTALL = 'pip install "datavisor[objects]"'

# What obstore tries again by itself; a place that stays away longer is waited for by ``waiting.Patience``.
RETRIES = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "5m"}
# Beginnings of the names of the variables in which credentials and endpoints stand.
_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_STATUS = re.compile(r"status code: ([45]\d\d)")
_EMPTY = re.compile(r"status code: 416|[Ii]nvalid range")  # no other range begins behind an object's end
_KIND = re.compile(r"kind: (Connect|Timeout)\b")
_WHY = {"Connect": "nobody answers there", "Timeout": "no answer came in time"}


class Listed(NamedTuple):
    """An object below a root."""

    path: str
    size: int
    etag: str | None
    modified: float  # seconds since 1970

    @property
    def key(self) -> str:
        """What its content is known by: size and ETag, or its time where a store gives no ETag."""
        etag = (self.etag or "").removeprefix("W/").strip('"')
        return f"{self.size}-{etag or round(self.modified * 1e9)}"


class ObjectRoot:
    """A prefix of a bucket. It is known by its URL alone, in a pickle too: another process takes its own credentials."""

    def __init__(self, url: ObjectURL) -> None:
        self.url = url

    def __str__(self) -> str:
        return str(self.url)

    def __repr__(self) -> str:
        return f"ObjectRoot({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRoot) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def at_once(self) -> int:
        return AT_ONCE

    @property
    def parts(self) -> tuple[str, ...]:
        return self.url.parts

    def base(self) -> str:
        return f"{self.url}/"

    def source(self, path: str) -> Source:
        return BytesIO(self.read(path))

    def look(self, path: str, look: Callable[[Source], Seen]) -> Seen:
        with self.open(path, window=HEAD_BYTES) as file:
            return look(file)

    def read(self, path: str, *, most: int = MOST_BYTES) -> bytes:
        key = self._key(path)
        with self._asking(path):
            got = _obstore().get(self._store, key)
            size = got.meta["size"]
            if size > most:
                raise too_large(path, size, most)
            return bytes(got.bytes())

    def open(self, path: str, *, window: int = WINDOW) -> io.BufferedReader:
        """Open an object to be read bit by bit, ``window`` bytes of it at first; each request is tried again by itself.

        Raises:
            ImageUnreadable, RootAway: here, and by whatever reads from it.
        """
        return io.BufferedReader(_Ranges(self, path, window))

    def part(self, path: str, start: int, end: int, *, etag: str | None = None) -> tuple[bytes, Listed]:
        """Return the bytes of an object from ``start`` to before ``end``, fewer where it ends, and what it is.

        Args:
            etag: refuse an object that has another one by now.
        """
        options: dict[str, Any] = {"range": (start, end)} | ({"if_match": etag} if etag else {})
        key = self._key(path)
        with self._asking(path):
            got = _obstore().get(self._store, key, options=options)
            return bytes(got.bytes()), listed(got.meta)

    def status(self, path: str) -> Listed | None:
        """Return what is at a path, ``None`` where nothing is. Raises ``ImageUnreadable`` where it may not be looked at."""
        key = self._key(path)
        try:
            with self._asking(path):
                return listed(_obstore().head(self._store, key))
        except _Gone:
            return None

    def size(self, path: str) -> int:
        found = self.status(path)
        if found is None:
            raise gone(path)
        return found.size

    def has(self, path: str) -> bool:
        try:
            return self.status(path) is not None
        except ImageUnreadable:
            return False

    def listing(self) -> Iterator[list[Listed]]:
        """Yield all that lies below the prefix, some thousands at a time, in the order of the store.

        Raises:
            RootRefused: it may not be listed, or there is no such bucket.
            RootAway: the store does not answer.
        """
        chunks = iter(_obstore().list(self._store, chunk_size=KEYS_AT_ONCE))
        while True:
            with self._listing():
                chunk = next(chunks, None)
                found = [] if chunk is None else [listed(meta) for meta in chunk]
            if chunk is None:
                return
            yield found

    def probe(self) -> None:
        with self._listing():
            next(iter(_obstore().list(self._store, chunk_size=1)), None)

    @property
    def _store(self) -> "ObjectStore":
        return open_store(self.url)

    def _key(self, path: str) -> str:
        """Return the key of a path below the prefix, which is the path itself: nothing in it is decoded or resolved."""
        if not is_key(path):
            raise outside(path)
        return path

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        """Translate what goes wrong with one object."""
        exceptions = _obstore().exceptions
        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError):
            raise _Gone(str(gone(path))) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError):
            try:
                self.probe()
            except RootRefused as refused:  # where nothing may be read any more, it is not this object's fault
                raise RootAway(refused.message) from None
            raise ImageUnreadable(
                f"{path} may not be read with the credentials in the environment; give them the right."
            ) from None
        except exceptions.PreconditionError:
            raise ImageUnreadable(f"{path} changed while it was read; import the data set again.") from None
        except (ValueError, exceptions.InvalidPathError):
            raise ImageUnreadable(f"“{path}” is a key that cannot be asked for; give it another name.") from None
        except (exceptions.BaseError, OSError) as error:
            if _EMPTY.search(str(error)):
                raise ImageUnreadable("The file is empty.") from None
            raise self._away(error) from None

    @contextmanager
    def _listing(self) -> Iterator[None]:
        """Translate what goes wrong with the whole of it."""
        exceptions = _obstore().exceptions
        try:
            yield
        except (exceptions.BaseError, OSError, ValueError) as error:
            text = str(error)
            status = _STATUS.search(text)
            if isinstance(error, FileNotFoundError) or (status and status[1] == "404"):
                raise RootRefused(f"There is no bucket “{self.url.bucket}”. Check {self}, and the endpoint.") from None
            if isinstance(error, exceptions.PermissionDeniedError) or (status and status[1] in ("401", "403")):
                raise RootRefused(
                    f"{self} may not be listed: the store refuses the credentials in the environment of this process, or there are none."
                ) from None
            if "path segment" in text:
                raise RootRefused(
                    f"Below {self} lies a key with an empty part (//), “.” or “..” between slashes, or a control character. Rename "
                    "it, or give a prefix beside it."
                ) from None
            raise self._away(error) from None

    def _away(self, error: Exception) -> RootAway:
        text = str(error)
        status, kind = _STATUS.search(text), _KIND.search(text)
        why = f"it answers with {status[1]}" if status else _WHY[kind[1]] if kind else "it does not answer as it should"
        return RootAway(
            f"{self} cannot be reached: {why}. Check the network, and the endpoint and credentials in the environment."
        )


class _Gone(ImageUnreadable):
    """There is no such object."""


class _Ranges(io.RawIOBase):
    """An object as a file, got range by range, all of them of one content.

    Whoever reads on gets ever larger ranges, so that a head costs little and a whole file few requests.
    """

    def __init__(self, root: ObjectRoot, path: str, window: int) -> None:
        super().__init__()
        self._root, self._path = root, path
        self._position = 0
        self._size: int | None = None
        self._etag: str | None = None
        self._first = self._window = window
        self._start, self._held = 0, b""  # what was got last, and where it lies

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, offset + (self._end() if base is None else base))
        return self._position

    def readinto(self, buffer: Any) -> int:
        got = self._take(len(buffer), self._ahead())
        buffer[: len(got)] = got
        return len(got)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._take(WINDOW, WINDOW), b""))

    def _ahead(self) -> int:
        """Return how much to get where the next byte is not held."""
        goes_on = bool(self._held) and self._position == self._start + len(self._held)
        return min(2 * self._window, WINDOW) if goes_on else self._first

    def _take(self, length: int, window: int) -> bytes:
        """Return up to ``length`` bytes from where we are, out of what is held or else of ``window`` more."""
        offset = self._position - self._start
        if not 0 <= offset < len(self._held):
            if not length or (self._position and self._position >= self._end()):
                return b""
            got, found = self._root.part(self._path, self._position, self._position + window, etag=self._etag)
            self._size, self._etag = found.size, self._etag or found.etag
            self._start, self._held, self._window, offset = self._position, got, window, 0
        taken = self._held[offset : offset + length]
        self._position += len(taken)
        return taken

    def _end(self) -> int:
        if self._size is None:
            found = self._root.status(self._path)
            if found is None:
                raise gone(self._path)
            self._size, self._etag = found.size, found.etag
        return self._size


def listed(meta: Any) -> Listed:
    """Return what a store says of an object."""
    return Listed(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"].timestamp())


def open_store(url: ObjectURL) -> "ObjectStore":
    """Return the store of a URL, one as long as the environment says the same: it keeps its connections.

    Raises:
        RootRefused: obstore is not installed, or the environment lacks what such a store needs.
    """
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES[url.scheme])))
    return _opened(url, environment)


@lru_cache(maxsize=32)
def _opened(url: ObjectURL, environment: tuple[tuple[str, str], ...]) -> "ObjectStore":
    store = _obstore().store
    kind = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[url.scheme]
    said = dict(environment)
    endpoint = next((said[name] for name in _ENDPOINTS[url.scheme] if said.get(name)), "")
    options = TIMEOUTS | {"allow_http": endpoint.startswith("http://")}
    try:
        opened: ObjectStore = kind(url.bucket, prefix=url.prefix or None, client_options=options, retry_config=RETRIES)
    except Exception:  # noqa: BLE001 - whatever it dislikes stands in the environment, and may hold a secret
        raise RootRefused(
            f"What the environment says of {url.scheme}:// ({_VARIABLES[url.scheme]}…) is not enough, or cannot be used. Check account, "
            "credentials and endpoint."
        ) from None
    return opened


def _obstore() -> Any:
    """Return the package. Raises ``RootRefused`` where it is not installed."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise RootRefused(f"Reading from a bucket needs obstore, which is not installed. Run: {INSTALL}") from None
    return obstore
