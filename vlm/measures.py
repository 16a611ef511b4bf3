"""What can be measured about a picture without a model: light, contrast, sharpness, noise, colour, likeness.

Luma is measured on a copy whose long side is ``SIDE`` pixels, so that pictures of one scene from different cameras compare;
smaller pictures are taken as they are. Luma and colours count in levels from 0 to 255.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 512
SPARSE = 256  # pixels along the long side that are enough for the colours
HASHED = 32  # pixels along both sides of the copy that the hash is of
HASH_SIDE = 8  # frequencies along both sides that the hash is of

Plane = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures of one picture.

    Attributes:
        luminance: mean luma.
        p05, p95: the luma that 5 % and 95 % of the pixels do not exceed.
        contrast: standard deviation of luma (RMS contrast, Peli 1990).
        sharpness: variance of the Laplacian, and
        noise: standard deviation of the noise; see :func:`sharpness_and_noise`.
        colourfulness: see :func:`colourfulness`.
        aspect: width over height.
        phash: 64 bits, alike for pictures that look alike; see :func:`perceptual_hash`.
    """

    luminance: float
    p05: float
    p95: float
    contrast: float
    sharpness: float
    noise: float
    colourfulness: float
    aspect: float
    phash: int


def measure(image: Image.Image, *, size: tuple[int, int] | None = None) -> Measures:
    """Measure a picture.

    Args:
        image: in RGB; other modes are converted.
        size: width and height of the picture itself, where ``image`` is a smaller copy of it.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    gray = reduced(rgb)
    counts = np.array(gray.histogram())
    levels = np.arange(256)
    pixels = counts.sum()
    mean = float(counts @ levels / pixels)
    up_to = np.cumsum(counts)
    sharpness, noise = sharpness_and_noise(np.asarray(gray).astype(np.int16))
    width, height = size or image.size
    return Measures(
        luminance=mean,
        p05=float(np.searchsorted(up_to, 0.05 * pixels)),
        p95=float(np.searchsorted(up_to, 0.95 * pixels)),
        contrast=float(np.sqrt(counts @ (levels - mean) ** 2 / pixels)),
        sharpness=sharpness,
        noise=noise,
        colourfulness=colourfulness(rgb),
        aspect=width / height,
        phash=perceptual_hash(gray),
    )


def reduced(image: Image.Image) -> Image.Image:
    """Return the copy in gray that is measured: its long side ``SIDE`` pixels, or the picture itself where that is less.

    Gray comes first: one channel is made smaller in a third of the time.
    """
    gray = image.convert("L")
    factor = SIDE / max(gray.size)
    if factor >= 1:
        return gray
    width, height = (max(1, round(side * factor)) for side in gray.size)
    return gray.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.0)


def sharpness_and_noise(luma: Plane) -> tuple[float, float]:
    """Return the variance of the Laplacian (four neighbours), which blurring lowers, and the standard deviation of the noise.

    The first after Pech-Pacheco and others, 2000: “Diatom autofocusing in brightfield microscopy”. The second after Immerkær 1996:
    “Fast noise variance estimation”, by a mask that planes and edges hardly answer to: the outer product of (1, -2, 1) with
    itself. Both begin with the second differences down the columns. All sums stay within 16 bits.
    """
    if min(luma.shape) < 3:
        return 0.0, 0.0
    twice = luma[1:-1] << 1
    down = luma[:-2] + luma[2:]
    down -= twice
    middle = down[:, 1:-1]
    edges = luma[1:-1, :-2] + luma[1:-1, 2:]
    edges -= twice[:, 1:-1]
    edges += middle
    answers = down[:, :-2] + down[:, 2:]
    answers -= middle << 1
    np.abs(answers, out=answers)
    count = answers.size
    return _mean_and_deviation(edges)[1] ** 2, math.sqrt(math.pi / 2) / 6 * int(answers.sum(dtype=np.int32)) / count


def colourfulness(image: Image.Image) -> float:
    """Return Hasler's and Süsstrunk's measure (2003: “Measuring colourfulness in natural images”).

    Of red against green and yellow against blue, how far they scatter, and three tenths of how far they are from gray.
    Theirs: 15 is slightly, 45 averagely, 82 highly colourful. Of larger pictures only some pixels count, spread evenly
    so that ``SPARSE`` are along the long side: mean and scatter need no more.
    """
    factor = SPARSE / max(image.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.NEAREST)
    red, green, blue = (np.asarray(channel).astype(np.int16) for channel in image.split())
    red_green, its_deviation = _mean_and_deviation(red - green)
    yellow_blue, other_deviation = (value / 2 for value in _mean_and_deviation(red + green - 2 * blue))
    return math.hypot(its_deviation, other_deviation) + 0.3 * math.hypot(red_green, yellow_blue)


def perceptual_hash(gray: Image.Image) -> int:
    """Return 64 bits that tell which low frequencies are stronger than the median one.

    They are those of the cosine transform of a small copy without its mean (Zauner 2010: “Implementation and benchmarking of
    perceptual image hash functions”). Copies that were scaled or compressed again differ in a few bits, other pictures in
    about half; a flat one is 0.
    """
    small = np.asarray(gray.resize((HASHED, HASHED), Image.Resampling.BILINEAR, reducing_gap=3.0), dtype=np.float32)
    # To three decimals: what rounding leaves of a flat picture is nothing.
    strengths = np.round(_COSINES @ small @ _COSINES.T, 3).ravel()
    return int.from_bytes(np.packbits(strengths > np.median(strengths)).tobytes(), "big")


def distance(first: int, second: int) -> int:
    """Return in how many of the 64 bits two hashes differ."""
    return (first ^ second).bit_count()


def _mean_and_deviation(values: Plane) -> tuple[float, float]:
    around = values.ravel().astype(np.float32)
    mean = around.mean()
    around -= mean
    return float(mean), float(np.sqrt(around @ around / around.size))


def _cosines() -> NDArray[np.float32]:
    """Return the rows 1 … 8 of the cosine transform (DCT-II) of 32 values; row 0, the mean, says nothing about likeness."""
    frequencies, places = np.arange(1, HASH_SIDE + 1)[:, None], np.arange(HASHED)
    table: NDArray[np.float32] = np.cos(np.pi * frequencies * (2 * places + 1) / (2 * HASHED)).astype(np.float32)
    return table


_COSINES = _cosines()
