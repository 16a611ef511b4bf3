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
TRIES = (
    8  # of one file that cannot be got while its place answers: a store that is asked too much refuses some for a while
)

Read = TypeVar("Read")


class GivenUp(Exception):
    """The job was stopped while it waited."""


class Patience:
    """Reads from a root, and waits while it is away; one for all threads of a job.

    A file that cannot be got although the place answers is that file's own affair.

    Args:
        stop: set to wait no more.
        seconds: how long the place may be away at a stretch.
        tell: called with what is waited for, and with an empty text once it answers, by whichever thread noticed it.
    """

    def __init__(
        self,
        root: Root,
        *,
        stop: threading.Event,
        seconds: float,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._root, self._stop, self._seconds, self._tell = root, stop, seconds, tell
        self._lock = threading.Lock()  # held while telling, so that what is told last is how it is
        self._since: float | None = None  # monotonic time since which nobody got an answer

    def __call__(self, read: Callable[[], Read]) -> Read:
        """Return what ``read`` returns.

        Raises:
            GivenUp: ``stop`` was set meanwhile.
            ImageUnreadable: by ``read``; or the place answers, and this file cannot be got again and again.
            RootAway: the place was away for longer than ``seconds``.
        """
        pause, tries, answered = FIRST_PAUSE, 0, False
        while True:
            try:
                found = read()
            except RootAway as away:
                tries += 1
                # One answer is not enough: the place may have come back since the file was asked for.
                before, answered = answered, tries >= TRIES and self._answers()
                if before and answered:
                    raise ImageUnreadable(f"It could not be got in {tries} tries, though others can: {away}") from None
                if answered:
                    pause = FIRST_PAUSE
                else:
                    self._missed(away)
            except ImageUnreadable:
                self._reached()  # that one file is at fault was an answer, too
                raise
            else:
                self._reached()
                return found
            if self._stop.wait(pause):
                raise GivenUp
            pause = min(2 * pause, LONGEST_PAUSE)

    def _missed(self, away: RootAway) -> None:
        if not self._seconds:
            raise away
        now = time.monotonic()
        with self._lock:
            first = self._since is None
            since = self._since = now if self._since is None else self._since
            if first:
                logger.warning("%s Waiting for it.", away)
                self._tell(f"{away} Waiting for it.")
        if now - since >= self._seconds:
            raise RootAway(f"{away} It was away for {_said(now - since)}; try again when it is back.") from None

    def _answers(self) -> bool:
        try:
            self._root.probe()
        except (RootAway, RootRefused):
            return False
        self._reached()
        return True

    def _reached(self) -> None:
        if self._since is None:
            return
        with self._lock:
            again, self._since = self._since is not None, None
            if again:
                logger.warning("%s answers again.", self._root)
                self._tell("")


def _said(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
