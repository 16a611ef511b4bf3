"""Where the browser is that the tests and the screenshots drive."""

import os
import shutil

# The shell is Chromium without windows: the same pages for less work.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

# The page is local: no sandbox (the tests may run as root), no calls home.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class BrowserMissing(Exception):
    """No Chromium was found; the message says how to get one."""


def find_chromium() -> str:
    """Return the path of a Chromium or Chrome.

    Raises:
        BrowserMissing: there is none, or ``DATAVISOR_CHROMIUM`` names one that is not there.
    """
    chosen = os.environ.get("DATAVISOR_CHROMIUM", "")
    found = next(filter(None, map(shutil.which, [chosen] if chosen else NAMES)), None)
    if chosen and not found:
        raise BrowserMissing(f"DATAVISOR_CHROMIUM names {chosen}, which cannot be run.")
    if not found:
        raise BrowserMissing(
            "The browser tests need Chromium. On Debian: apt-get install chromium-headless-shell. On Ubuntu, which has "
            "Chromium as a snap only, and anywhere else: install Google Chrome, or name another one in DATAVISOR_CHROMIUM."
        )
    return found
