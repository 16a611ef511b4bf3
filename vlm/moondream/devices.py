"""What the machine offers: devices, the number formats they compute in, free memory."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .errors import ModelUnavailable

CPU_CACHE = 8 << 20  # bytes of activations that are worth a pass of their own; most CPUs' cores share more cache
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
    """Return the dtype that ``dtype`` means on ``device``; with ``int8``, that of whatever is not a product of bytes.

    Raises:
        ModelUnavailable: it is not one that the engine computes in, or not one for this device.
    """
    if dtype == "int8" and not (device.type == "cpu" and cpu_multiplies_bytes()):
        raise ModelUnavailable(
            f"dtype “int8” is for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and {device} has none of them here. Set "
            "DATAVISOR_VLM_DTYPE to auto, or DATAVISOR_VLM_DEVICE to cpu on a machine whose CPU has one."
        )
    if dtype in ("auto", "int8"):
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    if dtype not in DTYPES:
        raise ModelUnavailable(f"dtype “{dtype}” is not known: use auto, {', '.join(DTYPES)} or int8.")
    return DTYPES[dtype]


@cache
def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products (AVX-512 BF16, AMX, or Arm's BF16); without them they are emulated."""
    return _cpu_has("avx512_bf16", "amx_bf16", "bf16")


@cache
def cpu_packs_bfloat16() -> bool:
    """Whether packed weights are faster here: where an x86 CPU has bfloat16 products. On Arm nothing was measured."""
    return _cpu_has("avx512_bf16", "amx_bf16") and _has_operators("mkldnn", "_linear_pointwise")


@cache
def cpu_multiplies_bytes() -> bool:
    """Whether this CPU has products of bytes summed in 32 bits; without them an x86 CPU's sums overflow at 16."""
    return _cpu_has("avx512_vnni", "avx_vnni", "amx_int8") and _has_operators("onednn", "qlinear_pointwise")


def _has_operators(library: str, name: str) -> bool:
    # They are no part of PyTorch's public interface: a build or a release may lack them, and nothing else may break.
    return torch.backends.mkldnn.is_available() and hasattr(getattr(torch.ops, library), name)  # type: ignore[no-untyped-call]


def _cpu_has(*names: str) -> bool:
    # Older releases of PyTorch do not tell; nothing special is the safe answer there.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in names)


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
