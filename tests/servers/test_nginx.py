"""The site of ``deploy/nginx.conf`` in front of a real server: what a visitor gets, and what of it the server believes."""

import io
import json
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.servers.nginx import NAME, Nginx, program
from tests.serving import MB, Daphne, Wire

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(program() is None, reason="nginx is not installed (Debian: apt-get install nginx-light)"),
]

PICTURES = 4
IMPORT = """
import sys
import django; django.setup()
from django.core.management import call_command
call_command("import_dataset", sys.argv[1], name="noise", no_progress=True, verbosity=0)
"""
COUNTED = """
import json
import django; django.setup()
from axes.models import AccessAttempt
print(json.dumps(list(AccessAttempt.objects.values_list("ip_address", flat=True))))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    """A deployment with a data set whose pictures are some megabytes of noise."""
    folder = tmp_path_factory.mktemp("behind")
    server = Daphne(
        folder,
        DATAVISOR_ALLOWED_HOSTS=NAME,
        DATAVISOR_SECRET_KEY=secrets.token_urlsafe(64),
        DATAVISOR_BEHIND_PROXY="true",
        DATAVISOR_COLLECTING="1",
    )
    pictures = folder / "noise"
    pictures.mkdir()
    chance = np.random.default_rng(7)
    for number in range(PICTURES):
        pixels = chance.integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    for done in (
        server.run("-c", IMPORT, str(pictures)),
        server.run("-m", "datavisor", "collectstatic", "--no-input", "--verbosity", "0"),
    ):
        assert done.returncode == 0, done.stderr
    server.start()
    wait_until_up(server)
    yield server
    server.stop()


def wait_until_up(server: Daphne) -> None:
    """Wait for an answer of the server itself: nginx would give up before a busy machine has started it."""
    wire = Wire(server, NAME)
    assert wire.ask("GET", "/healthz", X_Forwarded_Proto="https")[0] == 200
    wire.close()


@pytest.fixture(scope="module")
def nginx(server: Daphne, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), server.port)
    checked = nginx.check()
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    nginx.start()
    yield nginx
    nginx.stop()


@pytest.fixture
def wire(nginx: Nginx) -> Iterator[Wire]:
    wire = Wire(nginx.port, NAME, tls=nginx.tls)
    yield wire
    wire.close()


def test_plain_http_is_sent_to_https(nginx: Nginx) -> None:
    wire = Wire(nginx.plain_port, NAME)
    status, headers, _ = wire.ask("GET", "/datasets/1/?all=dark")
    assert (status, headers["location"]) == (301, f"https://{NAME}/datasets/1/?all=dark")
    wire.close()


def test_logging_in_takes_cookies_that_travel_encrypted_only(wire: Wire) -> None:
    assert wire.log_in() == 302
    cookies = {text.partition("=")[0].strip(): text.lower() for text in wire.set_cookies}
    assert {"sessionid", "csrftoken"} <= set(cookies)
    assert all("; secure" in text for text in cookies.values())
    status, headers, page = wire.ask("GET", "/")
    assert status == 200
    assert b"noise" in page
    assert "max-age=31536000" in headers["strict-transport-security"]


def test_a_form_of_another_site_is_refused(wire: Wire) -> None:
    assert wire.log_in() == 302
    status, _, page = wire.post("/datasets/1/auto-tag", {"scope": "all"}, Origin="https://elsewhere.example.org")
    assert status == 403
    assert b"Traceback" not in page


def test_a_websocket_passes(wire: Wire) -> None:
    assert wire.log_in() == 302
    assert 'id="live' in wire.listen("/ws/datasets/1/progress/").hear()


def test_an_export_passes_whole_and_is_not_written_by_nginx(nginx: Nginx, wire: Wire) -> None:
    assert wire.log_in() == 302
    status, headers, content = wire.ask("GET", "/datasets/1/export?format=pictures")
    assert status == 200
    assert int(headers["content-length"]) == len(content) > 8 * MB
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert sum(name.endswith(".png") for name in archive.namelist()) == PICTURES
    assert not any((nginx.folder / "proxy").rglob("*"))


def test_what_the_page_is_drawn_with_is_kept_by_browsers(wire: Wire) -> None:
    assert wire.log_in() == 302
    _, _, page = wire.ask("GET", "/")
    address = page.decode().partition('<link rel="stylesheet" href="')[2].partition('"')[0]
    status, headers, _ = wire.ask("GET", address, Accept_Encoding="gzip")
    assert status == 200
    assert "immutable" in headers["cache-control"]


def test_a_body_above_the_limit_is_refused(nginx: Nginx) -> None:
    wire = Wire(nginx.port, NAME, tls=nginx.tls)
    head = f"POST /accounts/login/ HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {25 * MB + 1}\r\n\r\n"
    wire.socket.sendall(head.encode())
    assert wire.answer()[0] == 413
    wire.close()


def test_of_two_servers_either_answers(server: Daphne, tmp_path: Path) -> None:
    """They are asked in turn, whoever was logged in by which; when one goes, the other answers for both."""
    second = server.beside()
    second.start()
    wait_until_up(second)
    nginx = Nginx(tmp_path, server.port, second.port)
    nginx.start()
    wire = Wire(nginx.port, NAME, tls=nginx.tls)
    try:
        assert wire.log_in() == 302
        assert [wire.ask("GET", "/")[0] for _ in range(6)] == [200] * 6
        second.kill()
        assert [wire.ask("GET", "/")[0] for _ in range(6)] == [200] * 6
        assert wire.post("/datasets/1/tags", {"tag": "tunnel", "action": "add", "ids": 1}, Origin=wire.origin)[0] == 302
        assert 'id="live' in wire.listen("/ws/datasets/1/progress/").hear()
    finally:
        wire.close()
        nginx.stop()
        second.stop()


def test_the_visitor_is_who_called_nginx_whatever_he_says(server: Daphne, nginx: Nginx) -> None:
    """Wrong passwords are counted by address: somebody who writes another one each time is counted all the same."""
    for number in range(3):
        wire = Wire(nginx.port, NAME, tls=nginx.tls)
        assert wire.log_in("wrong", X_Forwarded_For=f"203.0.113.{number}", X_Forwarded_Proto="http") == 200
        wire.close()
    assert json.loads(server.python(COUNTED)) == ["127.0.0.1"]
