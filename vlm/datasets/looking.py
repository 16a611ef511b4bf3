"""Reading the files of samples in threads, some at a time."""

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from vlm.formats.files import locate
from vlm.imaging import ImageUnreadable

logger = logging.getLogger(__name__)

THREADS = min(8, os.cpu_count() or 2)  # Pillow lets go of the interpreter while it decodes

Seen = TypeVar("Seen")


def look_at(
    root: Path, batch: Sequence[tuple[int, str]], look: Callable[[Path], Seen], halt: threading.Event
) -> tuple[dict[int, Seen], list[dict[str, str]]]:
    """Call ``look`` with the file of each sample (id, path below ``root``) until ``halt`` is set.

    Returns:
        What was seen, by sample; and which files could not be read, and why.
    """
    tasks: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    for task in batch:
        tasks.put(task)
    seen: dict[int, Seen] = {}
    bad: list[dict[str, str]] = []

    def work() -> None:
        while not halt.is_set():
            try:
                sample, path = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                seen[sample] = look(locate(root, path))
            except ImageUnreadable as error:
                bad.append({"path": path, "reason": error.message})
            except Exception as error:
                logger.warning("%s could not be read", path, exc_info=True)
                bad.append({"path": path, "reason": f"The image could not be read ({type(error).__name__})."})

    # Plain daemon threads: an executor's refuse work while the interpreter exits, when a job finishes what is at hand.
    threads = [threading.Thread(target=work, name=f"look-{index}", daemon=True) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen, sorted(bad, key=lambda problem: problem["path"])
