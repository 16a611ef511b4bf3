"""An image as the encoder sees it: the whole, and overlapping windows of it.

The cropping is upstream's (``moondream/torch/image_crops.py``) to the pixel, with Pillow's Lanczos filter; upstream
itself switches to libvips where that is installed, whose pixels differ.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CROP = 378  # pixels along one side of a crop
PATCH = 14  # pixels along one side of a patch
MARGIN = 4  # patches by which neighbouring windows overlap on each side
MAX_TILES = 12

Detail = Literal["full", "low"]
Tiling = tuple[int, int]
Crops = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image that is ready for the encoder.

    Attributes:
        crops: uint8, (crops, 378, 378, 3); the whole image first, then the windows row by row. Where the tiling is
            (1, 1) the one window is the whole image, and it is held once.
        tiling: rows and columns of windows.
        digests: per crop, what tells whether it is the same as another one.
    """

    crops: Crops
    tiling: Tiling
    digests: tuple[bytes, ...]


def select_tiling(height: int, width: int, *, window: int, max_tiles: int = MAX_TILES) -> Tiling:
    """Return how many rows and columns of windows cover an inner area of ``height`` × ``width`` pixels."""
    if height <= window or width <= window:
        return (1, 1)
    min_rows, min_columns = math.ceil(height / window), math.ceil(width / window)
    if min_rows * min_columns > max_tiles:
        scale = math.sqrt(max_tiles / (min_rows * min_columns))
        return (max(1, math.floor(min_rows * scale)), max(1, math.floor(min_columns * scale)))
    rows = max(math.floor(math.sqrt(max_tiles * height / width)), min_rows)
    columns = max(math.floor(math.sqrt(max_tiles * width / height)), min_columns)
    if rows * columns > max_tiles:
        if columns > rows:
            columns = max_tiles // rows
        else:
            rows = max_tiles // columns
    return (max(1, rows), max(1, columns))


def overlap_crops(
    image: Image.Image,
    *,
    crop: int = CROP,
    patch: int = PATCH,
    margin: int = MARGIN,
    max_tiles: int = MAX_TILES,
) -> tuple[Crops, Tiling]:
    """Cut ``image`` into upstream's crops.

    Returns:
        The crops, uint8 (1 + rows · columns, crop, crop, 3), the whole image first; and (rows, columns).
    """
    rgb = image.convert("RGB")
    border = 2 * margin * patch
    window = crop - border
    rows, columns = select_tiling(rgb.height - border, rgb.width - border, window=window, max_tiles=max_tiles)
    whole = np.asarray(rgb.resize((crop, crop), Image.Resampling.LANCZOS))
    if (rows, columns) == (1, 1):
        return np.stack([whole, whole]), (1, 1)
    size = (columns * window + border, rows * window + border)
    resized = np.asarray(rgb.resize(size, Image.Resampling.LANCZOS))
    windows = [
        resized[row * window : row * window + crop, column * window : column * window + crop]
        for row in range(rows)
        for column in range(columns)
    ]
    return np.stack([whole, *windows]), (rows, columns)


def prepare(
    image: Image.Image,
    detail: Detail = "full",
    *,
    crop: int = CROP,
    patch: int = PATCH,
    margin: int = MARGIN,
    max_tiles: int = MAX_TILES,
) -> PreparedImage:
    """Crop ``image`` for the encoder; ``detail="low"`` keeps the whole image only, as upstream does for small ones."""
    if detail == "low":
        whole = np.asarray(image.convert("RGB").resize((crop, crop), Image.Resampling.LANCZOS))
        crops, tiling = whole[None], (1, 1)
    else:
        crops, tiling = overlap_crops(image, crop=crop, patch=patch, margin=margin, max_tiles=max_tiles)
        crops = crops[:1] if tiling == (1, 1) else crops
    return PreparedImage(crops, tiling, tuple(hashlib.blake2b(view, digest_size=16).digest() for view in crops))
