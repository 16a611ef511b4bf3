"""Looking at the store's queue from outside: by its lock files, which is how processes see one another."""

from pathlib import Path

from filelock import FileLock, Timeout

from tests.children import wait_for


def somebody_queues(store: Path) -> bool:
    """Whether somebody waits for the file at this very moment."""
    try:
        with FileLock(f"{store}.queue").acquire(timeout=0):
            return False
    except Timeout:
        return True


def wait_for_a_queue(store: Path) -> None:
    wait_for(lambda: somebody_queues(store), "Somebody who queues for the store")


def wait_for_a_second_turn(store: Path) -> None:
    """Wait until somebody has queued for the store in vain, and queues again."""
    wait_for_a_queue(store)
    wait_for(lambda: not somebody_queues(store), "The end of a turn in the store's queue")
    wait_for_a_queue(store)
