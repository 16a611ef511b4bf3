"""Which samples a run asks next: read from the store as many at a time as it gets through in some seconds.

A fast run reads thousands together, a slow one few: what it asks is never long out of date, and never much is held in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from vlm.samples import Pending, SampleStore
from vlm.samples.progress import Wanted, pending
from vlm.samples.refining import asked_again, uncertain

AHEAD_SECONDS = 10.0
FIRST, LEAST, MOST = 256, 16, 8192  # samples that are read together
LEAST_AGAIN = 256  # of the second pass, whose samples lie anywhere among all


def waiting(
    store: SampleStore, wanted: Wanted, *, run_id: int, limit: int | None, stop: threading.Event
) -> Iterator[Pending]:
    """Yield the samples that a run has to ask, ``limit`` at most, in the order of their ids."""
    after, left, size = -1, limit, FIRST
    while left is None or left > 0:
        size = size if left is None else min(size, left)
        begun = time.monotonic()
        with store.read(stop=stop) as cursor:
            found = pending(cursor, wanted, run_id=run_id, after=after, limit=size)
        yield from found
        if len(found) < size:
            return
        after = found[-1].id
        left = None if left is None else left - len(found)
        size = next_size(len(found), time.monotonic() - begun, least=LEAST)


def doubtful(store: SampleStore, *, run_id: int, share: float, stop: threading.Event) -> Iterator[Pending]:
    """Yield the samples that the second pass of a run has still to ask, the least certain first."""
    with store.read(stop=stop) as cursor:
        left = uncertain(cursor, run_id=run_id, share=share)
    size = FIRST
    while left.size:
        begun = time.monotonic()
        with store.read(stop=stop) as cursor:
            found = asked_again(cursor, run_id=run_id, ids=left[:size].tolist())
        yield from found
        left = left[size:]
        size = next_size(size, time.monotonic() - begun, least=LEAST_AGAIN)


def next_size(count: int, seconds: float, *, least: int) -> int:
    """Return how many samples to read together by how long the last ``count`` of them took."""
    return max(least, min(MOST, round(count * AHEAD_SECONDS / max(seconds, 1e-3))))
