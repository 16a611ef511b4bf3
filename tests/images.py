"""Pictures made on the spot."""

from pathlib import Path

from PIL import Image


def make_images(folder: Path, count: int, *, size: tuple[int, int] = (96, 72)) -> Path:
    """Write ``count`` different JPEGs into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = Image.effect_noise((8, 8), 90).resize(size)
        tint = Image.new("L", size, (index * 37) % 256)
        Image.merge("RGB", (noise, tint, Image.new("L", size, (index * 91) % 256))).save(folder / f"{index:03}.jpg")
    return folder
