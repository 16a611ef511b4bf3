"""How long a run will take: by what the last ones like it took here, else by what was measured on a machine like this one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.db.models import F

from vlm.models import Dataset, TaggingRun
from vlm.runs import scope
from vlm.runs.options import RunOptions

LEAST_IMAGES = 5  # of a run that tells anything: the first images are slow
LOOKED_AT = 50
PROCESSORS = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia")


@dataclass(frozen=True, slots=True)
class Expected:
    """How long a run will take.

    Attributes:
        seconds: about so many, or from so many on.
        most: to so many, where what was measured is a range.
        measured_on: the machine whose figure it is, with what it was measured on; empty where runs of this machine tell.
        cores: of this machine.
    """

    seconds: float
    most: float | None = None
    measured_on: str = ""
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured: seconds an image with all five questions, on which machine, and of which images."""

    least: float
    most: float
    machine: str
    images: str


BF16, AVX2 = "2 cores of an AMD EPYC with AVX-512 BF16", "2 cores of an AMD EPYC with AVX2"
SMALL, BOTH, ANY = (
    "of 378×378 pixels, larger ones taking longer",
    "of 378×378 to 640×480 pixels, larger ones taking longer",
    "",
)

# (kind of CPU, number format, detail) → what ``python -m benchmarks.engine`` gave for the published model: the README's table.
MEASURED = {
    ("bf16", "bfloat16", "full"): Figure(8.4, 23, BF16, BOTH),
    ("bf16", "bfloat16", "low"): Figure(8.1, 8.1, BF16, ANY),
    ("bf16", "int8", "full"): Figure(5.4, 16, BF16, BOTH),
    ("bf16", "int8", "low"): Figure(5.4, 5.4, BF16, ANY),
    ("avx2", "float32", "full"): Figure(30, 54, AVX2, SMALL),
    ("avx2", "float32", "low"): Figure(51, 51, AVX2, ANY),
}


def expected(*, dataset: Dataset, options: RunOptions, count: int) -> Expected | None:
    """Return how long asking about ``count`` images will take; ``None`` where neither a run nor a measured machine tells.

    The newest run that asked as many questions says it, on any data set; without one, the newest that asked others.
    """
    run = scope.draft(dataset, options)
    past = TaggingRun.objects.filter(
        model=run.model,
        detail=run.detail,
        mode=run.mode,
        workers=run.workers,
        processed__gte=LEAST_IMAGES + F("shared"),
        seconds__gt=0,
    )[:LOOKED_AT]
    alike = sorted(past, key=lambda other: (abs(len(other.vocabulary_json) - len(run.vocabulary_json)), -other.pk))
    if alike:
        return Expected(count * alike[0].seconds / (alike[0].processed - alike[0].shared))
    figure = _measured(run)
    if figure is None:
        return None
    most = count * figure.most if figure.most > figure.least else None
    machine = figure.machine + (f", with images {figure.images}" if figure.images else "")
    return Expected(count * figure.least, most, machine, os.cpu_count() or 1)


def _measured(run: TaggingRun) -> Figure | None:
    """Return what was measured of the same model, at the same detail and format, on a machine like this one."""
    from vlm.moondream.hub import MODEL  # which takes the hub's library along, and few processes estimate

    on_cpu = run.device == "cpu" or (run.device == "auto" and not _has_gpu())
    if run.workers or run.model != MODEL or run.mode != TaggingRun.Mode.SCORE or not on_cpu:
        return None
    kind = kind_of_cpu()
    usual = {"bf16": "bfloat16", "avx2": "float32"}.get(kind, "")
    return MEASURED.get((kind, usual if run.dtype == "auto" else run.dtype, run.detail))


@cache
def kind_of_cpu() -> str:
    """Return “bf16” for an x86 CPU with AVX-512 BF16, “avx2” for one with AVX2 alone, nothing for others and where it is not told.

    It asks the system, not PyTorch, which takes seconds to load.
    """
    try:
        text = PROCESSORS.read_text()
    except OSError:
        return ""
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    if "avx512_bf16" in flags:
        return "bf16"
    return (
        "avx2" if "avx2" in flags and not any(flag.startswith(("avx512", "amx", "avx_vnni")) for flag in flags) else ""
    )


def _has_gpu() -> bool:
    return NVIDIA.exists() or sys.platform == "darwin"
