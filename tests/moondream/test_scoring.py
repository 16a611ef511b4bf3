"""Scoring and answering on small random weights: what must not change a result, and how words become probabilities."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from vlm.moondream import DimensionScore, EngineError, PreparedImage, Tagger, attention, devices, load_tagger
from vlm.moondream.attention import attend, attend_branches, attend_by_products
from vlm.moondream.modeling import CropLayout, pooling_table
from vlm.moondream.scores import Spelling, dimension_score, spellings
from vlm.vocabulary import DEFAULT_VOCABULARY, Dimension, Vocabulary

from .checkpoints import VECTORS, VISION, random_image, random_model, random_tagger, write_checkpoint

QUESTION = DEFAULT_VOCABULARY.dimensions[0].question
OVERLAPPING = Vocabulary((Dimension("weather", QUESTION, ("sun", "sunny", "snow", "snowy", "day")),))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return random_tagger(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def unannounced(tmp_path: Path) -> Tagger:
    """A tagger to which the answer token never occurs, so that banning it changes nothing."""
    tagger = random_tagger(tmp_path)
    with torch.no_grad():
        tagger._model.model.text.lm_head.bias[tagger.config.tokens.answer_id] = -1e4
    return tagger


@pytest.fixture
def images() -> list[Image.Image]:
    sizes = [(640, 480), (300, 300), (200, 900), (378, 378)]
    return [random_image(*size, seed) for seed, size in enumerate(sizes)]


def flat(results: list[dict[str, DimensionScore]]) -> list[float]:
    return [value for result in results for score in result.values() for value in (*score.probabilities, score.mass)]


# -- what must not matter ----------------------------------------------------------------------------------------------
def test_results_do_not_depend_on_the_batch(tagger: Tagger, images: list[Image.Image]) -> None:
    tagger.batch_size = 1
    alone = tagger.score(images, DEFAULT_VOCABULARY)
    tagger.batch_size = len(images)
    together = tagger.score(images, DEFAULT_VOCABULARY)
    assert flat(together) == pytest.approx(flat(alone), rel=1e-4)
    assert len(set(flat(alone))) > len(flat(alone)) / 2  # the images do make a difference


def test_answers_do_not_depend_on_the_batch(tagger: Tagger, images: list[Image.Image]) -> None:
    questions = [dimension.question for dimension in DEFAULT_VOCABULARY]
    tagger.batch_size = 1
    alone = [[tagger.answer([image], question, 5)[0] for question in questions] for image in images]
    tagger.batch_size = len(images)
    assert tagger.answers(images, questions, 5) == alone
    assert tagger.answers(images, [QUESTION, QUESTION], 5) == [[row[0], row[0]] for row in alone]


def test_two_threads_share_a_tagger(tagger: Tagger, images: list[Image.Image]) -> None:
    tagger.batch_size = 2
    expected = [flat(tagger.score(images, DEFAULT_VOCABULARY)), flat(tagger.score(images[::-1], OVERLAPPING))]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            running = [
                pool.submit(tagger.score, images, DEFAULT_VOCABULARY),
                pool.submit(tagger.score, images[::-1], OVERLAPPING),
            ]
            for task, values in zip(running, expected, strict=True):
                assert flat(task.result()) == pytest.approx(values, rel=1e-5)


def test_the_tree_equals_separate_sequences(tagger: Tagger, images: list[Image.Image]) -> None:
    answers = ["sun", "sunny", " sunny", "snow", "dark", "day"]
    together = tagger.log_likelihoods(images[:2], QUESTION, answers)
    for place, answer in enumerate(answers):
        separate = tagger.log_likelihoods(images[:2], QUESTION, [answer])
        assert [row[0] for row in separate] == pytest.approx([row[place] for row in together], rel=1e-5)


def test_a_vocabulary_equals_its_dimensions_alone(tagger: Tagger, images: list[Image.Image]) -> None:
    whole = tagger.score(images[:1], DEFAULT_VOCABULARY)[0]
    for name in DEFAULT_VOCABULARY.names:
        alone = tagger.score(images[:1], DEFAULT_VOCABULARY.only((name,)))[0][name]
        assert whole[name].probabilities == pytest.approx(alone.probabilities, rel=1e-5)
        assert whole[name].mass == pytest.approx(alone.mass, rel=1e-5)


def test_questions_with_one_key_are_answered_alike(tagger: Tagger, images: list[Image.Image]) -> None:
    (tidy,) = OVERLAPPING
    untidy = replace(tidy, question=f" \n{QUESTION} ", wordings=(f"{QUESTION} Really?\n",))
    tidy = replace(tidy, wordings=(f"{QUESTION} Really?",))
    assert untidy.asked == tidy.asked
    expected, seen = (tagger.score(images[:1], Vocabulary((each,))) for each in (tidy, untidy))
    assert flat(seen) == flat(expected)
    assert tagger.answer(images[:1], f" {QUESTION}\n", 3) == tagger.answer(images[:1], QUESTION, 3)


def test_prepared_images_score_like_images(tagger: Tagger, images: list[Image.Image]) -> None:
    prepared = [tagger.prepare(image) for image in images]
    assert flat(tagger.score(prepared, OVERLAPPING)) == flat(tagger.score(images, OVERLAPPING))


def test_low_detail_encodes_one_crop(tagger: Tagger, images: list[Image.Image]) -> None:
    whole = images[0].resize((378, 378), Image.Resampling.LANCZOS)
    assert torch.equal(tagger.image_embeddings(images[:1], "low"), tagger.image_embeddings([whole]))


# -- heads and attention -----------------------------------------------------------------------------------------------
def test_grouped_key_heads_equal_repeated_ones(tmp_path: Path, images: list[Image.Image]) -> None:
    grouped, repeated = random_model(n_kv_heads=2), random_model(seed=1, n_kv_heads=4)
    dims = grouped.config.text
    weights = grouped.state_dict()
    for name in [name for name in weights if ".text." in name and ".qkv." in name]:
        heads = weights[name].unflatten(0, (-1, dims.head_dim))
        query, key, value = heads.split([dims.n_heads, dims.n_kv_heads, dims.n_kv_heads])
        both = [tensor.repeat_interleave(dims.n_heads // dims.n_kv_heads, dim=0) for tensor in (key, value)]
        weights[name] = torch.cat([query, *both]).flatten(0, 1)
    repeated.load_state_dict(weights)
    few, many = (
        load_tagger(str(write_checkpoint(tmp_path / name, model)), device="cpu", dtype="float32")
        for name, model in (("grouped", grouped), ("repeated", repeated))
    )
    expected = many.first_token_logits(images, QUESTION)
    torch.testing.assert_close(few.first_token_logits(images, QUESTION), expected, rtol=1e-4, atol=1e-5)
    assert few.answer(images, QUESTION, 4) == many.answer(images, QUESTION, 4)


@pytest.mark.parametrize(("exact", "least", "most"), [(True, 0, 4e-3), (False, 5e-3, 1)])
def test_sharp_attention_keeps_its_scores_digits(exact: bool, least: float, most: float) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 4, 300, 64).bfloat16() for _ in range(3))
    query = 8 * query  # scores of a standard deviation of 8
    expected = attend(query.float(), key.float(), value.float())
    seen = attend_by_products(query, key, value, exact=exact).float()
    assert least <= (seen - expected).norm() / expected.norm() <= most
    prefix, branch = ((key[:, :, part], value[:, :, part]) for part in (slice(0, 290), slice(290, None)))
    seen = attend_branches(query, prefix, branch, torch.ones(300, 10, dtype=torch.bool)).float()
    assert (seen - expected).norm() / expected.norm() <= 4e-3


@pytest.mark.parametrize("size", [27, 38, 46, 65, 103])
def test_pooling_as_a_product(size: int) -> None:
    torch.manual_seed(0)
    plane = torch.randn(1, size, 5)
    expected = torch.nn.functional.adaptive_avg_pool1d(plane.transpose(1, 2), 27).transpose(1, 2)
    torch.testing.assert_close(pooling_table(size, 27, torch.device("cpu")) @ plane, expected)


class AppleGPU(TorchDispatchMode):
    """Refuses what PyTorch has not for MPS: doubles, and pooling to what is no divisor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        doubles = isinstance(out, torch.Tensor) and out.dtype == torch.float64
        assert not doubles, f"{func} makes doubles"
        assert "adaptive" not in func.__name__
        return out


def test_apple_gpus_have_what_the_engine_needs(tagger: Tagger, images: list[Image.Image]) -> None:
    with AppleGPU():
        tagger.score(images, DEFAULT_VOCABULARY)
        tagger.answer(images, QUESTION, 3)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_both_ways_of_attention_agree(kv_heads: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, 4, 21, 16)
    key, value = torch.randn(2, 3, kv_heads, 33, 16)
    repeat = 4 // kv_heads
    weights = (query @ key.repeat_interleave(repeat, 1).transpose(-1, -2) / 4).softmax(-1)
    expected = weights @ value.repeat_interleave(repeat, 1)
    for way in (attend, attend_by_products):
        seen = way(query.to(dtype), key.to(dtype), value.to(dtype)).float()
        assert (seen - expected).norm() <= tolerance * expected.norm()
    mask = torch.ones(21, 33, dtype=torch.bool)
    parts = [(key[:, :, part], value[:, :, part]) for part in (slice(0, 20), slice(20, None))]
    seen = attend_branches(query, parts[0], parts[1], mask[:, 20:])
    assert (seen - expected).norm() <= 1e-6 * expected.norm()


def test_a_cpu_with_bfloat16_products_takes_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = load_tagger(str(write_checkpoint(tmp_path, random_model())), device="cpu", dtype="bfloat16")
    images, taken = [random_image(640, 480)], []
    monkeypatch.setattr(attention, "cpu_computes_bfloat16", lambda: False)
    expected = tagger.first_token_logits(images, QUESTION)

    def by_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, exact: bool) -> torch.Tensor:
        taken.append(query.dtype)
        return attend_by_products(query, key, value, exact=exact)

    monkeypatch.setattr(devices, "CPU_CACHE", 8 * 81 * VISION["enc_ff_dim"] * 2)
    monkeypatch.setattr(attention, "cpu_computes_bfloat16", lambda: True)
    monkeypatch.setattr(attention, "attend_by_products", by_products)
    logits = tagger.first_token_logits(images, QUESTION)
    # Nine crops, eight at once, through two layers, then the decoder's layers but the last.
    assert taken == [torch.bfloat16] * (2 * 2 + 2)
    assert (logits - expected).norm() <= 2e-2 * expected.norm()


# -- words, probabilities, mass ----------------------------------------------------------------------------------------
def test_an_answer_counts_for_the_longest_word_that_fits() -> None:
    words = ("sun", "sunny", "rain")
    spelled = (Spelling(0, None), Spelling(1, 0), Spelling(2, None))
    # 0.5 begin with “sun”, 0.4 of them go on to “sunny”; 0.3 say “rain”.
    score = dimension_score(words, [math.log(0.5), math.log(0.4), math.log(0.3)], spelled)
    assert score.probabilities == pytest.approx((0.1 / 0.8, 0.4 / 0.8, 0.3 / 0.8))
    assert score.mass == pytest.approx(0.8)
    assert score.best == ("sunny", pytest.approx(0.5))


def test_words_that_begin_with_one_another(unannounced: Tagger, images: list[Image.Image]) -> None:
    tagger = unannounced
    image, words = images[:1], OVERLAPPING.dimensions[0].words
    forms = {word: spellings(word) for word in words}
    answers = [form for word in words for form in forms[word]]
    encoded = {form: tuple(tagger._encode(form)) for form in answers}
    assert encoded["sunny"][: len(encoded["sun"])] == encoded["sun"]  # they do overlap with this tokenizer
    likelihood = {
        encoded[form]: math.exp(value)
        for form, value in zip(answers, tagger.log_likelihoods(image, QUESTION, answers)[0], strict=True)
    }
    # Probability of each spelling that no longer allowed spelling goes on from, by enumeration.
    own = dict(likelihood)
    for ids in sorted(likelihood, key=len):
        shorter = [other for other in likelihood if other != ids and ids[: len(other)] == other]
        if shorter:
            own[max(shorter, key=len)] -= likelihood[ids]
    weights = [sum(own[ids] for ids in {encoded[form] for form in forms[word]}) for word in words]
    score = tagger.score(image, OVERLAPPING)[0]["weather"]
    assert score.probabilities == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-4)
    assert score.mass == pytest.approx(sum(weights), rel=1e-4)
    assert score.mass < sum(likelihood.values())  # which counts “sunny” twice


def test_probabilities_and_mass_without_overlap(unannounced: Tagger, images: list[Image.Image]) -> None:
    tagger = unannounced
    dimension = DEFAULT_VOCABULARY.dimensions[1]
    forms = [form for word in dimension.words for form in spellings(word)]
    values = tagger.log_likelihoods(images[:1], dimension.question, forms)[0]
    sums = [sum(math.exp(value) for value in values[4 * i : 4 * i + 4]) for i in range(len(dimension.words))]
    score = tagger.score(images[:1], DEFAULT_VOCABULARY)[0][dimension.name]
    assert score.probabilities == pytest.approx([value / sum(sums) for value in sums], rel=1e-4)
    assert score.mass == pytest.approx(sum(sums), rel=1e-4)
    assert score.best[1] == max(score.probabilities)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    tagger = random_tagger(tmp_path)
    with torch.no_grad():
        tagger._model.model.text.lm_head.bias[7] = value
    image = [random_image(64, 64)]
    for ask in (
        lambda: tagger.score(image, DEFAULT_VOCABULARY),
        lambda: tagger.log_likelihoods(image, QUESTION, ["dark"]),
        lambda: tagger.answer(image, QUESTION),
    ):
        with pytest.raises(EngineError, match="not finite"):
            ask()


def test_a_question_that_is_too_long_is_an_error(tagger: Tagger, images: list[Image.Image]) -> None:
    endless = "sun " * 2000
    with pytest.raises(EngineError, match="Shorten the question"):
        tagger.answer(images[:1], endless)
    with pytest.raises(EngineError, match="Shorten the question"):
        tagger.score(images[:1], Vocabulary((Dimension("weather", endless, ("sun", "rain")),)))


def test_nothing_asked_is_nothing_answered(tagger: Tagger, images: list[Image.Image]) -> None:
    assert tagger.answers(images, []) == tagger.log_likelihoods(images, QUESTION, []) == [[]] * len(images)
    assert tagger.score([], DEFAULT_VOCABULARY) == []


def test_no_answer_holds_the_token_that_announces_one(tmp_path: Path) -> None:
    tagger, image = random_tagger(tmp_path), [random_image(64, 64)]
    bias = tagger._model.model.text.lm_head.bias
    tokens, names = tagger.config.tokens, Tokenizer.from_file(str(VECTORS / "tokenizer.json"))
    with torch.no_grad():
        bias[tokens.answer_id], bias[300] = 2000, 1000
    assert tagger.answer(image, QUESTION, 3) == [names.decode([300, 300, 300])]
    with torch.no_grad():
        bias[tokens.eos_id] = 1500
    assert tagger.answer(image, QUESTION, 3) == [""]


def test_the_token_that_announces_an_answer_takes_nothing_from_the_mass(tmp_path: Path) -> None:
    tagger, image = random_tagger(tmp_path), [random_image(64, 64)]
    bias = tagger._model.model.text.lm_head.bias
    seen = []
    for value in (-1e4, 0, 20):
        with torch.no_grad():
            bias[tagger.config.tokens.answer_id] = value
        seen.append(flat(tagger.score(image, DEFAULT_VOCABULARY)))
    assert seen[1] == pytest.approx(seen[0], rel=1e-4)
    assert seen[2] == pytest.approx(seen[0], rel=1e-4)
    # The reference implementation's log-likelihoods are another matter.
    assert tagger.log_likelihoods(image, QUESTION, ["dark"])[0][0] < -15


def test_no_new_token_is_an_error(tagger: Tagger, images: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tagger.answer(images[:1], QUESTION, max_new_tokens=0)


# -- crops, memory -----------------------------------------------------------------------------------------------------
def test_an_image_of_one_window_is_encoded_once(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, rows = tagger._model.encode_crops, []

    def counting(crops: torch.Tensor) -> torch.Tensor:
        rows.append(len(crops))
        return encode(crops)

    monkeypatch.setattr(tagger._model, "encode_crops", counting)
    tagger.batch_size = 4
    photo, small = random_image(640, 480), random_image(300, 300)
    tokens = tagger.image_embeddings([photo, small, photo])
    assert sum(rows) == 9 + 1 + 9
    torch.testing.assert_close(tokens[0], tokens[2], rtol=1e-4, atol=1e-5)
    crops = torch.from_numpy(tagger.prepare(small).crops)
    with torch.inference_mode():
        twice = tagger._model.image_embeddings(encode(torch.cat([crops, crops])), [CropLayout(0, (1,), (1, 1))])
    torch.testing.assert_close(tokens[1], twice[0], rtol=1e-4, atol=1e-5)


def test_full_memory_halves_the_batch(
    tagger: Tagger, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = flat(tagger.score([*images, images[0]], OVERLAPPING))
    encode, sizes = tagger._image_tokens, []

    def small(batch: list[PreparedImage]) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(batch)

    monkeypatch.setattr(tagger, "_image_tokens", small)
    tagger.batch_size = 5
    assert flat(tagger.score([*images, images[0]], OVERLAPPING)) == pytest.approx(expected, rel=1e-4)
    assert sizes == [5, 2, 2, 1]
    assert tagger.batch_size == 2


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), EngineError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), EngineError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), EngineError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), EngineError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), EngineError),
        (RuntimeError("something else"), RuntimeError),
    ],
)
def test_one_image_that_does_not_fit_is_an_error(
    error: RuntimeError, raised: type[Exception], tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(batch: list[PreparedImage]) -> torch.Tensor:
        raise error

    monkeypatch.setattr(tagger, "_image_tokens", full)
    with pytest.raises(raised, match="single image" if raised is EngineError else "something else"):
        tagger.score([random_image(64, 64)], OVERLAPPING)
