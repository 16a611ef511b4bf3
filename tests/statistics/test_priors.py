"""Priors, and answers that do not need their picture."""

import json

import numpy as np
import pytest

from vlm.statistics.calibration import log_loss
from vlm.statistics.priors import Tally, divergence_from, without_prior

WORDS = ("day", "night")


def test_batches_add_up_to_the_prior() -> None:
    answers = np.random.default_rng(1).dirichlet(np.ones(2), 1_000)
    tally = Tally.empty(WORDS)
    assert tally.result() is None
    for part in np.array_split(answers, 7):
        tally = tally.with_answers(part)
    found = tally.result()
    assert found is not None
    assert found.answers == 1_000
    assert found.prior == pytest.approx(answers.mean(axis=0))
    assert found.blind is None
    assert found.to_json()["hardly_depending"] is None


def test_answers_that_hardly_depend_on_the_picture_are_counted() -> None:
    blind = np.array([0.7, 0.3])
    answers = np.array([[0.7, 0.3], [0.72, 0.28], [0.1, 0.9], [1.0, 0.0]])
    tally = Tally.from_json(json.loads(json.dumps(Tally.empty(WORDS, blind).with_answers(answers).to_json())))
    found = tally.result()
    assert found is not None
    assert found.hardly_depending == 0.5
    assert found.mean_divergence == pytest.approx(divergence_from(answers, blind).mean())
    assert found.to_json()["blind"] == [0.7, 0.3]


def test_the_divergence_is_kullback_and_leiblers() -> None:
    from scipy.stats import entropy

    answers = np.random.default_rng(2).dirichlet(np.ones(4), 50)
    blind = np.array([0.1, 0.2, 0.3, 0.4])
    assert divergence_from(answers, blind) == pytest.approx([entropy(row, blind) for row in answers])
    assert (divergence_from(np.tile(blind, (3, 1)), blind) == 0).all()


def test_taking_the_prior_out_helps_where_the_question_favours_a_word() -> None:
    chance = np.random.default_rng(3)
    truth = chance.integers(0, 2, 2_000)
    evidence = np.where(truth == 1, 1.0, -1.0) + chance.normal(size=2_000)
    honest = 1 / (1 + np.exp(-2 * evidence))
    favoured = np.stack([1 - honest, honest], axis=1) * [5.0, 1.0]
    favoured /= favoured.sum(axis=1, keepdims=True)
    evened = without_prior(favoured, favoured.mean(axis=0))
    even = np.ones(2_000)
    assert log_loss(evened, truth, even) < log_loss(favoured, truth, even)
    assert without_prior(favoured, favoured.mean(axis=0), 0.0) == pytest.approx(favoured)
