"""What the machine offers: devices, the number formats they compute in, what they fuse, free memory, and how they fail."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from .errors import DeviceLost, EngineError, ModelUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

CPU_CACHE = 8 << 20  # bytes of activations that are worth a pass of their own; most CPUs' cores share more cache
KINDS_COMPILED = 64  # of tensors, by format, strides, and one row or many, for which a function may be compiled
CONTROL_GROUP = Path("/sys/fs/cgroup")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """Return the device that ``device`` means on this machine.

    Raises:
        ModelUnavailable: it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, index = device.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
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
    """Return the dtype that ``dtype`` means on ``device``; with ``int8`` or ``fp8``, that of whatever is not rounded.

    Raises:
        ModelUnavailable: it is not one that the engine computes in, or not one for this device.
    """
    if dtype == "int8" and not (device.type == "cpu" and cpu_multiplies_bytes()):
        raise ModelUnavailable(
            f"dtype “int8” is for CPUs with AVX-512 VNNI, AVX-VNNI or AMX, and {device} has none of them here. Set "
            "DATAVISOR_VLM_DTYPE to auto, or DATAVISOR_VLM_DEVICE to cpu on a machine whose CPU has one."
        )
    if dtype == "fp8" and not (device.type == "cuda" and gpu_multiplies_float8(device)):
        raise ModelUnavailable(
            f"dtype “fp8” is for NVIDIA GPUs from compute capability 9.0 (Hopper) on, and {device} is none here. Set "
            "DATAVISOR_VLM_DTYPE to auto, or DATAVISOR_VLM_DEVICE to such a GPU."
        )
    if dtype in ("auto", "int8", "fp8"):
        if device.type == "cuda":
            return torch.bfloat16 if _gpu_computes_bfloat16(device) else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    if dtype not in DTYPES:
        raise ModelUnavailable(f"dtype “{dtype}” is not known: use auto, {', '.join(DTYPES)}, int8 or fp8.")
    return DTYPES[dtype]


def _gpu_computes_bfloat16(device: torch.device) -> bool:
    """Whether this very GPU does: NVIDIA's from compute capability 8.0 (Ampere) on, and all of AMD's that PyTorch runs on."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def gpu_multiplies_float8(device: torch.device) -> bool:
    """Whether this GPU multiplies float8 with a scale per row: NVIDIA's from compute capability 9.0 (Hopper) on."""
    return (
        torch.version.hip is None
        and hasattr(torch, "_scaled_mm")
        and torch.cuda.get_device_capability(device) >= (9, 0)
    )


def check_device(device: torch.device, dtype: torch.dtype) -> None:
    """Have an accelerator compute something, before gigabytes are read for it.

    Raises:
        ModelUnavailable: it cannot: its memory is full, it is too old for this PyTorch, or it does not work.
    """
    if device.type == "cpu":
        return
    try:
        value = torch.ones(16, 16, device=device, dtype=dtype)
        float((value @ value).sum())
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if is_out_of_memory(error):
            raise ModelUnavailable(
                f"{device} has no memory left to begin with ({reason}). Close the programs that use it, or choose another "
                "device with DATAVISOR_VLM_DEVICE."
            ) from error
        if "no kernel image" in str(error):
            raise ModelUnavailable(
                f"{_name_of(device)} is too old or too new for this PyTorch, which has no kernels for it. Install a "
                "PyTorch that has, or set DATAVISOR_VLM_DEVICE to cpu."
            ) from error
        if (other := not_supported(error)) is not None:
            raise ModelUnavailable(str(other)) from error
        raise ModelUnavailable(
            f"{device} does not work ({reason}). Look after the driver, restart DataVisor, or set DATAVISOR_VLM_DEVICE to "
            "cpu."
        ) from error


def _name_of(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"


def computes_fused(device: torch.device) -> bool:
    """Whether many products beside one another are best left to one kernel: on accelerators, and not on CPUs."""
    return device.type != "cpu"


@cache
def fuses_gelu(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a product's GELU (tanh form) is part of its kernel there. Some builds compute another form: it is tried."""
    return device.type == "cuda" and hasattr(torch, "_addmm_activation") and fuses_the_right_gelu(device, dtype)


def fuses_the_right_gelu(device: torch.device, dtype: torch.dtype) -> bool:
    """Try whether ``_addmm_activation`` computes the tanh form there, and not the one with the error function.

    The two are at most 0.0005 apart, less than a half format rounds a result of 1 by. Left of zero results are small and
    so is their rounding; and how far the results went from one form towards the other is one number for all of them, 0 or
    1, in which what is left of rounding is averaged away to a twentieth.
    """
    with torch.inference_mode():
        x = torch.linspace(-4, -1, 1024, device=device).to(dtype).view(64, 16)
        weight, bias = torch.eye(16, device=device, dtype=dtype), torch.zeros(16, device=device, dtype=dtype)
        try:
            seen = torch._addmm_activation(bias, x, weight.t(), use_gelu=True).float()
        except RuntimeError:
            return False
        wanted = F.gelu(x.float(), approximate="tanh")
        away, apart = seen - wanted, F.gelu(x.float()) - wanted
        towards = abs(float((away * apart).sum() / apart.square().sum()))
    return towards < 0.5 and float(away.abs().max()) < (1e-5 if dtype == torch.float32 else 5e-3)


def compiled(function: Callable[..., T]) -> Callable[..., T]:
    """Make one kernel of a function of tensors that is many, where PyTorch's compiler is at hand: on a GPU with Triton.

    It is compiled for all shapes at once, though anew for other number formats, strides, and single rows; while gradients
    are wanted, and wherever compiling fails, it runs as it is.
    """

    @cache
    def whole() -> Callable[..., T]:
        return torch.compile(function, dynamic=True)

    failed = False

    @wraps(function)
    def run(*tensors: torch.Tensor) -> T:
        nonlocal failed
        if failed or torch.is_grad_enabled() or not gpu_compiles(tensors[0].device):
            return function(*tensors)
        try:
            with _for_many_kinds():
                return whole()(*tensors)
        except torch._dynamo.exc.TorchDynamoException:
            logger.warning("%s could not be compiled, and runs uncompiled", function.__name__, exc_info=True)
            failed = True
            return function(*tensors)

    return run


def _for_many_kinds() -> AbstractContextManager[object]:
    """Let the compiler go on beyond eight kinds of tensors, its limit, behind which a function runs as it is, unsaid."""
    config = torch._dynamo.config
    return config.patch(recompile_limit=KINDS_COMPILED) if hasattr(config, "recompile_limit") else nullcontext()


@cache
def gpu_compiles(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    from torch.utils._triton import has_triton

    return bool(has_triton())


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
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # but PyTorch's
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    in_container = _free_in_container()
    return free if free is None or in_container is None else min(free, in_container)


def _free_in_container() -> int | None:
    """Return what a container may still take, where it has less than the machine (control groups, version 2)."""
    try:
        limit, used, statistics = (
            Path(CONTROL_GROUP, f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
        # Files that were read and not used since are given up as soon as memory is wanted.
        idle = next(int(line.split()[1]) for line in statistics.splitlines() if line.startswith("inactive_file "))
        return int(limit) - int(used) + idle
    except (OSError, ValueError, StopIteration):  # the limit may be “max”
        return None


def release_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of an accelerator's memory without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell full memory from other errors; only CUDA's allocator has a type of its own for it.

    A library that cannot be initialised found no memory for its workspace, as a rule.
    """
    signs = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "STATUS_NOT_INITIALIZED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def not_supported(error: BaseException) -> EngineError | None:
    """Return what to tell if a GPU's libraries have no kernel for what was asked of them, whatever else they can do."""
    if not any(sign in str(error) for sign in ("CUBLAS_STATUS_NOT_SUPPORTED", "CUDNN_STATUS_NOT_SUPPORTED")):
        return None
    reason = str(error).partition("\n")[0]
    return EngineError(
        f"The GPU has no kernel for this number format ({reason}). Choose another dtype with DATAVISOR_VLM_DTYPE: float16, "
        "bfloat16 or float32."
    )


def lost(error: BaseException) -> DeviceLost | None:
    """Return what to tell if an accelerator stopped working: it fell off the bus, was reset, or a kernel failed for good."""
    told = isinstance(error, torch.AcceleratorError) or any(
        sign in str(error) for sign in ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "HIP error")
    )
    if not told or is_out_of_memory(error) or not_supported(error) is not None:
        return None
    reason = str(error).partition("\n")[0]
    return DeviceLost(
        f"The GPU stopped working ({reason}). What was committed is kept. Restart DataVisor, or the machine if the driver "
        "does not answer, and resume the run."
    )
