"""Images in a bucket beside images in a folder: what listing them, importing them and reading them takes.

    python -m benchmarks.roots s3://bucket/prefix --fill 50000 --json

The bucket is one of your own, with credentials and endpoint in the environment; ``--fill`` puts that many copies of a bundled
photograph below the prefix first, and leaves them there. Seconds are of this machine's clock, CPU seconds of this process
alone, without the store; each figure is taken in a process of its own, so that its peak of memory is its own too.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import obstore

from benchmarks.report import machine, memory_mb, show
from vlm.demo import DEMO_PHOTOS
from vlm.formats import scan
from vlm.formats.object_files import Listing
from vlm.roots import ObjectRoot, Root, root_of
from vlm.roots.objects import Listed, open_store

THREADS = 8
PER_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="s3://BUCKET/PREFIX, gs://… or az://…")
    parser.add_argument("--fill", type=int, default=0, help="put so many photographs there first")
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--keys", type=int, default=1_000_000, help="of a listing that is made up here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    root = root_of(options.url)
    assert isinstance(root, ObjectRoot)
    if options.fill:
        fill(root, options.fill)
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as folder:
        photo = a_photo()
        for number in range(options.reads):
            shutil.copy(photo, Path(folder) / f"{number:07}.jpg")
        figures: dict[str, Any] = {
            "machine": machine(),
            "list the prefix": alone(list_keys, options.url),
            "import it as a folder, without heads": alone(records, options.url),
            f"read {options.reads} pictures, {THREADS} threads, bucket": alone(read, options.url, options.reads),
            f"read {options.reads} pictures, {THREADS} threads, folder": alone(read, folder, options.reads),
            f"keep a listing of {options.keys:,} keys, look each up": alone(keep, options.keys),
        }
    figures["picture, KB"] = round(photo.stat().st_size / 1000, 1)
    show(figures, as_json=options.json)


def a_photo() -> Path:
    return sorted(DEMO_PHOTOS.glob("*.jpg"))[0]


def fill(root: ObjectRoot, count: int) -> None:
    """Put photographs, a thousand to a folder."""
    store, content = open_store(root.url), a_photo().read_bytes()
    with ThreadPoolExecutor(THREADS) as threads:
        keys = (f"{number // PER_FOLDER:04}/{number:07}.jpg" for number in range(count))
        for _ in threads.map(lambda key: obstore.put(store, key, content), keys):
            pass


def list_keys(url: str) -> int:
    root = root_of(url)
    assert isinstance(root, ObjectRoot)
    return sum(map(len, root.listing()))


def records(url: str) -> int:
    return sum(1 for _ in scan(url, "folder"))


def read(place: str, count: int) -> int:
    root = root_of(place)
    with ThreadPoolExecutor(THREADS) as threads:
        return sum(1 for _ in threads.map(lambda path: root.read(path), islice(cycle(paths(root)), count)))


def paths(root: Root) -> list[str]:
    if isinstance(root, ObjectRoot):
        return [entry.path for entry in next(root.listing(), [])]
    return [path.name for path in Path(str(root)).iterdir()]


def keep(count: int) -> int:
    """Make the listing of an import of so many keys, for which no store is asked, and look each of them up."""
    made = (
        Listed(f"{number // PER_FOLDER:05}/{number:07}.jpg", 80_000, '"0123456789abcdef"', 0.0)
        for number in range(count)
    )
    listing = Listing(iter(lambda: list(islice(made, 5000)), []))
    return sum(listing.status(f"{number // PER_FOLDER:05}/{number:07}.jpg") is not None for number in range(count))


def alone(action: Callable[..., int], *arguments: object) -> dict[str, Any]:
    """Return what an action takes in a process of its own, after one call that does not count."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (action, arguments))


def _timed(action: Callable[..., int], arguments: tuple[object, ...]) -> dict[str, Any]:
    before = memory_mb()
    action(*arguments)
    wall, cpu = time.perf_counter(), time.process_time()
    count = action(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "count": count,
        "s": round(wall, 2),
        "CPU s": round(cpu, 2),
        "per s": round(count / wall),
        "per CPU s": round(count / cpu),
        "MB more at most": round(memory_mb("VmHWM") - before, 1),
    }


if __name__ == "__main__":
    main()
