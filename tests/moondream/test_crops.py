"""Crops of large images: prepared from fewer pixels, tiled by the file's own size, and hardly different."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm.imaging import read_picture
from vlm.moondream.crops import UPSTREAM, Detail, PreparedImage, overlap_crops, prepare

PIXELS = 20_000_000


def photograph(width: int, height: int) -> Image.Image:
    """Something like a photograph: smooth shapes, edges, and the noise of a sensor."""
    chance = np.random.default_rng(0)
    smooth = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    edges = Image.fromarray(chance.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height), 0)
    mixed = np.asarray(Image.blend(smooth, edges, 0.3)).astype(np.int16)
    return Image.fromarray(np.clip(mixed + chance.integers(-8, 9, (height, width, 1)), 0, 255).astype(np.uint8))


def prepared(path: Path, detail: Detail) -> PreparedImage:
    picture = read_picture(path, max_pixels=PIXELS, enough=lambda size: UPSTREAM.enough(size, detail))
    return prepare(picture.image, detail, size=picture.size)


@pytest.mark.parametrize("detail", ["full", "low"])
def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path: Path, detail: Detail) -> None:
    path = tmp_path / "large.jpg"
    photograph(4000, 3000).save(path, quality=92)
    picture = read_picture(path, max_pixels=PIXELS, enough=lambda size: UPSTREAM.enough(size, detail))
    assert (picture.size, picture.image.size) == ((4000, 3000), (2000, 1500) if detail == "full" else (1000, 750))
    with Image.open(path) as image:
        crops, tiling = overlap_crops(image)
    seen = prepared(path, detail)
    # Of its decoded size it would be (3, 4).
    assert seen.tiling == (tiling if detail == "full" else (1, 1)) == ((2, 4) if detail == "full" else (1, 1))
    assert seen.crops.shape == (crops if detail == "full" else crops[:1]).shape
    difference = np.abs(seen.crops.astype(np.int16) - crops[: len(seen.crops)])
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.999) <= 5
    assert 10 * np.log10(255**2 / (difference.astype(float) ** 2).mean()) > 48


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(640, 480), (378, 378), (1500, 1100), (300, 1400), (1176, 1000)])
def test_below_twice_the_target_everything_is_exact(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    photograph(*size).save(path)
    with Image.open(path) as image:
        crops, tiling = overlap_crops(image)
    seen = prepared(path, "full")
    assert seen.tiling == tiling
    assert np.array_equal(seen.crops, crops[: len(seen.crops)])
    if max(size) < 2 * 378:
        assert np.array_equal(prepared(path, "low").crops, crops[:1])


def test_a_turned_jpeg_is_tiled_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    photograph(4000, 2400).save(path, exif=exif, quality=92)
    picture = read_picture(path, max_pixels=PIXELS, enough=lambda size: UPSTREAM.enough(size, "full"))
    assert picture.size == (2400, 4000)
    assert picture.image.height > picture.image.width
    with Image.open(path) as image:
        crops, tiling = overlap_crops(image.transpose(Image.Transpose.ROTATE_270))
    seen = prepared(path, "full")
    assert seen.tiling == tiling
    assert np.abs(seen.crops.astype(np.int16) - crops).mean() < 0.7


@given(width=st.integers(1, 30_000), height=st.integers(1, 30_000))
def test_enough_pixels_are_more_than_are_used(width: int, height: int) -> None:
    for detail in ("full", "low"):
        across, down = UPSTREAM.enough((width, height), detail)
        tiling = (1, 1) if detail == "low" else UPSTREAM.tiling(width, height)
        used = (378, 378) if tiling == (1, 1) else UPSTREAM.resized(tiling)
        assert across >= 1.5 * used[0]
        assert down >= 1.5 * used[1]
