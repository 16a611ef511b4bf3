"""Passes of fixed shapes, which a GPU replays as one: no kernel waits for Python to launch it.

What goes through the model is cut or padded to a few sizes. The first pass of a size runs as it is; the second one is
captured as a CUDA graph, and later ones copy their input to where the graph reads, and replay it. Where nothing can be
captured the same passes run with the same padding, one kernel after another, so that they can be tested anywhere.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .devices import is_out_of_memory

logger = logging.getLogger(__name__)

CROPS = (1, 4, 9, 13, 16, 32, 64)  # of a pass through the encoder: what one image has most often, then powers of two
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)  # of a pass through the decoder
MOST_PADDING = 0.15  # of the rows that are wanted; beyond it one more pass costs less than what is padded
MOST = 16  # passes that are kept: the sizes of crops, and those of images with a vocabulary or two
WARM_UPS = 2  # before a capture, on its stream: libraries take their workspaces

Run = Callable[[Tensor], Tensor]


def fitting(count: int, sizes: Sequence[int]) -> list[int]:
    """Return sizes of passes that ``count`` rows go through, of which the last may be padded.

    Args:
        sizes: what there is, in ascending order.
    """
    parts: list[int] = []
    left = count
    while left:
        enough = next((size for size in sizes if size >= left), None)
        below = down_to(left, sizes)
        if enough is not None and (below > left or enough - left <= MOST_PADDING * count):
            return [*parts, enough]
        parts.append(below)
        left -= below
    return parts


def down_to(count: int, sizes: Sequence[int]) -> int:
    """Return the largest of ``sizes``, in ascending order, that is no more than ``count``; the smallest if none is."""
    return next((size for size in reversed(sizes) if size <= count), sizes[0])


class Passes:
    """Runs functions of one tensor at fixed sizes, on behalf of several threads.

    It keeps no function, only where they read and write, so a tagger whose functions it runs goes when it is let go.

    Args:
        capture: whether to capture them as CUDA graphs.
    """

    def __init__(self, *, capture: bool) -> None:
        self._capture = capture
        self._kept: OrderedDict[Hashable, _Pass] = OrderedDict()
        self._lock = Lock()
        self._stream: torch.cuda.Stream | None = None  # for all captures: libraries keep a workspace for each stream
        self._pool: Any = None  # graphs share their memory: never do two of them run at once

    def run(self, name: Hashable, function: Run, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return ``function(rows)``, computed in passes of ``sizes``.

        Args:
            name: stands for the function, which must compute the same, with the same weights and tables, whenever it is
                given under this name.
            rows: (n, …); the function maps each row by itself to a row of its result.
        """
        results, start = [], 0
        for size in fitting(len(rows), sizes):
            part = rows[start : start + size]
            with self._lock:
                results.append(self._pass((name, size), function, part, size)(function, part))
            start += size
        return results[0] if len(results) == 1 else torch.cat(results)

    def clear(self) -> None:
        """Forget all passes, and so their memory."""
        with self._lock:
            self._kept.clear()
            self._pool = None

    def _pass(self, key: Hashable, function: Run, part: Tensor, size: int) -> "_Pass":
        kept = self._kept.pop(key, None)
        if kept is None:
            while len(self._kept) >= MOST:
                self._kept.popitem(last=False)
            kept = _Pass(part.new_zeros(size, *part.shape[1:]))
        elif self._capture and not isinstance(kept, _Captured):
            kept = self._captured(kept, function)
        self._kept[key] = kept
        return kept

    def _captured(self, kept: "_Pass", function: Run) -> "_Pass":
        """Return a pass as a graph; as it is where that cannot be.

        Raises:
            torch.OutOfMemoryError: there is no memory for it, which says nothing about the next time.
        """
        device = kept.rows.device
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            return _Captured(kept.rows, function, self._stream, self._pool)
        except RuntimeError as error:
            # A capture that is broken off ends with an error of its own, in front of the one that broke it off.
            if (full := next(filter(is_out_of_memory, _with_what_came_before(error)), None)) is not None:
                raise torch.OutOfMemoryError(str(full)) from error
            logger.warning("The GPU's work cannot be captured; it goes on launch by launch", exc_info=True)
        self._capture = False
        torch.cuda.synchronize(device)  # what is broken for good shows here
        return kept


class _Pass:
    """A buffer for a function's rows.

    Attributes:
        rows: (size, …).
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __call__(self, function: Run, part: Tensor) -> Tensor:
        self.rows[: len(part)] = part  # what stands behind is of an earlier pass, and nobody reads what becomes of it
        return self._result(function)[: len(part)].clone()

    def _result(self, function: Run) -> Tensor:
        return function(self.rows)


class _Captured(_Pass):
    """A function as a CUDA graph."""

    def __init__(self, rows: Tensor, function: Run, stream: torch.cuda.Stream, pool: Any) -> None:
        super().__init__(rows)
        with torch.cuda.device(rows.device):  # which need not be the first one
            before = torch.cuda.current_stream()
            stream.wait_stream(before)
            # A capture that fails leaves its stream the thread's current one; leaving this block does not.
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    function(rows)
                self._graph = torch.cuda.CUDAGraph()
                # Threads that decode images may use the GPU's allocator meanwhile, for memory to upload from.
                with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self._out = function(rows)
            before.wait_stream(stream)

    def _result(self, function: Run) -> Tensor:
        self._graph.replay()
        return self._out


def _with_what_came_before(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then that in whose handling it was raised, and so on."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__
