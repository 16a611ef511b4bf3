"""A disk that is really full: a file system of a few megabytes, on which a server, commands and a run do their work."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.brake import Brake
from tests.checkpoints import small_model
from tests.children import end, wait_for
from tests.images import make_images
from tests.serving import Daphne, Wire

pytestmark = pytest.mark.processes

IMAGES = 40
TRIES = 60  # what is written may still find room in what a file has already
JSON: Any = {"Accept": "application/json"}  # given on as keywords

# What may be said of a full disk, and the words in which it says what to do.
FULL, ADVICE = 507, "Make room"


COMMANDS = """
import io, json, sys, traceback
import django
django.setup()
from django.core.management import CommandError, call_command
told = {}
for line in sys.argv[1:]:
    command = json.loads(line)
    try:
        call_command(*command, stdout=io.StringIO(), stderr=io.StringIO())
        told[" ".join(command)] = ""
    except CommandError as error:
        told[" ".join(command)] = str(error)
    except BaseException:
        told[" ".join(command)] = traceback.format_exc()
print(json.dumps(told))
"""


class SmallDisk:
    """A file system of its own at ``folder``, which only the processes started ``within`` see: so nobody need be root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir()
        mount = f'mount -t tmpfs -o size={megabytes}m,mode=700 none "$0" && echo ready && exec cat'
        self.keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.keeper.stdout is not None
        assert self.keeper.stderr is not None
        self.trouble = "" if self.keeper.stdout.readline() == "ready\n" else self.keeper.stderr.read().strip()
        self.within = ("nsenter", f"--target={self.keeper.pid}", "--user", "--mount", "--preserve-credentials", "--")
        self.filler = Path(f"/proc/{self.keeper.pid}/root{folder}/filler")

    def fill(self, *, leave: int = 0) -> None:
        """Take all the room that there is, or all but ``leave`` bytes."""
        with self.filler.open("ab", buffering=0) as file:

            def is_full() -> bool:
                for size in (2**20, 4096):
                    with suppress(OSError):
                        while True:
                            file.write(bytes(size))
                return shutil.disk_usage(self.filler.parent).free == 0

            wait_for(is_full, "A disk that is full, whatever a server has just given back of it")
            file.truncate(file.tell() - leave)

    def make_room(self) -> None:
        self.filler.unlink(missing_ok=True)


class Site(Daphne):
    """A server whose data and temporary files lie on a small disk, and whose images and model do not."""

    def __init__(self, folder: Path, disk: SmallDisk) -> None:
        self.disk, self.brake = disk, Brake(folder / "brake.json")
        self.photos = make_images(folder / "photos", IMAGES)
        (disk.filler.parent / "temporary").mkdir()
        super().__init__(
            folder,
            within=disk.within,
            **self.brake.environment,
            DATAVISOR_DATA_DIR=str(folder / "small" / "data"),
            TMPDIR=str(folder / "small" / "temporary"),
            DATAVISOR_IMPORT_ROOTS=str(folder),
            **small_model(folder / "checkpoint"),
        )
        done = self.manage("import_dataset", str(self.photos), "--name", "photos")
        assert done.returncode == 0, done.stderr

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run("-m", "django", *arguments)

    def commands(self, commands: list[list[str]]) -> dict[str, str]:
        """Have one process do all of these; return what each was refused with, empty where it was not."""
        done = self.run("-c", COMMANDS, *map(json.dumps, commands))
        assert done.returncode == 0, done.stderr
        told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return told

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for program in ("unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"There is no “{program}” here, which makes a small disk.")
    folder = tmp_path_factory.mktemp("site")
    disk = SmallDisk(folder / "small", megabytes=64)
    try:
        if disk.trouble:
            pytest.skip(f"A process may make no namespace of its own here: {disk.trouble}")
        site = Site(folder, disk)
        site.start()
        yield site
        disk.make_room()
        site.stop()
    finally:
        end(disk.keeper)


@pytest.fixture
def site(made: Site) -> Site:
    """The site with room on its disk, and a run held up by nothing."""
    made.disk.make_room()
    made.brake.release()
    return made


@pytest.fixture
def wire(site: Site) -> Iterator[Wire]:
    wire = Wire(site)
    assert wire.log_in() == 302
    yield wire
    wire.close()


def answered(wire: Wire, path: str) -> dict[str, Any]:
    status, _, body = wire.ask("GET", path, **JSON)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def refusal(wire: Wire, path: str, form: dict[str, object]) -> str:
    """Send a form, as a program would, until it is refused for want of room; return what is said then."""
    for number in range(TRIES):
        fresh = {name: str(value).replace("NUMBER", str(number)) for name, value in form.items()}
        status, _, body = wire.post(path, fresh, **JSON)
        if status >= 400:
            assert status == FULL, (path, status, body)
            return str(json.loads(body)["error"])
    raise AssertionError(f"{path} was never refused.")


READ = (
    *(
        "",
        "?all=first",
        "cells",
        "edits",
        "runs",
        "own-tags",
        "settings",
        "pixels",
        "accuracy",
        "calibration",
        "explain",
    ),
    *(
        "columns",
        "slices",
        "samples/1/",
        "auto-tag/progress",
        "auto-tag/count",
        "samples/2/image",
        "samples/3/thumbnail/320",
    ),
    *("review?dimension=weather", "accuracy.csv?dimension=weather"),
)
READ_ELSEWHERE = (
    *("/", "/healthz", "/find?q=photos", "/runs/", "/runs/queue", "/imports/new", "/imports/folders", "/vocabulary/"),
    *(
        "/vocabulary/file",
        "/vocabulary/dimensions/weather/",
        "/accounts/tokens/",
        "/accounts/password/",
        "/openapi.json",
    ),
    *("/admin/", "/admin/vlm/dataset/", "/admin/vlm/taggingrun/", "/admin/vlm/importjob/", "/static/vlm/app.css"),
)
WRITTEN: dict[str, dict[str, object]] = {
    "/datasets/1/tags": {"action": "add", "tag": "full NUMBER", "all": 1},
    "/datasets/1/views": {"name": "view NUMBER", "query": "q=NUMBER"},
    "/datasets/1/slices": {"name": "slice NUMBER", "query": "q=0"},
    "/datasets/1/settings": {"action": "rename", "name": "photos"},
    "/datasets/1/own-tags": {"action": "rename", "tag": "first", "new": "second"},
    "/datasets/1/own-tags?": {"action": "describe", "tag": "first", "note": "x" * 150},
    "/datasets/1/measure": {},
    "/datasets/1/review/draw": {"dimension": "weather", "size": 20},
    "/vocabulary/dimensions/weather/switch": {"enabled": "1"},
    "/accounts/tokens/": {
        "name": "token NUMBER",
        "scopes": "edit",
        "until": f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}",
    },
}


def test_reading_goes_on_and_writing_says_so(site: Site, wire: Wire) -> None:
    assert wire.post("/datasets/1/tags", {"action": "add", "tag": "first", "all": 1}, **JSON)[0] == 200
    addresses = [f"/datasets/1/{path}" for path in READ] + list(READ_ELSEWHERE)
    languages: list[Any] = [{}, JSON, {"HX_Request": "true"}]
    with_room = {
        (path, at): wire.ask("GET", path, **asked)[0] for path in addresses for at, asked in enumerate(languages)
    }
    assert wire.ask("GET", "/datasets/1/export")[0] == 200  # from here on temporary files are made on the small disk
    site.disk.fill()
    assert ADVICE in refusal(wire, "/datasets/1/tags", WRITTEN["/datasets/1/tags"])
    assert ADVICE in refusal(wire, "/datasets/1/views", WRITTEN["/datasets/1/views"])
    for path in addresses:
        for at, asked in enumerate(languages):
            assert wire.ask("GET", path, **asked)[0] == with_room[path, at], (path, asked)
    for number, picture in enumerate(
        ("thumbnail/160", "thumbnail/320", "image"), start=20
    ):  # nobody has asked for these yet
        status, headers, _ = wire.ask("GET", f"/datasets/1/samples/{number}/{picture}")
        assert (status, headers["content-type"]) == (200, "image/webp")
    for format in ("csv", "coco", "parquet", "pictures"):  # made in a temporary file first
        status, _, body = wire.ask("GET", f"/datasets/1/export?format={format}", **JSON)
        assert (status, ADVICE in json.loads(body)["error"]) == (FULL, True)
    for path, form in WRITTEN.items():
        for asked in languages:
            status, _, body = wire.post(path, form, **asked)
            assert status < 500 or (status == FULL and ADVICE in body.decode()), (path, asked, status, body)
    stranger = Wire(site)
    assert stranger.log_in("wrong") in (200, FULL)
    assert stranger.log_in() in (302, FULL)
    stranger.close()

    site.disk.make_room()
    for path in ("/datasets/1/tags", "/datasets/1/views"):
        form = {name: str(value).replace("NUMBER", "last") for name, value in WRITTEN[path].items()}
        assert wire.post(path, form, **JSON)[0] == 200
    tagged = answered(wire, "/datasets/1/?all=full+last")
    assert tagged["total"] == IMAGES


def test_a_run_says_how_it_ended_as_soon_as_there_is_room(site: Site, wire: Wire) -> None:
    site.brake.allow(3)
    status, _, body = wire.post("/datasets/1/auto-tag", {"scope": "all"}, **JSON)
    assert status == 202, body
    run = f"/runs/{json.loads(body)['run']}"

    def state() -> dict[str, Any]:
        found: dict[str, Any] = answered(wire, f"{run}/")["state"]
        return found

    site.brake.wait_until_reached()
    site.disk.fill()
    site.brake.release()
    wait_for(lambda: "failed: The disk of" in site.said(), "the end of the run")
    assert state()["processed"] < IMAGES
    assert answered(wire, "/datasets/1/")["total"] == IMAGES
    site.disk.make_room()
    wait_for(lambda: state()["status"] == "failed", "what its row says")
    assert ADVICE in state()["error"]
    kept = state()["processed"]
    assert kept >= 3
    assert wire.post(f"{run}/resume", **JSON)[0] in (200, 202)
    wait_for(lambda: state()["status"] == "completed", "the end of the run that was resumed")
    assert state()["processed"] == IMAGES
    checked = site.manage("check_store")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_import_that_finds_no_room_leaves_nothing(site: Site, wire: Wire) -> None:
    folder = site.folder / "many"
    folder.mkdir()
    for number in range(8000):  # one picture, under names that take room
        os.link(site.photos / "000.jpg", folder / f"{number:05}-{os.urandom(100).hex()}.jpg")
    site.disk.fill(leave=2**20)
    done = site.manage("import_dataset", str(folder))
    assert (done.returncode, ADVICE in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(folder.iterdir())]
    coco = site.folder / "many.json"  # what is read of it is put down in the temporary folder
    coco.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    done = site.manage("import_dataset", str(coco))
    assert (done.returncode, ADVICE in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    coco.unlink()
    status, _, body = wire.post("/imports/new", {"path": str(folder), "action": "start"}, **JSON)
    if status < 300:
        job = f"/imports/{json.loads(body)['import']}/"
        site.disk.make_room()
        wait_for(lambda: answered(wire, job)["status"] != "running", "the end of the import")
    else:
        assert (status, ADVICE in json.loads(body)["error"]) == (FULL, True)
    site.disk.make_room()
    wait_for(lambda: not list(site.disk.filler.parent.glob("data/import-*")), "the end of what was read")
    assert [one["name"] for one in answered(wire, "/")["datasets"] if one["name"] == "many"] in ([], ["many"])
    again = site.manage("import_dataset", str(folder), "--name", "many")
    assert again.returncode == 0, again.stderr


def test_commands_say_what_cannot_be_written_and_leave_no_half_files(site: Site, wire: Wire) -> None:
    small = site.folder / "small"
    written = [
        ["import_dataset", str(site.photos), "--name", "photos"],
        ["export_tags", "1", "--format", "csv", "--output", f"{small}/tags.csv"],
        ["export_images", "1", "--copy", "--into", f"{small}/copies"],
        ["write_sidecars", "1", "--into", f"{small}/sidecars"],
        ["vocabulary", "export", f"{small}/vocabulary.toml"],
        ["backup", f"{small}/backup"],
        ["slices", "1", "--freeze", "all of them"],
        ["tag", "1", "--add", "by command"],
        ["restore", f"{site.folder}/outside"],
    ]
    read = [["runs"], ["check_store"], ["slices", "1"], ["columns", "1"], ["backup", f"{site.folder}/another"]]
    assert site.manage("backup", f"{site.folder}/outside").returncode == 0
    site.disk.fill()
    refusal(wire, "/datasets/1/tags", {"action": "add", "tag": "again NUMBER", "all": 1})
    refusal(wire, "/datasets/1/views", {"name": "again NUMBER", "query": "q=NUMBER"})
    told = site.commands(written + read)
    for command in read:
        assert told[" ".join(command)] == "", command
    for command in written:
        said = told[" ".join(command)]
        assert said, command
        assert "Traceback" not in said, said
    half = [path for path in site.disk.filler.parent.rglob("*") if path.is_file() and "data" not in path.parts]
    assert [path.name for path in half if path.name != "filler"] == []
    site.disk.make_room()
    told = site.commands(written)
    assert set(told.values()) == {""}, told
