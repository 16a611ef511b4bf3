"""Intervals that hold what they say, on simulated data sets whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from tests.statistics.worlds import WORDS, World, world
from vlm.statistics.accuracy import (
    CANNOT_TELL,
    Labels,
    accuracy_of,
    design_weights,
    evaluate,
    precision_of,
    recall_of,
    share_of_word,
    units,
)
from vlm.statistics.draws import Design, draw
from vlm.statistics.intervals import Estimate, labels_for, wilson

SETS = 1_000
COMMON, RARE = 0, 3


@pytest.fixture(scope="module")
def images() -> World:
    made = world()
    assert abs(made.scores.max(axis=1).mean() - 0.82) < 0.01
    assert abs(made.right.mean() - 0.70) < 0.01
    return made


def covered(found: list[Estimate | None], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found if one]))


def width(found: list[Estimate | None]) -> float:
    return float(np.mean([one.high - one.low for one in found if one]))


@pytest.mark.parametrize("design", list(Design))
def test_intervals_hold_the_truth_in_95_of_100_data_sets(images: World, design: Design) -> None:
    truth = float(images.right.mean())
    with_control, without = [], []
    for seed in range(SETS):
        labels = images.labels(images.draw(200, design, seed))
        with_control.append(accuracy_of(labels, images.population))
        without.append(accuracy_of(replace(labels, scores=None), images.population))
    for found in (with_control, without):
        assert 0.93 <= covered(found, truth) <= 0.97
        assert abs(np.mean([one.value for one in found if one]) - truth) < 0.004
    assert width(with_control) <= 0.13
    assert width(without) <= 0.136
    assert width(with_control) < width(without)


@pytest.mark.parametrize("design", list(Design))
def test_intervals_of_words_hold_the_truth(images: World, design: Design) -> None:
    """A rare word has a dozen labels: there the interval may be wider than it need be, never narrower."""
    figures = {"precision": precision_of, "recall": recall_of, "share": share_of_word}
    found: dict[tuple[str, int], list[Estimate | None]] = {}
    for seed in range(SETS):
        labels = images.labels(images.draw(200, design, seed))
        for name, figure in figures.items():
            for place in (COMMON, RARE):
                found.setdefault((name, place), []).append(figure(labels, images.population, place))
    for (name, place), estimates in found.items():
        is_word, given = images.truth == place, images.said == place
        truth = {"precision": is_word[given], "recall": given[is_word], "share": is_word}[name].mean()
        assert 0.93 <= covered(estimates, float(truth)) <= (0.975 if place == COMMON else 1), (name, place)


def test_the_least_certain_first_would_mislead_and_inverse_weights_do_not(images: World) -> None:
    truth = float(images.right.mean())
    queue = np.argsort(-images.doubts)[:200]
    assert images.right[queue].mean() < truth - 0.1  # what reviewing by doubt alone would say
    mixed = accuracy_of(images.labels(images.draw(200, Design.MIXED, 3)), images.population)
    assert mixed is not None
    assert mixed.low <= truth <= mixed.high


def test_a_uniform_draw_without_control_is_wilsons_interval() -> None:
    from statsmodels.stats import proportion as statsmodels

    truth = np.zeros(50, dtype=np.int64)
    truth[:9] = 1
    found = accuracy_of(Labels(np.zeros(50, dtype=np.int64), truth, np.full(50, 1e9)), world(100).population)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(statsmodels.proportion_confint(41, 50, method="wilson"), abs=1e-6)


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("design", list(Design))
def test_all_or_none_right_is_not_certainty(images: World, design: Design, right: int) -> None:
    labels = images.labels(images.draw(60, design, 1))
    labels = replace(labels, truth=labels.said if right else (labels.said + 1) % len(WORDS))
    found = accuracy_of(labels, images.population)
    assert found is not None
    assert found.value == right
    assert 0.03 < found.high - found.low < 0.25
    assert found.low == right or found.high == right


def test_labelling_everything_leaves_no_doubt(images: World) -> None:
    small = world(300)
    for design in Design:
        found = accuracy_of(small.labels(small.draw(300, design, 1)), small.population)
        assert found is not None
        assert found.value == pytest.approx(small.right.mean())
        assert found.high - found.low < 1e-4


def test_near_duplicates_count_as_one(images: World) -> None:
    labels = images.labels(images.draw(40, Design.UNIFORM, 4))
    again = np.repeat(np.arange(40), 10)
    copies = replace(labels.where(again), group=again)  # type: ignore[arg-type]
    once, ten = accuracy_of(labels, images.population), accuracy_of(copies, images.population)
    naive = accuracy_of(replace(copies, group=None), images.population)
    assert once is not None
    assert ten is not None
    assert naive is not None
    assert ten.value == pytest.approx(once.value)
    assert ten.effective == pytest.approx(once.effective, rel=0.1)
    assert naive.effective > 8 * ten.effective
    right = accuracy_of(replace(copies, truth=copies.said), images.population)
    assert right is not None
    assert right.effective < 50  # all of them right: still 40 pictures, not 400


def test_pictures_that_nobody_can_tell_do_not_bias(images: World) -> None:
    """The unclear ones have lower probabilities than the rest, so the control's mean over all images is not that of the rest."""
    chance = np.random.default_rng(2)
    unclear = chance.random(len(images.said)) < np.where(images.doubts > 0.25, 0.5, 0.05)
    truth = float(images.right[~unclear].mean())
    values = []
    for seed in range(300):
        drawn = images.draw(200, Design.MIXED, seed)
        labels = images.labels(drawn)
        labels = replace(labels, truth=np.where(unclear[drawn.place], CANNOT_TELL, labels.truth))
        found = accuracy_of(labels, images.population)
        assert found is not None
        values.append(found.value)
    assert abs(np.mean(values) - truth) < 0.006


def test_batches_and_their_labelled_beginnings_add_up() -> None:
    """Two batches, the second without what the first had labelled, each stopped half-way, from a small data set."""
    images = world(800)
    values, hits = [], 0
    for seed in range(400):
        first = images.draw(100, Design.MIXED, seed)
        left = np.ones(800, dtype=np.bool_)
        left[first.place[:60]] = False
        second = draw(
            120, words=images.said, doubts=images.doubts, design=Design.MIXED, eligible=left, seed=seed + 10_000
        )
        assert left[second.place].all()
        place = np.concatenate([first.place[:60], second.place[:90]])
        weight = design_weights(
            np.concatenate([first.probability[:60], second.probability[:90]]),
            np.repeat([1, 2], [60, 90]),
            {1: 100, 2: 120},
        )
        labels = Labels(images.said[place], images.truth[place], weight, images.scores[place], images.said[place])
        found = accuracy_of(labels, images.population)
        assert found is not None
        values.append(found.value)
        hits += found.low <= images.right.mean() <= found.high
    assert abs(np.mean(values) - images.right.mean()) < 0.006
    assert hits / 400 > 0.92


def test_weights_count_the_population(images: World) -> None:
    drawn = images.draw(400, Design.MIXED, 8)
    assert design_weights(drawn.probability).sum() == pytest.approx(len(images.said), rel=0.1)
    assert len(design_weights(np.zeros(0))) == 0


def test_too_few_labels_give_no_figure_but_say_how_many() -> None:
    images = world(2_000)
    found = evaluate(images.labels(images.draw(8, Design.MIXED, 1)), images.population, WORDS)
    assert found.accuracy is None
    assert found.more == labels_for(0.05) - 8
    more = evaluate(images.labels(images.draw(100, Design.MIXED, 1)), images.population, WORDS)
    assert 150 <= more.more <= 500
    assert more.to_json()["low"] == more.accuracy.low if more.accuracy else False
    enough = evaluate(images.labels(images.draw(900, Design.MIXED, 1)), images.population, WORDS)
    assert enough.more == 0


def test_what_more_promises_is_enough(images: World) -> None:
    first = accuracy_of(images.labels(images.draw(60, Design.MIXED, 2)), images.population)
    assert first is not None
    then = accuracy_of(images.labels(images.draw(60 + first.more_for(0.05), Design.MIXED, 3)), images.population)
    assert then is not None
    assert (then.high - then.low) / 2 < 0.055


def test_the_confusion_table_is_that_of_the_whole_data_set(images: World) -> None:
    found = evaluate(images.labels(images.draw(3_000, Design.MIXED, 1)), images.population, WORDS)
    true = np.zeros((4, 4))
    np.add.at(true, (images.said, images.truth), 1 / len(images.said))
    assert np.abs(np.array(found.confusion_shares) - true).max() < 0.02
    assert np.array(found.confusion_shares).sum() == pytest.approx(1)
    assert np.array(found.confusion).sum() == 3_000 == found.labels
    written = found.to_json()
    assert {"labels", "accuracy", "low", "high", "words"} <= set(written)
    assert set(written["words"][0]) == {"word", "labels", "said", "precision", "recall", "prevalence"}


def test_wilson_is_sane_at_the_ends() -> None:
    assert wilson(0.0, 0, 1.96) == (0.0, 1.0)
    assert wilson(0.0, 20, 1.96)[0] == 0.0
    assert 0.1 < wilson(0.0, 20, 1.96)[1] < 0.2
    assert wilson(1.2, 20, 1.96) == (pytest.approx(1 - wilson(0.0, 20, 1.96)[1]), 1.0)


def test_samples_with_the_answer_of_one_are_one_draw_whatever_their_group() -> None:
    """0 and 1 are near; 1 and 2 have 3's answer, as 3 has; 4 is near to itself alone, 5 and 6 have an answer of one that has no label."""
    near = np.array([8, 8, -1, -1, 9, -1, -1, -1])
    source = np.array([100, 103, 103, 103, 104, 200, 200, 107])
    found = units(near, source)
    assert found.tolist() == [0, 0, 0, 0, -1, 5, 5, -1]
    assert units(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)).tolist() == []
