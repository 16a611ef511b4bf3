"""The demonstration checkpoint and its photographs: small, marked as what they are, and good enough for a first look."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vlm.demo import DEMO_CHECKPOINT, DEMO_PHOTOS
from vlm.moondream import DimensionScore, Tagger, load_tagger
from vlm.vocabulary import DEFAULT_VOCABULARY

MEGABYTE = 1_000_000
PHOTOS = sorted(DEMO_PHOTOS.glob("*.jpg"))
INDOORS = (
    "astronaut-portrait", "bathroom-glass-shower", "bathroom-long-counter", "bathroom-open-door", "bathroom-white-tiles",
    "bicycle-workshop", "dark-cupboard", "espresso-cup", "officer-portrait", "restaurant-kitchen-cooks",
    "two-cats-one-shoe", "wine-and-drum-table",
)  # fmt: skip
OUTDOORS = (
    "autumn-mountain-meadow", "cable-bridge-beach", "car-motion-blur", "dahlia", "dandelions-at-dusk",
    "dragonfly-in-hedge", "dune-grass", "forest-brook", "green-meadow", "guineafowl-in-haze", "ladybird-on-flower",
    "mountain-path-snow-peaks", "nuthatch-on-trunk-winter", "office-building", "old-town-lane", "pasture-under-clouds",
    "reader-on-wall-paris", "rocket-launch-pad-dusk", "squirrel-on-branch", "storm-clouds-motorway",
    "summer-palace-tower", "sunset-over-hills", "swallowtail-on-leaf", "yellow-church",
)  # fmt: skip


def opened(name: str) -> Image.Image:
    return Image.open(DEMO_PHOTOS / f"{name}.jpg").convert("RGB")


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return load_tagger(str(DEMO_CHECKPOINT), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scores(tagger: Tagger) -> dict[str, dict[str, DimensionScore]]:
    images = [Image.open(path).convert("RGB") for path in PHOTOS]
    rows = tagger.score(images, DEFAULT_VOCABULARY)
    return {path.stem: row for path, row in zip(PHOTOS, rows, strict=True)}


def test_checkpoint_is_small_and_marked() -> None:
    assert sum(path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()) <= 8 * MEGABYTE
    config = json.loads((DEMO_CHECKPOINT / "config.json").read_text())
    assert config["model_type"] == "moondream1"
    assert config["demonstration"] is True
    assert (DEMO_CHECKPOINT / "README.md").read_text().startswith("For demonstration and tests only")


def test_tagger_knows_that_it_is_a_demonstration(tagger: Tagger) -> None:
    assert tagger.demonstration is True


@pytest.mark.parametrize("dimension", DEFAULT_VOCABULARY.names)
def test_answers_are_allowed_words(dimension: str, scores: dict[str, dict[str, DimensionScore]]) -> None:
    masses = [row[dimension].mass for row in scores.values()]
    assert np.mean([mass >= 0.5 for mass in masses]) >= 0.9


def test_greedy_answers_are_the_most_probable_words(tagger: Tagger) -> None:
    images = [opened(name) for name in (INDOORS[0], OUTDOORS[0])]
    questions = [dimension.question for dimension in DEFAULT_VOCABULARY]
    rows = tagger.score(images, DEFAULT_VOCABULARY)
    for answers, row in zip(tagger.answers(images, questions), rows, strict=True):
        assert answers == [row[name].best[0] for name in DEFAULT_VOCABULARY.names]


def test_the_setting_is_more_often_right_than_by_chance(scores: dict[str, dict[str, DimensionScore]]) -> None:
    shares = [
        np.mean([scores[name]["setting"].best[0] == word for name in names])
        for word, names in (("indoor", INDOORS), ("outdoor", OUTDOORS))
    ]
    assert np.mean(shares) >= 0.65, shares  # one answer for all gets 0.5, and coins get there once in twenty times


@pytest.mark.parametrize("name", ["summer-palace-tower", "office-building", "bathroom-long-counter"])
def test_degraded_photograph_changes_the_answer(name: str, tagger: Tagger) -> None:
    image = opened(name)
    grain = np.random.default_rng(1).normal(0, 45, (image.height, image.width, 3))
    noisy = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    black, blurred = image.point(lambda value: value * 0.1), image.filter(ImageFilter.GaussianBlur(6))
    plain, dark, blurry, grainy = tagger.score([image, black, blurred, noisy], DEFAULT_VOCABULARY)
    assert plain["lighting"].best[0] not in ("dark", "dim")
    assert dark["lighting"].best[0] == "dark"
    assert plain["clarity"].best[0] == "sharp"
    assert blurry["clarity"].best[0] == "blurry"
    assert grainy["clarity"].best[0] == "noisy"


def test_photographs_are_few_and_small() -> None:
    assert 30 <= len(PHOTOS) <= 50
    assert sum(path.stat().st_size for path in DEMO_PHOTOS.iterdir()) <= 4 * MEGABYTE


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photograph_is_clean(path: Path) -> None:
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        assert max(image.size) <= 640
        assert not image.getexif()
        assert not {"exif", "xmp", "icc_profile", "photoshop", "comment"} & set(image.info)


def test_attribution_names_every_photograph_and_no_other() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DEMO_PHOTOS / "ATTRIBUTION.md").read_text().splitlines()
        if re.match(r"\| \S+\.jpg \|", line)
    ]
    assert sorted(row[0] for row in rows) == [path.name for path in PHOTOS]
    assert all(len(row) == 5 and all(row) for row in rows)


def test_rooms_get_no_weather(scores: dict[str, dict[str, DimensionScore]]) -> None:
    given = [name for name in INDOORS if scores[name]["weather"].best[1] >= 0.5]
    assert len(given) <= 1, given
    assert sum(scores[name]["weather"].best[1] >= 0.5 for name in OUTDOORS) >= len(OUTDOORS) / 3
