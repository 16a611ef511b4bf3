"""What a device does while something runs: seconds on the clock, kernels and the gaps between them, memory, products."""

import gc
import platform
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vlm.moondream import DimensionScore, PreparedImage, Tagger
from vlm.moondream.crops import Detail
from vlm.moondream.devices import cpu_computes_bfloat16, release_memory
from vlm.moondream.linear import Rounding, round_to_float8
from vlm.vocabulary import Vocabulary

ACROSS_THE_BUS = ("HtoD", "DtoH")  # in a copy's name: while it is all that goes on, a GPU computes nothing


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    bfloat16 = "bfloat16 in hardware" if cpu_computes_bfloat16() else "bfloat16 emulated, and slow"
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {bfloat16}"


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Return how long ``run`` takes, until the device has done all of it."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def watched(device: torch.device, run: Callable[[], object]) -> tuple[float, dict[str, float] | None]:
    """Run something once; return its seconds and, of a CUDA device, what it was launched for and how much of them it idled.

    The device's own activities are recorded, and nothing of Python's, which costs the run little.
    """
    if device.type != "cuda":
        return seconds(device, run), None
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        took = seconds(device, run)
    return took, launches_and_gaps(list(seen.events() or []), took)


def launches_and_gaps(events: Sequence[Any], took: float) -> dict[str, float]:
    """Sum up what a profiler saw in ``took`` seconds."""
    kernels = [event for event in events if event.device_type == DeviceType.CUDA and computes(event.name)]
    return {
        "kernels": len(kernels),
        "kernel_launches": sum("LaunchKernel" in event.name for event in events),
        "graph_launches": sum("GraphLaunch" in event.name for event in events),
        "seconds": took,
        "idle_share": max(0.0, 1 - busy_seconds(kernels) / took),
    }


def computes(name: str) -> bool:
    return not any(copy in name for copy in ACROSS_THE_BUS)


def busy_seconds(kernels: Iterable[Any]) -> float:
    """Return for how long at least one of ``kernels`` ran: the union of their intervals, which are in microseconds."""
    busy, end = 0.0, 0.0
    for span in sorted((kernel.time_range for kernel in kernels), key=lambda span: span.start):
        busy += max(0.0, span.end - max(end, span.start))
        end = max(end, span.end)
    return busy / 1e6


def score_in_flight(
    tagger: Tagger, images: Sequence[PreparedImage], vocabulary: Vocabulary, detail: Detail
) -> list[dict[str, DimensionScore]]:
    """Score batch after batch as a run does: an accelerator has the next one before it is asked for a result."""
    results: list[dict[str, DimensionScore]] = []
    waiting = deque()
    for start in range(0, len(images), tagger.batch_size):
        waiting.append(tagger.submit(images[start : start + tagger.batch_size], vocabulary, detail))
        if len(waiting) == tagger.in_flight:
            results += tagger.result(waiting.popleft())
    while waiting:
        results += tagger.result(waiting.popleft())
    return results


def matmul_rate(device: torch.device, dtype: torch.dtype, rounding: Rounding = "") -> float:
    """Return what a big square product reaches, in FLOP/s (of bytes: as many operations): the best of three."""
    slow = device.type == "cpu" and dtype != torch.float32 and not cpu_computes_bfloat16()
    size = 1024 if slow else 4096 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device).mul_(32).to(torch.int8 if rounding == "int8" else dtype)
    if rounding == "fp8":
        levels, scales = round_to_float8(a)
        product = lambda: torch._scaled_mm(  # noqa: E731
            levels, levels.t(), scale_a=scales, scale_b=scales.t(), out_dtype=dtype, use_fast_accum=True
        )
    else:
        product = lambda: (torch._int_mm if rounding else torch.mm)(a, a)  # noqa: E731
    product()
    return 2 * size**3 / min(seconds(device, product) for _ in range(3))


def forget(device: torch.device) -> None:
    """Give back the memory of what is gone, and begin to count its peak anew where it can be."""
    gc.collect()
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held: of a GPU since :func:`forget`, else of this process, ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
