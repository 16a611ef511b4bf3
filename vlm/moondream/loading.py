"""From a hub id or a folder to a :class:`Tagger`: files, checks, device, dtype, weights."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from .configuration import MoondreamConfig
from .crops import Detail
from .devices import (
    CPU_CACHE,
    check_device,
    computes_fused,
    free_memory,
    is_out_of_memory,
    release_memory,
    resolve_device,
    resolve_dtype,
)
from .errors import ModelUnavailable
from .hub import MODEL, PINNED, REVISION, LoadProgress, Progress, fetch, identity, verify
from .linear import Linear, Rounding, is_rounded, layer_form, number_format
from .modeling import MoondreamForTagging
from .passes import IMAGES, down_to
from .tagger import Tagger, check_detail

__all__ = ["MODEL", "REVISION", "LoadProgress", "Progress", "load_tagger"]

TREE_POSITIONS = 256  # room for the tokens of all questions and answers; the five of the standard vocabulary take 150
IGNORED = "model.region."  # heads for pointing and detection
PATCH_MULTIPLE = 16  # numbers of a patch, as an accelerator's products like them
ROUNDINGS: dict[str, Rounding] = {"int8": "int8", "fp8": "fp8"}
HALF_PRECISION = {"BF16": torch.bfloat16, "F16": torch.float16}  # names in a safetensors file


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
            ``tokenizer.json``. A ``config.json`` that states no dimensions is the published model's, and weights and
            tokenizer beside it must be the pinned ones; weights of one's own state theirs under ``config``.
        revision: the release on the hub; only the pinned one is known to fit its tokenizer. Of a folder, what
            :func:`~vlm.moondream.identity` says of it, where it must still be the same.
        device: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
        dtype: ``auto`` (bfloat16 where the hardware computes it, else float16 on accelerators, else float32),
            ``float32``, ``bfloat16`` or ``float16``. It is the format that the model computes in; on a CPU, matrices that
            the file holds in a narrower one stay in it, which loses nothing and saves half of float32's memory. ``int8``, on CPUs
            that have products of bytes, rounds weights and activations to bytes: faster, smaller, and not exact. ``fp8``
            does the same with floats of eight bits, on NVIDIA's GPUs from Hopper on.
        detail: ``full`` crops as upstream does, ``low`` encodes one crop per image.
        batch_size: images per pass; ``auto`` from the memory that is free and, on a CPU, from what its cache holds.
        progress: called with bytes downloaded, verified and loaded.

    Raises:
        ModelUnavailable: with what to do about it.
        ValueError: ``detail`` is neither of the two.
        Exception: whatever ``progress`` raises, as it is; loading breaks off.
    """
    check_detail(detail)
    report = progress or (lambda _: None)
    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    check_device(where, kind)
    rounding = ROUNDINGS.get(dtype, "")
    folder = Path(model).expanduser()
    if folder.is_dir():
        files = {role: folder / pinned.name for role, pinned in PINNED.items()}
        if missing := [path.name for path in files.values() if not path.is_file()]:
            raise ModelUnavailable(
                f"{folder} is not a complete checkpoint: it lacks {', '.join(missing)}. Put the model's config.json, "
                "model.safetensors and tokenizer.json there."
            )
        found = identity(model)
        if revision not in (None, "", found):
            raise ModelUnavailable(
                f"The checkpoint in {folder} is not the one that is meant: it is {found} now, and was {revision}. Put those "
                "files back, or begin a new run with the present ones."
            )
        revision = found
    elif model == MODEL:
        if revision not in (None, "", REVISION):
            raise ModelUnavailable(
                f"Revision “{revision}” of {MODEL} is not supported: its weights would answer garbage with the tokenizer "
                f"that DataVisor pins. Use “{REVISION}”, or leave DATAVISOR_VLM_REVISION empty."
            )
        revision = REVISION
        files = {role: fetch(pinned, report) for role, pinned in PINNED.items()}
    else:
        raise ModelUnavailable(f"“{model}” is neither {MODEL} nor a folder. Set DATAVISOR_VLM_MODEL to one of the two.")
    config = _read_config(files["config"])
    if folder.is_dir() and not config.config:
        # The tokenizer files beside the published weights are stale, and weights of another release load all the same:
        # either would go unnoticed.
        for role in ("weights", "tokenizer"):
            verify(PINNED[role], files[role], report)
    tokenizer = _read_tokenizer(files["tokenizer"], config)
    network = _load_weights(config, files["weights"], where, kind, report, rounding)
    if computes_fused(where):
        network.model.vision.align_patches(PATCH_MULTIPLE)
    return Tagger(
        network,
        tokenizer,
        model_id=model,
        revision=revision,
        detail=detail,
        batch_size=_auto_batch_size(config, where, kind) if batch_size == "auto" else batch_size,
    )


def held_in(parameter: torch.Tensor, device: torch.device, dtype: torch.dtype, stored: torch.dtype) -> torch.dtype:
    """Return the format that a parameter is held in: ``stored`` for matrices where a CPU computes in float32."""
    return stored if parameter.dim() == 2 and device.type == "cpu" and dtype == torch.float32 else dtype


def _auto_batch_size(config: MoondreamConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Choose how many images share a pass: what fits in half of the free memory, at most 32.

    Under CUDA passes through the decoder have such a size, so that none is padded. On a CPU the widest activations of all
    of them should fit in a cache: alone, an image of the published size takes a tenth less time than one of four. Small
    models gain a little from four.
    """
    text, vision = config.text, config.vision
    positions = vision.grid**2 + TREE_POSITIONS
    most = 32 if device.type != "cpu" else min(4, max(1, CPU_CACHE // (positions * text.ff_dim * dtype.itemsize)))
    per_image = bytes_per_image(config, dtype)
    if device.type == "mps":  # whose attention writes its scores to memory, and its weights again
        per_image += 2 * text.n_heads * positions * positions * dtype.itemsize
    free = free_memory(device)
    fitting = max(1, min(most, (free or 2 * per_image) // 2 // per_image))
    return down_to(fitting, IMAGES) if device.type == "cuda" else fitting


def bytes_per_image(config: MoondreamConfig, dtype: torch.dtype) -> int:
    """Return what an image takes on its way through the model, at most: its keys and values, activations and logits."""
    text, vision = config.text, config.vision
    positions = vision.grid**2 + TREE_POSITIONS
    keys_and_values = 2 * text.n_layers * text.n_kv_heads * text.head_dim * positions
    activations = positions * (4 * text.ff_dim + (vision.max_crops + 1) * (vision.enc_ff_dim + 6 * vision.enc_dim))
    logits = 64 * text.vocab_size * 8 // dtype.itemsize
    return (keys_and_values + activations + logits) * dtype.itemsize


def _read_config(path: Path) -> MoondreamConfig:
    try:
        content = json.loads(path.read_text())
        config = MoondreamConfig(**{key: content[key] for key in ("config", "demonstration") if key in content})
        config.check()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelUnavailable(
            f"{path} is not a configuration of this architecture: {error} Take the one that came with the weights."
        ) from error
    return config


def _read_tokenizer(path: Path, config: MoondreamConfig) -> Tokenizer:
    """Read a tokenizer and make sure that the model has room for it."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelUnavailable(
            f"{path} is not a tokenizer: {error}. Take the one that came with the weights."
        ) from error
    if tokenizer.get_vocab_size() > config.text.vocab_size:
        raise ModelUnavailable(
            f"{path} has {tokenizer.get_vocab_size()} tokens and the model {config.text.vocab_size}: they do not belong "
            "together. Take the tokenizer.json that came with the weights."
        )
    return tokenizer


def _load_weights(
    config: MoondreamConfig,
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    report: Progress,
    rounding: Rounding = "",
) -> MoondreamForTagging:
    """Build the model without memory, then move tensor after tensor from the file to the device.

    The peak is one copy of the weights. Matrices stay in the file's number format where that is narrower than ``dtype``
    and are widened in use; layers take the form that suits the device. Loading is strict: a name or shape that does not
    fit is an error that names it.
    """
    form = layer_form(device, dtype, rounding)
    with torch.device("meta"):
        model = MoondreamForTagging(config)
    wanted = dict(model.named_parameters())
    try:
        with ExitStack() as stack:
            with _reading(path):
                file = stack.enter_context(safe_open(path, framework="pt"))
                stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            if missing := sorted(wanted.keys() - stored.keys()):
                raise _misfit(path, "lacks", missing)
            if unexpected := sorted(name for name in stored.keys() - wanted.keys() if not name.startswith(IGNORED)):
                raise _misfit(path, "has unknown", unexpected)
            formats = {
                name: held_in(placeholder, device, dtype, HALF_PRECISION.get(stored[name], dtype))
                for name, placeholder in wanted.items()
            }
            sizes = {name: placeholder.numel() * formats[name].itemsize for name, placeholder in wanted.items()}
            if rounding:
                sizes |= {name: wanted[name].numel() for name in _rounded_weights(model, rounding)}
            total, done = sum(sizes.values()), 0
            _check_room(total + bytes_per_image(config, dtype), device, number_format(dtype, rounding))
            for name, placeholder in wanted.items():
                with _reading(path):
                    tensor = file.get_tensor(name)
                if tensor.shape != placeholder.shape:
                    raise ModelUnavailable(
                        f"{path}: {name} has the shape {tuple(tensor.shape)} instead of {tuple(placeholder.shape)}; its "
                        "config.json belongs to other weights. Take the one that came with these."
                    )
                parent, _, leaf = name.rpartition(".")
                # Where layers are replaced, a single tensor that stayed in the file's pages would hold on to all of them.
                placed = tensor.to(device=device, dtype=formats[name], copy=form is not None)
                loaded = torch.nn.Parameter(placed, requires_grad=False)
                module = model.get_submodule(parent)
                setattr(module, leaf, loaded)
                if form and isinstance(module, Linear) and leaf == "bias":  # which comes behind the weight
                    model.set_submodule(parent, form(parent, module))
                done += sizes[name]
                report(LoadProgress("load", done, total))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        model.to_empty(device="meta")  # the error holds on to this very model
        release_memory(device)
        raise ModelUnavailable(
            f"{device} ran out of memory while the model was loaded. Close other programs, or choose another device with "
            "DATAVISOR_VLM_DEVICE."
        ) from error
    return model


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise ModelUnavailable(
            f"{path} cannot be read as safetensors: {error}. Delete it and fetch it again."
        ) from error


def _check_room(needed: int, device: torch.device, form: str) -> None:
    if (free := free_memory(device)) is not None and free < needed:
        raise ModelUnavailable(
            f"The model and an image need {needed / 1e9:.1f} GB on {device} in {form}, and {max(0, free) / 1e9:.1f} GB are "
            "free. Close other programs, or choose another device with DATAVISOR_VLM_DEVICE."
        )


def _rounded_weights(model: MoondreamForTagging, rounding: Rounding) -> list[str]:
    """Return the names of the weights that are kept as bytes, whole numbers or floats."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, Linear))
    return [f"{name}.weight" for name, layer in layers if is_rounded(name, layer, rounding)]


def _misfit(path: Path, verb: str, names: list[str]) -> ModelUnavailable:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ModelUnavailable(
        f"{path} {verb} tensors: {', '.join(names[:3])}{more}. These are not Moondream2 weights of the supported release; "
        f"take those of {MODEL} at revision {REVISION}."
    )
