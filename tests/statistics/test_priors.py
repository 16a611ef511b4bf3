"""Priors, and answers that do not need their picture."""

import json

import numpy as np
import pytest

from vlm.statistics.priors import Prior, divergence_from

WORDS = ("day", "night")


def test_sums_become_shares_and_survive_json() -> None:
    found = Prior.of(WORDS, 4, (3.0, 1.0), (0.7, 0.3), hardly=2, divergence=1.0)
    assert (found.prior, found.hardly_depending, found.mean_divergence) == ((0.75, 0.25), 0.5, 0.25)
    assert found.is_blind
    assert found.rows == [("day", 0.75, 0.7), ("night", 0.25, 0.3)]
    assert Prior.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_without_a_grey_image_nothing_is_said_about_pictures() -> None:
    found = Prior.of(WORDS, 4, (3.0, 1.0))
    assert (found.blind, found.hardly_depending, found.mean_divergence, found.is_blind) == (None, None, None, False)
    assert found.rows == [("day", 0.75, None), ("night", 0.25, None)]
    assert Prior.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_divergence_is_kullback_and_leiblers() -> None:
    from scipy.stats import entropy

    answers = np.random.default_rng(2).dirichlet(np.ones(4), 50)
    blind = np.array([0.1, 0.2, 0.3, 0.4])
    assert divergence_from(answers, blind) == pytest.approx([entropy(row, blind) for row in answers])
    assert (divergence_from(np.tile(blind, (3, 1)), blind) == 0).all()
