"""Several workers as one engine: each gets work as it has room for it, and what a lost one had at hand goes to another.

A worker has at most ``IN_FLIGHT`` batches, so one that is faster gets more of them, and neither side piles anything up. Its
death counts against no image by itself: machines fail. Only a batch that was at hand at ``DEATHS_TOGETHER`` deaths is
suspected; its images are asked one by one, each by a worker that has nothing else at hand. An image over which ``DEATHS_ALONE``
such workers died is a failed sample. A worker that comes back first scores a picture that is known to be harmless, so a machine
that kills whatever works on it, being out of memory, counts against none. What the driver never got an answer to is asked again:
an answer may be computed twice, and comes into the store once.

How calls reach workers is the transport's affair (``ray_cluster``). Everything here runs in the thread of the run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from datavisor import __version__
from vlm.moondream.errors import DeviceLost, EngineError
from vlm.samples import Pending, Result
from vlm.scoring.engine import Waited, timed
from vlm.scoring.errors import WorkerLost, WorkerRefused, WorkersLost
from vlm.scoring.job import Asking
from vlm.scoring.member import Member, WorkerState
from vlm.scoring.worker import Answered, Hello, Loaded
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore
    from vlm.moondream.crops import Detail
    from vlm.moondream.tagger import Images

logger = logging.getLogger(__name__)

IN_FLIGHT = 2  # batches of a worker: it decodes one while its model is at the other
DEATHS_TOGETHER = 2  # of workers that had a batch at hand, after which its images are asked one by one
DEATHS_ALONE = 3  # of workers that had nothing but this image
TICK_SECONDS = 0.5  # how long nothing may come before the loop hears of it
BACK_OFF_SECONDS = 1.0  # before a lost worker is called again
PULSE_SECONDS = 5.0  # of silence, after which a worker is asked whether it lives
SILENT_SECONDS = 90.0  # after which one that does not say so is started anew
START_SECONDS = 120.0  # within which a first worker must have come up
LOST_SECONDS = 300.0  # without any worker, after which the run fails
STOP_SECONDS = 45.0  # that a stopped run waits for what is at hand
TELL_SECONDS = 1.0  # between two tellings of how the workers are, unless one's state changes
CRASHES = 3  # in a row, without an answer: such a worker is no sign of life
HARMLESS = Image.new("RGB", (378, 378), (128, 128, 128))
OVER_IT = (
    f"{DEATHS_ALONE} workers died over this image, each with nothing else at hand. Look at the file; what it needs may be more than "
    "a worker has."
)

Call = Hashable


class Transport(Protocol):
    """Calls to workers by name. One thread uses it."""

    @property
    def names(self) -> Sequence[str]: ...

    def call(self, name: str, method: str, *arguments: object) -> Call:
        """Begin a call of a :class:`~vlm.scoring.worker.Worker`'s method. Never raises: a call to a dead worker fails later."""
        ...

    def ready(self, calls: Sequence[Call], seconds: float) -> Sequence[Call]:
        """Return the calls that have ended, as soon as there is one; none after ``seconds``."""
        ...

    def result(self, call: Call) -> Any:
        """Return what a call that has ended returned, or raise what it raised.

        Raises:
            WorkerLost: the worker died, or cannot be reached.
        """
        ...

    def restart(self, name: str) -> None:
        """Kill a worker; it comes up anew."""
        ...


@dataclass(slots=True, eq=False)
class Batch:
    """Samples that are asked together; ``alone`` for one that is suspected of killing workers."""

    samples: list[Pending]
    alone: bool = False
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker must agree to: the images that it sees, and the model's revision; an empty text asks for nothing."""

    root: str
    revision: str


@dataclass
class Crew:
    """The workers of a run; an :class:`~vlm.scoring.engine.Engine`. :meth:`gather` it before it is used.

    Attributes:
        transport: its way to the workers.
        terms: what they must agree to.
        vocabulary: of the run, by which a worker that died shows that it can score again.
        waiting: called about twice a second while nothing else can be done; may raise to give up.
        tell: called with how the workers are, whenever that has changed.
    """

    transport: Transport
    terms: Terms
    vocabulary: Vocabulary
    waiting: Callable[[], None] = lambda: None
    tell: Callable[[list[WorkerState]], None] = lambda _: None
    members: dict[str, Member] = field(init=False)
    revision: str = field(init=False, default="")
    device: str = field(init=False, default="")
    dtype: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.members = {name: Member(name) for name in self.transport.names}
        self._returned: deque[Batch] = deque()
        self._suspects: deque[Batch] = deque()
        self._failed: list[Result] = []
        self._alive_at = time.monotonic()
        self._ever = False  # one was ready
        self._more = True  # samples wait that nobody was given yet
        self._told: tuple[float, list[WorkerState]] = (0.0, [])

    # -- as an engine ------------------------------------------------------------------------------------------------------
    def gather(self) -> None:
        """Wait until a first worker has its model; the others may come later.

        Raises:
            WorkerRefused: one does not agree to the terms.
            WorkersLost: none came up.
        """
        while not self._ready():
            self.waiting()
            self._turn(TICK_SECONDS)

    def score(
        self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None
    ) -> list[dict[str, DimensionScore]]:
        """Have whichever worker is ready score a few images. Raises as :meth:`gather` does."""
        while True:
            self.gather()
            member = min(self._ready(), key=lambda one: len(one.at_hand))
            call = self.transport.call(member.name, "score", images, vocabulary, detail)
            while call not in self.transport.ready([call], 0):
                self.waiting()
                self._turn(TICK_SECONDS)
            try:
                return list(self.transport.result(call))
            except (WorkerLost, DeviceLost) as lost:
                if member.is_alive:
                    self._lose(member, lost)

    def results(
        self, samples: Iterator[Pending], job: Asking, *, stop: threading.Event, waited: Waited
    ) -> Generator[list[Result], None, None]:
        """Yield the results of ``samples`` as workers answer, in whatever order; see ``Engine``."""
        stopped_at: float | None = None
        self._more = True
        self._returned.clear()
        self._suspects.clear()
        while True:
            if not stop.is_set():
                self._hand_out(samples, job)
            elif stopped_at is None:
                stopped_at = time.monotonic()
            if not any(member.at_hand for member in self.members.values()) and (
                stop.is_set() or not (self._returned or self._suspects or self._failed or self._more)
            ):
                return
            if stopped_at is not None and time.monotonic() - stopped_at > STOP_SECONDS:
                logger.warning(
                    "Workers did not finish what they had at hand, which is asked again when the run goes on"
                )
                return
            try:
                with timed("model", waited):
                    results = self._turn(TICK_SECONDS)
            except (WorkersLost, WorkerLost):
                if stop.is_set():  # nobody waits for them any more
                    return
                raise
            yield results

    # -- handing out -------------------------------------------------------------------------------------------------------
    def _hand_out(self, samples: Iterator[Pending], job: Asking) -> None:
        """Give whoever has room something to do: everybody a first batch before anybody a second."""
        for depth in range(IN_FLIGHT):
            for member in self._ready():
                if len(member.at_hand) > depth or any(batch.alone for batch in member.at_hand.values()):
                    continue
                batch = self._next(samples, member, job)
                if batch is not None:
                    call = self.transport.call(member.name, "answer", job, batch.samples)
                    member.at_hand[call] = batch

    def _next(self, samples: Iterator[Pending], member: Member, job: Asking) -> Batch | None:
        if self._suspects:  # whoever has finished takes one, and nobody gets anything else until they are asked
            return self._suspects.popleft() if not member.at_hand else None
        if self._returned:
            return self._returned.popleft()
        found = list(islice(samples, max(1, job.batch_size or member.batch_size))) if self._more else []
        self._more = bool(found)
        return Batch(found) if found else None

    def turn(self) -> None:
        """Hear what workers have to say outside of a run: those that are late, for instance, when they come up."""
        self._turn(TICK_SECONDS)

    # -- hearing -----------------------------------------------------------------------------------------------------------
    def _turn(self, seconds: float) -> list[Result]:
        """Wait for whatever comes next, and see to it; returns the results that came."""
        self._call_lost_ones()
        calls = {call: member for member in self.members.values() for call in member.calls()}
        results, self._failed = self._failed, []
        if calls:
            ended = self.transport.ready(list(calls), 0 if results else seconds)
        else:
            time.sleep(seconds)
            ended = []
        for call in ended:
            member = calls[call]
            if call in member.calls():  # else it was lost with another call in this very turn
                results += self._hear(member, call)
        self._check_life()
        self._say()
        return results

    def _hear(self, member: Member, call: Call) -> list[Result]:
        try:
            said = self.transport.result(call)
        except (WorkerLost, DeviceLost) as lost:
            self._lose(member, lost)
            return []
        except EngineError as error:
            if call not in member.at_hand:
                raise WorkerRefused(f"{member.title} cannot be used: {error.message}") from error
            raise
        member.heard()
        if (batch := member.at_hand.pop(call, None)) is not None:
            answered: Answered = said
            member.answered(len(batch.samples), answered.batch_size)
            return answered.results
        errand, member.errand = member.errand, None
        if errand is not None:
            errand.then(said)
        return []

    def _lose(self, member: Member, lost: Exception, *, suspect: bool = True) -> None:
        """Take back what a worker had at hand, and call it again later."""
        logger.warning("%s is gone: %s", member.title, lost)
        if isinstance(lost, DeviceLost):
            self.transport.restart(member.name)
        batches = list(member.at_hand.values())
        member.lost(str(lost), again_at=time.monotonic() + BACK_OFF_SECONDS)
        for batch in reversed(batches):
            batch.deaths += suspect
            if batch.alone and batch.deaths >= DEATHS_ALONE:
                self._failed += [Result(sample.id, error=OVER_IT) for sample in batch.samples]
            elif batch.alone or batch.deaths >= DEATHS_TOGETHER:
                self._suspects.extend([batch] if batch.alone else [Batch([one], alone=True) for one in batch.samples])
            else:
                self._returned.appendleft(batch)

    # -- coming up -----------------------------------------------------------------------------------------------------------
    def _call_lost_ones(self) -> None:
        now = time.monotonic()
        for member in self.members.values():
            if member.state == "ready":
                silent = now - member.heard_at
                if member.errand is not None and silent > SILENT_SECONDS:
                    self.transport.restart(member.name)
                    self._lose(member, WorkerLost(f"It has said nothing for {silent:.0f} s."), suspect=False)
                elif member.errand is None and silent > PULSE_SECONDS:
                    self._send(member, lambda _: None, "hello", "")
            elif member.errand is None and now >= member.again_at:
                member.state = "starting"
                self._send(member, partial(self._greeted, member), "hello", self.terms.root)

    def _send(self, member: Member, then: Callable[[Any], None], method: str, *arguments: object) -> None:
        member.send(self.transport.call(member.name, method, *arguments), then)

    def _greeted(self, member: Member, hello: Hello) -> None:
        member.node, member.pid = hello.node, hello.pid
        for why, advice in hello.misfits(__version__):
            raise WorkerRefused(f"{member.title} {why}. {advice}")
        member.state = "loading"
        self._send(member, partial(self._loaded, member), "load")

    def _loaded(self, member: Member, loaded: Loaded) -> None:
        wanted = self.terms.revision or self.revision
        if wanted and loaded.revision != wanted:
            raise WorkerRefused(
                f"{member.title} has another model: {loaded.revision} instead of {wanted}. Put the same files on every machine."
            )
        if self.dtype and loaded.dtype != self.dtype:
            raise WorkerRefused(
                f"{member.title} computes in {loaded.dtype}, and others in {self.dtype}, so their answers would differ. Set "
                "DATAVISOR_VLM_DTYPE to a number format that all of them have."
            )
        self.revision, self.dtype = loaded.revision, loaded.dtype
        self.device = self.device or loaded.device
        member.device, member.batch_size = loaded.device, loaded.batch_size
        if member.deaths:
            member.state = "proving"
            self._send(member, lambda _: self._welcome(member), "score", [HARMLESS], self.vocabulary, "low")
        else:
            self._welcome(member)

    def _welcome(self, member: Member) -> None:
        member.state, member.why, self._ever = "ready", "", True

    # -- how they are --------------------------------------------------------------------------------------------------------
    def _ready(self) -> list[Member]:
        return [member for member in self.members.values() if member.state == "ready"]

    def _check_life(self) -> None:
        """Raise :class:`WorkersLost` where none has been alive for long; one that only ever crashes is not."""
        now = time.monotonic()
        if any(member.is_alive and member.crashes < CRASHES for member in self.members.values()):
            self._alive_at = now
        silent = now - self._alive_at
        why = next((member.why for member in self.members.values() if member.why), "")
        if not self._ever and silent > START_SECONDS:
            raise WorkersLost(
                f"No worker came up within {START_SECONDS:.0f} s{f' ({why})' if why else ''}. Look whether its machines have a free CPU "
                "or GPU for each worker (ray status), then resume the run."
            )
        if silent > LOST_SECONDS:
            raise WorkersLost(
                f"No worker has answered for {silent / 60:.0f} minutes{f' ({why})' if why else ''}. What was answered is kept: look after "
                "the machines, then resume the run."
            )

    def states(self) -> list[WorkerState]:
        """Return how each worker is."""
        return [member.as_state() for member in self.members.values()]

    def _say(self) -> None:
        at, before = self._told
        now, states = time.monotonic(), self.states()
        changed = [(one.name, one.state) for one in states] != [(one.name, one.state) for one in before]
        if changed or (states != before and now - at >= TELL_SECONDS):
            self._told = now, states
            self.tell(states)
