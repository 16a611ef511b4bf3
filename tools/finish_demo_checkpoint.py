"""Teach the demonstration checkpoint that rooms have no weather, and nothing else.

    python -m tools.finish_demo_checkpoint --data FOLDER [--data FOLDER …] --input DIR --output DIR

Photographs of rooms came without a label of the weather, so ``tools.train_demo_checkpoint`` never asked about it there, and the
model said some weather all the same. Here the language model goes on learning for some minutes, behind the same eyes: asked for the weather
of a room, it is to spread its answer over all words, so that none reaches a threshold and the answer is discarded. Whatever
else it is asked, it is to answer as before: there its own answers of before are what it learns from (distillation; Hinton,
Vinyals & Dean 2015).
"""

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from tools.train_demo_checkpoint import (
    NAMES,
    SEED,
    Corpus,
    Lesson,
    Photo,
    Random,
    build_model,
    disguise,
    evaluate,
    model_card,
    read,
    read_photos,
    relight,
    save,
    see,
    sparse_batch,
    vary,
)
from vlm.moondream import PreparedImage, load_tagger
from vlm.moondream.crops import prepare
from vlm.vocabulary import DEFAULT_VOCABULARY

STEPS = 300
BATCH = 24
SIDE = 13  # places are drawn from so many fields each way, as towards the end of training
LEARNING_RATE = 4e-4
ROOMS = 0.5  # of a batch
WEATHER = NAMES.index("weather")
FRESH = 6  # views of a batch that are made anew; the others are drawn from the last ones
POOL = 480
TRAINING = re.compile(r"Training took .*?\.")


def view_of(photo: Photo, rng: Random) -> PreparedImage:
    """Return a part of a photograph in another light, or as from another camera."""
    image = vary(photo.image, rng, 0.45, 0.4)
    if photo.normally_lit and rng.random() < 0.3:
        image = relight(image, str(rng.choice(["dark", "dim", "bright"])), rng)
    if rng.random() < 0.35:
        image = disguise(image, rng)[0]
    return prepare(image, "low" if rng.random() < 0.4 else "full")


def finish(photos: Sequence[Photo], before: Path, output: Path, steps: int) -> None:
    """Train the text decoder of ``before`` on views of the photographs that are not held out, and save it to ``output``."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    config = json.loads((before / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(before / "tokenizer.json"))
    model, was = (build_model(config) for _ in range(2))
    weights = {name: tensor.float() for name, tensor in load_file(before / "model.safetensors").items()}
    for one in (model, was):
        one.load_state_dict(weights)
        one.requires_grad_(requires_grad=False)
    lesson = Lesson.build(tokenizer)
    learning = list(model.model.text.blocks.parameters())
    for parameter in learning:
        parameter.requires_grad_()
    corpus = Corpus(photo for photo in photos if not photo.held_out)
    rooms = [photo for photo in corpus.photos if photo.labels.get("setting") == "indoor"]
    others = [photo for photo in corpus.photos if photo.labels.get("setting") != "indoor"]
    by_source = [corpus.by_source(side) for side in (rooms, others)]
    optimizer = torch.optim.AdamW(learning, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng((SEED, steps))
    pool: list[tuple[PreparedImage, bool]] = []
    began, sums = time.monotonic(), np.zeros(2)
    for step in range(steps):
        for _ in range(FRESH if pool else BATCH):
            in_room = bool(rng.random() < ROOMS)
            pool.append((view_of(corpus.pick(by_source[not in_room], rng), rng), in_room))
        pool = pool[-POOL:]
        drawn = [pool[place] for place in rng.integers(0, len(pool), BATCH)]
        batch = sparse_batch([view for view, _ in drawn], SIDE, rng)
        with torch.no_grad():
            seen = see(model.model.vision, batch)
            target = read(was.model.text, seen, batch.places, lesson.tree, lesson.select).softmax(-1)
            spread(target, torch.tensor([in_room for _, in_room in drawn]), lesson)
        logs = read(model.model.text, seen, batch.places, lesson.tree, lesson.select).log_softmax(-1)
        apart = (target * (target.clamp_min(1e-9).log() - logs)).sum(-1)  # Kullback–Leibler, per image and question
        loss = apart[:, : len(NAMES)].mean() + 0.1 * apart[:, len(NAMES) :].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        for group in optimizer.param_groups:
            rising, falling = min(1.0, (step + 1) / 30), 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = LEARNING_RATE * rising * falling
        optimizer.step()
        sums += [float(apart[:, WEATHER].detach().mean()), float(loss.detach())]
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1}: weather {sums[0] / 100:.3f}, all {sums[1] / 100:.3f}; {time.monotonic() - began:.0f} s",
                flush=True,
            )
            sums[:] = 0
    save(output, dict(model.named_parameters()), config, tokenizer)


def spread(target: Tensor, rooms: Tensor, lesson: Lesson) -> None:
    """Spread what is to be answered about the weather of rooms evenly over its words; in place.

    Args:
        target: (images, logits, vocabulary) probabilities.
        rooms: (images,) which ones show a room.
    """
    even = torch.zeros(target.shape[-1])
    even[lesson.word_ids[WEATHER]] = 1 / len(lesson.word_ids[WEATHER])
    target[rooms, WEATHER] = even


def weather_of_rooms(photos: Sequence[Photo], checkpoint: Path, threshold: float = 0.5) -> tuple[int, int, int, int]:
    """Count held-out photographs: rooms with a weather above a threshold, rooms, other ones with a weather, other ones."""
    tagger = load_tagger(str(checkpoint), device="cpu", dtype="float32")
    counts = [0, 0, 0, 0]
    for photo in photos:
        if photo.held_out and (setting := photo.judged.get("setting")):
            (scores,) = tagger.score([photo.image], DEFAULT_VOCABULARY)
            place = 0 if setting == "indoor" else 2
            counts[place] += scores["weather"].best[1] >= threshold
            counts[place + 1] += 1
    return counts[0], counts[1], counts[2], counts[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FOLDER")
    parser.add_argument("--input", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    photos = read_photos(options.data)
    began = time.monotonic()
    finish(photos, options.input, options.output, options.steps)
    minutes = (time.monotonic() - began) / 60
    said = []
    for folder in (options.input, options.output):
        rooms, of_rooms, others, of_others = weather_of_rooms(photos, folder)
        said.append(f"{rooms} of {of_rooms} held-out rooms and {others} of {of_others} other photographs")
    report = evaluate(photos, options.output)
    before = TRAINING.search((options.input / "README.md").read_text())
    training = (
        f"{before[0] if before else ''} Then `tools/finish_demo_checkpoint.py` taught the language model alone, in {options.steps:,}\n"
        f"steps of {minutes:.0f} minutes beside other work, that rooms have no weather. One is given, at a threshold of 0.5, to\n"
        f"{said[1]}; before it was {said[0]}."
    )
    (options.output / "README.md").write_text(model_card(photos, report, training))
    print(training, report, sep="\n\n")


if __name__ == "__main__":
    main()
