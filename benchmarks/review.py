"""Decisions a second in a real browser: ``python -m benchmarks.review --json``.

A server with a data folder of its own, Chromium, pictures of 12 megapixels. A key is pressed as soon as the next picture is
on show and decoded, as nobody could be faster; so what is measured is what the tool lets somebody wait.
"""

import argparse
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = tempfile.TemporaryDirectory(prefix="datavisor-benchmark-")
os.environ["DATAVISOR_DATA_DIR"] = FOLDER.name
os.environ["DJANGO_SETTINGS_MODULE"] = "datavisor.settings"

import django  # noqa: E402

django.setup()

import numpy as np  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

from benchmarks.million import answer_samples  # noqa: E402
from benchmarks.report import machine, show  # noqa: E402
from tests.browser import ARGUMENTS, find_chromium  # noqa: E402
from vlm import services  # noqa: E402
from vlm.models import Dataset  # noqa: E402
from vlm.process import sample_store  # noqa: E402

DIMENSION = "setting"
SIZE = (4000, 3000)
FILES = 24  # different pictures; the rest are copies of their bytes under other names
START_SECONDS = 60

ON_SHOW = """done => {
  const image = document.querySelector("#review .stage img"), status = document.querySelector("#review [role=status]");
  return status && status.textContent.startsWith(`${done} of`) && image && image.complete && image.naturalWidth > 0;
}"""


def add_pictures(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs that are as large and as busy as a camera's."""
    folder.mkdir()
    chance = np.random.default_rng(7)
    contents = []
    for number in range(min(FILES, count)):
        small = chance.integers(0, 256, (SIZE[1] // 40, SIZE[0] // 40, 3), dtype=np.uint8)
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
        contents.append((folder / f"{number:05d}.jpg").read_bytes())
    for number in range(FILES, count):
        (folder / f"{number:05d}.jpg").write_bytes(contents[number % FILES])


def prepare(images: int, password: str) -> Dataset:
    """Make the data set, with answers as of a run, and a draw of all of it."""
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("benchmark", password=password)
    folder = Path(FOLDER.name, "pictures")
    add_pictures(folder, images)
    dataset = services.datasets.import_folder(path=folder, name="pictures").dataset
    if dataset is None:
        raise SystemExit("The pictures could not be imported.")
    answer_samples(sample_store(), dataset.pk, 1, 1.0)
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=images)
    return dataset


def serve(port: int) -> subprocess.Popen[bytes]:
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
    server = subprocess.Popen(command)
    for _ in range(10 * START_SECONDS):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=START_SECONDS).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return server
    server.kill()
    raise SystemExit("The server did not start.")


def decide(page: Page, decisions: int) -> list[float]:
    """Decide one picture after another; returns the seconds from each key to the next picture."""
    page.set_default_timeout(1000 * START_SECONDS)
    page.wait_for_function(ON_SHOW, arg=0, polling="raf")
    seconds = []
    for done in range(1, decisions + 1):
        start = time.perf_counter()
        page.keyboard.press("1" if done % 3 else "2")
        page.wait_for_function(ON_SHOW, arg=done, polling="raf")
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(images: int) -> dict[str, Any]:
    password = secrets.token_urlsafe()
    dataset = prepare(images, password)
    sample_store().close()
    connections.close_all()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(port)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1440, "height": 900}, bypass_csp=True)
            page.goto(f"http://127.0.0.1:{port}/datasets/{dataset.pk}/review?dimension={DIMENSION}")
            page.get_by_label("User name").fill("benchmark")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()
            seconds = decide(page, images - 1)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return {
        "machine": machine(),
        "pictures": images,
        "megapixels": SIZE[0] * SIZE[1] / 1e6,
        "decisions a second": round(len(seconds) / sum(seconds), 2),
        "from a key to the next picture, ms": round(1000 * statistics.median(seconds), 1),
        "of ten the slowest, ms": round(1000 * statistics.quantiles(seconds, n=10)[-1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(measure(options.images), as_json=options.json)
    FOLDER.cleanup()


if __name__ == "__main__":
    sys.exit(main())
