"""Moondream2 as a transformers model, built for scoring: image encoder, projection and text decoder.

Parameter names are the published checkpoint's, so ``from_pretrained`` reads the official weights and no code comes
from a hub. The architecture follows upstream's ``moondream/torch`` (2025-06-21). The modules hold weights and nothing
else: whatever a pass needs travels through arguments, so that threads may share one model.

Shapes: ``n`` crops or images, ``t`` tokens, ``d`` width of the part at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .attention import attend, attend_branches
from .configuration import MoondreamConfig, TextDimensions, VisionDimensions
from .crops import Tiling
from .devices import compiled
from .linear import AnyLinear, Linear, QuantizedLinear

LAYER_NORM_EPS = 1e-5
ROTARY_THETA = 10_000.0

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class CropLayout:
    """Where the crops of one image lie in a batch of encoded crops.

    Attributes:
        whole: index of the crop that shows the whole image.
        windows: indices of its windows, row by row.
        tiling: rows and columns of windows.
    """

    whole: int
    windows: tuple[int, ...]
    tiling: Tiling


@lru_cache(maxsize=64)
def pooling_table(size: int, pooled: int, device: torch.device) -> Tensor:
    """Return the matrix, float32 (pooled, size), that averages ``size`` places to ``pooled``.

    Place i takes those from ⌊i · size / pooled⌋ up to ⌈(i + 1) · size / pooled⌉, as PyTorch's ``adaptive_avg_pool2d`` does,
    which Apple's GPUs have for whole multiples only.
    """
    with torch.inference_mode(False):
        table = torch.zeros(pooled, size)
        for place in range(pooled):
            start, end = place * size // pooled, -(-(place + 1) * size // pooled)
            table[place, start:end] = 1 / (end - start)
        return table.to(device)


@lru_cache(maxsize=16)
def rotary_table(dim: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, each float32 (positions, dim / 2), of the angles position · theta^(-2i / dim).

    Kept out of the modules: transformers builds them on the meta device, where a table would be lost.
    """
    with torch.inference_mode(False), torch.no_grad():
        frequencies = ROTARY_THETA ** -(torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)
        angles = torch.arange(positions, dtype=torch.float32, device=device)[:, None] * frequencies
        return angles.cos(), angles.sin()


@compiled
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first dimensions of every head by its position's angles, in float32.

    Pairs are made of the two halves of the rotated part. Upstream writes them back interleaved; queries and keys
    alike, so that their products, all that attention sees of them, are the same without the shuffle.

    Args:
        x: (n, heads, t, head_dim).
        cos, sin: (t, rotary_dim / 2).
    """
    half = cos.shape[-1]
    real, imaginary, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    turned = torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


class MLP(nn.Module):
    """Two linear layers with a GELU (tanh form) between them."""

    def __init__(self, dim: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1: AnyLinear = Linear(dim, inner)
        self.fc2: AnyLinear = Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1.gelu(x))
        return out


class Attention(nn.Module):
    """The fused query, key and value projection, and the projection behind; what lies between is a function."""

    def __init__(self, dim: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, dim // n_heads
        self.qkv: AnyLinear = Linear(dim, (n_heads + 2 * n_kv_heads) * self.head_dim)
        self.proj: AnyLinear = Linear(dim, dim)

    @property
    def exact(self) -> bool:
        """Whether scores are worth more digits than the number format has: not behind products of bytes."""
        return not isinstance(self.qkv, QuantizedLinear)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, t, d) to query (n, n_heads, t, head_dim), key and value (n, n_kv_heads, t, head_dim)."""
        heads = self._heads(self.qkv(x))
        queries, keys = self.n_heads, self.n_heads + self.n_kv_heads
        return heads[:, :queries], heads[:, queries:keys], heads[:, keys:]

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`split` with queries and keys turned by their positions' angles, both in one go."""
        heads = self._heads(self.qkv(x))
        queries, keys = self.n_heads, self.n_heads + self.n_kv_heads
        both = rotate(heads[:, :keys], cos, sin)
        return both[:, :queries], both[:, queries:], heads[:, keys:]

    def key_value(self, x: Tensor) -> KeyValue:
        """Map (n, t, d) to key and value only, each (n, n_kv_heads, t, head_dim)."""
        key, value = self._heads(self.qkv.tail(x, self.n_heads * self.head_dim)).chunk(2, dim=1)
        return key, value

    def merge(self, x: Tensor) -> Tensor:
        """Map the heads' outputs (n, n_heads, t, head_dim) to (n, t, d)."""
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)


class VisionBlock(nn.Module):
    """Pre-norm transformer block; all patches of a crop see one another."""

    def __init__(self, dims: VisionDimensions) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dims.enc_dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dims.enc_dim, dims.enc_n_heads, dims.enc_n_heads)
        self.ln2 = nn.LayerNorm(dims.enc_dim, eps=LAYER_NORM_EPS)
        self.mlp = MLP(dims.enc_dim, dims.enc_ff_dim, dims.enc_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn.merge(attend(*self.attn.split(self.ln1(x)), exact=self.attn.exact))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class VisionEncoder(nn.Module):
    """From pixels to 729 tokens of the decoder's width."""

    def __init__(self, dims: VisionDimensions) -> None:
        super().__init__()
        self.dims = dims
        self.patch_emb: AnyLinear = Linear(dims.patch_dim, dims.enc_dim)
        self.padding = 0  # zeros behind every patch
        self.pos_emb = nn.Parameter(torch.empty(1, dims.tokens, dims.enc_dim))
        self.blocks = nn.ModuleList(VisionBlock(dims) for _ in range(dims.enc_n_layers))
        self.post_ln = nn.LayerNorm(dims.enc_dim, eps=LAYER_NORM_EPS)
        self.proj_mlp = MLP(2 * dims.enc_dim, dims.proj_inner_dim, dims.proj_out_dim)

    @torch.no_grad()
    def align_patches(self, multiple: int) -> None:
        """Pad patches, and their weights, with zeros to a multiple: GPUs are slow at rows of 588 numbers, not at 592."""
        if isinstance(self.patch_emb, Linear):
            self.padding = -self.dims.patch_dim % multiple
            padded = F.pad(self.patch_emb.weight, (0, self.padding))
            self.patch_emb.weight = nn.Parameter(padded, requires_grad=False)

    def patches(self, crops: Tensor) -> Tensor:
        """Map uint8 crops (n, 378, 378, 3) to (n, 729, 588) in [-1, 1]; a patch is flattened channel, row, column."""
        grid, size = self.dims.grid, self.dims.enc_patch_size
        tiles = crops.reshape(-1, grid, size, grid, size, crops.shape[-1]).permute(0, 1, 3, 5, 2, 4)
        flat = tiles.flatten(3).flatten(1, 2)
        if self.padding:
            flat = F.pad(flat, (0, self.padding))  # whatever it becomes meets weights of zero
        pixels: Tensor = flat.to(self.pos_emb.dtype)
        return (pixels / 255 - 0.5) / 0.5

    def encode(self, crops: Tensor) -> Tensor:
        """Map uint8 crops (n, 378, 378, 3) to features (n, 729, enc_dim)."""
        x = self.patch_emb(self.patches(crops)) + self.pos_emb
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.post_ln(x)
        return out

    def stitch(self, windows: Tensor, tiling: Tiling) -> Tensor:
        """Join windows' features without their inner margins and pool them to the size of one crop.

        Args:
            windows: (images, rows · columns, 729, enc_dim), row by row.

        Returns:
            (images, 729, enc_dim).
        """
        (rows, columns), grid, margin = tiling, self.dims.grid, self.dims.overlap_margin
        if tiling == (1, 1):
            return windows[:, 0]
        tiles = windows.reshape(len(windows), rows, columns, grid, grid, -1)
        lines = []
        for row in range(rows):
            top, bottom = (0 if row == 0 else margin), (grid if row == rows - 1 else grid - margin)
            line = []
            for column in range(columns):
                left, right = (0 if column == 0 else margin), (grid if column == columns - 1 else grid - margin)
                line.append(tiles[:, row, column, top:bottom, left:right])
            lines.append(torch.cat(line, dim=2))
        plane = torch.cat(lines, dim=1)
        # Averages of rows, then of columns, as products: float32, so that the result is rounded once.
        over_rows, over_columns = (pooling_table(size, grid, plane.device) for size in plane.shape[1:3])
        averaged = (over_rows @ plane.flatten(2).float()).view(-1, grid, *plane.shape[2:])
        pooled: Tensor = over_columns @ averaged
        return pooled.flatten(1, 2).to(plane.dtype)

    def project(self, features: Tensor, layouts: Sequence[CropLayout]) -> Tensor:
        """Join each image's whole view and windows: features (crops, 729, enc_dim) to (images, 729, proj_out_dim)."""
        indices = [index for lay in layouts for index in (lay.whole, *lay.windows)]
        every = features
        if indices != list(range(len(features))):
            # One index for the whole batch, from pinned memory: a copy from elsewhere waits for all that a GPU has to do.
            places = torch.tensor(indices, pin_memory=features.device.type == "cuda")
            every = features[places.to(features.device, non_blocking=True)]
        views = torch.split(every, [1 + len(lay.windows) for lay in layouts])
        joined: dict[int, Tensor] = {}
        for tiling in dict.fromkeys(lay.tiling for lay in layouts):
            alike = [place for place, lay in enumerate(layouts) if lay.tiling == tiling]
            stacked = torch.stack([views[place] for place in alike])
            joined |= zip(alike, torch.cat([stacked[:, 0], self.stitch(stacked[:, 1:], tiling)], dim=-1), strict=True)
        out: Tensor = self.proj_mlp(torch.stack([joined[place] for place in range(len(layouts))]))
        return out


class TextBlock(nn.Module):
    """One LayerNorm feeds attention and feed-forward in parallel: ``x + attn(ln x) + mlp(ln x)``."""

    def __init__(self, dims: TextDimensions) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(dims.dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dims.dim, dims.n_heads, dims.n_kv_heads)
        self.mlp = MLP(dims.dim, dims.ff_dim, dims.dim)


class TextDecoder(nn.Module):
    """The decoder. Positions 0–729 (bos, then the image) see one another; what follows sees them and its own branch."""

    def __init__(self, dims: TextDimensions) -> None:
        super().__init__()
        self.dims = dims
        self.wte = nn.Parameter(torch.empty(dims.vocab_size, dims.dim))
        self.blocks = nn.ModuleList(TextBlock(dims) for _ in range(dims.n_layers))
        self.post_ln = nn.LayerNorm(dims.dim, eps=LAYER_NORM_EPS)
        self.lm_head: AnyLinear = Linear(dims.dim, dims.vocab_size)

    @property
    def layers(self) -> list[TextBlock]:
        return cast("list[TextBlock]", list(self.blocks))

    def embed(self, tokens: Tensor) -> Tensor:
        """Map ids (…) to embeddings (…, dim), in the number format that the decoder computes in."""
        return F.embedding(tokens, self.wte).to(self.post_ln.weight.dtype)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = rotary_table(self.dims.rotary_dim, self.dims.max_context, positions.device)
        return cos[positions], sin[positions]

    def prefill(self, x: Tensor) -> list[KeyValue]:
        """Run bos and image embeddings (n, 730, dim) and return every layer's rotated keys and values.

        Nothing reads the prefix's own output, so the last layer stops at its keys and values.
        """
        cos, sin = self.rotary(torch.arange(x.shape[1], device=x.device))
        prefix: list[KeyValue] = []
        *blocks, last = self.layers
        for block in blocks:
            normed = block.ln(x)
            query, key, value = block.attn.turned(normed, cos, sin)
            # They are views into the whole product, which would stay in memory with them.
            key, value = (part.clone(memory_format=torch.contiguous_format) for part in (key, value))
            prefix.append((key, value))
            seen = attend(query, key, value, exact=block.attn.exact)
            x = x + block.attn.merge(seen) + block.mlp(normed)
        key, value = last.attn.key_value(last.ln(x))
        prefix.append((rotate(key, cos, sin), value.contiguous()))
        return prefix

    def extend(
        self,
        prefix: Sequence[KeyValue],
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        select: Tensor,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run tokens behind the prefix, each seeing the whole prefix and those branch tokens that the mask allows.

        Args:
            prefix: per layer, keys and values of the image (n, n_kv_heads, 730, head_dim).
            tokens: ids (t,), the same behind every image, or (n, t).
            positions: (t,), counted along each token's own branch.
            mask: bool (t, past + t), True where a token (row) sees a branch token (column).
            select: indices (s,) of the tokens whose output is wanted.
            past: per layer, keys and values of branch tokens that were run before.

        Returns:
            Hidden states (n, s, dim) in front of ``lm_head``, and ``past`` with these tokens added.
        """
        images = prefix[0][0].shape[0]
        x = self.embed(tokens)
        if tokens.dim() == 1:
            x = x.expand(images, -1, -1)
        cos, sin = self.rotary(positions)
        branch: list[KeyValue] = []
        for layer, block in enumerate(self.layers):
            normed = block.ln(x)
            query, key, value = block.attn.turned(normed, cos, sin)
            if past is not None:
                key = torch.cat([past[layer][0], key], dim=2)
                value = torch.cat([past[layer][1], value], dim=2)
            branch.append((key, value))
            if layer == len(self.blocks) - 1:
                # Only the selected outputs are read, so only they pass through the last layer.
                x, normed, query, mask = x[:, select], normed[:, select], query[:, :, select], mask[select]
            seen = attend_branches(query, prefix[layer], (key, value), mask)
            x = x + block.attn.merge(seen) + block.mlp(normed)
        return x, branch

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (…, dim) to logits (…, vocab_size), in float32."""
        out: Tensor = self.lm_head(self.post_ln(hidden))
        return out.float()


class Moondream(nn.Module):
    """The two halves under the names of the checkpoint."""

    def __init__(self, config: MoondreamConfig) -> None:
        super().__init__()
        self.vision = VisionEncoder(config.vision)
        self.text = TextDecoder(config.text)


class MoondreamForTagging(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Moondream2 without its pointing and detection heads."""

    config_class = MoondreamConfig
    base_model_prefix = ""
    _keys_to_ignore_on_load_unexpected = [r"^model\.region\."]

    def __init__(self, config: MoondreamConfig) -> None:
        super().__init__(config)
        self.model = Moondream(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start training from LayerNorms of one, embeddings of 0.02 and linear layers that keep the variance."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, VisionEncoder):
            nn.init.normal_(module.pos_emb, std=0.02)
        elif isinstance(module, TextDecoder):
            nn.init.normal_(module.wte, std=0.02)

    def encode_crops(self, crops: Tensor) -> Tensor:
        """Map uint8 crops (n, 378, 378, 3) to features (n, 729, enc_dim)."""
        out: Tensor = self.model.vision.encode(crops)
        return out

    def image_embeddings(self, features: Tensor, layouts: Sequence[CropLayout]) -> Tensor:
        """Map encoded crops (crops, 729, enc_dim) to image tokens (images, 729, dim)."""
        out: Tensor = self.model.vision.project(features, layouts)
        return out

    def prefill(self, embeddings: Tensor) -> list[KeyValue]:
        """Put bos in front of image tokens (n, 729, dim) and return the keys and values of all 730 positions."""
        text: TextDecoder = self.model.text
        first = torch.full((embeddings.shape[0], 1), self.config.tokens.bos_id, device=embeddings.device)
        bos = text.embed(first)
        return text.prefill(torch.cat([bos, embeddings.to(bos.dtype)], dim=1))

    def forward(
        self,
        crops: Tensor,
        layouts: Sequence[CropLayout],
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        select: Tensor,
    ) -> Tensor:
        """Run a batch of images with token branches behind each of them; differentiable, so it also trains.

        Args:
            crops: uint8 (crops, 378, 378, 3) of all images.
            layouts: where each image's crops lie.
            tokens, positions, mask, select: the branches, as in :meth:`TextDecoder.extend`.

        Returns:
            Logits, float32 (images, s, vocab_size), at the selected tokens.
        """
        prefix = self.prefill(self.image_embeddings(self.encode_crops(crops), layouts))
        text: TextDecoder = self.model.text
        hidden, _ = text.extend(prefix, tokens, positions, mask, select)
        return text.logits(hidden)
