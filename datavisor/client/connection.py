"""The client's way to a server: requests with a token, answers, and what goes wrong between the two."""

import http.client
import json
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

PATIENCE = 60.0  # seconds without an answer
TRIES = 5  # where the server says that trying again may help
POLL = 1.0  # seconds between two looks at a run


class Refused(Exception):
    """The server does not do what it was asked; the message says why and what to do.

    Attributes:
        status: of the HTTP answer.
        title: what kind of refusal it is.
    """

    def __init__(self, message: str, status: int, title: str = "") -> None:
        super().__init__(message)
        self.status, self.title = status, title


class Unreachable(Exception):
    """No server answers at the address, or it stopped in the middle of an answer."""


class StillRunning(Exception):
    """A run or an import has not ended in the time that somebody would wait; it goes on."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for what it is, a refusal: the token goes to the server that it is for, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class Connection:
    """A server's address with somebody's token."""

    def __init__(self, url: str, token: str, *, timeout: float = PATIENCE) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"“{url}” is no address like http://127.0.0.1:8000.")
        self.url, self._token, self.timeout = url.rstrip("/"), token, timeout

    def __repr__(self) -> str:
        return f"DataVisor({self.url!r})"

    def get(self, path: str, query: str = "") -> dict[str, Any]:
        """Ask an address of the server for its JSON. Raises ``Refused``, ``Unreachable``."""
        with self.open(f"{path}?{query}" if query else path) as answer:
            return read(answer)

    def post(self, path: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a form to an address of the server. Raises ``Refused``, ``Unreachable``."""
        body = urlencode(form or {}, doseq=True).encode()
        with self.open(path, body, "application/x-www-form-urlencoded") as answer:
            return read(answer)

    def open(self, path: str, body: bytes | None = None, kind: str = "", accept: str = "application/json") -> IO[bytes]:
        """Send a request and return the open answer; what the server asks to be tried again later is."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self.url + path, body, headers)
        for left in reversed(range(TRIES)):
            try:
                answer: IO[bytes] = _OPENER.open(request, timeout=self.timeout)
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    # A POST that came to 503 may have been carried out by half; one that came to 429 was not looked at.
                    again = error.code == 429 or (error.code == 503 and body is None)
                    refused = _refused(error)
                    wait = error.headers.get("Retry-After", "")
                if not (again and left and wait.isdecimal()):
                    raise refused from None
                time.sleep(int(wait))
            except (urllib.error.URLError, OSError) as error:
                raise Unreachable(f"{self.url} does not answer: {getattr(error, 'reason', error)}.") from error
        raise AssertionError  # the last try has returned or raised


def wait_until(
    look: Callable[[], dict[str, Any]],
    over: Callable[[dict[str, Any]], bool],
    timeout: float | None,
    what: str,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        state = look()
        progress(state)
        if over(state):
            return state
        if timeout is not None and time.monotonic() - began > timeout:
            raise StillRunning(f"{what.capitalize()} has not ended in {timeout:g} s; it goes on.")
        time.sleep(POLL)


def read(answer: IO[bytes]) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.load(answer)
    except (ValueError, OSError) as error:
        raise Unreachable(f"The answer is no JSON or broke off: {error}.") from error
    return value


def save(answer: IO[bytes], file: IO[bytes]) -> None:
    """Write an answer to a file, whole; what breaks off is not taken for the whole."""
    try:
        shutil.copyfileobj(answer, file)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"The download broke off: {error}.") from error
    length = getattr(answer, "headers", {}).get("Content-Length")
    if length is not None and file.tell() != int(length):
        raise Unreachable(f"The download broke off after {file.tell():,} of {int(length):,} bytes.")


def _refused(error: urllib.error.HTTPError) -> Refused:
    try:
        said = json.load(error)
        if problems := said.get("problems"):
            return Refused(" ".join(problems[:10]), error.code, "These labels cannot be used")
        return Refused(said["error"], error.code, said["title"])
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        return Refused(f"The server answered {error.code} {error.reason}.", error.code)


def multipart(name: str, content: bytes, fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its media type."""
    mark = secrets.token_hex(16)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
    )
    return b"".join(
        [*parts, head.encode(), content, f"\r\n--{mark}--\r\n".encode()]
    ), f"multipart/form-data; boundary={mark}"
