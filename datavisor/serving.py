"""What daphne must do before an ASGI application is called at all; importing ``datavisor.asgi`` puts it in place.

Daphne reads the whole body of a request first and asks the application afterwards, believes the first entry of
``X-Forwarded-For`` when it is started with ``--proxy-headers``, and stops looking after its connections for good when an
application fails in the middle of an answer. Its class for requests is replaced by one that does not, and that for websockets by
one that can be closed with every code that pages understand.
"""

from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any

from daphne import http_protocol
from daphne.http_protocol import WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor

from datavisor.guards import too_long

DRAIN_SECONDS = 5  # in which a refused client may take in the answer before the connection is cut


class BoundedRequest(WebRequest):  # type: ignore[misc]  # daphne ships no types
    """A request whose body is refused as soon as it is known to be too long."""

    limit = 0
    refused = False
    received = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whom to believe is ``datavisor.guards.Forwarded``'s to say, which needs the address of who really called.
        self.server.proxy_forwarded_address_header = None

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        if length is not None and length > self.limit:
            self._refuse()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self.received += len(data)
        if self.received > self.limit and not self.refused:
            self._refuse()
        if not self.refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        if self.refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def handle_exception(self, exception: BaseException) -> None:
        if self._response_started:
            # Too late for another answer: cut the connection, so that a part is not taken for the whole.
            if self.channel is not None and not self.finished:
                self.channel.forceAbortClient()
        else:
            super().handle_exception(exception)

    def _refuse(self) -> None:
        """Answer 413 and say no more; what still comes is dropped, since to close at once could lose the answer."""
        self.refused = True
        self.content = BytesIO()
        self.requestHeaders.removeHeader(b"Expect")  # or the channel would still ask for the body
        headers = [(name, value) for name, values in self.requestHeaders.getAllRawHeaders() for value in values]
        answer, body = too_long(headers, self.limit)
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b": ".join(pair) for pair in answer), b"", body]
        transport = self.channel.transport
        transport.write(b"\r\n".join(lines))
        transport.loseWriteConnection()
        later: Any = reactor  # Twisted's module, whose methods no checker sees
        later.callLater(DRAIN_SECONDS, transport.abortConnection)  # does nothing if it is closed by then


class PoliteSocket(WebSocketProtocol):  # type: ignore[misc]
    """A websocket that can be closed with “try again later”, which daphne itself cannot say: that would be a failure instead."""

    TRY_AGAIN = 1013  # a code of the standard's own, which autobahn keeps from applications

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802
        if code == self.TRY_AGAIN:
            self.sendCloseFrame(code=code)
        else:
            super().serverClose(code)


def when_serving(start: Callable[[], None]) -> None:
    """Have ``start`` called when daphne serves; whoever only imports the application, as tests do, starts nothing."""
    later: Any = reactor
    later.callWhenRunning(start)


def guard_daphne(limit: int) -> None:
    """Have daphne make ``BoundedRequest`` of every request from now on, and ``PoliteSocket`` of every websocket."""
    BoundedRequest.limit = limit
    http_protocol.WebRequest = BoundedRequest
    WebSocketFactory.protocol = PoliteSocket
