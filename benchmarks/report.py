"""What the benchmarks share: medians, the machine, JSON on stdout or lines of text."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def memory_mb(what: str = "VmRSS", pid: int | str = "self") -> float:
    """Return megabytes of a process as Linux counts them: ``VmRSS`` now, ``VmHWM`` at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def median_ms(action: Callable[[], object], *, repeat: int = 9) -> float:
    """Return the median duration of ``action`` in milliseconds, after one call that does not count."""
    action()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(times), 2)


def cpu_ms(action: Callable[[], object], *, repeat: int = 5) -> float:
    """Return the mean CPU time of ``action`` in milliseconds: of all threads, and whatever else the machine does."""
    action()
    start = time.process_time()
    for _ in range(repeat):
        action()
    return round((time.process_time() - start) * 1000 / repeat, 1)


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name:44} {value}\n")
