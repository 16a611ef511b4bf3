"""From a hub id or a folder to a :class:`Tagger`: download, checks, device, dtype, weights."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from tqdm import tqdm

from .configuration import MoondreamConfig
from .crops import Detail
from .errors import ModelUnavailable
from .modeling import MoondreamForTagging
from .tagger import Tagger

MODEL = "vikhyatk/moondream2"
REVISION = "2025-06-21"
TOKENIZER = "moondream/starmie-v1"
TOKENIZER_REVISION = "35192e10a54e36eabe0a7cc57a2c1aab371cafc5"
IGNORED = "model.region."  # heads for pointing and detection


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the pinned release: what must be downloaded, and how it is recognised (leading digits of its SHA-256)."""

    repository: str
    revision: str
    name: str
    size: int | None
    sha256: str | None


# Weights of another revision load without an error and answer garbage with this tokenizer, so the two are pinned
# together. The tokenizer files inside the model's own repository are stale.
PINNED = {
    "config": _File(MODEL, REVISION, "config.json", None, None),
    "weights": _File(MODEL, REVISION, "model.safetensors", 3_854_538_968, "70a7d94c0c8349eb"),
    "tokenizer": _File(TOKENIZER, TOKENIZER_REVISION, "tokenizer.json", None, "0512fdcac4a5f9e7"),
}


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far loading is, in bytes; ``total`` is 0 while it is not known."""

    stage: Literal["download", "verify", "load"]
    done: int
    total: int


Progress = Callable[[LoadProgress], None]


def load_tagger(
    model: str = MODEL,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    *,
    detail: Detail = "full",
    batch_size: int | Literal["auto"] = "auto",
    progress: Progress | None = None,
) -> Tagger:
    """Load Moondream2 and its tokenizer.

    Args:
        model: the hub id ``vikhyatk/moondream2``, or a folder with ``config.json``, ``model.safetensors`` and
            ``tokenizer.json``.
        revision: the release on the hub; only the pinned one is known to fit its tokenizer.
        device: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
        dtype: ``auto`` (bfloat16 where the hardware computes it, else float16 on accelerators, else float32),
            ``float32``, ``bfloat16`` or ``float16``.
        detail: ``full`` crops as upstream does, ``low`` encodes one crop per image.
        batch_size: images per pass; ``auto`` from the memory that is free.
        progress: called with bytes downloaded, verified and loaded.

    Raises:
        ModelUnavailable: with what to do about it.
    """
    report = progress or (lambda _: None)
    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    folder = Path(model).expanduser()
    if folder.is_dir():
        files = {role: folder / pinned.name for role, pinned in PINNED.items()}
        if missing := [path.name for path in files.values() if not path.is_file()]:
            raise ModelUnavailable(f"{folder} is not a complete checkpoint: it lacks {', '.join(missing)}.")
        revision = revision or "local"
    elif model == MODEL:
        if revision not in (None, "", REVISION):
            raise ModelUnavailable(
                f"Revision “{revision}” of {MODEL} is not supported: its weights would answer garbage with the tokenizer "
                f"that DataVisor pins. Use “{REVISION}”, or leave DATAVISOR_VLM_REVISION empty."
            )
        revision = REVISION
        files = {role: _fetched(pinned, report) for role, pinned in PINNED.items()}
    else:
        raise ModelUnavailable(f"“{model}” is neither {MODEL} nor a folder. Set DATAVISOR_VLM_MODEL to one of the two.")
    config = _read_config(files["config"])
    network = _load_weights(config, files["weights"], where, kind, report)
    tagger = Tagger(
        network,
        _read_tokenizer(files["tokenizer"], config),
        model_id=model,
        revision=revision,
        detail=detail,
        batch_size=_auto_batch_size(config, where, kind) if batch_size == "auto" else batch_size,
    )
    return tagger


# -- device and dtype --------------------------------------------------------------------------------------------------
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
            "Device “cuda” is not there: no NVIDIA GPU with a driver, or PyTorch was installed without CUDA."
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"Device “{device}” is not there: this machine has {torch.cuda.device_count()} GPU(s), counted from 0."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ModelUnavailable("Device “mps” is not there: it needs a Mac with Apple silicon and macOS 14 or newer.")
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
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    except KeyError:
        raise ModelUnavailable(f"dtype “{dtype}” is not known: use auto, float32, bfloat16 or float16.") from None


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products (AVX-512 BF16, AMX, or Arm's BF16), by its flags."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _free_memory(device: torch.device) -> int | None:
    """Return the free bytes on ``device``, or ``None`` where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _auto_batch_size(config: MoondreamConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Choose how many images share a pass: what fits in half of the free memory, at most 4 on a CPU and 32 elsewhere."""
    text, vision = config.text, config.vision
    positions = vision.grid**2 + 256
    keys_and_values = 2 * text.n_layers * text.n_kv_heads * text.head_dim * positions
    activations = positions * (4 * text.ff_dim + (vision.max_crops + 1) * (vision.enc_ff_dim + 6 * vision.enc_dim))
    logits = 64 * text.vocab_size * 8 // dtype.itemsize
    per_image = (keys_and_values + activations + logits) * dtype.itemsize
    free = _free_memory(device)
    return max(1, min(4 if device.type == "cpu" else 32, (free or 2 * per_image) // 2 // per_image))


# -- files -------------------------------------------------------------------------------------------------------------
def _fetched(file: _File, report: Progress) -> Path:
    """Return the local path of a pinned file, downloaded if need be, verified once."""

    class Bar(tqdm):  # type: ignore[type-arg]
        """Hands the downloader's progress on, and draws nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if file.size:
                report(LoadProgress("download", int(self.n), int(self.total or file.size)))
            return shown

    try:
        path = Path(hf_hub_download(file.repository, file.name, revision=file.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        _check_room(file)
        try:
            path = Path(hf_hub_download(file.repository, file.name, revision=file.revision, tqdm_class=Bar))
        except (EntryNotFoundError, RepositoryNotFoundError) as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise _unreachable(file) from error
            raise ModelUnavailable(
                f"The hub has no {file.name} in {file.repository} at {file.revision}: {error}"
            ) from error
        except (HfHubHTTPError, OSError) as error:
            raise _unreachable(file) from error
    _verify(file, path, report)
    return path


class _Nowhere:
    def write(self, _: str) -> None: ...

    def flush(self) -> None: ...


def _unreachable(file: _File) -> ModelUnavailable:
    reason = (
        "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the Hugging Face hub cannot be reached from here"
    )
    return ModelUnavailable(
        f"{file.repository} ({file.name}) is not in the cache {constants.HF_HUB_CACHE}, and {reason}. Connect this machine "
        f"once, or copy the cache of another one here and set HF_HOME, or set DATAVISOR_VLM_MODEL to a local folder."
    )


def _check_room(file: _File) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if file.size and free < file.size * 1.05:
        raise ModelUnavailable(
            f"{file.name} needs {file.size / 1e9:.1f} GB below {cache}, where {free / 1e9:.1f} GB are free. "
            "Make room, or set HF_HOME to a folder on a larger disk."
        )


def _verify(file: _File, path: Path, report: Progress) -> None:
    """Compare size and SHA-256 with the pinned ones, once per file: a note beside the cache remembers the result."""
    status = path.stat()
    if file.size is not None and status.st_size != file.size:
        raise ModelUnavailable(
            f"{path} has {status.st_size:,} bytes instead of {file.size:,}: a broken download or another release. "
            "Delete it, and it is fetched again."
        )
    if file.sha256 is None:
        return
    note = Path(constants.HF_HOME) / "datavisor-verified.json"
    key, value = str(path.resolve()), [status.st_size, status.st_mtime_ns, file.sha256]
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get(key) == value:
        return
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
            done += len(block)
            report(LoadProgress("verify", done, status.st_size))
    if not digest.hexdigest().startswith(file.sha256):
        raise ModelUnavailable(
            f"{path} is not the file that DataVisor was built for: its SHA-256 begins with {digest.hexdigest()[:16]} instead "
            f"of {file.sha256}. Delete it, and it is fetched again."
        )
    try:
        temporary = note.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known | {key: value}))
        temporary.replace(note)
    except OSError:
        pass  # a read-only cache is verified again next time


def _read_config(path: Path) -> MoondreamConfig:
    try:
        config = MoondreamConfig(
            **{k: v for k, v in json.loads(path.read_text()).items() if k in ("config", "demonstration")}
        )
        _ = config.text, config.vision, config.tokens
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelUnavailable(f"{path} is not a configuration of this architecture: {error}") from error
    return config


def _read_tokenizer(path: Path, config: MoondreamConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelUnavailable(f"{path} is not a tokenizer: {error}") from error
    if tokenizer.get_vocab_size() > config.text.vocab_size:
        raise ModelUnavailable(
            f"{path} has {tokenizer.get_vocab_size()} tokens and the model {config.text.vocab_size}: they do not belong together."
        )
    return tokenizer


# -- weights -----------------------------------------------------------------------------------------------------------
def _load_weights(
    config: MoondreamConfig, path: Path, device: torch.device, dtype: torch.dtype, report: Progress
) -> MoondreamForTagging:
    """Build the model without memory, then move tensor after tensor from the file to the device.

    The peak is one copy of the weights. Loading is strict: a name or shape that does not fit is an error that names it.
    """
    with torch.device("meta"):
        model = MoondreamForTagging(config)
    wanted = dict(model.named_parameters())
    needed = sum(parameter.numel() for parameter in wanted.values()) * dtype.itemsize
    if (free := _free_memory(device)) is not None and free < needed:
        raise ModelUnavailable(
            f"The model needs {needed / 1e9:.1f} GB on {device} in {str(dtype).removeprefix('torch.')}, and {free / 1e9:.1f} GB "
            "are free. Close other programs, or choose another device with DATAVISOR_VLM_DEVICE."
        )
    try:
        with ExitStack() as stack:
            file = stack.enter_context(safe_open(path, framework="pt"))
            present = set(file.keys())
            if missing := sorted(set(wanted) - present):
                raise _misfit(path, "lacks", missing)
            if unexpected := sorted(name for name in present - set(wanted) if not name.startswith(IGNORED)):
                raise _misfit(path, "has the unknown", unexpected)
            done = 0
            for name, placeholder in wanted.items():
                tensor = file.get_tensor(name)
                if tensor.shape != placeholder.shape:
                    raise ModelUnavailable(
                        f"{path}: {name} has the shape {tuple(tensor.shape)} instead of {tuple(placeholder.shape)}; "
                        "its config.json belongs to other weights."
                    )
                parent, _, leaf = name.rpartition(".")
                loaded = torch.nn.Parameter(tensor.to(device=device, dtype=dtype), requires_grad=False)
                setattr(model.get_submodule(parent), leaf, loaded)
                done += loaded.numel() * loaded.element_size()
                report(LoadProgress("load", done, needed))
    except (SafetensorError, OSError) as error:
        raise ModelUnavailable(
            f"{path} cannot be read as safetensors: {error}. Delete it and fetch it again."
        ) from error
    except torch.OutOfMemoryError as error:
        raise ModelUnavailable(f"{device} ran out of memory while the model was loaded: {error}") from error
    return model


def _misfit(path: Path, verb: str, names: list[str]) -> ModelUnavailable:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ModelUnavailable(
        f"{path} {verb} tensors {', '.join(names[:3])}{more}: these are not Moondream2 weights of the supported release."
    )
