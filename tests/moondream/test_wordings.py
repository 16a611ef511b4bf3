"""Kinds, further spellings and several wordings of a question, scored on small random weights."""

import math
from dataclasses import replace

import pytest
from PIL import Image

from vlm.moondream import DimensionScore, Tagger
from vlm.moondream.scores import mean_score
from vlm.vocabulary import DEFAULT_VOCABULARY, Dimension, Vocabulary, orders_of

from .checkpoints import random_image, random_tagger

SETTING = DEFAULT_VOCABULARY["setting"]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return random_tagger(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def images() -> list[Image.Image]:
    return [random_image(300, 300, seed) for seed in range(2)]


def score(tagger: Tagger, images: list[Image.Image], dimension: Dimension) -> list[DimensionScore]:
    return [found[dimension.name] for found in tagger.score(images, Vocabulary((dimension,)))]


def test_each_wording_scores_as_it_would_alone(tagger: Tagger, images: list[Image.Image]) -> None:
    dimension = replace(SETTING, wordings=(*orders_of(SETTING, 1), "Where was this taken?"))
    together = score(tagger, images, dimension)
    for place, question in enumerate(dimension.questions):
        alone = score(tagger, images, replace(SETTING, question=question))
        for joined, single in zip(together, alone, strict=True):
            assert joined.wordings[place].probabilities == pytest.approx(single.probabilities, rel=1e-4)
            assert joined.wordings[place].mass == pytest.approx(single.mass, rel=1e-4)


def test_the_answer_is_the_mean_of_the_wordings(tagger: Tagger, images: list[Image.Image]) -> None:
    (found, _) = score(tagger, images, replace(SETTING, wordings=("Where was this taken?",)))
    products = [math.sqrt(a * b) for a, b in zip(*(one.probabilities for one in found.wordings), strict=True)]
    assert found.probabilities == pytest.approx([value / sum(products) for value in products])
    assert found.mass == pytest.approx(sum(one.mass for one in found.wordings) / 2)
    assert sum(found.probabilities) == pytest.approx(1)


def test_one_wording_is_itself() -> None:
    single = DimensionScore(("a", "b"), (0.25, 0.75), 0.5)
    assert mean_score([single]) is single


def test_a_wording_that_is_sure_of_nothing_leaves_numbers() -> None:
    found = mean_score([DimensionScore(("a", "b"), (1.0, 0.0), 0.5), DimensionScore(("a", "b"), (0.5, 0.5), 0.5)])
    assert found.probabilities[0] == pytest.approx(1)
    assert all(map(math.isfinite, found.probabilities))


def test_further_spellings_count_for_their_word(tagger: Tagger, images: list[Image.Image]) -> None:
    plain = score(tagger, images, SETTING)
    more = score(tagger, images, replace(SETTING, spellings={"indoor": ("inside",), "outdoor": ("outside",)}))
    for before, after in zip(plain, more, strict=True):
        assert after.words == SETTING.words
        assert after.mass > before.mass


def test_yes_or_no(tagger: Tagger, images: list[Image.Image]) -> None:
    people = Dimension("people", "Are there people?", ("people",), kind="yes-no", spellings={"yes": ("ja",)})
    for found in score(tagger, images, people):
        assert found.words == ("yes", "no")
        assert people.tag_of(found.best[0]) in ("people", "")


def test_many_words_of_many_shapes(tagger: Tagger, images: list[Image.Image]) -> None:
    odd = (
        "stop sign",
        "T-Shirt",
        "l'été",
        "Fußgänger",
        "停车场",
        "car",
        "cars",
        "car park",
        *(f"word {n}" for n in range(92)),
    )
    for found in score(tagger, images, Dimension("odd", "What is it?", odd)):
        assert len(found.probabilities) == 100
        assert sum(found.probabilities) == pytest.approx(1)
