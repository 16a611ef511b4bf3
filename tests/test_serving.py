"""The server as it runs: daphne in a process of its own, spoken to over raw sockets."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from tests.children import PATIENCE, environment, wait_for
from tests.images import make_images

MB = 2**20


class Daphne:
    """A server with one user, ``ada``, and no data set."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.log = folder, folder / "server.log"
        self.environment = environment(folder / "data", **variables)
        self.python(
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', verbosity=0)\n"
            "from django.contrib.auth.models import User\n"
            "User.objects.create_superuser('ada', password='correct horse 9')\n"
        )

    def python(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *options: str) -> None:
        """Start, at a port that is open before the server is: whoever connects early waits for it."""
        with socket.create_server(("127.0.0.1", 0)) as listener, self.log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            command = [sys.executable, "-m", "daphne", "--fd", str(listener.fileno()), "-v", "0", *options]
            self.process = subprocess.Popen(
                [*command, "datavisor.asgi:application"],
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

    def log_in(self, password: str = "correct horse 9", *, user: str = "ada", **headers: str) -> int:
        self.ask("GET", "/accounts/login/")
        form = f"username={user}&password={password}&csrfmiddlewaretoken={self.cookies['csrftoken']}".encode()
        return self.ask("POST", "/accounts/login/", form, Content_Type="application/x-www-form-urlencoded", **headers)[
            0
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    folder = tmp_path_factory.mktemp("serving")
    server = Daphne(folder, DATAVISOR_PROXIES="1", DATAVISOR_IMPORT_ROOTS=str(folder))
    server.start("--proxy-headers")
    yield server
    server.stop()


@pytest.fixture
def wire(server: Daphne) -> Iterator[Wire]:
    wire = Wire(server)
    yield wire
    wire.file.close()
    wire.socket.close()


# -- HEAD ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/accounts/login/", "/nothing/here", "/admin/", "/static/vlm/app.css"]
)
def test_head_has_no_body_and_the_connection_goes_on(wire: Wire, path: str) -> None:
    assert wire.log_in() == 302
    for _ in range(3):
        head = wire.ask("HEAD", path)
        # Whatever of a body had been sent would be read here as the beginning of the next answer.
        assert wire.ask("GET", "/healthz")[2] == b"ok\n"
        assert head[0] == wire.ask("GET", path)[0]


# -- bodies --------------------------------------------------------------------------------------------------------------
def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(server: Daphne, wire: Wire) -> None:
    head = f"POST /accounts/login/ HTTP/1.1\r\nHost: {wire.host}\r\nContent-Length: {400 * MB}\r\nExpect: 100-continue\r\n\r\n"
    wire.socket.sendall(head.encode())
    status, headers, body = wire.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert b"25 MB" in body
    assert b"DATAVISOR_MAX_BODY_MB" in body
    assert wire.file.read() == b""


def test_a_client_that_does_not_wait_is_refused_too(server: Daphne, wire: Wire) -> None:
    before = server.memory()
    wire.socket.sendall(
        f"POST / HTTP/1.1\r\nHost: {wire.host}\r\nAccept: application/json\r\nContent-Length: {400 * MB}\r\n\r\n".encode()
    )
    try:
        for _ in range(400):
            wire.socket.sendall(bytes(MB))
    except OSError:
        pass  # cut after a while: that much was never going to be taken
    else:
        status, _, body = wire.answer()
        assert status == 413
        assert json.loads(body)["status"] == 413
    assert server.memory() - before < 100 * MB
    assert Wire(server).ask("GET", "/healthz")[0] == 200


def test_a_body_that_does_not_say_its_length_is_refused_as_it_comes(server: Daphne, wire: Wire) -> None:
    before = server.memory()
    wire.socket.sendall(f"POST / HTTP/1.1\r\nHost: {wire.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"100000\r\n" + bytes(MB) + b"\r\n"
    for _ in range(25):
        wire.socket.sendall(chunk)
    wire.socket.sendall(chunk)
    assert wire.answer()[0] == 413
    assert server.memory() - before < 100 * MB


def test_a_body_within_the_limit_is_read(server: Daphne, wire: Wire) -> None:
    assert wire.ask("POST", "/accounts/login/", bytes(24 * MB), Content_Type="application/octet-stream")[0] == 403
    assert wire.ask("GET", "/healthz")[0] == 200


# -- whom the server believes --------------------------------------------------------------------------------------------
def test_a_made_up_address_does_not_escape_the_lock(server: Daphne) -> None:
    answers = []
    for number in range(12):
        wire = Wire(server)  # a proxy adds the true address behind what the visitor wrote
        answers.append(wire.log_in("wrong", X_Forwarded_For=f"10.1.2.{number}, 203.0.113.9"))
    assert answers[:9] == [200] * 9
    assert answers[-1] == 429
    assert Wire(server).log_in("correct horse 9", X_Forwarded_For="10.9.9.9, 203.0.113.9") == 429
    assert Wire(server).log_in("correct horse 9", X_Forwarded_For="10.9.9.9, 203.0.113.10") == 302


def test_a_header_that_is_no_address_is_ignored(wire: Wire) -> None:
    for said in ("x", "1.2.3.4, ", "\xff\xfe", "1" * 5000):
        assert wire.ask("GET", "/accounts/login/", X_Forwarded_For=said)[0] == 200


def test_wrong_links_of_strangers_do_not_lock_out_the_right_one(server: Daphne) -> None:
    for _ in range(15):
        assert Wire(server).ask("GET", "/accounts/enter/?sesame=x")[0] == 302
    link = server.python(
        "import django; django.setup()\n"
        "from django.contrib.auth.models import User\n"
        "from sesame.utils import get_query_string\n"
        "print('/accounts/enter/' + get_query_string(User.objects.order_by('pk')[0]), end='')"
    )
    assert Wire(server).ask("HEAD", link)[0] == 204
    for name, value in (("Sec_Purpose", "prefetch;prerender"), ("Purpose", "prefetch"), ("X_Moz", "prefetch")):
        looked = Wire(server)
        assert looked.ask("GET", link, **{name: value})[0] == 204  # type: ignore[arg-type]
        assert "sessionid" not in looked.cookies
    wire = Wire(server)
    status, headers, _ = wire.ask("GET", link)
    assert (status, headers["location"]) == (302, "/")
    assert wire.ask("GET", "/")[0] == 200
    again = Wire(server)
    assert again.ask("GET", link)[1]["location"] == "/accounts/login/"


# -- sockets -------------------------------------------------------------------------------------------------------------
def knock(wire: Wire, path: str, origin: str) -> int:
    """Ask for a websocket as a page of ``origin`` would; return the status of the answer."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {wire.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Cookie: sessionid={wire.cookies.get('sessionid', '')}",
        *([f"Origin: {origin}"] if origin else []),
    ]
    wire.socket.sendall("\r\n".join([*lines, "", ""]).encode())
    status = int(wire.file.readline().split()[1])
    for line in iter(wire.file.readline, b"\r\n"):
        assert line
    return status


def frame(wire: Wire) -> tuple[int, bytes]:
    """Return kind and content of the next frame."""
    first, second = wire.file.read(2)
    length = second & 127
    if length > 125:
        length = int.from_bytes(wire.file.read(2 if length == 126 else 8))
    return first & 15, wire.file.read(length)


def last_frame(wire: Wire) -> tuple[int, bytes]:
    """Return the frame that closes the socket, whatever is shown before."""
    while (found := frame(wire))[0] != 8:
        pass
    return found


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:1", "http://127.0.0.1", "http://evil.example:PORT", "https://localhost:PORT", "null", "", "http://[::1"]
)  # fmt: skip
def test_a_page_of_another_port_or_host_opens_no_socket(server: Daphne, wire: Wire, origin: str) -> None:
    assert wire.log_in() == 302
    assert knock(wire, "/ws/datasets/1/progress/", origin.replace("PORT", str(server.port))) in (400, 403)


def test_the_page_itself_opens_one_and_an_unknown_address_is_closed_cleanly(server: Daphne, wire: Wire) -> None:
    assert wire.log_in() == 302
    assert knock(wire, "/ws/datasets/987654/progress/", f"http://{wire.host}") == 101
    assert frame(wire) == (8, (4404).to_bytes(2))  # no test makes so many data sets
    for path in ("/ws/nothing/", "/ws/", "/", f"/ws/datasets/{'9' * 5000}/progress/", "/ws/datasets/%F0/progress/"):
        wire = Wire(server)
        assert knock(wire, path, f"http://{wire.host}") == 101, path
        assert frame(wire) == (8, (4404).to_bytes(2)), path
    assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.mark.parametrize("how", ["log-out", "password", "right", "expired"])
def test_an_open_socket_ends_with_the_log_out_and_with_a_lost_right(server: Daphne, how: str) -> None:
    data_set = server.python(
        "import django; django.setup()\n"
        "from django.contrib.auth.models import Permission, User\n"
        "from vlm.models import Dataset\n"
        f"grace = User.objects.create_user('{how}', password='correct horse 9')\n"
        "grace.user_permissions.add(Permission.objects.get(codename='view_dataset'))\n"
        f"print(Dataset.objects.create(name='{how}', root='/nowhere').pk, end='')"
    )
    wire = Wire(server)
    assert wire.log_in(user=how) == 302
    viewer = Wire(server)
    viewer.cookies = wire.cookies
    assert knock(viewer, f"/ws/datasets/{data_set}/progress/", f"http://{viewer.host}") == 101
    assert frame(viewer)[0] == 1  # the present state
    end = {
        "password": f"u = User.objects.get(username='{how}'); u.set_password('another horse 9'); u.save()",
        "right": f"User.objects.get(username='{how}').user_permissions.clear()",
        "expired": "Session.objects.update(expire_date='2020-01-01T00:00:00Z')",
    }
    if how == "log-out":
        form = f"csrfmiddlewaretoken={wire.cookies['csrftoken']}".encode()
        assert wire.ask("POST", "/accounts/logout/", form, Content_Type="application/x-www-form-urlencoded")[0] == 302
    else:
        server.python(
            "import django; django.setup()\n"
            "from django.contrib.auth.models import User\n"
            "from django.contrib.sessions.models import Session\n" + end[how]
        )
    code = 4403 if how == "right" else 4401
    assert last_frame(viewer) == (8, code.to_bytes(2))


def test_a_server_looks_into_the_folders_that_it_watches(server: Daphne) -> None:
    photos = make_images(server.folder / "photos", 2)
    server.python(
        "import django; django.setup()\n"
        "from pathlib import Path\n"
        "from vlm import services\n"
        f"dataset = services.datasets.import_folder(path=Path({str(photos)!r}), name='watched').dataset\n"
        f"Path({str(photos)!r}, '000.jpg').rename(Path({str(photos)!r}, 'renamed.jpg'))\n"
        "services.watches.watch(dataset=dataset, seconds=600, tag=False, user=None)"
    )

    def summary() -> str:
        with closing(sqlite3.connect(server.folder / "data" / "datavisor.sqlite3", timeout=PATIENCE)) as database:
            return str(database.execute("select summary from vlm_watch where changed is not null").fetchone())

    wait_for(lambda: "renamed" in summary(), "the look")
