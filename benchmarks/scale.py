"""Runs on workers: what they cost beside a run here, how far one driver reaches, and whether memory stays flat.

``python -m benchmarks.scale --json`` measures, each on this machine's loopback with Ray's own processes beside:

* CPU time an image, of workers and driver, against the same loop in one process (real model, one thread each),
* two workers against one with an engine that sleeps, which shows how the loop scales and not how many cores there are,
* the driver alone, with answers that lie ready, in batches of 8 and of 64,
* memory of driver and workers after a quarter of ``--images``, and at the end (real model).

``--only`` names parts: ``cpu``, ``two``, ``driver``, ``memory``.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("DATAVISOR_DATA_DIR", tempfile.mkdtemp(prefix="datavisor-benchmark-"))

from benchmarks.million import add_samples
from benchmarks.pipeline import job_over, make_photos
from benchmarks.report import machine, memory_mb, show
from benchmarks.scale_workers import Ready, ReadyInLargeBatches, Sleeper
from vlm.formats import scan
from vlm.moondream import load_tagger
from vlm.runs.loop import tag_samples
from vlm.samples import Merged, SampleStore
from vlm.samples.ingest import import_rows, staged
from vlm.scoring import ray_cluster
from vlm.scoring.crew import Crew, Terms
from vlm.scoring.engine import Engine, Local
from vlm.scoring.job import Job
from vlm.scoring.places import Workers
from vlm.scoring.worker import Outfit, Worker
from vlm.vocabulary import DEFAULT_VOCABULARY

CHECKPOINT = Path(__file__).parent.parent / "vlm" / "demo" / "checkpoint"
PARTS = ("cpu", "two", "driver", "memory")
TICKS = os.sysconf("SC_CLK_TCK")
BATCH = 8


@contextmanager
def store_in(folder: Path, *, photos: int = 0, names: int = 0) -> Iterator[SampleStore]:
    """Yield a store with so many samples: of photographs that are there, or of names alone."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        store = SampleStore(Path(own) / "samples.duckdb", memory_limit="512MB", threads=2)
        if photos:
            if not (folder / "photos").exists():
                make_photos(folder / "photos", photos, 640, 480)
            with staged(scan(folder / "photos"), Path(own)) as source:
                import_rows(store, dataset_id=1, source=source)
        else:
            add_samples(store, 1, names)
        yield store
        store.close()


def job(folder: Path, limit: int) -> Job:
    return job_over(folder / "photos", detail="low", limit=limit)


@contextmanager
def crew_of(workers: int, kind: type[Worker] = Worker) -> Iterator[Crew]:
    """Yield a crew whose workers are all ready."""
    place = Workers("local", workers)
    ray_cluster.load(place)
    with ray_cluster.cluster(place, Outfit(str(CHECKPOINT), "", "cpu", "auto"), kind=kind) as transport:
        crew = Crew(transport, Terms("", ""), DEFAULT_VOCABULARY)
        while any(state.state != "ready" for state in crew.states()):
            crew.turn()
        yield crew


def timed_run(
    engine: Engine, store: SampleStore, what: Job, publish: Callable[[Merged], None] = lambda _: None
) -> tuple[float, float]:
    """Run a job; returns its seconds, and the CPU seconds of this process."""
    before, start = own_cpu(), time.perf_counter()
    done = tag_samples(what, store, engine, stop=threading.Event(), publish=publish)
    seconds = time.perf_counter() - start
    assert done.processed == what.limit, f"{done.processed} of {what.limit} images were answered"
    return seconds, own_cpu() - before


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure_cpu(folder: Path, images: int) -> dict[str, Any]:
    """Return the CPU time of an image on two workers and here."""
    import torch

    what, before = job(folder, images), torch.get_num_threads()
    torch.set_num_threads(1)
    tagger = load_tagger(str(CHECKPOINT), device="cpu", batch_size=BATCH)
    with store_in(folder, photos=images) as store:
        timed_run(Local(tagger), store, job(folder, min(images, 2 * BATCH)))  # which has what follows be warm
    with store_in(folder, photos=images) as store:
        _, here = timed_run(Local(tagger), store, what)
    tagger.close()
    torch.set_num_threads(before)
    with store_in(folder, photos=images) as store, crew_of(2) as crew:
        pids = [state.pid for state in crew.states()]
        at_first = sum(map(cpu_of, pids))
        _, driver = timed_run(crew, store, what)
        workers = sum(map(cpu_of, pids)) - at_first
    return {
        "here, CPU ms an image": round(1000 * here / images, 2),
        "workers, CPU ms an image": round(1000 * workers / images, 2),
        "driver, CPU ms an image": round(1000 * driver / images, 2),
        "workers and driver, times here": round((workers + driver) / here, 3),
    }


def measure_two(folder: Path, images: int) -> dict[str, Any]:
    """Return how much faster two workers are whose engine sleeps."""
    seconds = []
    for count in (1, 2):
        with store_in(folder, names=images) as store, crew_of(count, Sleeper) as crew:
            seconds.append(timed_run(crew, store, job(folder, images))[0])
    return {
        "a sleeping worker, images/s": round(images / seconds[0], 1),
        "two, images/s": round(images / seconds[1], 1),
        "two against one, times": round(seconds[0] / seconds[1], 3),
    }


def measure_driver(folder: Path, images: int) -> dict[str, Any]:
    """Return how many ready answers a driver takes in."""
    figures: dict[str, Any] = {}
    for kind in (Ready, ReadyInLargeBatches):
        with store_in(folder, names=images) as store, crew_of(1, kind) as crew:
            seconds, cpu = timed_run(crew, store, job(folder, images))
        figures[f"driver alone, batches of {kind.batch_size}, images/s"] = round(images / seconds)
        figures[f"driver alone, batches of {kind.batch_size}, images per CPU second"] = round(images / cpu)
    return figures


def measure_memory(folder: Path, images: int) -> dict[str, Any]:
    """Return the memory of driver and workers on the way and at the end."""
    told: list[tuple[int, list[float]]] = []
    done = 0
    with store_in(folder, photos=images) as store, crew_of(2) as crew:
        pids = [os.getpid(), *(state.pid for state in crew.states())]

        def publish(merged: Merged) -> None:
            nonlocal done
            done += merged.processed
            told.append((done, [memory_mb(pid=pid) for pid in pids]))

        timed_run(crew, store, job(folder, images), publish)
    quarter = next(memory for count, memory in told if count >= images / 4)
    end = told[-1][1]
    return {
        "images in all": images,
        "after a quarter, driver and workers, MB": [round(part) for part in quarter],
        "at the end, driver and workers, MB": [round(part) for part in end],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="of the memory's measure")
    parser.add_argument("--cpu-images", type=int, default=400)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.only or PARTS
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as name:
        folder = Path(name)
        figures: dict[str, Any] = {"machine": machine()}
        if "cpu" in wanted:
            (folder / "cpu").mkdir()
            figures |= measure_cpu(folder / "cpu", options.cpu_images)
        if "two" in wanted:
            figures |= measure_two(folder, 1000)
        if "driver" in wanted:
            figures |= measure_driver(folder, 20_000)
        if "memory" in wanted:
            (folder / "memory").mkdir()
            figures |= measure_memory(folder / "memory", options.images)
        show(figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
