"""Linear layers in the forms that different hardware computes fastest.

A checkpoint's layers are :class:`Linear`. A CPU with products of bfloat16 or of bytes is faster with its weights in
another order, a GPU with products of float8 with its weights rounded, so the layers are replaced while a model is loaded,
one by one and without a second copy of it. All forms
are called alike; those that replace a layer are for inference only and can be neither copied nor saved. The operators
are those that PyTorch's own compiler emits for the same purpose.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .devices import compiled, cpu_packs_bfloat16, fuses_gelu

WIDENED_AT_ONCE = 1 << 22  # elements of a weight; 16 MB in float32, little enough for the allocator to hand out again
ROUNDED_AT_ONCE = 1 << 19  # elements of activations; 2 MB in float32, which stay in a core's cache
LEVELS = 127  # of int8 to either side of zero
ZERO_POINT = LEVELS + 1  # kernels are fast for unsigned activations only
FLOAT8 = torch.float8_e4m3fn
HIGHEST = 448.0  # in that format
FLOAT8_MULTIPLE = 16  # of inputs and outputs, as the kernels for it want them
NEVER_QUANTIZED = ("patch_emb", "lm_head")  # pixels come in and likelihoods go out exactly, at a hundredth of the cost


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x · weightᵀ + bias in the number format of ``x``.

    A weight that is held in a narrower format is widened as it is used, some rows at a time. Widening is exact: the
    published weights, bfloat16, give float32's very results and take half of its memory. It costs a few percent of the
    time at a hundred tokens, and nothing that can be measured at a thousand.
    """
    if weight.dtype == x.dtype:
        return F.linear(x, weight, bias)
    rows = max(1, WIDENED_AT_ONCE // weight.shape[1])
    parts = [
        F.linear(x, weight[start : start + rows].to(x.dtype), bias[start : start + rows])
        for start in range(0, len(weight), rows)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class Linear(nn.Linear):
    """A linear layer whose weight may be held in a narrower number format than the layer computes in."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the layer's output behind a GELU (tanh form)."""
        if self.weight.dtype == x.dtype and not torch.is_grad_enabled() and fuses_gelu(x.device, x.dtype):
            flat = torch._addmm_activation(self.bias, x.flatten(0, -2), self.weight.t(), use_gelu=True)
            return flat.view(*x.shape[:-1], -1)
        return F.gelu(self(x), approximate="tanh")

    def tail(self, x: Tensor, start: int) -> Tensor:
        """Return the layer's outputs from ``start`` on."""
        return linear(x, self.weight[start:], self.bias[start:])


class _Replaced(nn.Module):
    """What stands in for a layer whose weight went into another form."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise RuntimeError(f"{prefix}weight is in a form for this machine alone. Save the model that it was made of.")

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x), approximate="tanh")

    def tail(self, x: Tensor, start: int) -> Tensor:
        # Such a weight cannot be cut. The decoder's last layer alone asks for this: 0.2 % of an image's products.
        out: Tensor = self(x)
        return out[..., start:]


class PackedLinear(_Replaced):
    """A linear layer whose weight lies in memory as the CPU's kernels read it; a GELU is part of the same pass."""

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def gelu(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "gelu", [], "tanh")
        return out


class QuantizedLinear(_Replaced):
    """A linear layer that multiplies bytes: weights are rounded per output, activations per token, as they come.

    Both are symmetric around zero, so a product differs from the exact one by rounding alone.
    """

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        self.scales = (weight.abs().amax(1) / LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
        levels = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(levels, None)
        self.zero_points = torch.zeros(len(levels), dtype=torch.int32)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        levels, scales = quantize(x.flatten(0, -2))
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, ZERO_POINT, self.packed, self.scales, self.zero_points, None, 1.0, 0, x.dtype, "none", [], ""
        )
        return torch.addcmul(self.bias, out, scales).view(*x.shape[:-1], -1)


class Float8Linear(_Replaced):
    """A linear layer that multiplies numbers of eight bits: weights are scaled per output, activations per token."""

    weight: Tensor
    scales: Tensor

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        weight, scales = round_to_float8(layer.weight.detach())
        # The kernels want the weight's columns one after another.
        self.register_buffer("weight", weight.t(), persistent=False)
        self.register_buffer("scales", scales.t(), persistent=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        rounded, scales = round_to_float8(x.flatten(0, -2))
        # Hopper adds products of eight bits up in registers of some 22 bits. Taking the sums out of them every few steps, to
        # add in 32, costs time, and saves digits that the rounding of the factors, to 4 bits, has not left.
        out = torch._scaled_mm(
            rounded,
            self.weight,
            scale_a=scales,
            scale_b=self.scales,
            bias=self.bias,
            out_dtype=x.dtype,
            use_fast_accum=True,
        )
        return out.view(*x.shape[:-1], -1)


AnyLinear: TypeAlias = Linear | PackedLinear | QuantizedLinear | Float8Linear
Rounding: TypeAlias = Literal["", "int8", "fp8"]
Form: TypeAlias = Callable[[str, Linear], nn.Module]


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to bytes: x ≈ scales · (levels − 128).

    Args:
        x: (t, d).

    Returns:
        ``levels``, uint8 (t, d), 1 … 255, and ``scales``, (t, 1), in the format of ``x``. As the levels are made with
        the scales that were rounded to that format, a narrow format makes no further error.
    """
    scales = (x.abs().amax(-1, keepdim=True).float() / LEVELS).clamp_(min=torch.finfo(torch.float32).tiny).to(x.dtype)
    steps = scales.float().reciprocal()
    levels = torch.empty(x.shape, dtype=torch.uint8)
    rows = max(1, ROUNDED_AT_ONCE // x.shape[1])
    for part in (slice(start, start + rows) for start in range(0, len(x), rows)):
        # Adding a half and cutting off rounds, since nothing is negative any more.
        levels[part] = x[part].float().mul(steps[part]).add_(ZERO_POINT + 0.5)
    return levels, scales


@compiled
def round_to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to float8: x ≈ scales · rounded, with scales float32 (t, 1)."""
    wide = x.float()
    scales = (wide.abs().amax(-1, keepdim=True) / HIGHEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (wide / scales).to(FLOAT8), scales


def layer_form(device: torch.device, dtype: torch.dtype, rounding: Rounding = "") -> Form | None:
    """Return what turns a loaded layer, given with its name, into the form that suits; ``None`` where it suits already."""
    exact: Form = _packed if device.type == "cpu" and dtype == torch.bfloat16 and cpu_packs_bfloat16() else _unchanged
    if rounding:
        rounded = QuantizedLinear if rounding == "int8" else Float8Linear
        return lambda name, layer: rounded(layer) if is_rounded(name, layer, rounding) else exact(name, layer)
    return None if exact is _unchanged else exact


def is_rounded(name: str, layer: nn.Linear, rounding: Rounding) -> bool:
    """Whether a layer is among those that ``rounding`` is for: not the first and the last, nor one that no kernel takes."""
    if name.endswith(NEVER_QUANTIZED):
        return False
    return rounding != "fp8" or layer.in_features % FLOAT8_MULTIPLE == layer.out_features % FLOAT8_MULTIPLE == 0


def number_format(dtype: torch.dtype, rounding: Rounding = "") -> str:
    """Return the name of the format that a model computes in."""
    return rounding or str(dtype).removeprefix("torch.")


def rounding_of(model: nn.Module) -> Rounding:
    """Return to what a model's layers were rounded."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            return "int8"
        if isinstance(module, Float8Linear):
            return "fp8"
    return ""


def _packed(name: str, layer: Linear) -> nn.Module:
    return PackedLinear(layer)


def _unchanged(name: str, layer: Linear) -> nn.Module:
    return layer
