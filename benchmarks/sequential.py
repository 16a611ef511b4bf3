"""The baseline: how the model is commonly run, one image at a time and one question at a time."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.device import seconds
from vlm.moondream.crops import Crops, Tiling
from vlm.moondream.modeling import CropLayout, KeyValue, MoondreamForTagging, rotate
from vlm.vocabulary import Vocabulary

CACHE_SLOTS = 2048
DECODED_TOKENS = 2


class Sequential:
    """Encodes every crop, then prefills the image and each question against a cache of 2,048 slots, and decodes two tokens.

    Args:
        prompt_ids: the token ids of a question.
    """

    def __init__(self, model: MoondreamForTagging, prompt_ids: Callable[[str], list[int]]) -> None:
        self.vision, self.text, self.bos = model.model.vision, model.model.text, model.config.tokens.bos_id
        self.prompt_ids = prompt_ids
        weight, dims = self.text.post_ln.weight, self.text.dims
        shape = (1, dims.n_kv_heads, CACHE_SLOTS, dims.head_dim)
        self.caches: list[KeyValue] = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(dims.n_layers)]
        self.prefix = model.config.vision.tokens + 1
        mask = torch.ones(CACHE_SLOTS, CACHE_SLOTS, dtype=torch.bool, device=weight.device).tril()
        mask[: self.prefix, : self.prefix] = True
        self.mask = mask[None, None]

    def measure(self, images: Sequence[tuple[Crops, Tiling]], vocabulary: Vocabulary) -> tuple[float, float]:
        """Return seconds per image, cut into crops already, and how many of them go to the questions."""
        device = self.text.wte.device
        encoding = asking = 0.0
        self.ask(vocabulary.dimensions[0].question)
        for crops, tiling in images:
            encoding += seconds(device, lambda own=crops, its=tiling: self.encode(own, its))  # type: ignore[misc]
            for dimension in vocabulary:
                asking += seconds(device, lambda question=dimension.question: self.ask(question))  # type: ignore[misc]
        return (encoding + asking) / len(images), asking / len(images)

    def encode(self, crops: Crops, tiling: Tiling) -> None:
        """Encode every crop, as :func:`~vlm.moondream.crops.overlap_crops` cuts them, and put the image into the caches."""
        x = self.vision.patch_emb(self.vision.patches(torch.from_numpy(crops).to(self.text.wte.device)))
        x = x + self.vision.pos_emb
        for block in self.vision.blocks:
            x = x + block.attn.merge(F.scaled_dot_product_attention(*block.attn.split(block.ln1(x))))
            x = x + block.mlp(block.ln2(x))
        layout = CropLayout(0, tuple(range(1, len(crops))), tiling)
        tokens = self.vision.project(self.vision.post_ln(x), [layout])
        bos = self.text.embed(torch.tensor([[self.bos]], device=tokens.device))
        self.run(torch.cat([bos, tokens], dim=1), 0)

    def ask(self, question: str) -> None:
        """Prefill the question and decode two tokens, in place of whatever followed the image before."""
        ids = torch.tensor([self.prompt_ids(question)], device=self.text.wte.device)
        position = self.prefix
        for _ in range(1 + DECODED_TOKENS):
            hidden = self.run(self.text.embed(ids), position)
            position += ids.shape[1]
            ids = self.text.logits(hidden[:, -1:]).argmax(-1)

    def run(self, x: Tensor, position: int) -> Tensor:
        """Run tokens (1, t, dim) through all layers, attending to every slot of the caches."""
        end = position + x.shape[1]
        cos, sin = self.text.rotary(torch.arange(position, end, device=x.device))
        mask = self.mask[:, :, position:end]
        for block, (keys, values) in zip(self.text.layers, self.caches, strict=True):
            normed = block.ln(x)
            query, key, value = block.attn.split(normed)
            keys[:, :, position:end], values[:, :, position:end] = rotate(key, cos, sin), value
            seen = F.scaled_dot_product_attention(
                rotate(query, cos, sin), keys, values, attn_mask=mask, enable_gqa=query.shape[1] != keys.shape[1]
            )
            x = x + block.attn.merge(seen) + block.mlp(normed)
        return x
