"""What processes tell one another: that a data set has changed, by its row; and nudges to look at once, through Redis.

A nudge says nothing but the data set's number, so a lost one loses nothing: whoever looks reads the rows of the data set and of
its run. Without Redis there are none, and rooms go on by looking at the rows.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F

from vlm.models import Dataset

log = logging.getLogger(__name__)

SEND_SECONDS = 2.0  # a run waits no longer for Redis
PAUSE_SECONDS = 15.0  # after a failure
RENEW_SECONDS = 3600.0  # a membership ends after a day

_silent_until = 0.0


def group(dataset_id: int) -> str:
    return f"dataset-{dataset_id}"


def count_change(*dataset_ids: int) -> None:
    """Write down that what the pages of data sets show has changed otherwise than by a run; of all data sets without any.

    The change itself is made: that viewers hear of it later is no reason to say that it failed.
    """
    rows = Dataset.objects.filter(pk__in=dataset_ids) if dataset_ids else Dataset.objects.all()
    try:
        with transaction.atomic():
            rows.update(changes=F("changes") + 1)
    except DatabaseError:
        log.warning("Viewers of data sets could not be told of a change", exc_info=True)


def changes(dataset_id: int) -> int:
    """Return a number that grows with each such change."""
    return Dataset.objects.filter(pk=dataset_id).values_list("changes", flat=True).first() or 0


def tell(dataset_id: int) -> None:
    """Nudge the viewers of a data set in all other processes. Redis being away is no reason for a run to fail."""
    global _silent_until
    if not settings.REDIS_URL or time.monotonic() < _silent_until:
        return
    try:
        asyncio.run(_send(dataset_id))
    except _failures() as error:  # TimeoutError is an OSError
        _silent_until = time.monotonic() + PAUSE_SECONDS
        log.warning("Viewers in other processes could not be nudged: %s", error or type(error).__name__)


def _failures() -> tuple[type[Exception], ...]:
    """Return what Redis can fail with; its library is there to be loaded only where it is used."""
    from redis.exceptions import RedisError

    return (OSError, RedisError)


async def _send(dataset_id: int) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await get_channel_layer().group_send(group(dataset_id), {"type": "run.changed", "dataset": dataset_id})


async def heard(dataset_id: int, nudge: Callable[[], None]) -> None:
    """Call ``nudge`` for each nudge from another process, until cancelled."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    try:
        while True:
            try:
                await layer.group_add(group(dataset_id), channel)
                async with asyncio.timeout(RENEW_SECONDS):
                    while True:
                        await layer.receive(channel)
                        nudge()
            except TimeoutError:
                continue
            except _failures() as error:
                log.warning("Data set %s: no nudges from other processes: %s", dataset_id, error)
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        with suppress(Exception):
            await layer.group_discard(group(dataset_id), channel)
