"""Looking at workers before a run needs them: what each of them sees of the images, the model and a GPU."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any

from datavisor import __version__
from vlm.moondream import EngineError
from vlm.process import ModelSpec
from vlm.runs.engines import outfit, prepare
from vlm.scoring import ray_cluster
from vlm.scoring.crew import Transport
from vlm.scoring.errors import WorkerLost
from vlm.scoring.places import Workers
from vlm.scoring.worker import Hello, Looked, Worker

LOOK_SECONDS = 60.0  # for those that answer late: an idle machine does within ten


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker sees.

    Attributes:
        images: whether it sees the images; ``None`` where none were named, or it has not answered.
        model: whether the model can be had there, ``to_fetch`` bytes of it by downloading.
        gpu: its name, empty for none.
        problems: why a run would not work with it; none if it would.
    """

    name: str
    node: str = ""
    version: str = ""
    images: bool | None = None
    model: bool = False
    to_fetch: int = 0
    gpu: str = ""
    cores: int = 0
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def look(*, workers: str, root: str, model: str = "", device: str = "") -> list[Seen]:
    """Ask each worker what it sees, without loading a model.

    Args:
        root: the folder of the images; empty for none in particular.

    Raises:
        WorkersUnknown, WorkersUnavailable
    """
    where = Workers.parse(workers)
    fitted = outfit(ModelSpec.from_settings(model=model, device=device))
    if where.kind == "here":
        worker = Worker(fitted)
        return [_seen("here", worker.hello(root), worker.look(), root)]
    prepare(where)
    with ray_cluster.cluster(where, fitted) as transport:
        calls = {name: (transport.call(name, "hello", root), transport.call(name, "look")) for name in transport.names}
        _wait(transport, [call for pair in calls.values() for call in pair])
        return [_of(transport, name, *pair, root) for name, pair in calls.items()]


def _wait(transport: Transport, calls: list[Hashable]) -> None:
    deadline = time.monotonic() + LOOK_SECONDS
    waiting = set(calls)
    while waiting and time.monotonic() < deadline:
        waiting -= set(transport.ready(list(waiting), max(0.0, deadline - time.monotonic())))


def _of(transport: Transport, name: str, hello: Hashable, looked: Hashable, root: str) -> Seen:
    if len(transport.ready([hello], 0)) + len(transport.ready([looked], 0)) < 2:
        why = f"It has not answered within {LOOK_SECONDS:.0f} s: there may be no room for it (ray status)."
        return Seen(name, problems=(why,))
    try:
        return _seen(name, transport.result(hello), transport.result(looked), root)
    except WorkerLost as lost:
        return Seen(name, problems=(f"It died: {lost}",))
    except EngineError as error:
        return Seen(name, problems=(error.message,))


def _seen(name: str, hello: Hello, looked: Looked, root: str) -> Seen:
    problems = [f"It {why}." for why, _ in hello.misfits(__version__)]
    if looked.model:
        problems.append(f"It has no model: {looked.model}.")
    return Seen(
        name,
        hello.node,
        hello.version,
        images=not hello.unseen if root else None,
        model=not looked.model,
        to_fetch=looked.to_fetch,
        gpu=looked.gpu,
        cores=looked.cores,
        problems=tuple(problems),
    )
