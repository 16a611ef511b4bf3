"""What further wordings of a question cost: each question with one wording against several, at full size with random weights.

    python -m benchmarks.wordings --json

All wordings of all questions go through the language model in one pass behind the same image, so an image is encoded once
whatever is asked. Both sides take turns in one process; the ratio is the median over the rounds.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from statistics import median

from vlm.moondream import Tagger
from vlm.moondream.devices import resolve_device, resolve_dtype
from vlm.moondream.linear import layer_form
from vlm.vocabulary import DEFAULT_VOCABULARY, Vocabulary, orders_of

from .engine import Case, machine, random_image, random_model, stand_in_tokenizer

CASES = (Case("640×480 full", 640, 480, "full"), Case("640×480 low", 640, 480, "low"))


def worded(count: int) -> Vocabulary:
    """Return the usual vocabulary with ``count`` wordings of each question: its words in other orders, else other ends."""
    dimensions = []
    for dimension in DEFAULT_VOCABULARY:
        others = orders_of(dimension, count - 1)
        filled = [f"{dimension.question} Answer {number}." for number in range(count - 1 - len(others))]
        dimensions.append(replace(dimension, wordings=(*others, *filled)))
    return Vocabulary(tuple(dimensions))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--wordings", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    one, several = DEFAULT_VOCABULARY, worded(options.wordings)
    model = random_model(device, dtype, layer_form(device, dtype))
    tagger = Tagger(model, stand_in_tokenizer(several), model_id="random", revision="random", batch_size=1)
    found = {}
    for case in CASES:
        picture = random_image(case, 0)
        taken: dict[str, list[float]] = {"one": [], "several": []}
        for _ in range(options.rounds):
            for name, vocabulary in (("one", one), ("several", several)):
                begun = time.perf_counter()
                tagger.score([picture], vocabulary, case.detail)
                taken[name].append(time.perf_counter() - begun)
        ratio = median(b / a for a, b in zip(taken["one"], taken["several"], strict=True))
        found[case.name] = {
            "one_wording_seconds": round(median(taken["one"]), 2),
            "several_wordings_seconds": round(median(taken["several"]), 2),
            "ratio": round(ratio, 3),
        }
        print(
            f"{case.name}: {options.wordings} wordings take {ratio:.2f} times as long as one",
            file=sys.stderr,
            flush=True,
        )
    if options.json:
        print(
            json.dumps(
                {"machine": machine(device), "dtype": tagger.dtype, "wordings": options.wordings, "cases": found},
                ensure_ascii=False,
            )
        )


if __name__ == "__main__":
    main()
