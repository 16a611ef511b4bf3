"""The websocket that shows a data set's run while it happens."""

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from vlm import live

# Closing codes of our own; htmx reconnects after 1006, 1011, 1012 and 1013 only, so these end the matter.
NOT_LOGGED_IN = 4401
NOT_ALLOWED = 4403
NO_SUCH_DATASET = 4404


class ProgressConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels ships no types
    """Sends HTML that htmx swaps in. It says nothing of its own: the room of its data set looks for all viewers."""

    room: live.Room | None = None
    user_id: int
    can_tag: bool

    async def connect(self) -> None:
        """Join, accept, then send the present state: a change in between is seen twice rather than never."""
        dataset_id: int = self.scope["url_route"]["kwargs"]["dataset_id"]
        user = self.scope["user"]
        if not user.is_authenticated:
            await self._refuse(NOT_LOGGED_IN)
            return
        self.user_id = user.pk
        may_view, self.can_tag = await live.rights(self.user_id)
        if not may_view:
            await self._refuse(NOT_ALLOWED)
            return
        if not await live.dataset_exists(dataset_id):
            await self._refuse(NO_SUCH_DATASET)
            return
        await self.channel_layer.group_add(live.group(dataset_id), self.channel_name)
        await self.accept()
        self.room = live.enter(dataset_id, self)
        await self.room.greet(self)

    async def disconnect(self, code: int) -> None:
        if self.room is not None:
            await self.channel_layer.group_discard(live.group(self.room.dataset_id), self.channel_name)
            live.leave(self.room, self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Viewers have nothing to say; whatever they send is dropped."""

    async def run_changed(self, event: dict[str, Any]) -> None:
        if self.room is not None:
            self.room.nudge()

    async def show(self, html: str) -> None:
        await self.send(text_data=html)

    async def expel(self) -> None:
        await self.close(code=NOT_ALLOWED)

    async def _refuse(self, code: int) -> None:
        """Accept, then close: a refusal before the handshake looks like a network failure, which htmx retries for ever."""
        await self.accept()
        await self.close(code=code)
