"""The websocket: who may listen, and how often it looks."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.db import OperationalError, connection
from django.utils import timezone
from redis import Redis as Client

from tests.children import PATIENCE, environment, wait_for
from tests.database import database_url
from tests.page.conftest import PASSWORD, ROOT, allow, sample_ids
from tests.servers.redis import Redis
from tests.test_jobs import worker_of
from vlm import live, nudges, services
from vlm.models import Dataset, TaggingRun
from vlm.routing import websocket_urlpatterns
from vlm.samples import StoreBusy, StoreCorrupt

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms look when they are nudged, and not by the clock."""
    monkeypatch.setattr(live, "ACTIVE_SECONDS", 600)
    monkeypatch.setattr(live, "IDLE_SECONDS", 600)


def communicator(dataset_id: int, user: Any) -> WebsocketCommunicator:
    from channels.routing import URLRouter

    listener = WebsocketCommunicator(URLRouter(websocket_urlpatterns), f"/ws/datasets/{dataset_id}/progress/")
    listener.scope["user"] = user
    return listener


async def listening(dataset: Dataset, user: Any) -> tuple[WebsocketCommunicator, str]:
    """Return a listener and the first thing it is told."""
    listener = communicator(dataset.pk, user)
    connected, _ = await listener.connect(timeout=PATIENCE)
    assert connected
    return listener, await listener.receive_from(timeout=PATIENCE)


async def nudge(dataset: Dataset) -> None:
    live.nudge(dataset.pk)


def run_of(dataset: Dataset, **fields: object) -> TaggingRun:
    values = {"status": "running", "total": 7, "model": "m", "vocabulary_hash": "0" * 64} | fields
    return TaggingRun.objects.create(dataset=dataset, **values)


@pytest.fixture
def viewer(user: User) -> User:
    allow(user, "view_dataset")
    return user


@pytest.mark.parametrize(("who", "code"), [("nobody", 4401), ("stranger", 4403), ("lost", 4404)])
async def test_refusals_are_told_after_accepting(dataset: Dataset, user: User, who: str, code: int) -> None:
    if who == "lost":
        await sync_to_async(allow)(user, "view_dataset")
    listener = communicator(10**6 if who == "lost" else dataset.pk, AnonymousUser() if who == "nobody" else user)
    connected, _ = await listener.connect(timeout=PATIENCE)
    assert connected
    closing = await listener.receive_output(timeout=PATIENCE)
    assert (closing["type"], closing["code"]) == ("websocket.close", code)


async def test_a_newcomer_is_told_the_present_state(dataset: Dataset, viewer: User, patient: None) -> None:
    await sync_to_async(run_of)(dataset, processed=3)
    listener, html = await listening(dataset, viewer)
    assert '<b id="live-processed">3</b>' in html
    assert "run_cancel" not in html
    assert "live-cancel" not in html  # this viewer may not
    await listener.disconnect()
    assert live._rooms == {}


async def test_ten_viewers_cost_one_look_and_one_picture(
    dataset: Dataset, viewer: User, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await sync_to_async(run_of)(dataset)
    listeners = [(await listening(dataset, viewer))[0] for _ in range(10)]
    looks: list[int] = []
    pictures: list[int] = []
    look, render = live._look, live._render_now
    monkeypatch.setattr(live, "_look", lambda *a: looks.append(1) or look(*a))
    monkeypatch.setattr(live, "_render_now", lambda *a: pictures.append(1) or render(*a))
    await TaggingRun.objects.filter(pk=run.pk).aupdate(processed=4)
    await nudge(dataset)
    told = [await listener.receive_from(timeout=PATIENCE) for listener in listeners]
    assert len(set(told)) == 1
    assert '<b id="live-processed" hx-swap-oob="true">4</b>' in told[0]
    assert (len(looks), len(pictures)) == (1, 1)
    await nudge(dataset)
    await asyncio.to_thread(wait_for, lambda: len(looks) == 2, "A second look")
    assert await listeners[0].receive_nothing(timeout=0.5)  # it looked, and nothing has changed
    assert len(pictures) == 1
    for listener in listeners:
        await listener.disconnect()


async def test_a_right_that_is_taken_away_ends_the_view(dataset: Dataset, viewer: User, patient: None) -> None:
    run = await sync_to_async(run_of)(dataset)
    listener, _ = await listening(dataset, viewer)
    await sync_to_async(viewer.user_permissions.clear)()
    await TaggingRun.objects.filter(pk=run.pk).aupdate(processed=5)
    await nudge(dataset)
    closing = await listener.receive_output(timeout=PATIENCE)
    assert (closing["type"], closing["code"]) == ("websocket.close", 4403)
    await listener.disconnect()


async def test_a_run_of_another_process_is_noticed_by_the_clock(
    dataset: Dataset, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.2)
    listener, html = await listening(dataset, viewer)
    assert "hidden" in html
    await sync_to_async(run_of)(dataset, status="loading")
    assert "Loading the model" in await listener.receive_from(timeout=PATIENCE)
    await listener.disconnect()


async def test_changed_cells_come_with_their_tags(dataset: Dataset, viewer: User, patient: None) -> None:
    from vlm.process import sample_store
    from vlm.samples import Answer, Result
    from vlm.samples.merging import merge_batch

    run = await sync_to_async(run_of)(dataset)
    (first, *_) = await sync_to_async(sample_ids)(dataset)
    listener, _ = await listening(dataset, viewer)

    def commit() -> None:
        answer = Answer(run.pk, "lighting", 0, ("dark", "dim"), (0.8, 0.2), 0.9, "dark", 0.8, True, "")
        with sample_store().write() as cursor:
            merge_batch(cursor, dataset_id=dataset.pk, run_id=run.pk, results=[Result(first, (answer,))])
        TaggingRun.objects.filter(pk=run.pk).update(processed=1, tagged=1)
        connection.close()

    await sync_to_async(commit)()
    await nudge(dataset)
    html = await listener.receive_from(timeout=PATIENCE)
    assert f'<div data-tags="{first}"><span class="tag model" title="lighting: dark – by the model, 80 %' in html
    await listener.disconnect()


async def test_a_nudge_from_a_thread_arrives(dataset: Dataset, viewer: User, patient: None, data_dir: Path) -> None:
    run = await sync_to_async(run_of)(dataset)
    listener, _ = await listening(dataset, viewer)
    await TaggingRun.objects.filter(pk=run.pk).aupdate(processed=2)
    await asyncio.to_thread(live._changed, dataset.pk)
    assert ">2</b>" in await listener.receive_from(timeout=PATIENCE)
    await listener.disconnect()


async def test_a_room_outlives_whatever_goes_wrong(
    dataset: Dataset, viewer: User, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a busy store while it greets nor a mistake of our own ends the pushes, or leaves a room behind."""
    run = await sync_to_async(run_of)(dataset, processed=1)
    look = live._look
    troubles: list[Exception] = [StoreBusy("Another process has the store."), RuntimeError("a mistake of our own")]

    def trouble(*arguments: Any) -> live.Look:
        if troubles:
            raise troubles.pop(0)
        return look(*arguments)

    monkeypatch.setattr(live, "_look", trouble)
    listener = communicator(dataset.pk, viewer)
    assert (await listener.connect(timeout=PATIENCE))[0]
    while troubles:  # the greeting was refused, and the first look breaks
        await nudge(dataset)
        await asyncio.sleep(0.05)
    await nudge(dataset)
    assert '<b id="live-processed">1</b>' in await listener.receive_from(timeout=PATIENCE)
    await TaggingRun.objects.filter(pk=run.pk).aupdate(processed=2)
    await nudge(dataset)
    assert ">2</b>" in await listener.receive_from(timeout=PATIENCE)
    await listener.disconnect()
    assert live._rooms == {}


async def test_a_refusal_that_waiting_does_not_mend_is_told_once(
    dataset: Dataset, viewer: User, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(run_of)(dataset)
    listener, _ = await listening(dataset, viewer)

    def damaged(*_: Any) -> live.Look:
        raise StoreCorrupt("The file is damaged: put a copy in its place.")

    monkeypatch.setattr(live, "_look", damaged)
    await nudge(dataset)
    html = await listener.receive_from(timeout=PATIENCE)
    assert 'id="messages"' in html
    assert "The file is damaged: put a copy in its place." in html
    await nudge(dataset)
    assert await listener.receive_nothing(timeout=0.5)
    await listener.disconnect()


async def test_a_viewer_who_breaks_off_in_the_greeting_leaves_no_room(
    dataset: Dataset, viewer: User, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> live.Look:
        begun.set()
        go_on.wait(PATIENCE)
        return live.Look(None)

    monkeypatch.setattr(live, "_look", slow)
    listener = communicator(dataset.pk, viewer)
    assert (await listener.connect(timeout=PATIENCE))[0]
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    assert live._rooms
    listener.future.cancel()  # as the server does with a connection that is gone
    go_on.set()
    with contextlib.suppress(asyncio.CancelledError):
        await listener.future
    assert live._rooms == {}


async def test_a_database_that_is_away_lets_the_browser_try_again(
    dataset: Dataset, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> bool:
        raise OperationalError("database is locked")

    monkeypatch.setattr(services.datasets, "exists", away)
    listener = communicator(dataset.pk, viewer)
    assert (await listener.connect(timeout=PATIENCE))[0]
    assert (await listener.receive_output(timeout=PATIENCE))["code"] == 1013


@pytest.fixture
def redis(settings: Any) -> Iterator[str]:
    """A real Redis server of this test's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = Redis()
    settings.REDIS_URL = server.url
    host = {"address": server.url, "socket_timeout": 20}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [host]}}
    }
    yield server.url
    server.close()


async def test_a_command_beside_the_server_nudges_through_redis(
    dataset: Dataset, viewer: User, patient: None, redis: str, data_dir: Path
) -> None:
    """The clock of the room stands still: only a nudge from the other process can make it look."""
    alive = worker_of(os.getppid())  # who lives may take as long as the machine needs
    run = await sync_to_async(run_of)(dataset, status="queued", heartbeat=timezone.now(), worker=alive)
    listener, html = await listening(dataset, viewer)
    assert "cancelling" not in html
    with Client.from_url(redis) as client:  # who is told in Redis is who has joined there, a moment after being greeted
        joined = f"asgi:group:{nudges.group(dataset.pk)}"
        await asyncio.to_thread(wait_for, lambda: client.exists(joined), "A member of the data set's group")
    env = environment(data_dir, DATAVISOR_REDIS_URL=redis, DATABASE_URL=database_url())
    command = [sys.executable, "-m", "datavisor", "cancel_run", str(run.pk)]
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "cancelling" in await listener.receive_from(timeout=PATIENCE)
    await listener.disconnect()


def test_superusers_may_all(db: None) -> None:
    admin = User.objects.create_superuser("root", password=PASSWORD)
    assert live._rights({admin.pk}) == {admin.pk: True}
