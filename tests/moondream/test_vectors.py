"""The engine against outputs of the upstream implementation, in float32 at a tiny configuration with random weights.

On the CPU as a CPU computes and as a GPU would, and on the GPUs that the machine has.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vlm.moondream import PreparedImage, Tagger, load_tagger
from vlm.moondream.crops import overlap_crops
from vlm.moondream.passes import Passes
from vlm.vocabulary import DEFAULT_VOCABULARY

from .checkpoints import VECTORS, as_on_a_gpu

EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())
DIMENSIONS = list(EXPECTED["prompts"])
INDICES = range(len(EXPECTED["images"]))

# Independent exact implementations agree to 1e-6; a wrong position gives 4e-3, a wrong mask 1e-1.
RELATIVE = 1e-5
THERE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
GPUS = [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"a machine without {name}"))
    for name, there in THERE.items()
]


@pytest.fixture(scope="module", params=["alone", "in one batch", "as on a GPU", *GPUS])
def tagger(request: pytest.FixtureRequest) -> Iterator[Tagger]:
    device = request.param if request.param in THERE else "cpu"
    batch_size = 1 if request.param == "alone" else 6
    with as_on_a_gpu() if request.param == "as on a GPU" else nullcontext():
        tagger = load_tagger(str(VECTORS), device=device, dtype="float32", batch_size=batch_size)
        if request.param == "as on a GPU":
            tagger._passes = Passes(capture=False)
        # A GPU is quick, and has its passes through the encoder captured and replayed only if they are many.
        yield encoding_once(tagger) if device == "cpu" else tagger
        tagger.close()


@pytest.fixture(scope="module")
def plain() -> Tagger:
    return encoding_once(load_tagger(str(VECTORS), device="cpu", dtype="float32", batch_size=2))


def encoding_once(tagger: Tagger) -> Tagger:
    encode = tagger._image_tokens
    known: dict[bytes, torch.Tensor] = {}

    def encode_once(batch: list[PreparedImage]) -> torch.Tensor:
        # All tests ask about the same images, and encoding them takes most of the time.
        keys = [hashlib.sha256(image.crops.tobytes()).digest() for image in batch]
        if new := {key: image for key, image in zip(keys, batch, strict=True) if key not in known}:
            known.update(zip(new, encode(list(new.values())), strict=True))
        return torch.stack([known[key] for key in keys])

    tagger._image_tokens = encode_once  # type: ignore[method-assign]
    return tagger


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [Image.open(VECTORS / record["file"]).convert("RGB") for record in EXPECTED["images"]]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(VECTORS / "expected.safetensors")


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual.cpu() - expected).norm() <= RELATIVE * expected.norm()


@pytest.mark.parametrize("index", INDICES)
def test_crops_to_the_pixel(index: int, images: list[Image.Image]) -> None:
    record = EXPECTED["images"][index]
    crops, tiling = overlap_crops(images[index])
    assert tiling == tuple(record["tiling"])
    assert crops.shape == (record["n_crops"], 378, 378, 3)
    assert hashlib.sha256(crops.tobytes()).hexdigest() == record["crops_sha256"]


def test_image_embeddings(tagger: Tagger, images: list[Image.Image], tensors: dict[str, torch.Tensor]) -> None:
    for index, tokens in enumerate(tagger.image_embeddings(images)):
        if (name := f"image{index}.image_embeddings") in tensors:
            assert_close(tokens, tensors[name])
        assert_close(tokens.mean(0), tensors[f"image{index}.image_embeddings_mean"])


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_prompts(dimension: str, tagger: Tagger) -> None:
    ids = tagger.prompt_ids(EXPECTED["prompts"][dimension])
    assert ids == EXPECTED["images"][0]["questions"][dimension]["prompt_token_ids"]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_first_token_logits(
    dimension: str, tagger: Tagger, images: list[Image.Image], tensors: dict[str, torch.Tensor]
) -> None:
    for index, row in enumerate(tagger.first_token_logits(images, EXPECTED["prompts"][dimension])):
        assert_close(row, tensors[f"image{index}.{dimension}.first_token_logits"])


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_log_likelihoods(dimension: str, tagger: Tagger, images: list[Image.Image]) -> None:
    spelled = [text for term in EXPECTED["terms"][dimension] for text in (term, f" {term}")]
    for index, values in enumerate(tagger.log_likelihoods(images, EXPECTED["prompts"][dimension], spelled)):
        recorded = EXPECTED["images"][index]["questions"][dimension]["term_log_likelihood"]
        assert values == pytest.approx([recorded[text] for text in spelled], rel=RELATIVE)


def test_scores_of_batches_one_after_another(tagger: Tagger, plain: Tagger, images: list[Image.Image]) -> None:
    """Where passes are captured the second batch makes the graph, and the third one is replayed through it."""
    for start in (0, 2, 4):
        pair = images[start : start + 2]
        seen, expected = (each.score(pair, DEFAULT_VOCABULARY) for each in (tagger, plain))
        for one, other in zip(seen, expected, strict=True):
            for name, score in other.items():
                assert one[name].probabilities == pytest.approx(score.probabilities, rel=10 * RELATIVE)
                assert math.log(one[name].mass) == pytest.approx(math.log(score.mass), rel=RELATIVE)


def test_greedy_answers(tagger: Tagger, images: list[Image.Image]) -> None:
    answers = tagger.answers(images, [EXPECTED["prompts"][name] for name in DIMENSIONS], max_new_tokens=8)
    for index, row in enumerate(answers):
        recorded = EXPECTED["images"][index]["questions"]
        assert row == [recorded[name]["greedy_answer"] for name in DIMENSIONS]
    alone = tagger.answer(images[:1], EXPECTED["prompts"][DIMENSIONS[0]], max_new_tokens=8)
    assert alone == [answers[0][0]]
