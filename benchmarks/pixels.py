"""What the pixels say at a million samples: contradictions, groups of what is nearly the same, one of each, pages and counts.

``python -m benchmarks.pixels --samples 1000000 --json`` fills a store with pretended measures and tags. A twentieth of the
hashes have a near neighbour. What measuring an image takes is in ``benchmarks.prepare``.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.million import WORDS, add_samples
from benchmarks.report import machine, median_ms, show
from vlm.samples import SampleFilter, SampleStore, where
from vlm.samples.counting import facets
from vlm.samples.finding import (
    contradictions_count,
    contradictions_find,
    group_of,
    groups_put,
    hashes,
    rules_for,
)
from vlm.samples.progress import Wanted, pending
from vlm.samples.reading import count, samples_page
from vlm.samples.sharing import shares_plan
from vlm.statistics.duplicates import duplicate_groups

FILL = """
insert into measures
select dataset_id, id, 255 * random(), 20 * random(), 200 + 50 * random(), 80 * random(), 900 * random() ^ 3, 9 * random(),
    90 * random(), 4 / 3, case when id % 20 = 0 then xor(hash(id - 1), (1::ubigint << (id % 60)::int)::ubigint) else hash(id) end
from samples
"""
TAG = """
update samples set tags = [['dark', 'dim', 'bright', 'normal'][1 + (hash(id) % 4)::int],
    ['blurry', 'sharp', 'noisy'][1 + (hash(id + 1) % 3)::int],
    ['night', 'day', 'foggy', 'sunny', 'rainy'][1 + (hash(id + 2) % 5)::int]]
"""


def measure(folder: Path, samples: int) -> dict[str, Any]:
    store = SampleStore(folder / "samples.duckdb", memory_limit="2GB", threads=os.cpu_count() or 2)
    add_samples(store, 1, samples)
    with store.write() as cursor:
        cursor.execute(TAG).fetchall()
        cursor.execute(FILL).fetchall()
    figures: dict[str, Any] = {"machine": machine(), "samples": samples}
    rules = rules_for([dict.fromkeys(words, ()) for words in WORDS.values()])

    def timed(name: str, action: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = action()
        figures[name] = round(time.perf_counter() - start, 2)
        return found

    with store.write() as cursor:
        timed("contradictions found, s", lambda: contradictions_find(cursor, dataset_id=1, rules=rules))
    start = time.perf_counter()
    with store.read() as cursor:
        ids, of = timed("hashes read, s", lambda: hashes(cursor, 1))
    groups = timed("hashes grouped within 4 bits, s", lambda: duplicate_groups(of, 4))
    with store.write() as cursor:
        timed("groups written, s", lambda: groups_put(cursor, dataset_id=1, ids=ids, groups=groups, distance=4))
    figures["groups from the store and back, s"] = round(time.perf_counter() - start, 2)
    figures["images in groups"] = int((groups >= 0).sum())
    with store.write() as cursor:
        wanted = Wanted(where(1, SampleFilter(), WORDS), dict.fromkeys(WORDS), only_missing=True)
        takers = timed(
            "a run over all, one of each group, planned, s", lambda: shares_plan(cursor, wanted, dataset_id=1, run_id=1)
        )
        figures["images that take an answer over"] = takers
        timed("its first 256 images to ask, s", lambda: pending(cursor, wanted, run_id=1, after=-1, limit=256))
    odd, near, dim = (
        SampleFilter(marks=("contradiction",)),
        SampleFilter(marks=("near",)),
        SampleFilter(measures=("luminance:..20",)),
    )
    with store.read() as cursor:
        figures["contradictions counted, ms"] = median_ms(lambda: count(cursor, 1, odd, WORDS), repeat=3)
        figures["contradictions counted by word, ms"] = median_ms(lambda: contradictions_count(cursor, 1), repeat=3)
        for name, chosen, order in (
            ("page of contradictions, the strongest first", odd, "contradicting"),
            ("page of what is nearly the same", near, "name"),
            ("page by a range of brightness", dim, "name"),
            ("page, darkest first", SampleFilter(), "measure:luminance"),
        ):
            figures[f"{name}, ms"] = median_ms(
                lambda chosen=chosen, order=order: samples_page(cursor, 1, chosen, WORDS, order=order), repeat=3
            )
        figures["facets of the whole, ms"] = median_ms(lambda: facets(cursor, 1, SampleFilter(), WORDS), repeat=3)
        figures["a sample's group, ms"] = median_ms(lambda: group_of(cursor, 1, int(ids[len(ids) // 2])), repeat=3)
    store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as folder:
        show(measure(Path(folder), options.samples), as_json=options.json)


if __name__ == "__main__":
    main()
