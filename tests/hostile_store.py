"""A server that says of a bucket whatever a test wants it to: keys that no honest store lists, errors, nothing at all."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

Answer = tuple[int, bytes]  # status and body


@contextmanager
def store_that(answer: Callable[[str], Answer]) -> Iterator[str]:
    """Yield the endpoint of a server that answers each request by its path and query."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - as its class calls it

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listing(*keys: str) -> Answer:
    """Return the answer to a request for a bucket's keys, each an object of three bytes."""
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-30T12:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag>"
        "<Size>3</Size></Contents>"
        for key in keys
    )
    return 200, (
        f'<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>'
        f"{entries}</ListBucketResult>"
    ).encode()


def refusal(status: int, code: str, message: str = "") -> Answer:
    return status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
