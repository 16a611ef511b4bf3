"""Attention as functions: over a set whose members all see one another, and over branches behind a prefix."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Full attention without a mask.

    Args:
        query: (n, n_heads, t, head_dim).
        key, value: (n, n_kv_heads, s, head_dim); query head i reads head i // (n_heads / n_kv_heads).

    Returns:
        (n, n_heads, t, head_dim).
    """
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=query.shape[1] != key.shape[1])


def attend_branches(
    query: Tensor, prefix: tuple[Tensor, Tensor], branch: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """Attention of branch tokens to a prefix, all of it, and to branch tokens as the mask allows.

    Scores against the two are computed apart and joined in one softmax, so that the long prefix is never copied.

    Args:
        query: (n, n_heads, t, head_dim).
        prefix: keys and values (n, n_kv_heads, p, head_dim).
        branch: keys and values (n, n_kv_heads, b, head_dim).
        mask: bool (t, b), True where the query token sees the branch token.

    Returns:
        (n, n_heads, t, head_dim).
    """
    heads, tokens, head_dim = query.shape[1:]
    groups = heads // prefix[0].shape[1]
    # The query heads of a group stand behind one another, so grouping them is a view and needs no repeated keys.
    grouped = (query * head_dim**-0.5).reshape(query.shape[0], -1, groups * tokens, head_dim)
    allowed = mask.repeat(groups, 1) if groups > 1 else mask
    to_prefix = grouped @ prefix[0].transpose(-1, -2)
    to_branch = (grouped @ branch[0].transpose(-1, -2)).masked_fill(~allowed, float("-inf"))
    weights = torch.cat([to_prefix, to_branch], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    split = to_prefix.shape[-1]
    out = weights[..., :split] @ prefix[1] + weights[..., split:] @ branch[1]
    return out.reshape(query.shape)
