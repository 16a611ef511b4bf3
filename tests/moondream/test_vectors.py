"""The engine against outputs of the upstream implementation, in float32 at a tiny configuration with random weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vlm.moondream import Tagger, load_tagger
from vlm.moondream.crops import overlap_crops

FOLDER = Path(__file__).parent.parent / "data" / "moondream2-vectors"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
DIMENSIONS = list(EXPECTED["prompts"])
INDICES = range(len(EXPECTED["images"]))

# Independent exact implementations agree to 1e-6; a wrong position gives 4e-3, a wrong mask 1e-1.
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return load_tagger(str(FOLDER), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [Image.open(FOLDER / record["file"]).convert("RGB") for record in EXPECTED["images"]]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "expected.safetensors")


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= RELATIVE * expected.norm()


@pytest.mark.parametrize("index", INDICES)
def test_crops_to_the_pixel(index: int, images: list[Image.Image]) -> None:
    record = EXPECTED["images"][index]
    crops, tiling = overlap_crops(images[index])
    assert tiling == tuple(record["tiling"])
    assert crops.shape == (record["n_crops"], 378, 378, 3)
    assert hashlib.sha256(crops.tobytes()).hexdigest() == record["crops_sha256"]


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in one batch"])
def test_image_embeddings(
    together: bool, tagger: Tagger, images: list[Image.Image], tensors: dict[str, torch.Tensor]
) -> None:
    tagger.batch_size = 6 if together else 1
    for index, tokens in enumerate(tagger.image_embeddings(images)):
        if (name := f"image{index}.image_embeddings") in tensors:
            assert_close(tokens, tensors[name])
        assert_close(tokens.mean(0), tensors[f"image{index}.image_embeddings_mean"])


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_prompts(dimension: str, tagger: Tagger) -> None:
    ids = tagger.prompt_ids(EXPECTED["prompts"][dimension])
    assert ids == EXPECTED["images"][0]["questions"][dimension]["prompt_token_ids"]


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in one batch"])
def test_logits_likelihoods_and_answers(
    together: bool, tagger: Tagger, images: list[Image.Image], tensors: dict[str, torch.Tensor]
) -> None:
    tagger.batch_size = 6 if together else 1
    answers = tagger.answers(images, [EXPECTED["prompts"][name] for name in DIMENSIONS], max_new_tokens=8)
    for place, name in enumerate(DIMENSIONS):
        question = EXPECTED["prompts"][name]
        for index, row in enumerate(tagger.first_token_logits(images, question)):
            assert_close(row, tensors[f"image{index}.{name}.first_token_logits"])
        spelled = [text for term in EXPECTED["terms"][name] for text in (term, f" {term}")]
        for index, values in enumerate(tagger.log_likelihoods(images, question, spelled)):
            recorded = EXPECTED["images"][index]["questions"][name]
            assert values == pytest.approx([recorded["term_log_likelihood"][text] for text in spelled], rel=RELATIVE)
            assert answers[index][place] == recorded["greedy_answer"]
