"""Who scores a run's samples: the seam between the loop of a run and whatever answers, here or elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from vlm.samples import Pending, Result
from vlm.scoring.answering import Asked, ask
from vlm.scoring.decoding import decoded_ahead
from vlm.scoring.job import Asking
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore, Tagger
    from vlm.moondream.crops import Detail
    from vlm.moondream.tagger import Images

Waited = Callable[[str, float], None]  # told ``"decode"``, ``"model"`` or ``"store"``, and the seconds spent there


class Engine(Protocol):
    """A model that is at hand, wherever it is: ``revision``, ``device`` and ``dtype`` say which, where and in what numbers."""

    @property
    def revision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...

    def score(
        self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None
    ) -> list[dict[str, DimensionScore]]:
        """Return dimension → score for each of a few images, as :meth:`~vlm.moondream.Tagger.score` does."""
        ...

    def results(
        self, samples: Iterator[Pending], job: Asking, *, stop: threading.Event, waited: Waited
    ) -> Generator[list[Result], None, None]:
        """Yield the results of ``samples`` in batches, as they come; an empty one where nothing has come for a while.

        Samples are taken as they are needed, so whoever does not ask for results is not run ahead of. Once ``stop`` is set
        none is taken any more, and what is at hand comes out.

        Raises:
            EngineError: the model failed. What was yielded before is good.
            RootAway: the images could not be reached for long. What was yielded before is good.
        """
        ...


class Local:
    """The model of this process. While it works, threads decode the images that come next.

    Args:
        away: told what those threads wait for, and an empty text once it is there again.
    """

    def __init__(self, tagger: Tagger, away: Callable[[str], None] = lambda _: None) -> None:
        self._tagger, self._away = tagger, away

    @property
    def revision(self) -> str:
        return self._tagger.revision

    @property
    def device(self) -> str:
        return self._tagger.device

    @property
    def dtype(self) -> str:
        return self._tagger.dtype

    def score(
        self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None
    ) -> list[dict[str, DimensionScore]]:
        return self._tagger.score(images, vocabulary, detail)

    def results(
        self, samples: Iterator[Pending], job: Asking, *, stop: threading.Event, waited: Waited
    ) -> Generator[list[Result], None, None]:
        """Yield the results in the order of ``samples``; see :meth:`Engine.results`.

        While the device works on one batch, the one before is decided and committed, and the next one uploaded.
        """
        tagger, more = self._tagger, True
        in_flight: deque[Asked] = deque()
        with batches_of(job.batch_size, tagger), decoded_ahead(samples, job, tagger, stop, self._away) as images:
            while True:
                while more and not stop.is_set() and len(in_flight) < tagger.in_flight:
                    with timed("decode", waited):
                        batch = list(islice(images, max(1, tagger.batch_size)))
                    more = bool(batch)
                    if batch:
                        with timed("model", waited):
                            in_flight.append(ask(batch, job, tagger))
                if not in_flight:
                    return
                with timed("model", waited):
                    results = in_flight.popleft().results()
                yield results


@contextmanager
def batches_of(size: int, tagger: Tagger) -> Iterator[None]:
    """Have the model take ``size`` images per pass, and go back to its own size after; 0 leaves it at that.

    A size that was halved because memory was full says something about the machine, and stays.
    """
    own = tagger.batch_size
    tagger.batch_size = size or own
    try:
        yield
    finally:
        tagger.batch_size = own if tagger.batch_size == size else min(own, tagger.batch_size)


@contextmanager
def timed(what: str, waited: Waited) -> Iterator[None]:
    """Tell ``waited`` how long the block took."""
    start = time.perf_counter()
    try:
        yield
    finally:
        waited(what, time.perf_counter() - start)
