"""The statistics at a million samples.

``python -m benchmarks.statistics --samples 1000000 --json`` draws a batch for review, evaluates 10,000 labels, fits a
calibration, explains a flag and a number by 20 words, and groups hashes. Medians of three.
"""

import argparse

import numpy as np

from benchmarks.report import machine, median_ms, show
from vlm.statistics.accuracy import Labels, Population, design_weights, evaluate
from vlm.statistics.calibration import Key, calibrate
from vlm.statistics.draws import draw
from vlm.statistics.duplicates import duplicate_groups
from vlm.statistics.slices import explain
from vlm.statistics.thresholds import Spread, promise

WORDS = ("bright", "dim", "dark", "night")
KEY = Key("model", "revision", "float32", "full", "question")


def measure(samples: int, labels: int = 10_000) -> dict[str, object]:
    chance = np.random.default_rng(11)
    raw = chance.dirichlet([0.5] * len(WORDS), samples)
    said, top = raw.argmax(axis=1), raw.max(axis=1)
    truth = np.where(chance.random(samples) < top, said, (said + 1) % len(WORDS))
    drawn = draw(min(labels, samples), words=said, doubts=1 - top, seed=1)
    place = drawn.place
    labelled = Labels(said[place], truth[place], design_weights(drawn.probability), raw[place], said[place])
    population, spread = Population.of(said, raw), Spread.of(top)
    features = np.concatenate([said[chance.permutation(samples), None] == np.arange(4) for _ in range(5)], axis=1)
    flag, number = chance.random(samples) < 0.1, chance.exponential(size=samples)
    hashes = chance.integers(0, 2**64, samples, dtype=np.uint64)
    near = samples // 20
    hashes[:near] = hashes[near : 2 * near] ^ (np.uint64(1) << chance.integers(0, 64, near).astype(np.uint64))
    figures: dict[str, object] = {"machine": machine(), "samples": samples, "labels": len(place)}
    for name, run in {
        "draw 500 for review, ms": lambda: draw(500, words=said, doubts=1 - top, seed=2),
        "evaluate the labels, ms": lambda: evaluate(labelled, population, WORDS),
        "sums over the population, ms": lambda: Population.of(said, raw),
        "calibrate on 500 labels, ms": lambda: calibrate(raw[place[:500]], truth[place[:500]], None, WORDS, KEY),
        "find a promise, ms": lambda: promise(labelled, top[place], spread),
        "explain a flag by 20 words, ms": lambda: explain(features, flag),
        "explain a number by 20 words, ms": lambda: explain(features, number),
        "group hashes within 4 bits, ms": lambda: duplicate_groups(hashes, 4),
    }.items():
        figures[name] = median_ms(run, repeat=3)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.samples)
    show(found, as_json=chosen.json)
