"""The server as it runs: daphne in a process of its own, spoken to over raw sockets."""

import json
import re
import socket
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.children import PATIENCE, wait_for
from tests.images import make_images
from tests.serving import MB, Daphne, Wire

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    folder = tmp_path_factory.mktemp("serving")
    server = Daphne(folder, DATAVISOR_PROXIES="1", DATAVISOR_IMPORT_ROOTS=str(folder))
    server.start("--proxy-headers")
    first = Wire(server)  # from here on it has loaded what it needs, and its memory tells what requests take
    assert first.ask("GET", "/accounts/login/")[0] == 200
    first.close()
    yield server
    server.stop()


@pytest.fixture
def wire(server: Daphne) -> Iterator[Wire]:
    wire = Wire(server)
    yield wire
    wire.close()


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


WAYS = ("log-out", "password", "right", "expired")


@pytest.fixture(scope="module")
def data_sets(server: Daphne) -> dict[str, int]:
    """A user and a data set for each way in which a right ends, both of its name; returns the data sets' numbers."""
    told = server.python(
        "import json, django; django.setup()\n"
        "from django.contrib.auth.models import Permission, User\n"
        "from vlm.models import Dataset\n"
        "made = {}\n"
        f"for how in {WAYS}:\n"
        "    grace = User.objects.create_user(how, password='correct horse 9')\n"
        "    grace.user_permissions.add(Permission.objects.get(codename='view_dataset'))\n"
        "    made[how] = Dataset.objects.create(name=how, root='/nowhere').pk\n"
        "print(json.dumps(made))"
    )
    made: dict[str, int] = json.loads(told)
    return made


@pytest.mark.parametrize("how", WAYS)
def test_an_open_socket_ends_with_the_log_out_and_with_a_lost_right(
    server: Daphne, data_sets: dict[str, int], how: str
) -> None:
    wire = Wire(server)
    assert wire.log_in(user=how) == 302
    viewer = Wire(server)
    viewer.cookies = wire.cookies
    assert knock(viewer, f"/ws/datasets/{data_sets[how]}/progress/", f"http://{viewer.host}") == 101
    assert frame(viewer)[0] == 1  # the present state
    end = {
        "password": f"u = User.objects.get(username='{how}'); u.set_password('another horse 9'); u.save()",
        "right": f"User.objects.get(username='{how}').user_permissions.clear()",
        "expired": "Session.objects.update(expire_date='2020-01-01T00:00:00Z')",
    }
    if how == "log-out":
        assert wire.post("/accounts/logout/")[0] == 302
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


# -- streams that break --------------------------------------------------------------------------------------------------
MANY = """
import django
django.setup()
from pathlib import Path
from django.conf import settings
from vlm.formats.records import SampleRecord, Scan
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples.ingest import import_rows, staged
dataset = Dataset.objects.create(name="many", root="/nowhere", format="folder")
names = (f"{number:08}-{'x' * 200}.jpg" for number in range(40_000))
records = (SampleRecord(name, name, "", None, None, (), (), name, "") for name in names)
with staged(Scan(Path("/nowhere"), "folder", None, lambda report: records), settings.DATA_DIR) as source:
    import_rows(sample_store(), dataset_id=dataset.pk, source=source)
print(dataset.pk, end="")
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    """A server that writes down how its housekeeping goes, with a data set of many samples."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "temporary").mkdir()
    server = Daphne(folder, TMPDIR=str(folder / "temporary"))
    server.many = server.python(MANY)  # type: ignore[attr-defined]
    server.start(module="tests.watched_daphne", application="tests.watched_daphne:application")
    yield server
    server.stop()


def rounds(server: Daphne) -> list[int]:
    """Return how many connections the server knew after each round of its housekeeping."""
    return [int(count) for count in re.findall(r"^connections: (\d+)$", server.log.read_text(errors="replace"), re.M)]


def expect_tidy(server: Daphne) -> None:
    """Expect that the housekeeping goes on, has swept away who is gone, and that no temporary file is open."""
    before = len(rounds(server))
    wait_for(lambda: 0 in rounds(server)[before:], "a round without a connection")
    handles = Path(f"/proc/{server.process.pid}/fd")
    temporary = str(server.folder / "temporary")

    def is_open(handle: Path) -> bool:
        try:
            return str(handle.readlink()).startswith(temporary)
        except OSError:
            return False  # closed meanwhile

    wait_for(lambda: not any(map(is_open, handles.iterdir())), "the end of all temporary files")


@pytest.mark.parametrize("taken", [0, 1, 300_000], ids=["nothing", "a byte", "a part"])
@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_client_that_goes_away_in_the_middle_of_an_export(watched: Daphne, taken: int, how: str) -> None:
    wire = Wire(watched)
    assert wire.log_in() == 302
    address = f"/datasets/{watched.many}/export?format=jsonl"  # type: ignore[attr-defined]
    size = int(wire.ask("HEAD", address)[1].get("content-length", 0))
    assert size == 0  # it is not made to say how long it would be
    wire.socket.sendall(
        f"GET {address} HTTP/1.1\r\nHost: {wire.host}\r\nCookie: sessionid={wire.cookies['sessionid']}\r\n\r\n".encode()
    )
    if taken:
        assert len(wire.file.read(taken)) == taken
    if how == "reset":  # as of a machine that is switched off and comes back
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()
    other = Wire(watched)
    assert other.ask("GET", "/healthz")[0] == 200
    other.close()
    expect_tidy(watched)


def test_an_answer_that_breaks_cuts_its_connection_and_nothing_else(watched: Daphne) -> None:
    for _ in range(3):
        wire = Wire(watched)
        wire.socket.sendall(f"GET /breaks HTTP/1.1\r\nHost: {wire.host}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            wire.file.read()
        wire.close()
        expect_tidy(watched)
    whole = Wire(watched)
    assert whole.log_in() == 302
    status, headers, body = whole.ask("GET", f"/datasets/{watched.many}/export?format=jsonl")  # type: ignore[attr-defined]
    assert (status, len(body), body.count(b"\n")) == (200, int(headers["content-length"]), 40_000)
    whole.close()
    expect_tidy(watched)
