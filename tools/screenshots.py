"""Make the pictures of docs/images with a real server, browser and model, so that they stay true: `make screenshots`.

The server has a data folder of its own, which is gone in the end, and works with the demonstration checkpoint on the
bundled photographs.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import ARGUMENTS, BrowserMissing, find_chromium  # noqa: E402  (needs the path above)

IMAGES = ROOT / "docs" / "images"
CHECKPOINT = Path("vlm", "demo", "checkpoint")  # as it stands in the pictures: the commands run in ROOT
PHOTOS = Path("vlm", "demo", "photos")
DATASET = "Bundled photographs"
SHOWN = "summer-palace-tower.jpg"
BEGUN, HALFWAY = 8, 20  # images that are done when a run is photographed, and when one is cancelled

WIDE, PHONE = (1440, 900), (390, 844)  # CSS pixels
MAX_BYTES = 300_000
COLOURS = (256, 192, 128, 96, 64, 48)
START_SECONDS = 60

IN_VIEW_LOADED = """() => [...document.images].every((image) => {
  const box = image.getBoundingClientRect();
  return box.bottom < 0 || box.top > innerHeight || (image.complete && image.naturalWidth > 0);
})"""


def manage(environment: dict[str, str], *arguments: str) -> None:
    """Run a management command, whose output only matters when it fails."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Serve the page on a free port and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "daphne",
        "-b",
        "127.0.0.1",
        "-p",
        str(port),
        "-v",
        "0",
        "datavisor.asgi:application",
    ]
    server = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/healthz", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("The server did not start; the lines above say why.")
                time.sleep(0.1)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def compressed(png: bytes) -> bytes:
    """Return a PNG with a palette, with as many colours as ``MAX_BYTES`` allows."""
    with Image.open(BytesIO(png)) as image:
        picture = image.convert("RGB")
    for colours in COLOURS:
        buffer = BytesIO()
        picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if len(buffer.getvalue()) <= MAX_BYTES:
            return buffer.getvalue()
    sys.exit(f"A picture is larger than {MAX_BYTES:,} bytes even with {COLOURS[-1]} colours. Show fewer photographs.")


def shoot(page: Page, name: str) -> None:
    """Write what ``page`` shows, once its photographs are there, to ``docs/images/<name>.png``."""
    page.mouse.move(0, 0)  # nothing is hovered over
    page.wait_for_function(IN_VIEW_LOADED)
    (IMAGES / f"{name}.png").write_bytes(compressed(page.screenshot()))


def opened(browser: Browser, size: tuple[int, int], *, like: BrowserContext | None = None, dark: bool = False) -> Page:
    """Return a page of a new context, logged in if ``like`` is."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        has_touch=size == PHONE,
        is_mobile=size == PHONE,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        storage_state=like.storage_state() if like else None,
    )
    context.set_default_timeout(180_000)
    return context.new_page()


def start_run(page: Page, scope: str) -> None:
    """Start a run from the page's panel, and wait until the page shows it."""
    page.locator("#auto-tag > summary").click()
    page.locator(f"#auto-tag input[name=scope][value={scope}]").check()
    page.locator("#auto-tag").get_by_role("button", name="Start").click()
    page.locator("#live[data-active]").wait_for()


def wait_until_processed(page: Page, count: int) -> None:
    page.wait_for_function(
        "(count) => Number(document.querySelector('#live-processed')?.textContent) >= count", arg=count
    )


def wait_until_over(page: Page) -> None:
    page.locator("#live:not([data-active])").wait_for()


def take(browser: Browser, address: str, password: str, environment: dict[str, str]) -> None:
    """Use the page as somebody would, and take the pictures on the way."""
    page = opened(browser, WIDE)
    page.goto(address)
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{address}/")
    page.get_by_role("link", name=DATASET).first.click()
    page.wait_for_function(IN_VIEW_LOADED)
    dataset = page.url

    start_run(page, "missing")
    wait_until_processed(page, BEGUN)
    page.reload()  # the sidebar counts anew when a run ends, or when the page is loaded
    page.locator("#live[data-active]").wait_for()
    shoot(page, "run-in-progress")
    wait_until_over(page)

    manage(environment, "tag", DATASET, "--filter", f"q={SHOWN}", "--add", "architecture", "--add", "outdoor")
    page.goto(dataset)
    shoot(page, "dataset")
    dark = opened(browser, WIDE, like=page.context, dark=True)
    dark.goto(dataset)
    shoot(dark, "dataset-dark")
    phone = opened(browser, PHONE, like=page.context)
    phone.goto(dataset)
    shoot(phone, "phone")
    page.locator(".cell", has=page.get_by_alt_text(SHOWN)).locator("a.picture").click()
    page.locator("#sample").wait_for()
    shoot(page, "sample")

    manage(environment, "autotag", DATASET, "--scope", "all", "--dimension", "weather", "--no-progress")
    page.goto(dataset)
    start_run(page, "all")
    wait_until_processed(page, HALFWAY)
    page.locator("#live-cancel").click()
    wait_until_over(page)
    page.goto(f"{dataset}runs")
    shoot(page, "runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=CHECKPOINT, help="folder of another checkpoint")
    model: Path = parser.parse_args().model
    if not (ROOT / model / "model.safetensors").is_file():
        sys.exit(f"{ROOT / model} holds no checkpoint. Name one with --model.")
    try:
        chromium = find_chromium()
    except BrowserMissing as error:
        sys.exit(str(error))
    IMAGES.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory(prefix="datavisor-screenshots-") as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAVISOR_")} | {
            "DATAVISOR_DATA_DIR": folder,
            "DATAVISOR_VLM_MODEL": str(model),
            "DATAVISOR_VLM_BATCH_SIZE": "1",  # so that a short run is seen going on
            "DATAVISOR_LOG_LEVEL": "WARNING",
            "DJANGO_SUPERUSER_PASSWORD": password,
        }
        manage(environment, "migrate", "--no-input")
        manage(environment, "createsuperuser", "--no-input", "--username", "admin", "--email", "admin@example.org")
        manage(environment, "import_dataset", str(PHOTOS), "--name", DATASET, "--no-progress")
        with serving(environment) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            take(browser, address, password, environment)
            browser.close()


if __name__ == "__main__":
    main()
