"""Workers without processes: calls are carried out one at a time, in an order that chance decides, and time passes when told to."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from datavisor import __version__
from vlm.samples import Pending, Result
from vlm.scoring.crew import Call
from vlm.scoring.errors import WorkerLost
from vlm.scoring.worker import Answered, Hello, Loaded


class Clock:
    """What ``vlm.scoring`` takes for ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Death(Exception):
    """The worker dies over this call."""


@dataclass
class FakeWorker:
    """Answers without looking at anything.

    Attributes:
        before: called with the samples of each batch before they are answered; may raise :class:`Death` or what a model raises.
        scores: called when a picture that comes with the call is to be scored.
        down: how many times it is called in vain after it died.
        silent: it ends no call, and is not dead.
    """

    batch_size: int = 4
    version: str = __version__
    revision: str = "one"
    dtype: str = "float32"
    unseen: str = ""
    before: Callable[[Sequence[Pending]], None] = lambda _: None
    scores: Callable[[], None] = lambda: None
    down: int = 2
    silent: bool = False
    asked: list[list[int]] = field(default_factory=list)
    restarts: int = 0
    unreachable: int = 0

    def hello(self, root: str) -> Hello:
        return Hello(self.version, "here", 1, self.unseen if root else "")

    def load(self) -> Loaded:
        return Loaded(self.revision, "cpu", self.dtype, self.batch_size)

    def score(self, images: Sequence[object], *_: object) -> list[dict[str, Any]]:
        self.scores()
        return [{} for _ in images]

    def answer(self, _: object, samples: Sequence[Pending]) -> Answered:
        self.asked.append([sample.id for sample in samples])
        self.before(samples)
        return Answered([Result(sample.id) for sample in samples], self.batch_size, 0.1)


class FakeTransport:
    """Carries out a call whenever somebody waits for one."""

    def __init__(self, workers: dict[str, Any], clock: Clock, *, seed: int = 0) -> None:
        self.workers, self.clock, self.chance = workers, clock, Random(seed)
        self.queues: dict[str, deque[tuple[int, str, tuple[object, ...]]]] = {name: deque() for name in workers}
        self.outcomes: dict[Call, object] = {}
        self.numbers = count(1)

    @property
    def names(self) -> Sequence[str]:
        return list(self.workers)

    def call(self, name: str, method: str, *arguments: object) -> Call:
        number = next(self.numbers)
        self.queues[name].append((number, method, arguments))
        return number

    def ready(self, calls: Sequence[Call], seconds: float) -> Sequence[Call]:
        if not any(call in self.outcomes for call in calls):
            able = [
                name
                for name, queue in self.queues.items()
                if queue and not getattr(self.workers[name], "silent", False)
            ]
            if able:
                self.carry_out(self.chance.choice(able))
                self.clock.sleep(0.01)
            else:
                self.clock.sleep(seconds)
        return [call for call in calls if call in self.outcomes]

    def carry_out(self, name: str) -> None:
        worker, (call, method, arguments) = self.workers[name], self.queues[name].popleft()
        if getattr(worker, "unreachable", 0):
            worker.unreachable -= 1
            self.outcomes[call] = WorkerLost("It cannot be reached.")
            return
        try:
            self.outcomes[call] = getattr(worker, method)(*arguments)
        except Death:
            self.kill(name, call)
        except Exception as error:  # noqa: BLE001 - what it raised is what the caller gets
            self.outcomes[call] = error

    def kill(self, name: str, *more: Call) -> None:
        """Have a worker die with all that it has at hand."""
        for call in (*more, *(call for call, _, _ in self.queues[name])):
            self.outcomes[call] = WorkerLost("It died.")
        self.queues[name].clear()
        self.workers[name].unreachable = self.workers[name].down

    def result(self, call: Call) -> Any:
        outcome = self.outcomes.pop(call)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def restart(self, name: str) -> None:
        self.workers[name].restarts += 1
        self.workers[name].silent = False
        self.kill(name)
