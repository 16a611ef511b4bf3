"""A whole run: how long the model waits for decoding and for the database, and whether memory stays flat.

``python -m benchmarks.pipeline --json`` tags 640×480 JPEGs with a small checkpoint, through the loop that every run uses.
``--size 4000x3000`` takes photographs of 12 megapixels, ``--model`` and ``--device`` what is to be proved. On a CUDA device a
profiler records its kernels during the run, and it idles while none of them runs; the profiler's records are then a part of
the memory. Elsewhere nothing tells what a device does: there it is said what a run takes more than the model alone takes for
as many images that lie ready.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("DATAVISOR_DATA_DIR", tempfile.mkdtemp(prefix="datavisor-benchmark-"))

import numpy as np
import torch
from PIL import Image

from benchmarks.device import score_in_flight, watched
from benchmarks.report import machine, memory_mb, show
from vlm.formats import scan
from vlm.imaging import read_image
from vlm.moondream import Tagger, load_tagger
from vlm.roots import root_of
from vlm.runs.loop import tag_samples
from vlm.samples import Merged, SampleFilter, SampleStore, where
from vlm.samples.ingest import import_rows, staged
from vlm.samples.progress import Wanted
from vlm.samples.trust import prior_sums
from vlm.scoring.engine import Local
from vlm.scoring.job import Job
from vlm.statistics.priors import HARDLY_DEPENDS, SMALLEST
from vlm.vocabulary import DEFAULT_VOCABULARY

FILES = 64  # different pictures; the others are links to them


def make_photos(folder: Path, count: int, width: int, height: int) -> None:
    """Write photograph-like JPEGs: smooth colours with some noise compress as photographs do."""
    folder.mkdir()
    chance = np.random.default_rng(5)
    for index in range(count):
        path = folder / f"{index:06}.jpg"
        if index >= FILES:
            os.link(folder / f"{index % FILES:06}.jpg", path)
            continue
        smooth = Image.fromarray(chance.integers(0, 255, (8, 10, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noise = chance.integers(-12, 12, (height, width, 3))
        Image.fromarray(np.clip(np.asarray(smooth).astype(int) + noise, 0, 255).astype(np.uint8)).save(path, quality=90)


def job_over(photos: Path, *, detail: str, batch: int = 0, limit: int | None = None) -> Job:
    """Return a job that asks all questions about all samples of the first data set, whose images lie in ``photos``."""
    words = {dimension.name: dimension.words for dimension in DEFAULT_VOCABULARY}
    return Job(
        dataset_id=1,
        run_id=1,
        root=root_of(str(photos)),
        worker="",
        wanted=Wanted(where(1, SampleFilter(), words), dict.fromkeys(DEFAULT_VOCABULARY.names)),
        questions=(),
        vocabulary=DEFAULT_VOCABULARY,
        mode="score",
        detail=detail,  # type: ignore[arg-type]
        min_probability=0.5,
        min_mass=0,
        batch_size=batch,
        limit=limit,
        max_pixels=180_000_000,
    )


def measure(
    folder: Path, model: str, images: int, batch: int, detail: str, size: tuple[int, int], device: str, dtype: str
) -> dict[str, Any]:
    make_photos(folder / "photos", images, *size)
    store = SampleStore(folder / "samples.duckdb", memory_limit="512MB", threads=2)
    with staged(scan(folder / "photos"), folder) as source:
        import_rows(store, dataset_id=1, source=source)
    tagger = load_tagger(model, device=device, dtype=dtype)
    waits: Counter[str] = Counter()
    memory: list[float] = []
    done = 0

    def waited(what: str, seconds: float) -> None:
        waits[what] += seconds

    def publish(merged: Merged) -> None:
        nonlocal done
        if merged.failed:
            raise RuntimeError("Photographs could not be read, and reading none is fast: see above.")
        done += merged.processed
        memory.append(memory_mb())

    job = job_over(folder / "photos", detail=detail, batch=batch)
    alone = seconds_alone(tagger, sorted((folder / "photos").iterdir())[:batch], batch, detail) * images
    seconds, gaps = watched(
        torch.device(tagger.device),
        lambda: tag_samples(job, store, Local(tagger), stop=threading.Event(), publish=publish, waited=waited),
    )
    checking = seconds_of_checks(store, tagger)
    store.close()
    settled = memory[len(memory) // 4 :] or [memory_mb()]
    return {
        "machine": machine(),
        "model": Path(model).name,
        "device": f"{tagger.device}, {tagger.dtype}",
        "size": f"{size[0]}x{size[1]}",
        "detail": detail,
        "batch": batch,
        "images": done,
        "images/s": round(done / seconds, 2),
        "waiting for decoding, % of the time": round(100 * waits["decode"] / seconds, 1),
        "waiting for the store, % of the time": round(100 * waits["store"] / seconds, 1),
        "in the model, % of the time": round(100 * waits["model"] / seconds, 1),
        **idle(gaps, alone / seconds),
        "grey image and priors, % of the time": round(100 * checking / (seconds + checking), 2),
        "memory after a quarter of the run, MB": round(settled[0]),
        "memory at the end, MB": round(settled[-1]),
    }


def idle(gaps: dict[str, float] | None, alone: float) -> dict[str, float]:
    """Return for how much of a run the model does nothing, under the name of what was measured.

    Args:
        gaps: what a profiler saw, if there is one.
        alone: the share of the run's time that the model alone takes for its images.
    """
    if gaps is not None:
        return {"no kernel on the GPU, % of the time": round(100 * gaps["idle_share"], 1)}
    return {"beyond the model alone, % of the time": round(100 * max(0.0, 1 - alone), 1)}


def seconds_of_checks(store: SampleStore, tagger: Tagger) -> float:
    """Return the seconds that a run's blind check takes: one grey image, and sums whenever the answered images have doubled."""
    start = time.perf_counter()
    (scores,) = tagger.score([Image.new("RGB", (378, 378), (128, 128, 128))], DEFAULT_VOCABULARY, "low")
    grey = time.perf_counter() - start
    start = time.perf_counter()
    with store.read() as cursor:
        for name, score in scores.items():
            words, blind = len(score.words), score.probabilities
            prior_sums(cursor, 1, name, words, blind, near=HARDLY_DEPENDS, least=SMALLEST)
    # Each time takes half as long as the next, and the last one is made twice: when the run ends.
    return grey + 3 * (time.perf_counter() - start)


def seconds_alone(tagger: Tagger, paths: list[Path], batch: int, detail: Any) -> float:
    """Return the seconds that the model takes for an image which lies ready, among others that are in flight where they can be."""
    ready = [tagger.prepare(read_image(path, max_pixels=180_000_000), detail) for path in paths]
    ready *= 2 * tagger.in_flight if tagger.in_flight > 1 else 1
    before, tagger.batch_size = tagger.batch_size, batch
    times = []
    for _ in range(4):
        start = time.perf_counter()
        score_in_flight(tagger, ready, DEFAULT_VOCABULARY, detail)
        times.append(time.perf_counter() - start)
    tagger.batch_size = before
    return min(times[1:]) / len(ready)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(Path(__file__).parent.parent / "vlm" / "demo" / "checkpoint"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--detail", choices=["full", "low"], default="full")
    parser.add_argument("--size", default="640x480", help="of the photographs, such as 4000x3000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as folder:
        width, height = map(int, options.size.split("x"))
        figures = measure(
            Path(folder),
            options.model,
            options.images,
            options.batch,
            options.detail,
            (width, height),
            options.device,
            options.dtype,
        )
        show(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
