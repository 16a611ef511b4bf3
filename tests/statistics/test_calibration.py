"""Calibrations that help, and those that are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.statistics.worlds import World, world
from vlm.statistics.accuracy import Labels
from vlm.statistics.calibration import (
    Calibration,
    CalibrationMismatch,
    Key,
    Refused,
    calibrate,
    calibration_error,
    fit,
    log_loss,
    reliability,
    scaled,
)
from vlm.statistics.distributions import FloatArray, IntArray
from vlm.statistics.draws import Design

KEY = Key("moondream2", "2025-06-21", "bfloat16", "full", "q1")
WORDS = ("a", "b", "c", "d")


def overconfident(samples: int, seed: int) -> tuple[FloatArray, IntArray, FloatArray]:
    """Return raw probabilities, truths and honest probabilities: raw is honest sharpened to the power of 2.5, leaning to one word."""
    chance = np.random.default_rng(seed)
    honest = scaled(chance.dirichlet(np.ones(4) * 0.8, samples), 1.0, np.zeros(4))
    truth = (honest.cumsum(axis=1) < chance.random((samples, 1))).sum(axis=1)
    return scaled(honest, 2.5, np.array([1.5, 0, 0, -0.5])), np.minimum(truth, 3), honest


def fitted(labels: int, seed: int) -> Calibration | Refused:
    raw, truth, _ = overconfident(labels, seed)
    return calibrate(raw, truth, None, WORDS, KEY)


def test_sixty_labels_halve_the_calibration_error_of_an_overconfident_model() -> None:
    raw, truth, _ = overconfident(20_000, 99)
    even = np.ones(len(truth))
    before = calibration_error(raw, truth, even)
    errors = []
    for seed in range(20):
        found = fitted(60, seed)
        assert isinstance(found, Calibration)
        assert found.after.log_loss < found.before.log_loss
        better = found.apply(raw, KEY)
        assert log_loss(better, truth, even) < log_loss(raw, truth, even)
        errors.append(calibration_error(better, truth, even))
    assert np.mean(errors) < before / 2


def test_enough_labels_recover_temperature_and_biases() -> None:
    found = fitted(4_000, 1)
    assert isinstance(found, Calibration)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    shift = np.array(found.bias) * found.temperature + np.array([1.5, 0, 0, -0.5])
    assert np.ptp(shift) < 0.3


def test_the_fit_is_the_least_penalised_log_loss() -> None:
    from scipy.optimize import minimize

    raw, truth, _ = overconfident(80, 3)
    weight = np.random.default_rng(1).random(80) * 2

    def loss(at: FloatArray) -> float:
        q = scaled(raw, at[0], at[1:])
        return -(weight * np.log(q[np.arange(80), truth])).sum() + 0.5 * (at[0] - 1) ** 2 + (at[1:] ** 2).sum()

    slope, bias = fit(raw, truth, weight)
    theirs = minimize(loss, np.array([1.0, 0, 0, 0, 0]), method="BFGS", options={"gtol": 1e-8})
    assert np.array([slope, *bias]) == pytest.approx(theirs.x, abs=1e-4)


def test_honest_probabilities_are_left_alone() -> None:
    kept = 0
    for seed in range(20):
        _, truth, honest = overconfident(200, seed)
        found = calibrate(honest, truth, None, WORDS, KEY)
        kept += isinstance(found, Refused) or abs(found.temperature - 1) < 0.35
    assert kept >= 18


def test_too_few_labels_are_refused() -> None:
    found = fitted(29, 1)
    assert isinstance(found, Refused)
    assert (found.reason, found.more) == ("too few labels", 1)
    assert found.to_json()["before"] is None


def test_probabilities_without_information_do_not_break_it() -> None:
    raw, truth, _ = overconfident(60, 5)
    for useless in (np.full_like(raw, 0.25), np.eye(4)[np.zeros(60, dtype=np.int64)], np.eye(4)[truth]):
        found = calibrate(useless, truth, None, WORDS, KEY)
        assert isinstance(found, (Calibration, Refused))
        if isinstance(found, Calibration):
            assert np.isfinite(found.apply(useless, KEY)).all()


@pytest.mark.parametrize("part", ["model", "revision", "dtype", "detail", "question"])
def test_another_key_is_refused(part: str) -> None:
    found = fitted(60, 1)
    assert isinstance(found, Calibration)
    with pytest.raises(CalibrationMismatch, match=f"another {part}"):
        found.apply(np.full((1, 4), 0.25), replace(KEY, **{part: "other"}))


def test_a_record_survives_json() -> None:
    found = fitted(60, 1)
    assert isinstance(found, Calibration)
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    raw, _, _ = overconfident(50, 2)
    assert again.apply(raw, KEY) == pytest.approx(found.apply(raw, KEY))


def test_weights_speak_for_the_whole_data_set() -> None:
    """Doubtful answers are over-represented among the labels; their weights undo it."""
    images = world(20_000)
    labels = images.labels(images.draw(1_500, Design.MIXED, 1))
    assert labels.scores is not None
    even = np.ones(len(images.truth))
    truth = calibration_error(images.scores, images.truth, even)
    assert calibration_error(labels.scores, labels.truth, labels.weight) == pytest.approx(truth, abs=0.035)
    assert log_loss(labels.scores, labels.truth, labels.weight) == pytest.approx(
        log_loss(images.scores, images.truth, even), rel=0.05
    )


def test_the_reliability_curve_holds_the_truth() -> None:
    images: World = world(20_000)
    held, bars = 0, 0
    for seed in range(60):
        labels = images.labels(images.draw(200, Design.MIXED, seed))
        curve = reliability(labels)
        assert len(curve) >= 5
        assert [bar.said for bar in curve] == sorted(bar.said for bar in curve)
        for bar in curve:
            assert bar.right.labels >= 10
            truth = 0.5 + 0.625 * (bar.said - 0.5)
            held += bar.right.low <= truth <= bar.right.high
            bars += 1
    assert 0.92 <= held / bars <= 0.985
    assert reliability(labels.where(np.arange(200) < 9)) == ()
    few = Labels(
        labels.said[:12],
        labels.truth[:12],
        labels.weight[:12],
        labels.scores[:12] if labels.scores is not None else None,
    )
    assert len(reliability(few)) == 1


def test_near_duplicates_are_seen_together_or_not_at_all() -> None:
    """Copies of forty labels in every fold would let the fit see what it is rated by."""
    raw, truth, _ = overconfident(40, seed=11)
    copies = 25
    group = np.tile(np.arange(40), copies)
    many = np.tile(raw, (copies, 1)), np.tile(truth, copies)
    seen = calibrate(*many, None, WORDS, KEY)
    apart = calibrate(*many, None, WORDS, KEY, group=group)
    alone = calibrate(*many, None, WORDS, KEY, group=np.full(len(group), -1))
    assert isinstance(seen, Calibration)
    assert alone == seen
    unseen = apart.after
    assert unseen is not None
    assert unseen.log_loss > seen.after.log_loss
