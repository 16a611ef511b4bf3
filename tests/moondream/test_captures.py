"""Passes of fixed shapes, and when they are captured as graphs: on a stand-in for CUDA."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from vlm.moondream import passes
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.loading import _auto_batch_size, bytes_per_image
from vlm.moondream.passes import CROPS, IMAGES, MOST_PADDING, Passes, down_to, fitting

from .checkpoints import random_model


def test_rows_go_through_few_sizes() -> None:
    assert fitting(0, CROPS) == []
    assert fitting(9, CROPS) == [9]
    assert fitting(15, CROPS) == [16]
    assert fitting(10, CROPS) == [9, 1]
    assert fitting(2 * 9, CROPS) == [16, 4]
    assert fitting(4 * 9, CROPS) == [32, 4]
    assert fitting(32 * 9, CROPS) == [64, 64, 64, 64, 32]
    assert fitting(3, (8,)) == [8]  # there is nothing smaller
    for count in range(1, 400):
        for all_sizes in (CROPS, IMAGES):
            sizes = fitting(count, all_sizes)
            assert sum(sizes[:-1]) < count <= sum(sizes) <= (1 + MOST_PADDING) * count
            assert set(sizes) <= set(all_sizes)


def test_batches_have_the_size_of_a_pass() -> None:
    assert [down_to(count, IMAGES) for count in (1, 3, 31, 32, 500)] == [1, 2, 16, 32, 128]
    config: MoondreamConfig = random_model().config  # type: ignore[assignment]
    room = 2 * 21 * bytes_per_image(config, torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm.moondream.loading.free_memory", lambda _: room)
        assert _auto_batch_size(config, torch.device("cuda"), torch.bfloat16) == 16
        assert _auto_batch_size(config, torch.device("cpu"), torch.bfloat16) == 4


def test_passes_are_padded_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST", 2)
    kept, shapes = Passes(capture=False), []

    def double(rows: torch.Tensor) -> torch.Tensor:
        shapes.append(len(rows))
        return 2 * rows

    for count in (7, 9, 1, 9):
        rows = torch.arange(count * 2.0).view(count, 2)
        assert torch.equal(kept.run("double", double, rows, (1, 8)), 2 * rows)
    assert shapes == [8, 8, 1, 1, 8, 1]
    assert len(kept._kept) == 2
    assert torch.equal(kept.run("triple", lambda rows: 3 * rows, torch.ones(1), (1, 8)), torch.full((1,), 3.0))
    assert len(kept._kept) == 2
    kept.clear()
    assert not kept._kept


def test_results_of_one_pass_outlive_the_next() -> None:
    kept = Passes(capture=False)
    buffer = torch.empty(4)  # as a graph's output, which the next replay overwrites

    def into_buffer(rows: torch.Tensor) -> torch.Tensor:
        return torch.add(rows, 1, out=buffer[: len(rows)])

    first = kept.run("add", into_buffer, torch.zeros(4), (4,))
    kept.run("add", into_buffer, torch.full((4,), 7.0), (4,))
    assert first.tolist() == [1, 1, 1, 1]


class Cuda:
    """Stands in for ``torch.cuda``: what it is told, in which stream, and what goes wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = "the thread's own"
        self.streams = self.graphs = 0
        self.at_the_end: RuntimeError | None = None  # of a capture
        for name in ("current_stream", "stream", "graph", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "device", nullcontext)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)

    class _Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: "Cuda._Stream") -> None:
            assert other.name != self.name

    class CUDAGraph:
        """Replays what ran within its block, on the same tensors."""

        function: Callable[[], object]

        def replay(self) -> None:
            self.function()

    def new_stream(self, _: torch.device) -> _Stream:
        self.streams += 1
        return self._Stream(f"stream {self.streams}")

    def current_stream(self) -> _Stream:
        return self._Stream(self.now)

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        before, self.now = self.now, stream.name
        try:
            yield
        finally:
            self.now = before

    @contextmanager
    def graph(self, graph: CUDAGraph, *, pool: object, stream: _Stream, capture_error_mode: str) -> Iterator[None]:
        assert pool is not None
        assert capture_error_mode == "thread_local"
        before, self.now = self.now, stream.name
        self.graphs += 1
        try:
            yield
        finally:
            if self.at_the_end is not None:
                raise self.at_the_end  # as PyTorch does, before it goes back to the stream of before
            self.now = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


class Doubling:
    """A function that notes in which stream it ran on how many rows, and whose graph does what it does."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.runs = cuda, []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.runs.append((len(rows), self.cuda.now))
        out = 2 * rows
        self.cuda.CUDAGraph.function = staticmethod(lambda: torch.mul(rows, 2, out=out))  # type: ignore[assignment]
        return out

    runs: list[tuple[int, str]]


def test_the_second_pass_of_a_size_is_captured_and_later_ones_are_replayed(cuda: Cuda) -> None:
    kept, double = Passes(capture=True), Doubling(cuda)
    for round_, values in enumerate(([1.0, 2, 3, 4], [5.0, 6, 7, 8], [0.0, 9, 8, 7], [1.0, 1, 1, 2])):
        out = kept.run("double", double, torch.tensor(values), (4,))
        assert out.tolist() == [2 * value for value in values]
        assert cuda.graphs == min(round_, 1)
    own, beside = "the thread's own", "stream 1"
    assert double.runs == [(4, own), *[(4, beside)] * (passes.WARM_UPS + 1)]
    for _ in range(2):
        kept.run("double", double, torch.ones(2), (2,))
    assert (cuda.graphs, cuda.streams, cuda.now) == (2, 1, own)  # a stream of its own would keep workspaces of its own


def test_where_nothing_can_be_captured_the_work_goes_on(cuda: Cuda, caplog: pytest.LogCaptureFixture) -> None:
    cuda.at_the_end = RuntimeError("operation not permitted when stream is capturing")
    kept, double = Passes(capture=True), Doubling(cuda)
    for _ in range(3):
        assert kept.run("double", double, torch.ones(4), (4,)).tolist() == [2, 2, 2, 2]
        assert cuda.now == "the thread's own"
    assert len(caplog.records) == cuda.graphs == 1


@pytest.mark.parametrize(
    "reason",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_full_memory_says_nothing_about_capturing(reason: str, hidden: bool, cuda: Cuda) -> None:
    """Neither in the warm-up nor in the capture itself, where another error hides it."""
    kept, double = Passes(capture=True), Doubling(cuda)
    kept.run("double", double, torch.ones(4), (4,))
    if hidden:
        cuda.at_the_end = RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def full(rows: torch.Tensor) -> torch.Tensor:
        if cuda.graphs == hidden:
            raise RuntimeError(reason)
        return 2 * rows

    with pytest.raises(torch.OutOfMemoryError, match=reason.partition("`")[0]):
        kept.run("double", full, torch.ones(4), (4,))
    assert cuda.now == "the thread's own"
    cuda.at_the_end = None
    kept.clear()
    before = cuda.graphs
    for _ in range(2):
        assert kept.run("double", double, torch.ones(4), (4,)).tolist() == [2, 2, 2, 2]
    assert (cuda.graphs - before, cuda.streams) == (1, 1)
