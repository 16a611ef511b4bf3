"""Draws whose chances are what they say."""

import numpy as np
import pytest

from tests.statistics.worlds import World, world
from vlm.statistics.draws import UNIFORM_SHARE, Design, doubt, draw, inclusion


@pytest.fixture(scope="module")
def images() -> World:
    return world(2_000)


@pytest.mark.parametrize("design", list(Design))
def test_each_image_is_drawn_as_often_as_its_probability_says(design: Design) -> None:
    images = world(120)
    expected = inclusion(30, words=images.said, doubts=images.doubts, design=design)
    seen = np.zeros(120)
    draws = 6_000
    for seed in range(draws):
        drawn = images.draw(30, design, seed)
        assert len(drawn) == 30 == len(set(drawn.place.tolist()))
        seen[drawn.place] += 1
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(seen / draws - expected) <= 4.5 * error + 1e-9).all()
    assert np.array_equal(drawn.probability, expected[drawn.place])


@pytest.mark.parametrize("design", list(Design))
def test_probabilities_add_up_to_the_size(design: Design) -> None:
    for seed in range(300):
        chance = np.random.default_rng(seed)
        said = chance.integers(0, chance.integers(1, 6), chance.integers(1, 50))
        doubts = np.zeros(len(said)) if seed % 5 == 0 else chance.random(len(said))
        size = int(chance.integers(0, 60))
        probability = inclusion(size, words=said, doubts=doubts, design=design)
        assert probability.sum() == pytest.approx(min(size, len(said)))
        assert probability.max(initial=0) <= 1
        assert (probability > 0).all() or not size
        drawn = draw(size, words=said, doubts=doubts, design=design, seed=seed)
        assert len(set(drawn.place.tolist())) == len(drawn) == min(size, len(said))


def test_the_mix_shows_the_doubtful_and_the_rare_and_forgets_nobody(images: World) -> None:
    probability = inclusion(200, words=images.said, doubts=images.doubts)
    uniform = 200 / len(images.said)
    assert probability.min() >= UNIFORM_SHARE * uniform * 0.999
    doubtful = images.doubts > np.quantile(images.doubts, 0.8)
    sure = images.doubts < np.quantile(images.doubts, 0.2)
    assert probability[doubtful].mean() > 1.5 * probability[sure].mean()
    rare = images.said == 3
    assert probability[rare].mean() > 1.5 * uniform


def test_each_word_gets_its_expected_number_up_to_one(images: World) -> None:
    probability = inclusion(100, words=images.said, doubts=images.doubts)
    expected = np.bincount(images.said, weights=probability)
    for seed in range(50):
        found = np.bincount(images.said[images.draw(100, Design.MIXED, seed).place], minlength=4)
        assert (np.abs(found - expected) < 1 + 1e-9).all()


def test_the_same_seed_draws_the_same_in_the_same_order(images: World) -> None:
    first, second = (images.draw(50, Design.MIXED, 7) for _ in range(2))
    assert np.array_equal(first.place, second.place)
    assert not np.array_equal(first.place, images.draw(50, Design.MIXED, 8).place)


def test_the_order_within_a_batch_says_nothing(images: World) -> None:
    """The first half of a batch must be as doubtful as the second, or stopping in the middle would bias."""
    halves = [
        images.doubts[images.draw(100, Design.MIXED, seed).place].reshape(2, 50).mean(axis=1) for seed in range(400)
    ]
    first, second = np.mean(halves, axis=0)
    assert abs(first - second) < 0.005


def test_what_was_labelled_before_is_left_out(images: World) -> None:
    eligible = np.ones(len(images.said), dtype=np.bool_)
    eligible[::2] = False
    drawn = draw(100, words=images.said, doubts=images.doubts, eligible=eligible, seed=1)
    assert eligible[drawn.place].all()
    none = draw(100, words=images.said, eligible=np.zeros(len(images.said), dtype=np.bool_), seed=1)
    assert len(none) == 0


def test_any_alarm_makes_an_answer_doubtful() -> None:
    sure = np.array([0.99, 0.99, 0.99, 0.5])
    found = doubt(sure, np.array([0.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.9, 0.0]))
    assert found == pytest.approx([0.01, 1.0, 0.901, 0.5])
    probability = inclusion(1, words=np.zeros(4, dtype=np.int64), doubts=found)
    assert probability[1] == pytest.approx(probability[3])
    assert probability[1] > 2 * probability[0]
