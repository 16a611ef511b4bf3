"""Reading the files of samples in threads, some at a time."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from vlm.errors import RootAway
from vlm.imaging import ImageUnreadable
from vlm.roots import GivenUp, Patience, Root

logger = logging.getLogger(__name__)

Seen = TypeVar("Seen")


def look_at(
    root: Root,
    batch: Sequence[tuple[int, str]],
    look: Callable[[str], Seen],
    halt: threading.Event,
    *,
    seconds: float,
) -> tuple[dict[int, Seen], list[dict[str, str]]]:
    """Call ``look`` with the path of each sample (id, path below ``root``) until ``halt`` is set.

    Args:
        seconds: how long a root that is away is waited for.

    Returns:
        What was seen, by sample; and which files could not be read, and why.

    Raises:
        RootAway: the root was away for longer.
    """
    patiently = Patience(root, stop=halt, seconds=seconds)
    away: list[RootAway] = []
    tasks: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    for task in batch:
        tasks.put(task)
    seen: dict[int, Seen] = {}
    bad: list[dict[str, str]] = []

    def work() -> None:
        while not halt.is_set() and not away:
            try:
                sample, path = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                seen[sample] = patiently(partial(look, path))
            except GivenUp:
                return
            except RootAway as error:
                away.append(error)
            except ImageUnreadable as error:
                bad.append({"path": path, "reason": error.message})
            except Exception as error:
                logger.warning("%s could not be read", path, exc_info=True)
                bad.append({"path": path, "reason": f"The image could not be read ({type(error).__name__})."})

    # Plain daemon threads: an executor's refuse work while the interpreter exits, when a job finishes what is at hand.
    threads = [threading.Thread(target=work, name=f"look-{index}", daemon=True) for index in range(root.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if away:
        raise away[0]
    return seen, sorted(bad, key=lambda problem: problem["path"])
