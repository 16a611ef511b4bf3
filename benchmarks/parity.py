"""How far the engine on a device is from the reference implementation, without which its speed means nothing."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from vlm.moondream import Tagger, load_tagger
from vlm.vocabulary import DEFAULT_VOCABULARY

VECTORS = Path(__file__).parent.parent / "tests" / "data" / "moondream2-vectors"


@dataclass(frozen=True)
class Distance:
    """How far one thing is from another.

    Attributes:
        logits: of the first token, from the reference implementation's: rms, relative, the worst of all.
        probabilities: of words, from those of the engine on a CPU in float32: the most of all.
        masses: their logarithms, likewise.
    """

    logits: float
    probabilities: float
    masses: float

    def within(self, most: "Distance") -> bool:
        return all(value <= asdict(most)[name] for name, value in asdict(self).items())


# Exact kernels in float32 are within 1e-5, and a CPU's probabilities within 1e-6; a wrong position is 4e-3 away. In bfloat16 a
# CPU, which adds up in float32 as GPUs do, is 0.0016, 0.003 and 0.008 away. The probabilities of another batch, which is
# what a graph gives that reads from the wrong place, are 0.06 away, and their masses 0.2. float16 is finer than bfloat16.
HALF = Distance(logits=4e-3, probabilities=0.012, masses=0.03)
TOLERANCES = {"float32": Distance(1e-4, 1e-4, 1e-3), "bfloat16": HALF, "float16": HALF}


def parity(device: torch.device, dtype: str, *, most: int | None = None) -> Distance:
    """Compare the engine with what was recorded of the reference, and its scores with a CPU's, batch after batch.

    Where work is captured, the first batch of a size runs as it is, the second is captured, and the third is replayed: so
    scores are compared of as many, with different pictures.

    Args:
        most: pictures at most; ``None`` for all.
    """
    expected = json.loads((VECTORS / "expected.json").read_text())
    recorded = load_file(VECTORS / "expected.safetensors")
    pictures = [Image.open(VECTORS / record["file"]).convert("RGB") for record in expected["images"][:most]]
    tagger, plain = (
        load_tagger(str(VECTORS), device=where, dtype=kind, batch_size=len(pictures))
        for where, kind in ((str(device), dtype), ("cpu", "float32"))
    )
    logits = 0.0
    for name, question in expected["prompts"].items():
        for index, row in enumerate(tagger.first_token_logits(pictures, question).cpu()):
            wanted = recorded[f"image{index}.{name}.first_token_logits"]
            logits = max(logits, float((row - wanted).norm() / wanted.norm()))
    probabilities, masses = apart(tagger, plain, [pictures[start : start + 2] for start in range(0, len(pictures), 2)])
    tagger.close()
    plain.close()
    return Distance(logits, probabilities, masses)


def apart(tagger: Tagger, plain: Tagger, batches: list[list[Image.Image]]) -> tuple[float, float]:
    """Return how far two taggers' scores of batches are from one another: probabilities, and logarithms of masses."""
    probabilities = masses = 0.0
    for batch in batches:
        for seen, expected in zip(*(each.score(batch, DEFAULT_VOCABULARY) for each in (tagger, plain)), strict=True):
            for name, score in expected.items():
                for value, wanted in zip(seen[name].probabilities, score.probabilities, strict=True):
                    probabilities = max(probabilities, abs(value - wanted))
                masses = max(masses, abs(math.log(seen[name].mass / score.mass)))
    return probabilities, masses
