"""Promises that are kept."""

from dataclasses import replace

import numpy as np
import pytest

from tests.statistics.worlds import World, world
from vlm.statistics.accuracy import Labels
from vlm.statistics.draws import Design
from vlm.statistics.thresholds import Kept, NotReachable, Spread, curve, promise

SETS = 400


def promised(images: World, labels: int, design: Design, target: float, sets: int = SETS) -> tuple[float, float, float]:
    """Return in which share of data sets a promise was given, in which it was broken, and the share tagged where given."""
    top = 1 - images.doubts
    spread = Spread.of(top)
    kept = []
    for seed in range(sets):
        drawn = images.draw(labels, design, seed)
        found = promise(images.labels(drawn), top[drawn.place], spread, target=target)
        if isinstance(found, Kept):
            kept.append((images.right[top >= found.threshold].mean() < target, found.tagged))
    return (
        len(kept) / sets,
        sum(broken for broken, _ in kept) / sets,
        float(np.mean([tagged for _, tagged in kept] or [0])),
    )


@pytest.mark.parametrize("design", list(Design))
def test_the_promise_is_kept_in_simulated_data_sets(design: Design) -> None:
    given, broken, tagged = promised(world(honesty=1.0), 300, design, 0.8)
    assert broken <= 0.05
    assert given > 0.8
    assert tagged > 0.6


def test_each_words_promise_is_kept_by_itself() -> None:
    """Two words of which one is common and one is rare, each with the threshold that its own labels prove."""
    images = world(honesty=1.0)
    top = 1 - images.doubts
    sets, given, broken = 100, np.zeros(2), np.zeros(2)
    for seed in range(sets):
        drawn = images.draw(400, Design.MIXED, seed)
        labels, said = images.labels(drawn), top[drawn.place]
        for place, word in enumerate((0, 2)):
            mine, of = labels.said == word, images.said == word
            found = promise(labels.where(mine), said[mine], Spread.of(top[of]), target=0.8)
            if isinstance(found, Kept):
                given[place] += 1
                broken[place] += images.right[of & (top >= found.threshold)].mean() < 0.8
    assert (broken <= 0.07 * sets).all()
    assert given[0] > 0.4 * sets
    assert given[1] > 0.1 * sets


def test_steps_give_the_thresholds_that_all_probabilities_would() -> None:
    chance = np.random.default_rng(3)
    top = np.concatenate([chance.beta(8, 2, 4_000), 1 - 10.0 ** -chance.uniform(2, 6, 4_000)])
    step = np.floor(50 * np.log(top / (1 - top))).astype(np.int64)
    steps, place = np.unique(step, return_inverse=True)
    lowest = np.array([top[place == one].min() for one in range(len(steps))])
    found = Spread.of_steps(steps, lowest, np.bincount(place))
    assert found.above == pytest.approx([(top >= edge).mean() for edge in found.edges])
    assert len(found.edges) == 20
    assert found.above == pytest.approx(1 - np.arange(20) / 20, abs=0.02)
    assert found.edges[0] == top.min()
    assert len(Spread.of_steps(np.zeros(0, int), np.zeros(0), np.zeros(0, int)).edges) == 0


def test_where_everything_is_just_not_right_enough_hardly_any_promise_is_given() -> None:
    """The hardest case: whichever threshold is chosen, the promise would be broken."""
    images = world()
    right = np.random.default_rng(1).random(len(images.said)) < 0.894
    truth = np.where(right, images.said, (images.said + 1) % 4)
    images = World(images.said, truth, images.scores, right, images.doubts)
    given, broken, _ = promised(images, 300, Design.MIXED, 0.9)
    assert broken == given <= 0.05


def labels_of(right: list[int]) -> Labels:
    truth = 1 - np.array(right)
    return Labels(np.zeros(len(right), dtype=np.int64), truth, np.full(len(right), 100.0))


def test_a_faultless_sample_proves_it_when_it_is_large_enough() -> None:
    spread = Spread.of(np.linspace(0.5, 1, 1_000))
    found = promise(labels_of([1] * 100), np.linspace(0.5, 1, 100), spread)
    assert isinstance(found, Kept)
    assert found.threshold == pytest.approx(0.5)
    assert found.tagged == pytest.approx(1.0)
    assert found.accuracy.value == 1
    assert found.to_json()["reachable"] is True
    few = promise(labels_of([1] * 40), np.linspace(0.5, 1, 40), spread)
    assert isinstance(few, NotReachable)
    assert few.reason == "too few labels"
    assert few.more is not None
    assert 30 <= few.more <= 300  # 34 if the rest is faultless too, which 40 labels do not show


def test_more_labels_that_were_said_to_be_enough_are_enough() -> None:
    images = world(honesty=1.0)
    top = 1 - images.doubts
    spread = Spread.of(top)
    reached = 0
    for seed in range(30):
        drawn = images.draw(60, Design.UNIFORM, seed)
        found = promise(images.labels(drawn), top[drawn.place], spread, target=0.75)
        if isinstance(found, NotReachable) and found.more is not None:
            drawn = images.draw(min(60 + found.more, 5_000), Design.UNIFORM, seed + 1_000)
            found = promise(images.labels(drawn), top[drawn.place], spread, target=0.75)
        reached += isinstance(found, Kept)
    assert reached >= 25


def test_what_is_not_so_right_is_not_reachable_by_more() -> None:
    found = promise(labels_of([1, 0] * 100), np.linspace(0.5, 1, 200), Spread.of(np.linspace(0.5, 1, 1_000)))
    assert isinstance(found, NotReachable)
    assert (found.reason, found.more) == ("not so right", None)
    assert found.best == pytest.approx(0.5, abs=0.15)
    nothing = promise(labels_of([]), np.zeros(0), Spread.of(np.linspace(0.5, 1, 100)))
    assert isinstance(nothing, NotReachable)
    assert nothing.more is not None
    assert nothing.more >= 60


def test_near_duplicates_prove_nothing_twice() -> None:
    spread = Spread.of(np.linspace(0.5, 1, 1_000))
    labels = replace(labels_of([1] * 200), group=np.repeat(np.arange(20), 10))
    assert isinstance(promise(labels, np.full(200, 0.9), spread), NotReachable)
    alone = replace(labels, group=np.full(200, -1))
    assert isinstance(promise(alone, np.full(200, 0.9), spread), Kept)


def test_the_curve_trades_tags_for_accuracy() -> None:
    images = world(honesty=1.0)
    top = 1 - images.doubts
    drawn = images.draw(800, Design.MIXED, 1)
    points = curve(images.labels(drawn), top[drawn.place], Spread.of(top))
    assert len(points) == 20
    assert points[0].tagged == 1
    assert points[-1].tagged == pytest.approx(0.05, abs=0.01)
    first, late = points[0].accuracy, points[16].accuracy
    assert first is not None
    assert late is not None
    assert late.value > first.value + 0.05
    for point in points:
        truth = images.right[top >= point.threshold].mean()
        if point.accuracy:
            assert point.accuracy.low - 0.03 <= truth <= point.accuracy.high + 0.03
    assert set(points[0].to_json()) == {"threshold", "tagged", "accuracy"}
    assert (
        curve(images.labels(drawn).where(np.arange(800) < 5), top[drawn.place][:5], Spread.of(top))[0].accuracy is None
    )


def test_few_different_probabilities_give_few_thresholds() -> None:
    spread = Spread.of(np.array([0.5] * 30 + [0.9] * 70))
    assert spread.edges.tolist() == [0.5, 0.9]
    assert spread.above.tolist() == [1.0, 0.7]
