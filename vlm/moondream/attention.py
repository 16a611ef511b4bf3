"""Attention as functions: over a set whose members all see one another, and over branches behind a prefix."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .devices import computes_fused, cpu_computes_bfloat16

# The scores of so many heads, 9 MB in float32, stay in a CPU's cache; all 32 heads' at once take half as long again.
HEADS_AT_ONCE = 4
KEYS_MULTIPLE = 8  # fused kernels take masks whose rows are aligned


def attend(query: Tensor, key: Tensor, value: Tensor, *, exact: bool = True) -> Tensor:
    """Full attention without a mask.

    Args:
        query: (n, n_heads, t, head_dim).
        key, value: (n, n_kv_heads, s, head_dim); query head i reads head i // (n_heads / n_kv_heads).
        exact: whether scores are float32 in front of the softmax whatever the number format; see
            :func:`attend_by_products`.

    Returns:
        (n, n_heads, t, head_dim).
    """
    # On CPUs with bfloat16 products, plain products take four fifths of the fused kernel's time; everywhere else the
    # fused kernel is faster.
    in_bfloat16 = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if in_bfloat16 and cpu_computes_bfloat16() and not torch.is_grad_enabled():
        return attend_by_products(query, key, value, exact=exact)
    with _best_kernel(query.device):
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=query.shape[1] != key.shape[1])


@contextmanager
def _in_this_order() -> Iterator[None]:
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield


def _best_kernel(device: torch.device) -> Any:
    """Prefer cuDNN's attention on Hopper, where it is the fastest; others reported it slower elsewhere."""
    return _in_this_order() if device.type == "cuda" and _is_hopper(device) else nullcontext()


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device)[0] == 9


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, *, exact: bool = True) -> Tensor:
    """:func:`attend` as batched matrix products, some heads after others through the same buffers; without gradients.

    A score that is rounded to bfloat16 is off by up to 1/256 of itself, and so is the logarithm of its weight: the sharper
    the attention, the more it matters. Not ``exact``, it is rounded, which saves a third of the time; beside weights and
    activations that were rounded to bytes, it is lost in the noise.
    """
    grouped = _group(query, key, torch.float32 if exact else query.dtype)
    key = key.to(grouped.dtype)
    out = query.new_empty(grouped.shape)
    score_buffer = grouped.new_empty(HEADS_AT_ONCE, grouped.shape[2], key.shape[2])
    weight_buffer = score_buffer.to(query.dtype)  # the same one where the formats are the same
    for image in range(len(out)):
        for start in range(0, out.shape[1], HEADS_AT_ONCE):
            heads = image, slice(start, start + HEADS_AT_ONCE)
            count = out[heads].shape[0]
            scores, weights = score_buffer[:count], weight_buffer[:count]
            # The copies are a hundredth of the work and save a tenth of it.
            torch.bmm(grouped[heads].contiguous(), key[heads].contiguous().transpose(1, 2), out=scores)
            torch.softmax(scores, dim=-1, out=scores)
            if exact:
                weights.copy_(scores)
            torch.bmm(weights, value[heads].contiguous(), out=out[heads])
    return out.reshape(query.shape)


def attend_branches(
    query: Tensor, prefix: tuple[Tensor, Tensor], branch: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """Attention of branch tokens to a prefix, all of it, and to branch tokens as the mask allows.

    A CPU computes scores against the two apart and joins them in one softmax, float32 whatever the number format. An
    accelerator has one kernel for the whole, in which scores are float32 too: keys and values are joined for it.

    Args:
        query: (n, n_heads, t, head_dim).
        prefix: keys and values (n, n_kv_heads, p, head_dim).
        branch: keys and values (n, n_kv_heads, b, head_dim).
        mask: bool (t, b), True where the query token sees the branch token.

    Returns:
        (n, n_heads, t, head_dim).
    """
    if computes_fused(query.device) and not torch.is_grad_enabled():
        return _attend_joined(query, prefix, branch, mask)
    grouped = _group(query, prefix[0], torch.float32)
    groups = grouped.shape[2] // query.shape[2]
    allowed = mask.repeat(groups, 1) if groups > 1 else mask
    to_prefix, to_branch = (grouped @ key.float().transpose(-1, -2) for key, _ in (prefix, branch))
    scores = torch.cat([to_prefix, to_branch.masked_fill_(~allowed, float("-inf"))], dim=-1)
    weights = scores.softmax(dim=-1).to(query.dtype)
    split = to_prefix.shape[-1]
    out = weights[..., :split] @ prefix[1] + weights[..., split:] @ branch[1]
    return out.reshape(query.shape)


def _attend_joined(query: Tensor, prefix: tuple[Tensor, Tensor], branch: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """:func:`attend_branches` as one masked call on one buffer of keys and one of values."""
    (images, heads, before, width), after = prefix[0].shape, branch[0].shape[2]
    length = -(-(before + after) // KEYS_MULTIPLE) * KEYS_MULTIPLE
    key, value = query.new_zeros(2, images, heads, length, width)
    for buffer, first, second in ((key, prefix[0], branch[0]), (value, prefix[1], branch[1])):
        buffer[:, :, :before] = first
        buffer[:, :, before : before + after] = second
    seen = F.pad(F.pad(mask, (before, 0), value=True), (0, length - before - after), value=False)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen[None, None], enable_gqa=query.shape[1] != heads
    )


def _group(query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale queries and lay those that share a key head behind one another: (n, n_kv_heads, groups · t, head_dim).

    They stand behind one another already, so no key is ever repeated.
    """
    scaled: Tensor = query.to(dtype) * query.shape[-1] ** -0.5
    return scaled.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
