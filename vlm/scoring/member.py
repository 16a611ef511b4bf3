"""One worker, as the crew knows it: how it is, and what it has at hand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from vlm.scoring.crew import Batch

RATE_SECONDS = 20.0  # the rate is that of this long

State = Literal["starting", "loading", "proving", "ready", "down"]
LABELS: dict[str, str] = {
    "starting": "is called",
    "loading": "loads the model",
    "proving": "is tried after a crash",
    "ready": "at work",
    "down": "gone",
    "ended": "ended",
}


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as viewers see it.

    Attributes:
        node: the machine; empty while it is not known.
        images: that it has answered in this execution of the run; ``rate`` per second, of late.
        state: ``starting``, ``loading``, ``proving``, ``ready``, ``down``, or ``ended`` with the run.
        seen: its last sign of life (ISO 8601, UTC); empty for none.
        deaths: how often it was lost.
        why: it is down.
    """

    name: str
    node: str
    pid: int
    device: str
    batch_size: int
    images: int
    rate: float
    state: str
    seen: str
    deaths: int
    why: str

    @property
    def label(self) -> str:
        return LABELS.get(self.state, self.state)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{part.name: value[part.name] for part in fields(cls)})


@dataclass(frozen=True, slots=True)
class Errand:
    """A call that is no batch, and what is done with what it returns."""

    call: Hashable
    then: Callable[[Any], None]


@dataclass(eq=False)
class Member:
    """A worker and what it has at hand; ``crashes`` counts its deaths since its last answer."""

    name: str
    node: str = ""
    pid: int = 0
    device: str = ""
    batch_size: int = 1
    state: State = "starting"
    errand: Errand | None = None
    at_hand: dict[Hashable, Batch] = field(default_factory=dict)
    images: int = 0
    deaths: int = 0
    crashes: int = 0
    why: str = ""
    again_at: float = 0.0
    heard_at: float = 0.0
    seen: datetime | None = None
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def title(self) -> str:
        return f"Worker {self.name}" + (f" on {self.node}" if self.node else "")

    @property
    def is_alive(self) -> bool:
        return self.state in ("loading", "proving", "ready")

    def calls(self) -> list[Hashable]:
        return [*self.at_hand, *([self.errand.call] if self.errand is not None else [])]

    def send(self, call: Hashable, then: Callable[[Any], None]) -> None:
        self.errand = Errand(call, then)

    def heard(self) -> None:
        """Note a sign of life."""
        self.heard_at, self.seen = time.monotonic(), datetime.now(UTC)

    def answered(self, images: int, batch_size: int) -> None:
        now = time.monotonic()
        if not self.marks:
            self.marks.append((now, self.images))
        self.images += images
        self.batch_size, self.crashes = batch_size, 0
        self.marks.append((now, self.images))
        while len(self.marks) > 2 and now - self.marks[1][0] > RATE_SECONDS:
            self.marks.popleft()

    def lost(self, why: str, *, again_at: float) -> None:
        if self.is_alive:  # else it has not come back yet
            self.deaths += 1
            self.crashes += 1
        self.state, self.why, self.again_at = "down", why, again_at
        self.errand = None
        self.at_hand.clear()
        self.marks.clear()

    def rate(self) -> float:
        """Return images per second over the last while; 0 for one that has not answered twice."""
        if len(self.marks) < 2 or self.state != "ready":
            return 0.0
        since, before = self.marks[0]
        return (self.images - before) / max(time.monotonic() - since, 1e-6)

    def as_state(self) -> WorkerState:
        return WorkerState(
            name=self.name,
            node=self.node,
            pid=self.pid,
            device=self.device,
            batch_size=self.batch_size,
            images=self.images,
            rate=round(self.rate(), 3),
            state=self.state,
            seen=self.seen.isoformat(timespec="seconds") if self.seen is not None else "",
            deaths=self.deaths,
            why=self.why,
        )
