"""Tails and quantiles against scipy, corrections and intervals against statsmodels."""

import numpy as np
import pytest

from vlm.statistics.distributions import (
    beta_lower,
    beta_quantile,
    chi_square_upper,
    discovery_rates,
    hypergeometric_upper,
    normal_quantile,
    normal_upper,
)
from vlm.statistics.intervals import Estimate, exact_low, labels_for, newcombe, round_up, share_of


def test_tails_are_those_of_scipy() -> None:
    from scipy import stats

    z = np.array([-3.0, 0.0, 1.96, 8.0, 30.0])
    assert normal_upper(z) == pytest.approx(stats.norm.sf(z), rel=1e-9)
    assert normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975))
    for a, b, x in [(1, 1, 0.3), (0.5, 12.2, 0.01), (190.5, 9.5, 0.95), (2, 400, 0.004), (3000, 50, 0.99)]:
        assert beta_lower(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-9)
        assert beta_quantile(0.05, a, b) == pytest.approx(stats.beta.ppf(0.05, a, b), rel=1e-6)
    for value, freedom in [(0.5, 1), (3.84, 1), (40, 9), (2, 30), (500, 12)]:
        assert chi_square_upper(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-8, abs=1e-15)


def test_the_hypergeometric_tail_is_fishers() -> None:
    from scipy import stats

    chance = np.random.default_rng(3)
    total, marked = 5_000, 700
    drawn = chance.integers(1, 3_000, 200)
    hits = np.minimum(np.minimum(drawn, marked), (drawn * chance.uniform(0.14, 0.4, 200)).astype(np.int64) + 1)
    raised = hits * total > drawn * marked
    found = hypergeometric_upper(hits, drawn, marked, total)
    expected = stats.hypergeom.sf(hits - 1, total, marked, drawn)
    kept = raised & (expected > 1e-290)
    assert kept.sum() > 150
    assert found[kept] == pytest.approx(expected[kept], rel=1e-7)
    assert (found[~raised] == 1).all()


def test_discovery_rates_are_benjamini_and_hochbergs() -> None:
    from statsmodels.stats import multitest

    p = np.random.default_rng(1).random(100) ** 3
    assert discovery_rates(p) == pytest.approx(multitest.multipletests(p, method="fdr_bh")[1])
    assert discovery_rates(np.array([])).size == 0
    assert discovery_rates(np.array([0.01, 0.02]), np.array([0.5, 1.5])).tolist() == pytest.approx([0.02, 0.02])


def test_newcombes_interval_of_a_difference() -> None:
    from statsmodels.stats import proportion

    for first, of_first, second, of_second in [(56, 70, 48, 80), (0, 20, 3, 30), (10, 10, 0, 10)]:
        found = newcombe(share_of(first, of_first), share_of(second, of_second))
        theirs = proportion.confint_proportions_2indep(
            second, of_second, first, of_first, method="newcomb", compare="diff"
        )
        assert found[0] == pytest.approx(second / of_second - first / of_first)
        assert found[1:] == pytest.approx(theirs, abs=1e-6)


def test_exact_bounds_are_clopper_and_pearsons() -> None:
    from statsmodels.stats import proportion

    for right, labels in [(59, 59), (95, 100), (1, 3)]:
        assert exact_low(right, labels, 0.05) == pytest.approx(
            proportion.proportion_confint(right, labels, alpha=0.1, method="beta")[0]
        )
    assert exact_low(0, 10, 0.05) == 0


def test_numbers_of_labels_are_round() -> None:
    assert [round_up(count) for count in (0.2, 7, 13, 134, 385, 1_301)] == [1, 7, 20, 140, 390, 1_400]
    assert labels_for(0.05) == 390
    assert Estimate(0.7, 0.66, 0.74, 500, 500.0).more_for(0.05) == 0
    written = Estimate(0.7, 0.66, 0.74, 500, float("inf")).to_json()
    assert written["effective"] is None
    assert written["labels"] == 500
