"""What a calibration is worth: the demonstration checkpoint on photographs that it was not trained on.

``python -m benchmarks.calibration --data FOLDER --data FOLDER --json`` reads the folders that ``tools.train_demo_checkpoint`` trains
from, asks about what that holds out, and fits a calibration on 60 of a dimension's labels. Rated are the labels that are
left; means over many draws of the 60. Where the fit is refused, what is rated after it is what was there before.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import machine, show
from tools.train_demo_checkpoint import read_photos
from vlm.demo import DEMO_CHECKPOINT
from vlm.moondream import load_tagger
from vlm.statistics.calibration import Calibration, Key, calibrate, quality
from vlm.vocabulary import DEFAULT_VOCABULARY

KEY = Key("demonstration", "", "float32", "", "")
Answers = dict[str, tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]]


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
    words = {dimension.name: dimension.words for dimension in DEFAULT_VOCABULARY}
    figures: dict[str, Any] = {"machine": machine(), "labels that it was fitted on": labels}
    chance = np.random.default_rng(7)
    for name, (probabilities, truth) in answers.items():
        if len(truth) < 1.5 * labels:
            figures[f"{name}: too few labels"] = len(truth)
            continue
        before, after, used = [], [], 0
        for _ in range(draws):
            order = chance.permutation(len(truth))
            mine, rest = order[:labels], order[labels:]
            found = calibrate(probabilities[mine], truth[mine], None, words[name], KEY)
            even = np.ones(len(rest))
            before.append(quality(probabilities[rest], truth[rest], even))
            used += isinstance(found, Calibration)
            scaled = found.apply(probabilities[rest], KEY) if isinstance(found, Calibration) else probabilities[rest]
            after.append(quality(scaled, truth[rest], even))
        figures[f"{name}: labels in all"] = len(truth)
        figures[f"{name}: used in so many of {draws} draws"] = used
        for figure in ("ece", "log_loss"):
            was, now = (float(np.mean([getattr(one, figure) for one in side])) for side in (before, after))
            figures[f"{name}: {figure} before, after"] = (round(was, 4), round(now, 4))
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
