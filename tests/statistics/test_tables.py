"""Cross tables and differences of shares, against scipy and statsmodels."""

import json

import numpy as np
import pytest

from vlm.statistics.plots import whiskers
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


def test_each_cell_is_judged_by_fishers_exact_test() -> None:
    """Against scipy, cell by cell; the rates are those of statsmodels."""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    counts = np.array([[24, 3, 1], [4, 18, 9], [1, 1, 12]])
    found = cross(counts)
    p = []
    for i in range(3):
        for j in range(3):
            row, column, total = counts[i].sum(), counts[:, j].sum(), counts.sum()
            chance = stats.hypergeom(total, column, row)
            p.append(min(1.0, 2 * min(chance.sf(counts[i, j] - 1), chance.cdf(counts[i, j]))))
    rates = multipletests(p, method="fdr_bh")[1]
    assert np.ravel(found.discovery_rates) == pytest.approx(rates)
    assert (found.sign(0, 0), found.sign(2, 2), found.sign(0, 1), found.sign(1, 2)) == (1, 1, -1, 0)


def test_values_of_which_an_image_has_several_are_no_parts_of_a_whole() -> None:
    """Ten images, all of which show a car and half a dog: the sums of the cells say nothing about the margins."""
    from scipy import stats

    found = cross(np.array([[5, 5], [5, 0]]), rows=np.array([10, 5]), columns=np.array([5, 5]), total=10)
    assert (found.chi_square, found.p_value, found.cramers_v) == (None, None, None)
    assert found.expected[1] == (2.5, 2.5)
    assert found.discovery_rates[0] == (1.0, 1.0)  # all have it, so nothing can be told of that row
    assert found.discovery_rates[1][0] == pytest.approx(2 * stats.hypergeom(10, 5, 5).sf(4))
    assert json.loads(json.dumps(found.to_json()))["signs"] == [[0, 0], [1, -1]]


def test_independent_tables_hardly_ever_have_a_sign() -> None:
    """At most one in twenty of tables without any connection may have one, however small their counts."""
    chance = np.random.default_rng(5)
    signs = 0
    for _ in range(100):
        rows, columns = chance.integers(0, 5, 60), chance.integers(0, 4, 60)
        counts = np.zeros((5, 4), dtype=np.int64)
        np.add.at(counts, (rows, columns), 1)
        found = cross(counts)
        signs += any(found.sign(i, j) for i in range(5) for j in range(4))
    assert signs <= 10


def test_empty_rows_and_single_columns_say_nothing() -> None:
    found = cross(np.array([[10, 20, 0], [0, 0, 0], [20, 10, 0]]))
    assert found.freedom == 1
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert found.residuals[1] == (0.0, 0.0, 0.0)
    one = cross(np.array([[10], [20]]))
    assert (one.p_value, one.cramers_v) == (1.0, 0.0)
    assert cross(np.zeros((2, 2), dtype=np.int64)).p_value == 1.0


def test_shares_that_differ_with_their_intervals() -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    first, second = np.array([500, 400, 100]), np.array([280, 160, 60])
    found = share_differences(first, second, ("day", "dusk", "night"))
    assert [one.word for one in found] == ["day", "dusk", "night"]
    dusk = found[1]
    assert dusk.difference == pytest.approx(-0.08)
    theirs = confint_proportions_2indep(160, 500, 400, 1_000, method="newcomb", compare="diff")
    assert (dusk.low, dusk.high) == pytest.approx(theirs)
    assert dusk.p_value == pytest.approx(proportions_ztest([160, 400], [500, 1_000])[1])
    assert dusk.discovery_rate == pytest.approx(min(1, 3 * dusk.p_value))
    assert [one.sign for one in found] == [1, -1, 0]
    assert json.loads(json.dumps(dusk.to_json()))["word"] == "dusk"
    assert share_differences(np.zeros(2, dtype=np.int64), second[:2], ("a", "b")) == ()


def test_a_part_is_compared_with_the_rest_of_the_whole() -> None:
    """A set within another differs from it by what it differs from the rest, in proportion to the rest."""
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    (found,) = share_differences(
        np.array([300]), np.array([40]), ("dark",), totals=(1_000, 100), common=np.array([40]), common_total=100
    )
    rest = 900 / 1_000
    theirs = confint_proportions_2indep(40, 100, 260, 900, method="newcomb", compare="diff")
    assert (found.first.value, found.second.value) == (0.3, 0.4)
    assert found.difference == pytest.approx(rest * (40 / 100 - 260 / 900))
    assert (found.low, found.high) == pytest.approx((rest * theirs[0], rest * theirs[1]))
    assert found.p_value == pytest.approx(proportions_ztest([40, 260], [100, 900])[1])
    (turned,) = share_differences(
        np.array([40]), np.array([300]), ("dark",), totals=(100, 1_000), common=np.array([40]), common_total=100
    )
    assert (turned.low, turned.high, turned.p_value) == pytest.approx((-found.high, -found.low, found.p_value))


def test_the_same_images_differ_in_nothing() -> None:
    counts = np.array([30, 70])
    found = share_differences(counts, counts, ("a", "b"), totals=(100, 100), common=counts, common_total=100)
    assert [(one.difference, one.low, one.high, one.p_value, one.sign) for one in found] == [(0, 0, 0, 1, 0)] * 2


@pytest.mark.parametrize("common", [0, 40, 150])
def test_intervals_hold_however_much_the_sets_overlap(common: int) -> None:
    """Of differences of sets of 200 and 160 images, whose shares are known, 95 % are in their intervals."""
    chance = np.random.default_rng(common)
    sizes, shares = (common, 200 - common, 160 - common), (0.3, 0.2, 0.45)
    truth = (common * 0.3 + sizes[2] * 0.45) / 160 - (common * 0.3 + sizes[1] * 0.2) / 200
    tries, held = 400, 0
    for _ in range(tries):
        shared, ours, theirs = (int(chance.binomial(n, p)) for n, p in zip(sizes, shares, strict=True))
        (found,) = share_differences(
            np.array([shared + ours]),
            np.array([shared + theirs]),
            ("dark",),
            totals=(200, 160),
            common=np.array([shared]),
            common_total=common,
        )
        held += found.low <= truth <= found.high
    assert held / tries >= 0.92


@pytest.mark.parametrize("common", [0, 15])
def test_sets_that_do_not_differ_hardly_ever_have_a_sign(common: int) -> None:
    """Small sets, eight words: in at most one of twenty comparisons anything is called beyond chance."""
    chance = np.random.default_rng(7 + common)
    signs, share = 0, np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    for _ in range(200):
        shared = chance.multinomial(common, share)
        first, second = chance.multinomial(40 - common, share) + shared, chance.multinomial(25 - common, share) + shared
        found = share_differences(first, second, tuple("abcdefgh"), totals=(40, 25), common=shared, common_total=common)
        signs += any(one.sign for one in found)
    assert signs <= 15


def test_differences_are_drawn_on_one_scale() -> None:
    found = share_differences(np.array([500, 400, 100]), np.array([280, 160, 60]), ("day", "dusk", "night"))
    drawn, reach = whiskers(found)
    assert reach == 0.2
    assert [one.at for one in drawn] == ["65.0%", "30.0%", "55.0%"]
    assert all(0 < float(one.low[:-1]) < float(one.at[:-1]) < float(one.high[:-1]) < 100 for one in drawn)
    assert whiskers(()) == ((), 0.01)
