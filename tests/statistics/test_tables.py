"""Cross tables and differences of shares, against scipy and statsmodels."""

import json

import numpy as np
import pytest

from vlm.statistics.tables import cross, share_differences


def test_a_cross_table_is_that_of_the_oracles() -> None:
    from scipy import stats
    from statsmodels.stats.contingency_tables import Table

    counts = np.array([[120, 30, 8], [40, 90, 22], [15, 12, 60]])
    found = cross(counts)
    theirs = stats.chi2_contingency(counts, correction=False)
    assert found.chi_square == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.freedom == theirs.dof
    assert np.array(found.expected) == pytest.approx(theirs.expected_freq)
    assert np.array(found.residuals) == pytest.approx(Table(counts).standardized_resids)
    assert found.cramers_v == pytest.approx(stats.contingency.association(counts, method="cramer"))
    assert json.loads(json.dumps(found.to_json()))["freedom"] == 4


def test_empty_rows_and_single_columns_say_nothing() -> None:
    found = cross(np.array([[10, 20, 0], [0, 0, 0], [20, 10, 0]]))
    assert found.freedom == 1
    assert found.p_value < 0.05
    assert found.residuals[1] == (0.0, 0.0, 0.0)
    one = cross(np.array([[10], [20]]))
    assert (one.p_value, one.cramers_v) == (1.0, 0.0)
    assert cross(np.zeros((2, 2), dtype=np.int64)).p_value == 1.0


def test_shares_that_differ_come_first_with_their_intervals() -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    first, second = np.array([500, 400, 100]), np.array([280, 160, 60])
    found = share_differences(first, second, ("day", "dusk", "night"))
    assert [one.word for one in found] == ["dusk", "day", "night"]
    dusk = found[0]
    assert dusk.difference == pytest.approx(-0.08)
    theirs = confint_proportions_2indep(160, 500, 400, 1_000, method="newcomb", compare="diff")
    assert (dusk.low, dusk.high) == pytest.approx(theirs)
    assert dusk.p_value == pytest.approx(proportions_ztest([160, 400], [500, 1_000])[1])
    assert dusk.discovery_rate == pytest.approx(min(1, 3 * dusk.p_value))
    assert json.loads(json.dumps(dusk.to_json()))["word"] == "dusk"
    assert share_differences(np.zeros(2, dtype=np.int64), second[:2], ("a", "b")) == ()
