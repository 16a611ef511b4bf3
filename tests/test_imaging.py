"""Pixels come back upright, in RGB, or with a reason why not."""

import hashlib
import os
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from tests.effort import examples
from vlm import imaging
from vlm.demo import DEMO_PHOTOS
from vlm.imaging import ImageUnreadable, file_digest, header, image_size, read_image, read_picture
from vlm.measures import distance, measure
from vlm.roots import LocalRoot
from vlm.thumbnails import remove_thumbnails, thumbnail

LIMIT = 1_000_000
QUADRANTS = {"red": (0, 0), "lime": (1, 0), "blue": (0, 1), "white": (1, 1)}
# What turns the upright picture into the one that is stored with an orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(width: int = 48, height: int = 32) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for colour, (column, row) in QUADRANTS.items():
        image.paste(
            colour, (column * width // 2, row * height // 2, (column + 1) * width // 2, (row + 1) * height // 2)
        )
    return image


def read(path: Path, limit: int = LIMIT) -> Image.Image:
    image = read_image(path, max_pixels=limit)
    assert image.mode == "RGB"
    return image


def difference(first: Image.Image, second: Image.Image) -> float:
    assert first.size == second.size
    return float(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).mean())


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_back_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright, method = picture(), STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    stored.save(path, exif=exif, lossless=suffix == ".webp")
    assert difference(read(path), upright) == 0
    assert image_size(path) == upright.size


def behind_pixels(path: Path, chunk: bytes) -> None:
    """Add a chunk to a PNG where some programs write what they know: at its end."""
    whole = path.read_bytes()
    end = png_chunk(b"IEND", b"")
    assert whole.endswith(end)
    path.write_bytes(whole.removesuffix(end) + chunk + end)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """The PNG files whose pixels Pillow decoded."""
    seen: list[Image.Image] = []
    load = PngImageFile.load

    def noted(self: PngImageFile) -> object:
        seen.append(self)
        return load(self)

    monkeypatch.setattr(PngImageFile, "load", noted)
    return seen


def test_the_head_of_a_png_is_read_without_its_pixels(tmp_path: Path, decoded: list[Image.Image]) -> None:
    path = tmp_path / "image.png"
    picture().save(path)
    assert header(path) == (picture().size, {})
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    picture().save(path, exif=exif)
    assert header(path) == (picture().size[::-1], {0x0112: 6, 0x010F: "Maker"})
    assert image_size(path) == picture().size[::-1]
    assert decoded == []
    assert read(path).size == picture().size[::-1]
    assert decoded != []


@pytest.mark.parametrize("way", ["eXIf", "raw profile", "xmp"])
def test_exif_behind_the_pixels_of_a_png_counts(tmp_path: Path, way: str) -> None:
    path, exif = tmp_path / "image.png", Image.Exif()
    exif[0x0112] = 6
    said = exif.tobytes()
    profile = f"\nexif\n{len(said):8d}\n{said.hex()}\n".encode()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    picture().save(path)
    behind_pixels(path, png_chunk(b"tEXt", b"date:create\0today"))
    behind_pixels(
        path,
        {
            "eXIf": png_chunk(b"eXIf", said.removeprefix(b"Exif\0\0")),
            "raw profile": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
            "xmp": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        }[way],
    )
    assert header(path)[0] == read(path).size == picture().size[::-1]
    assert header(path)[1][0x0112] == 6
    with path.open("rb") as file:  # as a bucket's, of which the head alone is fetched
        assert header(file) == (picture().size, {})


def test_what_ends_in_the_middle_of_a_png_is_no_exif(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    picture().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert header(path) == (picture().size, {})


def test_an_illegal_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    picture().save(tmp_path / "image.png", exif=exif)
    assert difference(read(tmp_path / "image.png"), picture()) == 0


def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "image.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=95)
    assert difference(read(tmp_path / "image.jpg"), picture()) < 4
    assert image_size(tmp_path / "image.jpg") == (48, 32)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_seen_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 1), 0)
    image.putpixel((1, 0), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 128) if mode == "LA" else (0, 0, 0, 128))
    image.save(tmp_path / "image.png")
    row = [read(tmp_path / "image.png").getpixel((x, 0)) for x in range(3)]
    assert row == [(255, 255, 255), (0, 0, 0), (127, 127, 127)]


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "image.png", transparency=1)
    assert [read(tmp_path / "image.png").getpixel((x, 0)) for x in (0, 1)] == [(200, 10, 10), (255, 255, 255)]


def test_a_colour_key_is_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    image.save(tmp_path / "image.png", transparency=(9, 9, 9))
    assert [read(tmp_path / "image.png").getpixel((x, 0)) for x in (0, 1)] == [(1, 2, 3), (255, 255, 255)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 64, 257 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"image{suffix}")
    assert np.asarray(read(tmp_path / f"image{suffix}"))[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(("brightest", "expected"), [(1.0, 255), (200.0, 200)])
def test_floats_count_to_one_or_to_255(tmp_path: Path, brightest: float, expected: int) -> None:
    values = np.array([[0.0, brightest, float("nan")]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "image.tif")
    assert np.asarray(read(tmp_path / "image.tif"))[0, :, 1].tolist() == [0, expected, 0]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "image.png")
    assert [read(tmp_path / "image.png").getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_an_inverted_adobe_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    """Pillow writes CMYK JPEGs as Photoshop does: inverted, with an Adobe marker."""
    picture().convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "image.jpg").read_bytes()
    assert difference(read(tmp_path / "image.jpg"), picture()) < 8


def test_a_damaged_profile_does_not_stop_cmyk(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "image.jpg", quality=95, icc_profile=b"no profile at all")
    assert difference(read(tmp_path / "image.jpg"), picture()) < 8


def test_lab_is_converted(tmp_path: Path) -> None:
    muted = Image.blend(picture(), Image.new("RGB", (48, 32), "gray"), 0.7)  # Lab of 8 bits is coarse in bright colours
    lab = ImageCms.profileToProfile(
        muted, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "image.tif")
    assert difference(read(tmp_path / "image.tif"), muted) < 3


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_many_frames_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / f"image{suffix}", save_all=True, append_images=[second], lossless=suffix == ".webp")
    assert read(tmp_path / f"image{suffix}").getpixel((4, 4)) == (255, 0, 0)


def test_heic_and_avif_are_read(tmp_path: Path) -> None:
    pillow_heif.from_pillow(picture()).save(tmp_path / "image.heic", quality=90)
    picture().save(tmp_path / "image.avif", quality=90)
    for name in ("image.heic", "image.avif"):
        assert difference(read(tmp_path / name), picture()) < 12
        assert image_size(tmp_path / name) == (48, 32)


def test_content_counts_and_not_the_ending(tmp_path: Path) -> None:
    picture().save(tmp_path / "image.jpg", format="PNG")
    assert difference(read(tmp_path / "image.jpg"), picture()) == 0


def damaged_files() -> dict[str, bytes]:
    huge = png_header(30_000, 30_000) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
    text_bomb = (
        png_header(1, 1)
        + png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
        + png_chunk(b"IDAT", zlib.compress(b"\0abc"))
        + png_chunk(b"IEND", b"")
    )
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is not an image.",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "random.jpg": bytes(range(256)) * 16,
        "head.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01",
        "huge.png": huge,
        "bomb.png": text_bomb,
        "canvas.gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;",
    }


REASONS = {
    "empty.jpg": "empty",
    "text.jpg": "no image in a format",
    "page.jpg": "no image in a format",
    "pointer.jpg": "git lfs pull",
    "drawing.svg": "no image in a format",
    "random.jpg": "no image in a format",
    "head.jpg": "damaged",
    "huge.png": "DATAVISOR_MAX_PIXELS",
    "bomb.png": "damaged",
    "canvas.gif": "DATAVISOR_MAX_PIXELS",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_image_has_a_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(damaged_files()[name])
    with pytest.raises(ImageUnreadable, match=REASONS[name]):
        read(path)
    with pytest.raises(ImageUnreadable):
        thumbnail(LocalRoot(tmp_path), path.name, size=32, cache_dir=tmp_path / "cache", key="1", max_pixels=LIMIT)
    assert not list((tmp_path / "cache").rglob("*.webp"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif"])
def test_a_truncated_image_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.effect_noise((200, 200), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageUnreadable, match=r"damaged or cut short|no image in a format"):
        read(path)


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="not there any more"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(ImageUnreadable, match="no regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageUnreadable, match="no regular file"):
        image_size(tmp_path / "pipe.jpg")


def test_the_pixel_limit_is_exact(tmp_path: Path) -> None:
    picture(40, 30).save(tmp_path / "image.png")
    assert read(tmp_path / "image.png", limit=1200).size == (40, 30)
    with pytest.raises(ImageUnreadable, match=r"40 × 30 pixels.*1,199"):
        read(tmp_path / "image.png", limit=1199)


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ends_as_anything_but_unreadable(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".gif", ".webp", ".tif", ".bmp", ".avif", ".jp2"]))
    path = tmp_path / f"fuzzed{suffix}"
    picture(16, 16).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with suppress(ImageUnreadable):
        assert read_image(path, max_pixels=LIMIT).mode == "RGB"
    with suppress(ImageUnreadable):
        assert min(image_size(path)) > 0


# -- thumbnails -------------------------------------------------------------------------------------------------------


def make_thumbnail(path: Path, cache: Path, *, size: int = 20, key: str = "1") -> Path:
    return thumbnail(LocalRoot(path.parent), path.name, size=size, cache_dir=cache, key=key, max_pixels=LIMIT)


def test_a_thumbnail_is_small_upright_and_made_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, cache = tmp_path / "image.jpg", tmp_path / "cache"
    picture(480, 320).transpose(Image.Transpose.ROTATE_90).save(image, exif=exif, quality=95)
    made = make_thumbnail(image, cache, size=60)
    with Image.open(made) as opened:
        assert (opened.format, opened.size) == ("WEBP", (60, 40))
        assert difference(opened.convert("RGB"), picture(60, 40)) < 12
    before = made.stat()
    assert make_thumbnail(image, cache, size=60) == made
    assert made.stat().st_mtime_ns == before.st_mtime_ns
    assert make_thumbnail(image, cache, size=60, key="2") != made
    assert make_thumbnail(image, cache, size=30) != made
    assert not [path for path in cache.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize(("size", "expected"), [((10, 6), (10, 6)), ((900, 1), (20, 1)), ((1, 900), (1, 20))])
def test_a_thumbnail_is_never_enlarged_and_never_empty(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size, "navy").save(tmp_path / "image.png")
    with Image.open(make_thumbnail(tmp_path / "image.png", tmp_path / "cache")) as opened:
        assert opened.size == expected


def test_removing_thumbnails_spares_other_data_sets(tmp_path: Path) -> None:
    cache, thumbnails = tmp_path / "cache", {}
    for folder in ("one", "one/below", "one more"):
        (tmp_path / folder).mkdir()
        picture().save(tmp_path / folder / "image.png")
        thumbnails[folder] = make_thumbnail(tmp_path / folder / "image.png", cache)
    remove_thumbnails(cache, LocalRoot(tmp_path / "one"))
    assert [path.exists() for path in thumbnails.values()] == [False, False, True]
    remove_thumbnails(tmp_path / "no cache", LocalRoot(tmp_path / "one"))


# -- deep gray, missing ends, digests, measures -----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_of_fewer_bits_in_a_file_of_sixteen_is_not_black(tmp_path: Path, bits: int, suffix: str) -> None:
    white = (1 << bits) - 1
    values = np.array([[0, white // 4, white // 2, white]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"image{suffix}")
    assert np.asarray(read(tmp_path / f"image{suffix}"))[0, :, 0].tolist() == pytest.approx([0, 64, 127, 255], abs=1)


def test_gray_of_32_bits_is_scaled_too(tmp_path: Path) -> None:
    values = np.array([[-5, 0, 1 << 19, (1 << 20) - 1]], dtype=np.int32)
    Image.fromarray(values).save(tmp_path / "image.tif")
    assert np.asarray(read(tmp_path / "image.tif"))[0, :, 0].tolist() == [0, 0, 128, 255]


def test_black_of_sixteen_bits_stays_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "image.png")
    assert np.asarray(read(tmp_path / "image.png")).max() == 0


def detailed(width: int = 203, height: int = 149) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


JPEG_KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "unsubsampled": {"subsampling": 0, "quality": 95},
    "restarts": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read(tmp_path: Path, kind: str, missing: int) -> None:
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    detailed().save(path, exif=exif, **JPEG_KINDS[kind])
    whole = read(path)
    path.write_bytes(path.read_bytes()[:-missing])
    assert difference(read(path), whole) == 0
    assert read_picture(path, max_pixels=LIMIT, digested=True).image.size == whole.size == (149, 203)


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("missing", [8, 20, 200, 3000])
def test_a_jpeg_that_lacks_more_than_its_end_marker_is_not(tmp_path: Path, kind: str, missing: int) -> None:
    path = tmp_path / "image.jpg"
    detailed().save(path, **JPEG_KINDS[kind])
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ImageUnreadable, match="cut short"):
        read(path)


@pytest.mark.parametrize("held", [1 << 20, 100])
def test_the_digest_is_that_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(imaging, "_HELD_AT_MOST", held)
    path = tmp_path / "image.png"
    picture().save(path)
    seen = read_picture(path, max_pixels=LIMIT, digested=True)
    assert seen.digest == hashlib.sha256(path.read_bytes()).hexdigest() == file_digest(path)
    assert difference(seen.image, picture()) == 0
    assert read_picture(path, max_pixels=LIMIT).digest == ""


def test_digest_and_measures_take_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "image.jpg", []
    detailed().save(path)
    own = Path.open

    def counting(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self)
        return own(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counting)
    seen = read_picture(path, max_pixels=LIMIT, digested=True, measured=True)
    assert opened == [path]
    assert seen.measures == measure(seen.image)


def test_measures_hardly_depend_on_how_much_was_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with Image.open(sorted(DEMO_PHOTOS.glob("*.jpg"))[5]) as photo:
        photo.resize((2400, 1800), Image.Resampling.BICUBIC).save(path, quality=92)
    whole, part = (
        read_picture(path, max_pixels=10_000_000, enough=lambda _, side=side: (side, side), measured=True)  # type: ignore[misc]
        for side in (2400, 400)
    )
    assert (whole.image.width, part.image.width) == (2400, 600)
    assert whole.measures is not None
    assert part.measures is not None
    assert part.measures.aspect == whole.measures.aspect
    assert distance(part.measures.phash, whole.measures.phash) <= 4
    for name in ("luminance", "p05", "p95", "contrast", "colourfulness"):
        assert getattr(part.measures, name) == pytest.approx(getattr(whole.measures, name), rel=0.05, abs=2)


# -- what decoding may take -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_much_larger_images_are_averaged_as_they_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(imaging, "_CONVERTED_AT_ONCE", 5000)
    path = tmp_path / "image.tif"
    picture(601, 403).convert(mode).save(path)
    whole = read(path)
    seen = read_picture(path, max_pixels=LIMIT, enough=lambda _: (60, 40))
    assert (seen.size, seen.image.size) == ((601, 403), (121, 81))
    assert difference(seen.image, whole.reduce(5)) == 0


def test_conversion_in_parts_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    chance = np.random.default_rng(0)
    Image.fromarray(chance.integers(0, 256, (90, 70, 4), dtype=np.uint8)).save(path)
    whole = read(path)
    monkeypatch.setattr(imaging, "_CONVERTED_AT_ONCE", 500)
    assert difference(read(path), whole) == 0


def test_images_that_are_decoded_together_keep_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "DECODE_MEMORY", 100)
    room = imaging._Room()
    order: list[str] = []
    inside, gone = threading.Event(), threading.Event()

    def first() -> None:
        with room.taken(70):
            order.append("first in")
            inside.set()
            gone.wait(60)
            order.append("first out")

    def later(name: str, size: int) -> None:
        with room.taken(size):
            order.append(name)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(60)
    # One that is larger than everything waits until it is alone, and who comes later does not overtake it.
    for name, size in (("large", 1000), ("small", 10)):
        threads.append(threading.Thread(target=later, args=(name, size)))
        threads[-1].start()
        while len(room._queue) < len(threads) - 1:
            gone.wait(0.01)
    assert order == ["first in"]
    gone.set()
    for thread in threads:
        thread.join(60)
    assert order[:2] == ["first in", "first out"]
    assert sorted(order[2:]) == ["large", "small"]
    assert (room._taken, room._inside, len(room._queue)) == (0, 0, 0)


def test_only_so_many_are_decoded_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "DECODERS", 2)
    monkeypatch.setattr(imaging, "_room", imaging._Room())
    picture().save(tmp_path / "image.png")
    lock, inside, most = threading.Lock(), 0, 0
    own = imaging._loaded

    def watched(*args: Any) -> Image.Image:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return own(*args)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(imaging, "_loaded", watched)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read, [tmp_path / "image.png"] * 40))) == 40
    assert most <= 2


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="a system that does not tell how much memory was used"
)
def test_a_huge_image_takes_its_own_pixels_and_little_more(tmp_path: Path) -> None:
    """In a process of its own, whose peak is that of this image."""
    path = tmp_path / "huge.png"
    Image.new("RGBA", (6000, 6000), (10, 20, 30, 200)).save(path)  # 144 MB decoded
    code = (
        "import resource, sys; from pathlib import Path; from vlm.roots import LocalRoot; from vlm.thumbnails import thumbnail\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); path = Path(sys.argv[1])\n"
        "thumbnail(LocalRoot(path.parent), path.name, size=320, cache_dir=path.parent, key='1', max_pixels=10**8)\n"
        "print(peak() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 300  # it was 700
