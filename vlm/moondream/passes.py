"""Passes of fixed shapes, which a GPU replays as one: no kernel waits for Python to launch it.

What goes through the model is cut or padded to a few sizes. The first pass of a size is captured as a CUDA graph; later
ones copy their input to where the graph reads, and replay it. Where nothing can be captured the same passes run with the
same padding, one kernel after another, so that they can be tested anywhere.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

CROPS = (1, 4, 9, 13, 16, 32, 64)  # of a pass through the encoder: what one image has most often, then powers of two
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)  # of a pass through the decoder
MOST = 16  # passes that are kept: the sizes of crops, and those of images with a vocabulary or two
WARM_UPS = 2  # before a capture: kernels are chosen and compiled

Run = Callable[[Tensor], Tensor]


def fitting(count: int, sizes: Sequence[int]) -> list[int]:
    """Return sizes of passes that ``count`` rows go through, of which the last may be padded."""
    whole, rest = divmod(count, sizes[-1])
    return [sizes[-1]] * whole + ([next(size for size in sizes if size >= rest)] if rest else [])


class Passes:
    """Runs functions of one tensor at fixed sizes, on behalf of several threads.

    Args:
        capture: whether to capture them as CUDA graphs.
    """

    def __init__(self, *, capture: bool) -> None:
        self._capture = capture
        self._kept: OrderedDict[Hashable, _Pass] = OrderedDict()
        self._lock = Lock()
        self._pool: Any = None  # graphs share their memory: never do two of them run at once

    def run(self, name: Hashable, function: Run, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return ``function(rows)``, computed in passes of ``sizes``.

        Args:
            name: stands for the function, which must compute the same whenever it is given under this name.
            rows: (n, …); the function maps each row by itself to a row of its result.
        """
        results, start = [], 0
        for size in fitting(len(rows), sizes):
            part = rows[start : start + size]
            with self._lock:
                results.append(self._pass((name, size), function, part, size)(part))
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
            kept = self._made(function, part, size)
        self._kept[key] = kept
        return kept

    def _made(self, function: Run, part: Tensor, size: int) -> "_Pass":
        rows = part.new_zeros(size, *part.shape[1:])
        rows[: len(part)] = part
        if self._capture:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            try:
                return _Captured(function, rows, self._pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                logger.warning("The GPU's work cannot be captured; it goes on launch by launch", exc_info=True)
                self._capture = False
                torch.cuda.synchronize(part.device)  # what is broken for good shows here
        return _Pass(function, rows)


class _Pass:
    """A function with a buffer for its input."""

    def __init__(self, function: Run, rows: Tensor) -> None:
        self._function, self._rows = function, rows

    def __call__(self, part: Tensor) -> Tensor:
        self._rows[: len(part)] = part  # what stands behind is of an earlier pass, and nobody reads what becomes of it
        return self._replay()[: len(part)].clone()

    def _replay(self) -> Tensor:
        return self._function(self._rows)


class _Captured(_Pass):
    """A function as a CUDA graph."""

    def __init__(self, function: Run, rows: Tensor, pool: Any) -> None:
        super().__init__(function, rows)
        with torch.cuda.device(rows.device):  # which need not be the first one
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(WARM_UPS):
                    function(rows)
            torch.cuda.current_stream().wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            # Threads that decode images may use the GPU's allocator meanwhile, for memory to upload from.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._out = function(rows)

    def _replay(self) -> Tensor:
        self._graph.replay()
        return self._out
