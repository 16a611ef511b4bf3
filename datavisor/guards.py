"""What stands in front of Django and Channels: every request and every socket passes these ASGI applications first.

They are short and know nothing of DataVisor, so that what lets somebody in, or lets somebody fill the memory, is read in
one place. ``datavisor.serving`` does in daphne's own classes what cannot be done from here.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.db import DatabaseError
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

NO_BODY = frozenset({204, 304})
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def header(headers: Headers, name: bytes) -> bytes:
    """Return all values of a header as one, empty where there is none."""
    return b",".join(value for key, value in headers if key.lower() == name)


class Forwarded:
    """Takes the visitor's address from ``X-Forwarded-For``, as far as the proxies in front of the server are known.

    Each proxy adds the address that it was called from at the right end, so with one proxy the last entry is the
    visitor's, with two the one before. What stands further left is whatever the visitor wrote there.
    """

    def __init__(self, application: Application, *, proxies: int) -> None:
        self.application, self.proxies = application, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.proxies and (said := header(scope.get("headers", ()), b"x-forwarded-for")):
            entries = [entry.strip() for entry in said.decode("latin-1").split(",")]
            visitor = entries[-min(self.proxies, len(entries))]
            if is_address(visitor):
                scope = {**scope, "client": [visitor, 0]}
        await self.application(scope, receive, send)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class HeadWithoutBody:
    """Keeps the body of an answer that must not have one: on a kept connection it would be read as the next answer."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bodiless, over = scope["method"] == "HEAD", False

        async def bare(message: Message) -> None:
            nonlocal bodiless, over
            if message["type"] == "http.response.start":
                bodiless = bodiless or message["status"] in NO_BODY
            elif bodiless:
                if over:
                    return
                over, message = True, {"type": "http.response.body"}
            await send(message)

        await self.application(scope, receive, bare)


class _TooLong(Exception):
    """The body of a request is longer than the limit."""


class BoundedBody:
    """Answers 413 to a body above the limit: by what its length says, else as soon as that much has come."""

    def __init__(self, application: Application, *, limit: int) -> None:
        self.application, self.limit = application, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length, received, started = header(scope["headers"], b"content-length"), 0, False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise _TooLong
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if length.isdigit() and (len(length) > 18 or int(length) > self.limit):
                raise _TooLong
            await self.application(scope, bounded, noting)
        except _TooLong:
            if started:
                raise
            headers, body = too_long(scope["headers"], self.limit)
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def too_long(headers: Headers, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of the answer to a request whose body is too long, in the language that it asked for."""
    sentence = (
        f"A request’s body may have {limit / 2**20:,.0f} MB at most; whoever runs the server can raise "
        "DATAVISOR_MAX_BODY_MB."
    )
    if b"application/json" in header(headers, b"accept"):
        kind, text = "application/json", json.dumps({"error": sentence, "title": "Too much at once", "status": 413})
    else:
        kind, text = "text/plain; charset=utf-8", f"{sentence}\n"
    body = text.encode()
    return [
        (b"Content-Type", kind.encode()),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
        (b"HX-Reswap", b"none"),
    ], body


class ComeAgain:
    """Closes a websocket with “try again later” while the database, which says whose it is, cannot be asked."""

    TRY_AGAIN = 1013  # a closing code after which pages come back by themselves

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def noting(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        try:
            await self.application(scope, receive, noting)
        except DatabaseError as error:
            log.warning("A websocket was sent away, since the database does not answer: %s", error)
            if not accepted:  # what is refused before it is accepted looks like no server at all
                await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": self.TRY_AGAIN})


class SameOrigin:
    """Lets in a websocket only from a page of this very server: of the same host **and port**, or a trusted origin.

    A browser sends its cookies with a socket that any page of any server opens, and says in ``Origin`` which it was.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_own_origin(scope["headers"]):
            await self.application(scope, receive, send)
            return
        await receive()  # the connect
        await send({"type": "websocket.close"})  # before an accept: the handshake is answered with 403


def is_own_origin(headers: Headers) -> bool:
    """Return whether ``Origin`` is there and names the host and port that the request itself was sent to."""
    origin = header(headers, b"origin").decode("latin-1").lower()
    host = header(headers, b"host").decode("latin-1").lower()
    try:
        parts = urlsplit(origin)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    if not parts.hostname or port is None:
        return False
    if any(_is_trusted(parts, urlsplit(trusted.lower())) for trusted in settings.CSRF_TRUSTED_ORIGINS):
        return True
    name, own_port = split_domain_port(host)
    if not name or not validate_host(name, settings.ALLOWED_HOSTS):
        return False
    return (parts.hostname, port) == (name.strip("[]"), int(own_port or DEFAULT_PORTS[parts.scheme]))


def _is_trusted(origin: SplitResult, trusted: SplitResult) -> bool:
    """Compare as Django's CSRF check does: a trusted host may begin with ``*.``, for all below it."""
    if origin.scheme != trusted.scheme:
        return False
    own, wanted = origin.netloc, trusted.netloc
    return is_same_domain(own, wanted.removeprefix("*")) if wanted.startswith("*.") else own == wanted
