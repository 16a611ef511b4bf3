"""What is measured must follow what is seen: blur, noise, darkness, gray; and stay as it is where nothing is seen."""

import math
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from vlm.demo import DEMO_PHOTOS
from vlm.measures import SIDE, Measures, distance, measure, perceptual_hash, reduced

PHOTOS = sorted(Path(DEMO_PHOTOS).glob("*.jpg"))


@pytest.fixture(scope="module", params=PHOTOS[::8], ids=lambda path: path.stem)
def photo(request: pytest.FixtureRequest) -> Image.Image:
    with Image.open(request.param) as image:
        return image.convert("RGB")


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    chance = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.rint(np.asarray(image) + chance), 0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return Image.open(encoded)


def falls(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def test_blur_lowers_sharpness(photo: Image.Image) -> None:
    assert falls([measure(photo.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 0.7, 1.5, 3, 6)])


def test_noise_is_told_in_its_own_measure(photo: Image.Image) -> None:
    clean = Image.fromarray(np.asarray(photo) // 2 + 64)  # nothing is clipped
    seen = [measure(noisy(clean, deviation)).noise for deviation in (16, 8, 4, 0)]
    assert falls(seen)
    gray = Image.new("RGB", (400, 300), (128, 128, 128))
    assert measure(noisy(gray, 8)).noise == pytest.approx(8, rel=0.05)


def test_darkening_lowers_luma_and_contrast(photo: Image.Image) -> None:
    dark = [measure(ImageEnhance.Brightness(photo).enhance(factor)) for factor in (1, 0.7, 0.4, 0.1)]
    for name in ("luminance", "p95", "contrast"):
        assert falls([getattr(each, name) for each in dark])
    assert all(each.p05 <= each.luminance <= each.p95 for each in dark)


def test_fading_lowers_colourfulness(photo: Image.Image) -> None:
    seen = [measure(ImageEnhance.Color(photo).enhance(factor)).colourfulness for factor in (1, 0.6, 0.2, 0)]
    assert falls(seen)
    assert seen[-1] == pytest.approx(0, abs=0.5)


def test_luma_by_definition() -> None:
    image = Image.new("L", (10, 10), 0)
    image.paste(200, (0, 0, 10, 4))  # 40 of 100 pixels
    seen = measure(image)
    assert (seen.luminance, seen.p05, seen.p95) == (80, 0, 200)
    assert seen.contrast == pytest.approx(math.sqrt(0.4 * 120**2 + 0.6 * 80**2))


def test_colourfulness_by_definition() -> None:
    image = Image.new("RGB", (10, 10), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 10, 5))
    red_green, yellow_blue = np.array([255.0, 0.0]), np.array([127.5, -255.0])
    expected = math.hypot(red_green.std(), yellow_blue.std()) + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())
    assert measure(image).colourfulness == pytest.approx(expected, rel=1e-5)


def test_a_flat_picture_has_nothing() -> None:
    assert measure(Image.new("RGB", (700, 350), (90, 90, 90))) == Measures(90, 90, 90, 0, 0, 0, 0, 2, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (3000, 1)])
def test_the_smallest_pictures_are_measured(size: tuple[int, int]) -> None:
    seen = measure(Image.new("RGB", size, "white"))
    assert (seen.luminance, seen.sharpness, seen.noise, seen.aspect) == (255, 0, 0, size[0] / size[1])


def test_a_copy_of_a_copy_keeps_the_size_of_the_picture() -> None:
    assert measure(Image.new("RGB", (50, 50)), size=(4000, 2000)).aspect == 2


def test_large_pictures_are_measured_as_their_copies(photo: Image.Image) -> None:
    large = photo.resize((3 * photo.width, 3 * photo.height), Image.Resampling.BICUBIC)
    assert max(reduced(large).size) == SIDE
    small, seen = measure(photo), measure(large)
    for name in ("luminance", "p05", "p95", "contrast", "colourfulness"):
        assert getattr(seen, name) == pytest.approx(getattr(small, name), rel=0.05, abs=2)


def test_the_hash_stays_under_encoding_scaling_and_light(photo: Image.Image) -> None:
    own = measure(photo).phash
    half = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
    large = photo.resize((3 * photo.width, 3 * photo.height), Image.Resampling.BICUBIC)
    for copy in (
        compressed(photo, 90),
        compressed(photo, 30),
        half,
        large,
        ImageEnhance.Brightness(photo).enhance(0.8),
    ):
        assert distance(own, measure(copy).phash) <= 6


def test_different_pictures_have_different_hashes() -> None:
    hashes = []
    for path in PHOTOS:
        with Image.open(path) as image:
            hashes.append(measure(image).phash)
    pairs = [distance(a, b) for place, a in enumerate(hashes) for b in hashes[:place]]
    assert min(pairs) > 10
    assert 28 < np.mean(pairs) < 36
    assert all(0 <= value < 1 << 64 for value in hashes)


def test_the_hash_is_that_of_a_cosine_transform(photo: Image.Image) -> None:
    gray = photo.convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    pixels, places = np.asarray(gray, dtype=float), (2 * np.arange(32) + 1) * np.pi / 64
    strengths = np.array(
        [
            (pixels * np.outer(np.cos(row * places), np.cos(column * places))).sum()
            for row in range(1, 9)
            for column in range(1, 9)
        ]
    )
    bits = "".join("1" if value > np.median(strengths) else "0" for value in strengths)
    assert perceptual_hash(gray) == int(bits, 2)


def test_sharpness_and_noise_by_definition(photo: Image.Image) -> None:
    plane = np.asarray(reduced(photo), dtype=float)

    def answers(mask: list[list[int]]) -> np.ndarray:
        height, width = plane.shape
        parts = [
            weight * plane[y : height - 2 + y, x : width - 2 + x]
            for y, row in enumerate(mask)
            for x, weight in enumerate(row)
        ]
        return np.sum(parts, axis=0)

    seen = measure(photo)
    assert seen.sharpness == pytest.approx(answers([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).var(), rel=1e-5)
    expected = math.sqrt(math.pi / 2) / 6 * np.abs(answers([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])).mean()
    assert seen.noise == pytest.approx(expected, rel=1e-5)
