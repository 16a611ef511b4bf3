"""One background job: a thread that works on a row of Django's database, for as long as the row is its own.

The row has two columns. ``worker`` says who works on it: machine, process, and a token of this very execution, so that
whoever was taken for dead and comes back finds that the row is another's. ``heartbeat`` is written while it lives. Runs and
imports are such rows; :func:`sweep` finds the dead among them, and every door that shows them asks it first.

A process of this machine is known to be dead at once, by its number and the time of its start. One of another machine is
taken for dead when its heart has not beaten for a while. A heartbeat from the future, of a clock that was set back since, is
brought to the present: who lives beats again, and who does not is dead that while later.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from django.db import DatabaseError, OperationalError, connections
from django.db.models import QuerySet
from django.utils import timezone

from vlm import process  # noqa: F401  (its end, the closing of the store, is registered before ours, so it comes after)
from vlm.errors import DatabaseUnusable, Refusal, Unwritable

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
STALE_SECONDS = 30.0  # silence after which a job of another machine is taken for dead
LOOK_SECONDS = 0.1  # how soon a stop is seen
RETRY_SECONDS = 2.0  # between attempts to say how a job ended
STOP_SECONDS = 60.0  # how long a stopping process waits for what is at hand
QUEUED = ""  # the worker of a row that nobody works on yet

_lock = threading.Lock()
_threads: dict[threading.Thread, threading.Event] = {}
_tokens: set[str] = set()  # of the executions that go on in this process


def launch(name: str, work: Callable[[threading.Event], object]) -> threading.Thread:
    """Call ``work`` in a thread of this process; the event that it is given is set when the process ends."""
    stop = threading.Event()

    def run() -> None:
        try:
            work(stop)
        except Exception:
            logger.exception("The job %s ended badly", name)
        finally:
            connections.close_all()
            with _lock:
                _threads.pop(thread, None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    with _lock:
        _threads[thread] = stop
    thread.start()
    return thread


@atexit.register
def stop_all() -> None:
    """Let every job of this process finish what is at hand. At exit daemon threads would die in the midst of it."""
    with _lock:
        threads = dict(_threads)
    for stop in threads.values():
        stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def stop_first() -> None:
    """Have :func:`stop_all` come before whatever has been registered for the end of the process up to now."""
    atexit.unregister(stop_all)
    atexit.register(stop_all)


@contextmanager
def claimed(rows: QuerySet[Any], **changes: object) -> Iterator[str]:
    """Make a row one's own while the block lasts; yields the worker's name, or ``QUEUED`` if no row was free.

    ``rows`` is the row as it must be to be free.
    """
    with at_work() as worker:
        yield worker if rows.update(worker=worker, heartbeat=timezone.now(), **changes) else QUEUED


@contextmanager
def at_work() -> Iterator[str]:
    """Yield the name of a worker that lives while the block lasts."""
    token = secrets.token_hex(4)
    with _lock:
        _tokens.add(token)
    try:
        yield f"{socket.gethostname()[:40]}:{os.getpid()}:{_started(os.getpid())}:{_machine()}:{token}"
    finally:
        with _lock:
            _tokens.discard(token)


@contextmanager
def beating(
    rows: Callable[[], QuerySet[Any]],
    *,
    stop: threading.Event,
    wanted: Callable[[], bool] = lambda: True,
    every: float | None = None,
) -> Iterator[threading.Event]:
    """Show that the job lives while the block lasts; yields an event that is set when it is to halt.

    Args:
        rows: the row, while it is this execution's.
        stop: set when the process ends.
        wanted: asked with every beat; a job that nobody wants any more halts, as one whose row is another's.
        every: seconds between two beats, ``BEAT_SECONDS`` by default. The claim was the first.
    """
    halt, over = threading.Event(), threading.Event()
    if stop.is_set():
        halt.set()

    def beat() -> None:
        beat_at, is_heard = time.monotonic(), True
        try:
            while not over.wait(LOOK_SECONDS):
                if stop.is_set():
                    halt.set()
                if time.monotonic() - beat_at < (every or BEAT_SECONDS):
                    continue
                beat_at = time.monotonic()
                try:
                    if not rows().update(heartbeat=timezone.now()) or not wanted():
                        halt.set()
                    is_heard = True
                except DatabaseError as error:  # locked for long, or gone for a moment: the next beat tells
                    if is_heard:
                        logger.warning("A job cannot show that it lives, and goes on: %s", error)
                    is_heard = False
                    connections.close_all()
        finally:
            connections.close_all()

    pulse = threading.Thread(target=beat, name=f"{threading.current_thread().name}-pulse", daemon=True)
    pulse.start()
    try:
        yield halt
    finally:
        over.set()
        pulse.join()


def sweep(active: QuerySet[Any], end: Callable[[QuerySet[Any], datetime | None], int]) -> int:
    """End the jobs among ``active`` whose worker is dead; returns how many.

    Args:
        end: given the row, as it was when it was seen to be dead, and its last heartbeat.
    """
    now = timezone.now()
    while_ago, soon = now - timedelta(seconds=STALE_SECONDS), now + timedelta(seconds=STALE_SECONDS)
    ended = 0
    for key, worker, heartbeat in active.values_list("pk", "worker", "heartbeat"):
        row = active.filter(pk=key, worker=worker)
        alive = is_alive(worker)
        try:
            if alive is False:
                ended += end(row, heartbeat)
            elif heartbeat is not None and heartbeat > soon:
                row.filter(heartbeat=heartbeat).update(heartbeat=now)
            elif alive is None and heartbeat is not None and heartbeat < while_ago:
                ended += end(row.filter(heartbeat=heartbeat), heartbeat)
        except OperationalError:  # full, locked for long: whoever only wants to read goes on, and the next one ends it
            logger.warning("The end of a job could not be written down", exc_info=True)
    return ended


def write_down(write: Callable[[], object], stop: threading.Event) -> None:
    """Call ``write``, which says how a job ended, until the database takes it: a full disk has room again some day.

    Raises:
        OperationalError: the process is to stop before that.
    """
    while True:
        try:
            write()
            return
        except OperationalError as error:
            logger.warning("How a job ended cannot be written down yet: %s", error)
            connections.close_all()
            if stop.wait(RETRY_SECONDS):
                raise


def foreseen(error: Exception) -> Refusal | None:
    """Return what ended a job as a sentence that says what to do; ``None`` for what nobody has foreseen."""
    if isinstance(error, OperationalError):
        return DatabaseUnusable.of(error)
    return error if isinstance(error, Refusal) else Unwritable.of(error)


def is_alive(worker: str) -> bool | None:
    """Return whether a worker lives; ``None`` where this process cannot know: it is of another machine, or there is none."""
    try:
        _, number, started, machine, token = worker.rsplit(":", 4)
        pid = int(number)
    except ValueError:  # nobody yet, or a worker of the first release
        return None
    if machine != _machine():
        return None
    if pid == os.getpid():
        return token in _tokens
    found = _started(pid)
    return None if found is None else found == started


def _machine() -> str:
    """Return what tells this machine, since it was started, and this space of process numbers from all others."""
    return _machine_of(os.getpid())


@cache
def _machine_of(pid: int) -> str:
    parts = [socket.gethostname()]
    for name in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(name)
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(pid: int) -> str | None:
    """Return when a process of this machine was started, “gone” if there is none, ``None`` where that cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no such process, not Linux, or one that we may not look at
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "gone"
        except OSError:
            return None
        return None  # somebody has the number; whether it is the same one, nobody says
    return "gone" if fields[0] in "ZX" else fields[19]
