"""A data set in the test database and store, and a real server with a real browser."""

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.brake import Brake
from tests.browser import ARGUMENTS, find_chromium
from tests.children import PATIENCE, environment, finish, wait_for
from tests.outcome import failed
from tests.ports import reserved
from tests.serving import PATIENT
from tests.workshop import Forked, fork
from vlm import services
from vlm.models import Dataset
from vlm.samples import SampleFilter

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = ROOT / "tests" / "data" / "moondream2-vectors"
HOSTILE = "<img src=x onerror=alert(1)> & “quoted”.png"
PASSWORD = "correct horse 9"

# Messages go away by themselves, unless somebody is reading them, as the tests are, at the pace of the machine.
READING = """document.addEventListener("DOMContentLoaded", () => {
    const place = document.querySelector("#messages");
    if (!place) return;
    const read = () => { for (const message of place.children) message.dispatchEvent(new Event("pointerenter")); };
    new MutationObserver(read).observe(place, {childList: true});
    read();
});"""


def draw_images(folder: Path, count: int, *, size: int = 200, broken: int = 0) -> Path:
    """Fill ``folder`` with ``count`` small pictures and ``broken`` files that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = Image.new("RGB", (size, size * 3 // 4), (30 + 7 * index % 200, 90, 200 - 9 * index % 180))
        ImageDraw.Draw(image).ellipse((20, 20, 60 + index, 80), fill=(250, 220, 40))
        image.save(folder / f"{index:03d}.png")
    for index in range(broken):
        (folder / f"broken-{index}.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    return folder


# -- without a browser -------------------------------------------------------------------------------------------------
@pytest.fixture
def dataset(db: None, data_dir: Path, tmp_path: Path) -> Dataset:
    """Six pictures, one with a hostile name, and a broken file."""
    folder = draw_images(tmp_path / "images", 6, broken=1)
    (folder / "000.png").rename(folder / HOSTILE)
    dataset = services.datasets.import_folder(path=folder, name="Six pictures").dataset
    assert dataset is not None
    return dataset


def sample_ids(dataset: Dataset) -> list[int]:
    return [sample.id for sample in services.samples.page(dataset=dataset, filter=SampleFilter()).samples]


@pytest.fixture
def user(db: None) -> User:
    """Somebody who may do nothing yet."""
    return User.objects.create_user("grace", password=PASSWORD)


def allow(user: User, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada", password=PASSWORD))
    return client


# -- with one ------------------------------------------------------------------------------------------------------------
class Server:
    """DataVisor in a process of its own, with the small random weights and thresholds at which everything is a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reserved = reserved()  # as long as the tests last, also while the server is down
        self.port: int = self.reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.brake = Brake(folder / "brake.json")
        self.environment = environment(
            folder / "data",
            **self.brake.environment,
            DATAVISOR_IMPORT_ROOTS=str(folder),
            DATAVISOR_VLM_MODEL=str(WEIGHTS),
            DATAVISOR_VLM_MIN_PROBABILITY="0",
            DATAVISOR_VLM_MIN_MASS="0",
            DATAVISOR_VLM_BATCH_SIZE="1",
        )
        self.process: Forked | None = None

    def python(self, code: str) -> None:
        child = fork("-c", code, env=self.environment, cwd=self.folder)
        out, errors = finish(child)
        assert child.returncode == 0, out + errors

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        command = ("-m", "daphne", "-b", "127.0.0.1", "-p", str(self.port), "-v", "0", *PATIENT)
        application = "datavisor.asgi:application"
        self.process = fork(
            *command, application, env=self.environment, cwd=self.folder, log=self.folder / "server.log"
        )
        wait_for(self._answers, "An answer of the server")

    def _answers(self) -> bool:
        if not self.is_up:
            raise AssertionError((self.folder / "server.log").read_text(errors="replace"))
        try:
            urllib.request.urlopen(f"{self.url}/healthz", timeout=PATIENCE).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def stop(self) -> None:
        if self.process is not None and self.is_up:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, with whatever it is at: a test has failed, and the next one starts afresh."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.python(
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0, skip_checks=True)\n"
        "from django.contrib.auth.models import User\n"
        f"User.objects.create_superuser('ada', password={PASSWORD!r})\n"
    )
    yield server
    server.kill()
    server.reserved.close()


@pytest.fixture
def folder(server: Server, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own, below the import roots."""
    return server.folder / re.sub(r"\W+", "-", request.node.name)


# For each module anew: an open Playwright has an event loop in this thread, in which Django's ORM refuses to work.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


def open_context(browser: Browser, **options: Any) -> BrowserContext:
    """Open a window of its own, whose clicks wait as long as a busy machine takes."""
    context = browser.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE)
    return context


class Visitor:
    """A logged-in browser whose every complaint is kept."""

    def __init__(self, server: Server, context: BrowserContext) -> None:
        self.server, self.context = server, context
        self.complaints: list[str] = []

    def page(self, *, reads: bool = True) -> Page:
        """Open a page. Where nobody ``reads`` its messages, they go away in their own time."""
        page = self.context.new_page()
        if reads:
            page.add_init_script(READING)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def log_in(self) -> Page:
        page = self.page()
        page.goto(self.server.url)
        page.get_by_label("User name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{self.server.url}/")
        return page

    def imported(self, folder: Path) -> str:
        """Import ``folder`` by the page's own addresses, and return the data set's."""
        token = next(cookie["value"] for cookie in self.context.cookies() if cookie["name"] == "csrftoken")
        form: dict[str, str | float | bool] = {
            "path": str(folder),
            "name": folder.name,
            "format": "folder",
            "action": "start",
            "csrfmiddlewaretoken": token,
        }
        answer = self.context.request.post(
            f"{self.server.url}/imports/new", form=form, headers={"Referer": self.server.url}
        )
        assert answer.ok, answer.text()
        found: list[str] = []

        def is_done() -> bool:
            found.extend(re.findall(r"/datasets/\d+/", self.context.request.get(answer.url).text()))
            return bool(found)

        wait_for(is_done, f"The end of the import {answer.url}")
        return self.server.url + found[0]


@pytest.fixture
def visitor(server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """A visitor who must have had nothing to complain about in the end."""
    server.brake.release()
    if not server.is_up:
        server.start()
    context = open_context(browser, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    visitor = Visitor(server, context)
    yield visitor
    context.close()
    if failed(request.node):
        server.kill()  # with the run that it may be at; the next test starts it again
    else:
        assert visitor.complaints == []
