"""Pictures made ready for the model: seconds of one core, how much faster than exactly, and how far from it.

``python -m benchmarks.prepare --json`` decodes and crops JPEGs of some sizes in one thread, as a run does, and beside that
from all their pixels, as upstream does (with the hash of every crop that DataVisor took before).
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import machine, show
from vlm.demo import DEMO_PHOTOS
from vlm.imaging import read_image, read_picture
from vlm.measures import measure
from vlm.moondream.crops import UPSTREAM, Detail, PreparedImage, overlap_crops, prepare

SIZES = ((640, 480), (1920, 1080), (3264, 2448), (4000, 3000), (6000, 4000), (8000, 6000))
PIXELS = 100_000_000


def photograph(path: Path, width: int, height: int) -> None:
    """Write a photograph of this size: a bundled one, enlarged, with the noise of a sensor."""
    with Image.open(sorted(DEMO_PHOTOS.glob("*.jpg"))[-1]) as small:
        large = np.asarray(small.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1), dtype=np.int16)
    Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8)).save(path, quality=88)


def exactly(path: Path, detail: Detail) -> PreparedImage:
    image = read_image(path, max_pixels=PIXELS)
    if detail == "low":
        whole = np.asarray(image.resize((UPSTREAM.crop, UPSTREAM.crop), Image.Resampling.LANCZOS))
        crops, tiling = whole[None], (1, 1)
    else:
        crops, tiling = overlap_crops(image)
    for crop in crops:
        hashlib.blake2b(crop, digest_size=16).digest()
    return PreparedImage(crops, tiling)


def as_a_run_does(path: Path, detail: Detail) -> PreparedImage:
    picture = read_picture(path, max_pixels=PIXELS, enough=lambda size: UPSTREAM.enough(size, detail))
    return prepare(picture.image, detail, size=picture.size)


def core_ms(action: Callable[[], object], repeat: int) -> float:
    """Return the least milliseconds of processor time that ``action`` takes."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return 1000 * best


def measure_size(path: Path, detail: Detail, repeat: int) -> dict[str, Any]:
    before, now = (core_ms(partial(way, path, detail), repeat) for way in (exactly, as_a_run_does))
    expected, seen = exactly(path, detail), as_a_run_does(path, detail)
    count = len(seen.crops)
    picture = read_picture(path, max_pixels=PIXELS, enough=partial(UPSTREAM.enough, detail=detail), measured=True).image
    away = np.abs(seen.crops.astype(np.int16) - expected.crops[:count])
    error = float((away.astype(float) ** 2).mean())
    return {
        "exactly, ms": round(before, 1),
        "as a run does, ms": round(now, 1),
        "times as fast": round(before / now, 2),
        "images/s and core": round(1000 / now, 1),
        "decoded at": f"{picture.width}x{picture.height}",
        "measures of that, with their copy, ms": round(core_ms(partial(measure, picture), max(repeat, 15)), 2),
        "same tiling": seen.tiling == expected.tiling,
        "mean difference, levels": round(float(away.mean()), 2),
        "99.9 % within, levels": round(float(np.quantile(away, 0.999)), 1),
        "psnr, dB": round(10 * np.log10(255**2 / error), 1) if error else "exact",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=[f"{width}x{height}" for width, height in SIZES])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as folder:
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            path = Path(folder) / f"{size}.jpg"
            photograph(path, width, height)
            rows: dict[str, Any] = {"file, MB": round(path.stat().st_size / 1e6, 2)}
            for detail in ("full", "low"):
                rows[detail] = measure_size(path, detail, options.repeat)
            rows["digest, ms"] = round(core_ms(partial(hashlib.sha256, path.read_bytes()), options.repeat), 2)
            figures[size] = rows
    show(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
