"""A server as it runs: daphne in a process of its own, and connections over which a test speaks to it byte by byte."""

import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from tests.children import PATIENCE, completed, environment
from tests.ports import reserved
from tests.workshop import fork

MB = 2**20
# How long daphne waits for whoever opens a websocket or answers a ping: by itself some seconds, which a busy machine passes.
PATIENT = [
    word
    for name in ("--websocket_connect_timeout", "--ping-interval", "--ping-timeout")
    for word in (name, f"{PATIENCE:.0f}")
]


class Daphne:
    """A server with one user, ``ada``, and no data set.

    Args:
        folder: where it works, with its data in ``data``, or where the variables say.
        within: what each of its processes is started by, such as a program that enters a namespace.
    """

    def __init__(self, folder: Path, *, within: Sequence[str] = (), **variables: str) -> None:
        self.folder, self.log, self.within = folder, folder / "server.log", within
        self.environment = environment(folder / "data", **{"DJANGO_SETTINGS_MODULE": "tests.served"} | variables)
        self.python(
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', verbosity=0)\n"
            "from django.contrib.auth.models import User\n"
            "User.objects.create_superuser('ada', password='correct horse 9')\n"
        )

    def beside(self) -> "Daphne":
        """Return a second server on the same data, which is not started yet."""
        other = copy(self)
        other.log = self.folder / "second.log"
        return other

    def python(self, code: str) -> str:
        """Have Python do this, and return what it writes: from the workshop, unless a process has to be started ``within``."""
        done = (
            self.run("-c", code) if self.within else completed(fork("-c", code, env=self.environment, cwd=self.folder))
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run this Python beside the server, to its end."""
        return subprocess.run(
            [*self.within, sys.executable, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *options: str, module: str = "daphne", application: str = "datavisor.asgi:application") -> None:
        """Start, at a port that is open before the server is: whoever connects early waits for it.

        The port is ours until the next start, also when the server is killed: nobody else answers there.
        """
        self._reserved = reserved()
        self.port: int = self._reserved.getsockname()[1]
        with socket.create_server(("127.0.0.1", self.port)) as listener, self.log.open("wb") as log:
            command = [*self.within, sys.executable, "-m", module, "--fd", str(listener.fileno()), "-v", "0", *PATIENT]
            self.process = subprocess.Popen(
                [*command, *options, application],
                env=self.environment,
                cwd=self.folder,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )

    @property
    def is_up(self) -> bool:
        return hasattr(self, "process") and self.process.poll() is None

    def stop(self) -> None:
        if self.is_up:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self._reserved.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def memory(self) -> int:
        """Return the most bytes that the process has ever had in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


class Wire:
    """One connection, kept open over several requests: to a server, or to the port of whatever stands in front of it."""

    def __init__(self, server: Daphne | int, host: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        port = server if isinstance(server, int) else server.port
        self.host = host or f"127.0.0.1:{port}"
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.origin = f"{'http' if tls is None else 'https'}://{self.host}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=self.host)
        self.file = self.socket.makefile("rb")
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []  # as they came

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {"Host": self.host, "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value), "", ""]
        self.socket.sendall("\r\n".join(lines).encode() + (body or b""))
        return self.answer(without_body=method == "HEAD")

    def answer(self, *, without_body: bool = False) -> tuple[int, dict[str, str], bytes]:
        start = self.file.readline()
        assert start.startswith(b"HTTP/1.1 "), start
        headers: dict[str, str] = {}
        for line in iter(self.file.readline, b"\r\n"):
            assert line, "the connection ended within the headers"
            name, _, value = line.decode().partition(":")
            if name.lower() == "set-cookie":
                self.set_cookies.append(value)
                self.cookies |= {key: morsel.value for key, morsel in SimpleCookie(value).items()}
            headers[name.lower()] = value.strip()
        status = int(start.split()[1])
        if without_body or status in (101, 204, 304):
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self._chunks())
        return status, headers, self.file.read(int(headers["content-length"]))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.file.readline(), 16):
            yield self.file.read(size)
            self.file.readline()
        self.file.readline()

    def post(self, path: str, form: Mapping[str, object] = {}, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send a form, as the page of somebody who is logged in does."""
        body = urlencode({**form, "csrfmiddlewaretoken": self.cookies["csrftoken"]}, doseq=True).encode()
        return self.ask("POST", path, body, Content_Type="application/x-www-form-urlencoded", **headers)

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def log_in(self, password: str = "correct horse 9", *, user: str = "ada", **headers: str) -> int:
        self.ask("GET", "/accounts/login/")
        headers.setdefault("Origin", self.origin)
        return self.post("/accounts/login/", {"username": user, "password": password}, **headers)[0]

    def listen(self, path: str) -> "Listener":
        """Make a websocket of this connection, as a page of this very server does."""
        status, _, _ = self.ask(
            "GET", path, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", Origin=self.origin,
        )  # fmt: skip
        assert status == 101
        return Listener(self)


class SocketClosed(Exception):
    """The server has closed a websocket, with a code, or without one (0)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Listener:
    """A websocket that only listens, and answers pings."""

    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def hear(self) -> str:
        """Return the next text. Raises ``SocketClosed``."""
        while True:
            head = self.wire.file.read(2)
            if len(head) < 2:
                raise SocketClosed(0)
            kind, length = head[0] & 15, head[1] & 127
            if length >= 126:
                form = "!H" if length == 126 else "!Q"
                (length,) = struct.unpack(form, self.wire.file.read(struct.calcsize(form)))
            content = self.wire.file.read(length)
            if kind == self.TEXT:
                return content.decode()
            if kind == self.CLOSE:
                raise SocketClosed(struct.unpack("!H", content[:2])[0] if content else 0)
            if kind == self.PING:  # by a client every frame is masked; a mask of zeros changes nothing
                self.wire.socket.sendall(bytes((128 | self.PONG, 128 | len(content), 0, 0, 0, 0)) + content)

    def hear_until(self, pattern: str) -> str:
        """Return the first text in which ``pattern`` is found."""
        while not re.search(pattern, text := self.hear()):
            pass
        return text
