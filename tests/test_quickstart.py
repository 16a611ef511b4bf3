"""``quickstart`` as people run it: in a process of its own, from nothing, again, and with a server."""

import contextlib
import http.cookiejar
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings
from huggingface_hub import constants
from obstore.store import MemoryStore

from tests.checkpoints import make_checkpoint
from tests.children import PATIENCE, environment, finish, python, wait_for
from tests.images import make_images
from vlm.demo import DEMO_CHECKPOINT
from vlm.management.commands.quickstart import _collect_static, chosen_model, free_port, shown_host
from vlm.models import Dataset, TaggingRun
from vlm.roots import objects


class Home:
    """A folder with three images, a small model, and a data folder for DataVisor."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.photos = make_images(folder / "photos", 3)
        (folder / "checkpoint").mkdir()
        self.model = make_checkpoint(folder / "checkpoint")
        self.environment = environment(
            self.data,
            DATAVISOR_VLM_DEVICE="cpu",
            DATAVISOR_VLM_DETAIL="low",
            DATAVISOR_VLM_MIN_MASS="0",
            DATAVISOR_VLM_MIN_PROBABILITY="0",
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        own = ["quickstart", "--data", str(self.photos), "--model", str(self.model), "--no-progress", *arguments]
        return python("manage.py", *own, env=self.environment)

    def processes(self) -> list[int]:
        """Return the numbers of all processes that work on this data folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"DATAVISOR_DATA_DIR={self.data}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # another user's, or gone
        return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    for number in home.processes():  # of a test that failed: the server is in a session of its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.mark.processes
def test_from_nothing_to_a_page_and_again(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        child = home.start("--port", str(port))
        assert child.stdout is not None
        lines = []
        for line in child.stdout:
            lines.append(line)
            if "until you press Ctrl-C" in line:
                break
        text = "".join(lines)
    assert text.count("Password ") == 1
    assert "“photos” (folder): 3 images, 3 new" in text
    assert "Run 1 completed: 3 of 3 images" in text, finish(child)[1]
    (address,) = re.findall(r"DataVisor is at +(\S+)", text)
    assert int(address.rpartition(":")[2]) > port  # that one was taken
    with urllib.request.urlopen(f"{address}/healthz", timeout=PATIENCE) as answer:
        assert answer.read() == b"ok\n"
    (link,) = re.findall(r"Enter with +(\S+)", text)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(link, timeout=PATIENCE) as page:
        assert page.url == f"{address}/"
        assert "photos" in page.read().decode()
    with browser.open(link, timeout=PATIENCE) as page:  # who is in stays in
        assert page.url == f"{address}/"
    with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(link, timeout=PATIENCE) as page:
        assert page.url.startswith(f"{address}/accounts/login/")
        assert "This link was used already" in page.read().decode()
    wait_for(lambda: len(home.processes()) == 2, "Nothing at work but quickstart and its server")
    child.send_signal(signal.SIGTERM)
    _, errors = finish(child)
    assert child.returncode == 0, errors
    assert home.processes() == []
    collected = home.data / "static" / "staticfiles.json"
    stamp = collected.stat().st_mtime_ns
    again = home.start("--no-serve")
    out, errors = finish(again)
    assert again.returncode == 0, errors
    assert out == "Data set 1 “photos” (folder): 3 images, 0 new, 3 known.\nNothing is left to tag.\n"
    assert collected.stat().st_mtime_ns == stamp  # nothing was built again


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the command has collected and compressed the static files, which takes it most of a second."""
    folder = tmp_path_factory.mktemp("collected")
    with override_settings(DATA_DIR=folder, STATIC_ROOT=folder / "static"):
        _collect_static()
    return folder


@pytest.fixture
def in_process(data_dir: Path, collected: Path, settings: Any) -> Path:
    settings.STATIC_ROOT = collected / "static"
    shutil.copy(collected / "static.sha256", data_dir)
    return data_dir


@pytest.mark.django_db(transaction=True)
def test_a_model_that_is_not_there_is_told(
    in_process: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_images(tmp_path / "photos", 2)
    with pytest.raises(SystemExit) as end:
        call_command("quickstart", data=photos, model=str(tmp_path / "nowhere"), no_serve=True, no_progress=True)
    assert end.value.code == 3
    told = capsys.readouterr().err
    assert "DATAVISOR_VLM_MODEL" in told
    assert "Traceback" not in told
    assert TaggingRun.objects.get().status == TaggingRun.Status.FAILED


@pytest.mark.django_db(transaction=True)
def test_without_serving(
    in_process: Path, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_images(tmp_path / "photos", 2)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    User.objects.create(username="admin")  # no administrator, for all the name
    asked = {"data": photos, "model": str(checkpoint), "no_serve": True, "no_progress": True}
    call_command("quickstart", **asked)
    run = TaggingRun.objects.get()
    assert (run.status, run.tagged, run.failed) == (TaggingRun.Status.COMPLETED, 2, 1)
    (password,) = re.findall(r"Administrator +admin2\nPassword +(\S+)\n", capsys.readouterr().out)
    assert User.objects.get(is_superuser=True).check_password(password)
    call_command("quickstart", **asked)
    assert capsys.readouterr().out.endswith("\nNothing is left to tag.\n")
    assert TaggingRun.objects.get() == run  # the broken image is not tried at every start
    (photos / "new.jpg").write_bytes((photos / "000.jpg").read_bytes())
    call_command("quickstart", **asked)
    assert "4 images, 1 new" in capsys.readouterr().out
    later = TaggingRun.objects.latest("pk")
    assert (later.status, later.tagged) == (TaggingRun.Status.COMPLETED, 1)
    # Whoever comes back without a word finds the model that was at work, and it is asked nothing.
    call_command("quickstart", no_serve=True, no_progress=True)
    assert capsys.readouterr().out == "Nothing is left to tag.\n"
    assert chosen_model(None, None) == str(checkpoint)
    make_images(tmp_path / "more" / "photos", 1)
    call_command("quickstart", **(asked | {"data": tmp_path / "more" / "photos"}))
    assert "Password" not in capsys.readouterr().out
    assert list(Dataset.objects.values_list("name", "sample_count")) == [("photos", 4), ("photos 2", 1)]
    assert User.objects.filter(is_superuser=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_images_in_a_bucket(
    in_process: Path,
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = MemoryStore()
    for path in make_images(tmp_path / "photos", 2).iterdir():
        obstore.put(bucket, path.name, path.read_bytes())
    monkeypatch.setattr(objects, "open_store", lambda url: bucket)
    asked = {"model": str(checkpoint), "no_serve": True, "no_progress": True}
    for url in ("s3://photos/street", "s3://Photos/street/"):
        call_command("quickstart", data=url, **asked)
    assert list(Dataset.objects.values_list("name", "root")) == [("street", "s3://photos/street")]
    assert TaggingRun.objects.get().tagged == 2
    assert capsys.readouterr().out.endswith("\nNothing is left to tag.\n")
    with pytest.raises(CommandError, match="Images are not read from “http://”"):
        call_command("quickstart", data="http://example.org/photos", **asked)


@pytest.mark.django_db(transaction=True)
def test_a_folder_that_cannot_be_imported_is_told(in_process: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", in_process):
        with pytest.raises(CommandError, match=r"Name the one|No image") as refusal:
            call_command("quickstart", data=folder, no_serve=True, no_progress=True)
        assert refusal.value.returncode == 2
    assert not Dataset.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("offline", [True, False])
def test_what_will_be_fetched_is_said_before_it_is(
    in_process: Path, tmp_path: Path, offline: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("vlm.moondream.hub._is_reachable", lambda: False)
    monkeypatch.setattr("vlm.moondream.hub._check_room", lambda file: None)
    photos = make_images(tmp_path / "photos", 1)
    with pytest.raises(SystemExit) as end:
        call_command("quickstart", data=photos, model="vikhyatk/moondream2", no_serve=True, no_progress=True)
    assert end.value.code == 3
    told = capsys.readouterr().out
    if offline:
        assert "HF_HUB_OFFLINE is set: nothing will be tagged" in told
    else:
        assert f"3.9 GB into {tmp_path}/hub" in told
        assert "HF_HUB_OFFLINE=1" in told


@pytest.mark.django_db(transaction=True)
def test_the_default_model_is_the_demonstration_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_model(None, None) == str(DEMO_CHECKPOINT)
    assert chosen_model(None, "photos") == ""
    assert chosen_model("vikhyatk/moondream2", None) == "vikhyatk/moondream2"
    for name in ("DATAVISOR_VLM_MODEL", "DATAVISOR_VLM_MODEL_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "own")
            assert chosen_model(None, None) == ""  # which leaves it to the settings


@pytest.mark.django_db(transaction=True)
def test_an_import_that_broke_off_is_taken_up_again(in_process: Path, tmp_path: Path, checkpoint: Path) -> None:
    photos = make_images(tmp_path / "photos", 2)
    Dataset.objects.create(name="mine", root=str(photos.resolve()))
    call_command("quickstart", data=photos, model=str(checkpoint), no_serve=True, no_progress=True)
    assert Dataset.objects.get().sample_count == 2


def test_a_local_server_is_not_offered_to_others() -> None:
    with pytest.raises(
        CommandError, match=r"On 192\.0\.2\.2 others could reach this server, and it would refuse them"
    ) as no:
        call_command("quickstart", host="192.0.2.2", no_serve=True)
    assert no.value.returncode == 2


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) <= port + 20
    with pytest.raises(CommandError, match="no address of this machine"):
        free_port("203.0.113.7", 8000)


def test_addresses_open_in_a_browser() -> None:
    assert [shown_host(host) for host in ("127.0.0.1", "::1", "0.0.0.0", "::")] == [
        *("127.0.0.1", "[::1]", "localhost", "localhost")
    ]
