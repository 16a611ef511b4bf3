"""What the machine offers: devices, the number formats they compute in, free memory."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .errors import ModelUnavailable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """Return the device that ``device`` means on this machine.

    Raises:
        ModelUnavailable: it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ModelUnavailable(f"Device “{device}” is not known: use auto, cpu, mps, cuda or cuda:1.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailable(
            f"Device “{device}” is not there: no NVIDIA GPU with a driver, or PyTorch was installed without CUDA. "
            "Use auto or cpu, or install the driver and a PyTorch with CUDA."
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"Device “{device}” is not there: this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ModelUnavailable(
            "Device “mps” is not there: it needs a Mac with Apple silicon and macOS 14 or newer. Use auto or cpu."
        )
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype that ``dtype`` means on ``device``.

    Raises:
        ModelUnavailable: it is not one that the engine computes in.
    """
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    if dtype not in DTYPES:
        raise ModelUnavailable(f"dtype “{dtype}” is not known: use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


@cache
def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products (AVX-512 BF16, AMX, or Arm's BF16); without them they are emulated."""
    # Older releases of PyTorch do not tell; float32 is the safe answer there.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes on ``device``, or ``None`` where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    try:  # a container may have less than the machine
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return free
    return min(free, int(limit)) if free is not None and limit.isdigit() else free
