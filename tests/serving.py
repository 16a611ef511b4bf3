"""A server as it runs: daphne in a process of its own, and connections over which a test speaks to it byte by byte."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from tests.children import PATIENCE, environment

MB = 2**20


class Daphne:
    """A server with one user, ``ada``, and no data set.

    Args:
        folder: where it works, with its data in ``data``, or where the variables say.
        within: what each of its processes is started by, such as a program that enters a namespace.
    """

    def __init__(self, folder: Path, *, within: Sequence[str] = (), **variables: str) -> None:
        self.folder, self.log, self.within = folder, folder / "server.log", within
        self.environment = environment(folder / "data", **variables)
        self.python(
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', verbosity=0)\n"
            "from django.contrib.auth.models import User\n"
            "User.objects.create_superuser('ada', password='correct horse 9')\n"
        )

    def python(self, code: str) -> str:
        done = self.run("-c", code)
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
        """Start, at a port that is open before the server is: whoever connects early waits for it."""
        with socket.create_server(("127.0.0.1", 0)) as listener, self.log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            command = [*self.within, sys.executable, "-m", module, "--fd", str(listener.fileno()), "-v", "0", *options]
            self.process = subprocess.Popen(
                [*command, application],
                env=self.environment,
                cwd=self.folder,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    def memory(self) -> int:
        """Return the most bytes that the process has ever had in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


class Wire:
    """One connection, kept open over several requests."""

    def __init__(self, server: Daphne, host: str = "") -> None:
        self.host = host or f"127.0.0.1:{server.port}"
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")
        self.cookies: dict[str, str] = {}

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
                self.cookies |= {key: morsel.value for key, morsel in SimpleCookie(value).items()}
            headers[name.lower()] = value.strip()
        status = int(start.split()[1])
        if without_body or status in (204, 304):
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
        return self.post("/accounts/login/", {"username": user, "password": password}, **headers)[0]
