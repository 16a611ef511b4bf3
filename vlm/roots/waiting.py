"""Waiting for a place that is away: no image fails because a bucket does not answer for a minute."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vlm.errors import RootAway, RootRefused
from vlm.imaging import ImageUnreadable
from vlm.roots.base import Root

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
TRIES = 4  # of one file that cannot be got while its place answers

Read = TypeVar("Read")


class GivenUp(Exception):
    """The job was stopped while it waited."""


class Patience:
    """Reads from a root, and waits while it is away; one for all threads of a job.

    A file that cannot be got although the place answers is that file's own affair.

    Args:
        stop: set to wait no more.
        seconds: how long the place may be away at a stretch.
        pause: before the first new try; it doubles up to ``LONGEST_PAUSE``.
    """

    def __init__(self, root: Root, *, stop: threading.Event, seconds: float, pause: float = FIRST_PAUSE) -> None:
        self._root, self._stop, self._seconds, self._pause = root, stop, seconds, pause
        self._lock = threading.Lock()
        self._since: float | None = None  # monotonic time since which nobody got an answer

    def __call__(self, read: Callable[[], Read]) -> Read:
        """Return what ``read`` returns.

        Raises:
            GivenUp: ``stop`` was set meanwhile.
            ImageUnreadable: by ``read``; or the place answers, and this file cannot be got again and again.
            RootAway: the place was away for longer than ``seconds``.
        """
        pause, tries = self._pause, 0
        while True:
            try:
                found = read()
            except RootAway as away:
                tries += 1
                self._missed(away, tries)
            else:
                self._reached()
                return found
            if self._stop.wait(pause):
                raise GivenUp
            pause = min(2 * pause, LONGEST_PAUSE)

    def _missed(self, away: RootAway, tries: int) -> None:
        if tries >= TRIES and self._answers():
            raise ImageUnreadable(f"It could not be got in {tries} tries, though others can: {away}") from None
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since = now
                logger.warning("%s Waiting for it.", away)
            if now - self._since >= self._seconds:
                raise RootAway(
                    f"{away} It was away for {_said(now - self._since)}; try again when it is back."
                ) from None

    def _answers(self) -> bool:
        try:
            self._root.probe()
        except (RootAway, RootRefused):
            return False
        self._reached()
        return True

    def _reached(self) -> None:
        if self._since is not None:
            with self._lock:
                if self._since is not None:
                    logger.warning("%s answers again.", self._root)
                self._since = None


def _said(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
