"""The websocket that shows a data set's run while it happens."""

import logging
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from vlm import live
from vlm.errors import Refusal

log = logging.getLogger(__name__)

# Closing codes. htmx reconnects after 1006, 1011, 1012 and 1013 only, so those of our own end the matter.
TRY_AGAIN = 1013
NOT_LOGGED_IN = 4401
NOT_ALLOWED = 4403
NO_SUCH_DATASET = 4404


class ProgressConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels ships no types
    """Sends HTML that htmx swaps in. It says nothing of its own: the room of its data set looks for all viewers."""

    channel_layer_alias = ""  # none: the room hears for all its viewers, and no viewer is lost with Redis
    room: live.Room | None = None
    user_id: int
    session_key: str
    can_tag: bool

    async def connect(self) -> None:
        """Join, accept, then send the present state: a change in between is seen twice rather than never."""
        try:
            await self._enter(self.scope["url_route"]["kwargs"]["dataset_id"])
        except (Refusal, DatabaseError):
            log.warning("A viewer could not enter", exc_info=True)
            await self._refuse(TRY_AGAIN)

    async def _enter(self, dataset_id: int) -> None:
        user = self.scope["user"]
        if not user.is_authenticated:
            await self._refuse(NOT_LOGGED_IN)
            return
        self.user_id, self.session_key = user.pk, getattr(self.scope.get("session"), "session_key", "") or ""
        may_view, self.can_tag = await live.rights(self.user_id)
        if not may_view:
            await self._refuse(NOT_ALLOWED)
            return
        if not await live.dataset_exists(dataset_id):
            await self._refuse(NO_SUCH_DATASET)
            return
        await self.accept()
        self.room = live.enter(dataset_id, self)
        await self.room.greet(self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Leave the room however this ends: Channels calls ``disconnect`` only where nothing went wrong before."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.room is not None:
                live.leave(self.room, self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Viewers have nothing to say; whatever they send is dropped."""

    async def show(self, html: str) -> None:
        await self.send(text_data=html)

    async def expel(self, *, logged_in: bool) -> None:
        await self.close(code=NOT_ALLOWED if logged_in else NOT_LOGGED_IN)

    async def _refuse(self, code: int) -> None:
        """Accept, then close: a refusal before the handshake looks like a network failure, which htmx retries for ever."""
        await self.accept()
        await self.close(code=code)


class Nowhere(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Answers at every address that is none."""

    async def connect(self) -> None:
        await self.accept()
        await self.close(code=NO_SUCH_DATASET)
