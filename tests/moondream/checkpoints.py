"""Checkpoints of the real architecture at small dimensions, with random weights, for tests that need no upstream."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from vlm.moondream import Tagger, attention, load_tagger, loading
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.modeling import MoondreamForTagging

VECTORS = Path(__file__).parent.parent / "data" / "moondream2-vectors"
TEXT = {"dim": 64, "ff_dim": 96, "n_layers": 3, "vocab_size": 512, "n_heads": 4, "n_kv_heads": 4}
VISION = {
    "enc_dim": 32,
    "enc_patch_size": 42,  # 81 tokens an image instead of 729
    "overlap_margin": 1,
    "enc_n_layers": 2,
    "enc_ff_dim": 48,
    "enc_n_heads": 2,
    "proj_out_dim": 64,
    "proj_inner_dim": 64,
}


def dimensions(**text: int) -> dict[str, Any]:
    tokens = {"templates": {"query": {"prefix": [1, 24, 2], "suffix": [3]}}}
    return {"text": TEXT | text, "vision": VISION, "tokenizer": tokens}


def random_model(seed: int = 0, **text: int) -> MoondreamForTagging:
    torch.manual_seed(seed)
    return MoondreamForTagging(MoondreamConfig(config=dimensions(**text)))


def write_checkpoint(folder: Path, model: MoondreamForTagging) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "moondream1", "config": model.config.config}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    shutil.copy(VECTORS / "tokenizer.json", folder)
    return folder


def random_tagger(folder: Path, seed: int = 0, **text: int) -> Tagger:
    return load_tagger(str(write_checkpoint(folder, random_model(seed, **text))), device="cpu", dtype="float32")


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Have the CPU compute as an accelerator does: attention in one masked call, and padded patches."""
    with (
        patch.object(attention, "computes_fused", lambda _: True),
        patch.object(loading, "computes_fused", lambda _: True),
    ):
        yield


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
