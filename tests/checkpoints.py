"""Small random checkpoints of the real architecture, in the real file form."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.modeling import MoondreamForTagging

TOKENIZER = Path(__file__).parent / "data" / "moondream2-vectors" / "tokenizer.json"


def make_checkpoint(folder: Path, *, layers: int = 2, width: int = 32, seed: int = 0) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json`` into ``folder``."""
    words = len(json.loads(TOKENIZER.read_text())["model"]["vocab"])
    config = {
        "text": {
            "dim": width,
            "ff_dim": 2 * width,
            "n_layers": layers,
            "n_heads": 2,
            "n_kv_heads": 2,
            "vocab_size": words + 64,
        },
        "vision": {
            "enc_dim": width,
            "enc_ff_dim": 2 * width,
            "enc_n_layers": layers,
            "enc_n_heads": 2,
            "proj_out_dim": width,
            "proj_inner_dim": 2 * width,
            "crop_size": 84,
            "overlap_margin": 1,
            "max_crops": 4,
        },
        "tokenizer": {"templates": {"query": {"prefix": [1], "suffix": [3]}}},
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "moondream1", "config": config}))
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    torch.manual_seed(seed)
    model = MoondreamForTagging(MoondreamConfig(config=config))
    tensors = {
        name: tensor if "ln" in name else torch.randn_like(tensor) * (0.5 if name.endswith("wte") else 0.2)
        for name, tensor in model.state_dict().items()
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def small_model(folder: Path) -> dict[str, str]:
    """Make a checkpoint in ``folder``; returns the settings by which a process tags with it, an image at a time, whatever it says."""
    folder.mkdir()
    return {
        "DATAVISOR_VLM_MODEL": str(make_checkpoint(folder)),
        "DATAVISOR_VLM_DEVICE": "cpu",
        "DATAVISOR_VLM_DTYPE": "float32",
        "DATAVISOR_VLM_DETAIL": "low",
        "DATAVISOR_VLM_BATCH_SIZE": "1",
        "DATAVISOR_VLM_MIN_MASS": "0",
        "DATAVISOR_VLM_MIN_PROBABILITY": "0",
    }
