"""An image as the encoder sees it: the whole, and overlapping windows of it.

The cropping is upstream's (``moondream/torch/image_crops.py``) to the pixel, with Pillow's Lanczos filter; upstream
itself switches to libvips where that is installed, whose pixels differ. Large images are prepared faster and a little
differently, on every device alike: a JPEG of three times the size that is needed is decoded at a fraction of it, and the
whole view of an image of four times its size is averaged before it is filtered. Pixels then differ by half a level on
average. How an image is tiled always follows from the size of its file.
"""

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
SPARE = 1.5  # how many times the pixels along a side that are needed a decoded image should have, to be filtered well

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
    """

    crops: Crops
    tiling: Tiling


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


@dataclass(frozen=True, slots=True)
class Cropping:
    """How images are cropped: the configuration's sizes, in pixels but for ``margin``, which counts patches."""

    crop: int = CROP
    patch: int = PATCH
    margin: int = MARGIN
    max_tiles: int = MAX_TILES

    @property
    def border(self) -> int:
        return 2 * self.margin * self.patch

    @property
    def window(self) -> int:
        return self.crop - self.border

    def tiling(self, width: int, height: int) -> Tiling:
        border = self.border
        return select_tiling(height - border, width - border, window=self.window, max_tiles=self.max_tiles)

    def resized(self, tiling: Tiling) -> tuple[int, int]:
        """Return the width and height of the image that windows are cut from."""
        rows, columns = tiling
        return columns * self.window + self.border, rows * self.window + self.border

    def enough(self, size: tuple[int, int], detail: Detail) -> tuple[int, int]:
        """Return which width and height are enough of an image of ``size`` pixels, so that its crops look as they should."""
        tiling = (1, 1) if detail == "low" else self.tiling(*size)
        width, height = (self.crop, self.crop) if tiling == (1, 1) else self.resized(tiling)
        return math.ceil(SPARE * width), math.ceil(SPARE * height)


UPSTREAM = Cropping()


def overlap_crops(image: Image.Image, cropping: Cropping = UPSTREAM) -> tuple[Crops, Tiling]:
    """Cut ``image`` into upstream's crops, to the pixel.

    Returns:
        The crops, uint8 (1 + rows · columns, crop, crop, 3), the whole image first; and (rows, columns).
    """
    rgb, side = image.convert("RGB"), cropping.crop
    tiling = cropping.tiling(*rgb.size)
    whole = np.asarray(rgb.resize((side, side), Image.Resampling.LANCZOS))
    return np.stack([whole, *(_windows(rgb, tiling, cropping) if tiling != (1, 1) else [whole])]), tiling


def prepare(
    image: Image.Image,
    detail: Detail = "full",
    *,
    size: tuple[int, int] | None = None,
    cropping: Cropping = UPSTREAM,
) -> PreparedImage:
    """Crop ``image`` for the encoder; ``detail="low"`` keeps the whole image only, as upstream does for small ones.

    Args:
        image: the image, or a smaller copy of it that has at least as many pixels as are enough.
        size: width and height of the image that ``image`` is a copy of.
    """
    rgb, side = image if image.mode == "RGB" else image.convert("RGB"), cropping.crop
    tiling = (1, 1) if detail == "low" else cropping.tiling(*(size or image.size))
    # Averaging begins where there are four times as many pixels along a side, and leaves twice as many.
    whole = np.asarray(rgb.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0))
    return PreparedImage(np.stack([whole, *(_windows(rgb, tiling, cropping) if tiling != (1, 1) else [])]), tiling)


def _windows(rgb: Image.Image, tiling: Tiling, cropping: Cropping) -> list[Crops]:
    resized = np.asarray(rgb.resize(cropping.resized(tiling), Image.Resampling.LANCZOS))
    step, side = cropping.window, cropping.crop
    return [
        resized[row * step : row * step + side, column * step : column * step + side]
        for row in range(tiling[0])
        for column in range(tiling[1])
    ]
