"""What the viewers of a data set see of its run: one look and one rendering per change, however many are watching.

The run's row in the database is the truth. A run in this process nudges its viewers directly, one in another process (the
command, a second server) through Redis (``vlm.nudges``), where that is set. Each room also looks by itself, since a nudge
may be lost: every second while a run is active, every two otherwise. Either way one task per data set looks, and hands what
it found to all its viewers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError
from django.template.loader import render_to_string

from vlm import nudges, services
from vlm.errors import DatabaseUnusable, Refusal
from vlm.figures import duration, number, pace
from vlm.models import Dataset
from vlm.permissions import TAG, VIEW, ended, holders
from vlm.runs.state import RunState
from vlm.samples import SampleRow

log = logging.getLogger(__name__)

ACTIVE_SECONDS = 1.0
IDLE_SECONDS = 2.0
PAUSE_SECONDS = 0.1  # at most ten pictures a second
CELLS = 200  # changed samples in one message; a viewer's screen shows fewer


class Viewer(Protocol):
    user_id: int
    session_key: str
    can_tag: bool

    async def show(self, html: str) -> None: ...

    async def expel(self, *, logged_in: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the database and the store found."""

    state: RunState | None
    samples: tuple[SampleRow, ...] = ()
    sequence: int = 0
    changes: int = 0  # of the data set, by users and commands


def numbers(state: RunState) -> dict[str, str]:
    """Return the strip's figures as text, by the name of the place where each stands."""
    return {
        "processed": number(state.processed),
        "total": number(state.total),
        "rate": pace(state.rate),
        "left": duration(state.eta) if state.eta is not None else "–",
        "tagged": number(state.tagged),
        "discarded": number(state.discarded),
        "failed": number(state.failed),
    } | ({"shared": number(state.shared)} if state.one_per_group else {})


def context(dataset_id: int, state: RunState | None, can_tag: bool) -> dict[str, Any]:
    """Return what ``vlm/_live.html`` draws."""
    return {
        "dataset_id": dataset_id,
        "state": state,
        "numbers": numbers(state) if state else {},
        "can_tag": can_tag,
    }


def cells_html(samples: Iterable[SampleRow], changes: int) -> str:
    """Return the tags of ``samples`` for the cells on show; the page's script moves them in.

    Beside them stands how often the data set was changed, by which the page sees that somebody else has changed it.
    """
    values = {"samples": samples, "changes": changes}
    return render_to_string("vlm/_live_cells.html", values)


class Room:
    """The viewers of one data set in this process, and the task that looks for them.

    Lives in the server's event loop; nothing here is called from another thread. Whatever goes wrong in a look is told or
    logged, and the room goes on: only its last viewer puts out the light.
    """

    def __init__(self, dataset_id: int) -> None:
        self.dataset_id = dataset_id
        self.viewers: set[Viewer] = set()
        self._unseeing: set[Viewer] = set()  # whom nothing could be shown yet
        self._nudged = asyncio.Event()
        self._lock = asyncio.Lock()  # what is shown never goes back in time
        self._last: Look | None = None
        self._told = ""  # what was refused last
        self._logged = ""  # what was logged last; a database that is away for an hour is one line
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch())]
        if settings.REDIS_URL:
            self._tasks.append(loop.create_task(nudges.heard(self.dataset_id, self.nudge)))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def nudge(self) -> None:
        self._nudged.set()

    async def greet(self, viewer: Viewer) -> None:
        """Show the present state to a viewer who has just come."""

        async def show() -> None:
            look = await database_sync_to_async(_look, thread_sensitive=False)(self.dataset_id, None)
            self._last = self._last or look
            await viewer.show(await _render(self.dataset_id, look, whole=True, can_tag=viewer.can_tag))
            self._unseeing.discard(viewer)

        self._unseeing.add(viewer)
        await self._guarded(show)

    async def _watch(self) -> None:
        while True:
            active = self._last is not None and self._last.state is not None and self._last.state.active
            try:
                async with asyncio.timeout(ACTIVE_SECONDS if active else IDLE_SECONDS):
                    await self._nudged.wait()
            except TimeoutError:
                pass
            self._nudged.clear()
            await self._guarded(self._look_and_show)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _guarded(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look, one at a time. A refusal that waiting does not mend is told to the viewers, once."""
        async with self._lock:
            try:
                await look()
                self._told = self._logged = ""
            except (Refusal, DatabaseError) as error:
                refusal = error if isinstance(error, Refusal) else DatabaseUnusable.of(error)
                if refusal.message != self._logged:
                    self._logged = refusal.message
                    log.warning("Data set %s: no fresh progress for its viewers now: %s", self.dataset_id, refusal)
                if not refusal.retry_after and refusal.message != self._told:
                    self._told = refusal.message
                    await self._show_all(dict.fromkeys((True, False), await asyncio.to_thread(_refusal_html, refusal)))
            except Exception:
                log.exception("Data set %s: its viewers could not be shown its progress", self.dataset_id)

    async def _look_and_show(self) -> None:
        await self._check_viewers()
        before = self._last
        look = await database_sync_to_async(_look, thread_sensitive=False)(self.dataset_id, before)
        self._last = look
        for viewer in self._unseeing & self.viewers:
            await self._show(viewer, await _render(self.dataset_id, look, whole=True, can_tag=viewer.can_tag))
        self._unseeing.clear()
        if before is None or ((look.state, look.changes) == (before.state, before.changes) and not look.samples):
            return
        whole = _identity(look.state) != _identity(before.state)
        rights = {viewer.can_tag for viewer in self.viewers}
        await self._show_all(
            {can_tag: await _render(self.dataset_id, look, whole=whole, can_tag=can_tag) for can_tag in rights}
        )

    async def _show_all(self, pictures: dict[bool, str]) -> None:
        """Show each viewer the picture of their right to tag."""
        for viewer in list(self.viewers):
            if viewer.can_tag in pictures:
                await self._show(viewer, pictures[viewer.can_tag])

    async def _show(self, viewer: Viewer, html: str) -> None:
        try:
            await viewer.show(html)
        except Exception:
            log.warning("Data set %s: a viewer is gone", self.dataset_id, exc_info=True)
            leave(self, viewer)

    async def _check_viewers(self) -> None:
        """Part with those who have logged out or lost the right since the last look, whether or not there is news."""
        viewers = list(self.viewers)
        sessions = {viewer.session_key: viewer.user_id for viewer in viewers if viewer.session_key}
        allowed, ended = await database_sync_to_async(_access, thread_sensitive=False)(
            {viewer.user_id for viewer in viewers}, sessions
        )
        for viewer in viewers:
            logged_in = viewer.session_key not in ended
            if logged_in and viewer.user_id in allowed:
                viewer.can_tag = allowed[viewer.user_id]
            else:
                self.viewers.discard(viewer)
                await viewer.expel(logged_in=logged_in)


def _identity(state: RunState | None) -> tuple[object, ...]:
    """Return what decides which buttons and words the strip has; the rest are figures."""
    if state is None:
        return ()
    return (state.run, state.status, state.error, state.model, state.reverted, state.waits_for, bool(state.crew))


def _look(dataset_id: int, before: Look | None) -> Look:
    """Read the newest run and what it has answered since ``before`` (None: only the state is wanted)."""
    changes = services.datasets.changes(dataset_id=dataset_id)  # read first: one during the look is told at the next
    dataset = Dataset(pk=dataset_id)
    run = services.runs.current(dataset=dataset)
    if run is None:
        return Look(None, changes=changes)
    state = services.runs.state(run=run)
    known = before is not None and before.state is not None and before.state.run == state.run
    if before is None:
        _, newest = services.runs.changes(run=run, since=0, limit=1)
        return Look(state, (), newest, changes)
    if known and state == before.state:
        return Look(state, (), before.sequence, changes)
    ids, sequence = services.runs.changes(run=run, since=before.sequence if known else 0, limit=CELLS)
    samples = services.samples.by_id(dataset=dataset, ids=ids) if ids else []
    return Look(state, tuple(samples), sequence, changes)


def _rights(user_ids: set[int]) -> dict[int, bool]:
    """Return, for those of ``user_ids`` who may look, whether they may also tag: two queries for all of them."""
    may_view, may_tag = (holders(permission, user_ids) for permission in (VIEW, TAG))
    return {user_id: user_id in may_tag for user_id in may_view}


def _access(user_ids: set[int], sessions: dict[str, int]) -> tuple[dict[int, bool], set[str]]:
    """Return the rights of the users, and which of their sessions (key → user) have ended."""
    return _rights(user_ids), ended(sessions)


async def rights(user_id: int) -> tuple[bool, bool]:
    """Return whether this user may see data sets, and whether they may tag them."""
    allowed = await database_sync_to_async(_rights, thread_sensitive=False)({user_id})
    return user_id in allowed, allowed.get(user_id, False)


async def dataset_exists(dataset_id: int) -> bool:
    return bool(await database_sync_to_async(services.datasets.exists, thread_sensitive=False)(dataset_id=dataset_id))


def _render_now(dataset_id: int, look: Look, whole: bool, can_tag: bool) -> str:
    values = context(dataset_id, look.state, can_tag) | {"oob": True}
    strip = render_to_string("vlm/_live.html" if whole or look.state is None else "vlm/_live_numbers.html", values)
    return strip + cells_html(look.samples, look.changes)


def _refusal_html(refusal: Refusal) -> str:
    notice = {"level_tag": "error", "message": refusal.message}
    return render_to_string("vlm/_messages.html", {"notices": [notice], "oob": True})


async def _render(dataset_id: int, look: Look, *, whole: bool, can_tag: bool) -> str:
    return await asyncio.to_thread(_render_now, dataset_id, look, whole, can_tag)


# -- the rooms of this process, and the way from a run's thread to them ------------------------------------------------
_rooms: dict[int, Room] = {}
_loop: asyncio.AbstractEventLoop | None = None


def enter(dataset_id: int, viewer: Viewer) -> Room:
    """Return the data set's room with ``viewer`` in it."""
    _listen()
    room = _rooms.get(dataset_id)
    if room is None:
        room = _rooms[dataset_id] = Room(dataset_id)
        room.start()
    room.viewers.add(viewer)
    return room


def leave(room: Room, viewer: Viewer) -> None:
    """Take ``viewer`` out; the last one puts out the light."""
    room.viewers.discard(viewer)
    if not room.viewers and _rooms.get(room.dataset_id) is room:
        del _rooms[room.dataset_id]
        room.stop()


def _listen() -> None:
    """Hear of runs in this process from now on; their changes go to the loop that is running now."""
    global _loop
    if _loop is None:
        services.runs.subscribe(_changed)
    _loop = asyncio.get_running_loop()


def _changed(dataset_id: int) -> None:
    """Nudge the viewers of a data set; called in the run's thread."""
    if _loop is not None and not _loop.is_closed():
        _loop.call_soon_threadsafe(nudge, dataset_id)


def nudge(dataset_id: int) -> None:
    """Have the data set's room look now, if there is one."""
    if (room := _rooms.get(dataset_id)) is not None:
        room.nudge()
