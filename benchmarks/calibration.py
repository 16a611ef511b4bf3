"""What a calibration is worth: the demonstration checkpoint on photographs that it was not trained on.

``python -m benchmarks.calibration --data FOLDER --data FOLDER --json`` reads the folders that ``tools.train_demo_checkpoint`` trains
from, asks about what that holds out, and fits a calibration on 60 of a dimension's labels. Rated are the labels that are
left; means over many draws of the 60. Where the fit is refused, what is rated after it is what was there before. The same once more
with probabilities that were made overconfident.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import machine, show
from tools.train_demo_checkpoint import read_photos
from vlm.demo import DEMO_CHECKPOINT
from vlm.moondream import load_tagger
from vlm.statistics.calibration import Calibration, Key, calibrate, quality, scaled
from vlm.vocabulary import DEFAULT_VOCABULARY

KEY = Key("demonstration", "", "float32", "", "")
OVERCONFIDENT = 3.0  # the demonstration is trained to be honest; a model that is not says as much in higher powers
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Answers = dict[str, tuple[Floats, Ints]]


def ask(folders: list[Path], detail: Any) -> Answers:
    """Return dimension → the probabilities of held-out photographs that have a label, and the label's place."""
    tagger = load_tagger(str(DEMO_CHECKPOINT), device="cpu", dtype="float32")
    photos = [photo for photo in read_photos(folders) if photo.held_out and photo.judged]
    rows: dict[str, list[tuple[tuple[float, ...], int]]] = {name: [] for name in DEFAULT_VOCABULARY.names}
    for photo in photos:
        (scores,) = tagger.score([photo.image], DEFAULT_VOCABULARY, detail)
        for name, word in photo.judged.items():
            rows[name].append((scores[name].probabilities, scores[name].words.index(word)))
    return {
        name: (np.array([row[0] for row in found]), np.array([row[1] for row in found]))
        for name, found in rows.items()
        if found
    }


def measure(answers: Answers, labels: int, draws: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"machine": machine(), "labels that it was fitted on": labels}
    for name, (probabilities, truth) in answers.items():
        if len(truth) < 1.5 * labels:
            figures[f"{name}: too few labels"] = len(truth)
            continue
        figures[f"{name}: labels in all"] = len(truth)
        figures |= {f"{name}: {said}": value for said, value in rate(name, probabilities, truth, labels, draws).items()}
        sharper = scaled(probabilities, OVERCONFIDENT, np.zeros(probabilities.shape[1]))
        figures |= {
            f"{name}, made overconfident: {said}": value
            for said, value in rate(name, sharper, truth, labels, draws).items()
        }
    return figures


def rate(name: str, probabilities: Floats, truth: Ints, labels: int, draws: int) -> dict[str, Any]:
    """Return how good probabilities are before and after a calibration, on labels that it had not seen.

    Among them, what the calibration error would be if the probabilities were honest: each label drawn by what is said of it.
    With a hundred labels that is far from zero, and nothing gets below it.
    """
    words = DEFAULT_VOCABULARY[name].words
    chance = np.random.default_rng(7)
    before, after, honest, used = [], [], [], 0
    for _ in range(draws):
        order = chance.permutation(len(truth))
        mine, rest = order[:labels], order[labels:]
        even = np.ones(len(rest))
        found = calibrate(probabilities[mine], truth[mine], None, words, KEY)
        used += isinstance(found, Calibration)
        better = found.apply(probabilities[rest], KEY) if isinstance(found, Calibration) else probabilities[rest]
        before.append(quality(probabilities[rest], truth[rest], even))
        after.append(quality(better, truth[rest], even))
        drawn = (chance.random((len(rest), 1)) > better.cumsum(axis=1)).sum(axis=1).clip(max=better.shape[1] - 1)
        honest.append(quality(better, drawn, even))
    figures: dict[str, Any] = {f"used in so many of {draws} draws": used}
    for figure in ("ece", "log_loss"):
        means = [float(np.mean([getattr(one, figure) for one in side])) for side in (before, after, honest)]
        figures[f"{figure} before, after, if honest"] = tuple(round(mean, 4) for mean in means)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FOLDER")
    parser.add_argument("--detail", choices=["full", "low"], default="full")
    parser.add_argument("--labels", type=int, default=60)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(measure(ask(options.data, options.detail), options.labels, options.draws), as_json=options.json)


if __name__ == "__main__":
    main()
