"""Agreement and kappa, against statsmodels, and flips."""

import numpy as np
import pytest

from vlm.statistics.agreement import agreement, cohens_kappa, cross_table, disagreement, flipping, wordings

WORDS = ("bright", "dim", "dark")


def test_kappa_and_its_interval_are_those_of_the_oracle() -> None:
    from statsmodels.stats import inter_rater

    for seed in range(20):
        chance = np.random.default_rng(seed)
        first = chance.integers(0, 3, 200)
        second = np.where(chance.random(200) < 0.7, first, chance.integers(0, 3, 200))
        table = cross_table(first, second, 3)
        theirs = inter_rater.cohens_kappa(table)
        ours = cohens_kappa(table)
        assert ours is not None
        assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.kappa, theirs.kappa_low, theirs.kappa_upp))


def test_flips_are_named_and_counted() -> None:
    found = agreement(np.array([[50, 7, 0], [2, 30, 1], [0, 0, 10]]), WORDS)
    assert found.samples == 100
    assert found.same is not None
    assert found.same.value == pytest.approx(0.9)
    assert found.same.low < 0.9 < found.same.high
    assert [(flip.before, flip.after, flip.samples) for flip in found.flips] == [
        ("bright", "dim", 7),
        ("dim", "bright", 2),
        ("dim", "dark", 1),
    ]
    assert found.flips[0].share == pytest.approx(7 / 57)
    assert found.to_json()["kappa"]["value"] == pytest.approx(found.kappa.value if found.kappa else 0, abs=1e-6)


def test_nothing_to_agree_on() -> None:
    always = agreement(np.array([[40, 0], [0, 0]]), ("a", "b"))
    assert always.kappa is None
    assert always.same is not None
    assert always.same.value == 1
    empty = agreement(np.zeros((2, 2), dtype=np.int64), ("a", "b"))
    assert empty.same is None
    assert empty.to_json()["kappa"] is None


def test_samples_without_an_answer_are_left_out() -> None:
    table = cross_table(np.array([0, 1, -1, 2]), np.array([0, -1, 1, 1]), 3)
    assert table.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_wordings_that_flip() -> None:
    answers = np.array([[0, 0, 0], [1, 1, 2], [2, 2, -1], [0, 1, 2], [1, -1, -1]])
    assert flipping(answers).tolist() == [False, True, False, True, False]
    assert disagreement(answers).tolist() == [0, 0.5, 0, 1, 0]
    found = wordings(answers, WORDS)
    assert found.flipping is not None
    assert found.flipping.value == pytest.approx(0.4)
    assert [(first, second, pair.samples) for first, second, pair in found.pairs] == [(0, 1, 4), (0, 2, 3), (1, 2, 3)]
    assert len(found.to_json()["pairs"]) == 3
