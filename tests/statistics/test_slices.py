"""Slices that are there are found, and slices that are not there are not."""

import json

import numpy as np
import pytest

from vlm.statistics.distributions import BoolArray, FloatArray
from vlm.statistics.slices import TagQuality, count_slices, explain

SETS = 200


def words(samples: int, chance: np.random.Generator, dimensions: int = 5) -> BoolArray:
    """Give each sample one of four words in each dimension."""
    said = [chance.choice(4, samples, p=[0.5, 0.3, 0.15, 0.05]) for _ in range(dimensions)]
    return np.concatenate([one[:, None] == np.arange(4) for one in said], axis=1)


def test_counts_are_those_of_looking_at_every_sample() -> None:
    chance = np.random.default_rng(1)
    features = chance.random((1_003, 7)) < 0.4
    scores = chance.integers(0, 300, 1_003)
    counted = count_slices(features, scores, support=20)
    assert (np.bincount(counted.lengths) == [0, 7, 21, 35]).all()
    for members, samples, total in zip(counted.features, counted.samples, counted.sums, strict=True):
        rows = features[:, members[members >= 0]].all(axis=1)
        assert (samples, total) == (rows.sum(), scores[rows].sum())


@pytest.mark.parametrize("kind", ["flag", "number"])
def test_nothing_is_found_where_nothing_is(kind: str) -> None:
    false = 0
    for seed in range(SETS):
        chance = np.random.default_rng(seed)
        features = words(3_000, chance, dimensions=5 if kind == "flag" else 3)
        target = chance.random(3_000) < 0.1 if kind == "flag" else chance.exponential(size=3_000)
        false += bool(explain(features, target).slices)
    assert false <= 0.05 * SETS


@pytest.mark.parametrize("kind", ["flag", "number"])
def test_a_planted_slice_is_found(kind: str) -> None:
    """300 of 10,000 images have both of two tags, and twice the rate of the rest."""
    found = 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        features = words(10_000, chance)
        features[:, 0] = chance.random(10_000) < 0.17
        features[:, 4] = chance.random(10_000) < 0.17
        both = features[:, 0] & features[:, 4]
        target: FloatArray | BoolArray
        if kind == "flag":
            target = chance.random(10_000) < np.where(both, 0.4, 0.2)
        else:
            target = chance.exponential(size=10_000) * np.where(both, 2, 1)
        slices = explain(features, target).slices
        found += any(one.features == (0, 4) for one in slices)
    assert found >= 0.95 * 60


def test_what_adds_nothing_is_folded_under_the_shorter_slice() -> None:
    chance = np.random.default_rng(3)
    features = words(20_000, chance)
    features[:, 5] |= features[:, 0]  # all that have 0 have 5
    target = chance.random(20_000) < np.where(features[:, 0], 0.3, 0.1)
    found = explain(features, target)
    first = found.slices[0]
    assert first.features == (0,)
    assert (0, 5) in [one.features for one in first.folded]
    assert all(0 not in one.features for one in found.slices[1:])
    assert first.lift is not None
    assert first.value == pytest.approx(0.3, abs=0.02)
    assert first.low < 0.2 < first.high
    assert first.lift == pytest.approx(first.value / target.mean())


def test_a_pair_that_says_more_stands_by_itself() -> None:
    chance = np.random.default_rng(4)
    features = words(20_000, chance)
    rate = np.where(features[:, 0], 0.15, 0.1) + np.where(features[:, 0] & features[:, 4], 0.3, 0.0)
    found = explain(features, chance.random(20_000) < rate)
    assert found.slices[0].features == (0, 4)


def test_what_lowers_is_found_by_asking_for_it() -> None:
    chance = np.random.default_rng(5)
    features = words(10_000, chance)
    flag = chance.random(10_000) < np.where(features[:, 1], 0.1, 0.3)
    assert (1,) not in [one.features for one in explain(features, flag).slices]
    lowest = explain(features, flag, lower=True).slices[0]
    assert lowest.features == (1,)
    assert lowest.difference < 0
    assert lowest.high < 0
    number = chance.normal(size=10_000) - features[:, 1]
    lowest = explain(features, number, lower=True).slices[0]
    assert lowest.features == (1,)
    assert lowest.difference == pytest.approx(-1, abs=0.1)


def test_an_outlier_explains_nothing() -> None:
    chance = np.random.default_rng(6)
    features = words(5_000, chance)
    number = chance.normal(size=5_000)
    number[np.flatnonzero(features[:, 3])[:2]] = 1e9
    assert explain(features, number).slices == ()


def test_wrong_tags_are_taken_into_account() -> None:
    """Wrong tags water a slice down; with known precision and recall its true rate comes back."""
    chance = np.random.default_rng(7)
    is_word = chance.random(200_000) < 0.2
    given = np.where(is_word, chance.random(200_000) < 0.8, chance.random(200_000) < 0.05)
    target = chance.random(200_000) < np.where(is_word, 0.4, 0.1)
    quality = {0: TagQuality(precision=float(is_word[given].mean()), recall=float(given[is_word].mean()))}
    found = explain(given[:, None], target, quality=quality).slices[0]
    assert found.value < 0.37
    assert found.corrected == pytest.approx(0.4, abs=0.015)
    assert explain(given[:, None], target, quality={}).slices[0].corrected is None


def test_too_little_to_say_anything() -> None:
    features = np.ones((20, 3), dtype=np.bool_)
    assert explain(features, np.ones(20, dtype=np.bool_)).slices == ()
    assert explain(np.zeros((0, 3), dtype=np.bool_), np.zeros(0, dtype=np.bool_)).tested == 0
    same = explain(words(1_000, np.random.default_rng(1)), np.zeros(1_000))
    assert same.slices == ()


def test_an_explanation_is_written_with_names() -> None:
    chance = np.random.default_rng(8)
    features = words(5_000, chance)
    found = explain(features, chance.random(5_000) < np.where(features[:, 2], 0.5, 0.1))
    written = json.loads(json.dumps(found.to_json([f"word{place}" for place in range(20)])))
    assert written["slices"][0]["features"] == ["word2"]
    assert written["tested"] == found.tested > 500
