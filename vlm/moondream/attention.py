"""Attention as functions: over a set whose members all see one another, and over branches behind a prefix."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .devices import cpu_computes_bfloat16

# The scores of so many heads, 9 MB in float32, stay in a CPU's cache; all 32 heads' at once take half as long again.
HEADS_AT_ONCE = 4


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
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=query.shape[1] != key.shape[1])


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

    Scores against the two are computed apart and joined in one softmax, float32 whatever the number format.

    Args:
        query: (n, n_heads, t, head_dim).
        prefix: keys and values (n, n_kv_heads, p, head_dim).
        branch: keys and values (n, n_kv_heads, b, head_dim).
        mask: bool (t, b), True where the query token sees the branch token.

    Returns:
        (n, n_heads, t, head_dim).
    """
    grouped = _group(query, prefix[0], torch.float32)
    groups = grouped.shape[2] // query.shape[2]
    allowed = mask.repeat(groups, 1) if groups > 1 else mask
    to_prefix, to_branch = (grouped @ key.float().transpose(-1, -2) for key, _ in (prefix, branch))
    scores = torch.cat([to_prefix, to_branch.masked_fill_(~allowed, float("-inf"))], dim=-1)
    weights = scores.softmax(dim=-1).to(query.dtype)
    split = to_prefix.shape[-1]
    out = weights[..., :split] @ prefix[1] + weights[..., split:] @ branch[1]
    return out.reshape(query.shape)


def _group(query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale queries and lay those that share a key head behind one another: (n, n_kv_heads, groups · t, head_dim).

    They stand behind one another already, so no key is ever repeated.
    """
    scaled: Tensor = query.to(dtype) * query.shape[-1] ** -0.5
    return scaled.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
