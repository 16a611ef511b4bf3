"""The sample store at a million samples.

``python -m benchmarks.store --samples 1000000 --json`` makes a COCO JSON, imports it, lets a pretended run answer about a
share of the samples, and measures pages, filters, facets and merges. The baseline in the same process is one
``UPDATE … list_distinct(list_concat(…))`` per sample.

``--store FILE`` measures a store that is filled in SQL and kept, without an import and a second run, for ten million samples, say.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.million import WORDS, add_samples, answer_samples, questions
from benchmarks.report import cpu_ms, machine, median_ms, show
from vlm.formats.coco import scan_coco
from vlm.samples import Answer, Question, Result, SampleFilter, SampleStore, distributions, where
from vlm.samples.asking import question_ids
from vlm.samples.counting import facets
from vlm.samples.cursor import Cursor
from vlm.samples.deriving import derive
from vlm.samples.distributions import Axis, Source
from vlm.samples.editing import tags_add, undo
from vlm.samples.ingest import import_rows, staged
from vlm.samples.insights import Sorting
from vlm.samples.merging import merge_batch
from vlm.samples.ordering import page_cursor
from vlm.samples.progress import Wanted, pending, pending_count, run_counts
from vlm.samples.reading import dataset_stats, samples_page
from vlm.samples.trust import flips
from vlm.statistics.tables import cross

BATCH = 256
AHEAD = 4096  # samples that a fast run reads together
SIZED = 49_152  # samples whose answers are written to see how much room they take
UNDONE = 100_000  # samples of the bulk edit that is taken back
SLICE = 200_000  # samples of the data set whose facets are counted


def write_coco(folder: Path, samples: int) -> Path:
    """Write a COCO JSON whose images all are one file, so that nothing but importing is measured."""
    (folder / "images").mkdir()
    image = folder / "images" / "photo.jpg"
    image.write_bytes(b"\xff\xd8\xff\xe0" + bytes(2000))
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write('{"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}], "images": [')
        for index in range(samples):
            name = f"images/{index:07}.jpg"
            os.link(image, folder / name) if index % 60_000 else (folder / name).write_bytes(image.read_bytes())
            if index % 60_000 == 0:
                image = folder / name  # a file has only so many links
            entry = {"id": index, "file_name": name, "width": 640, "height": 480}
            file.write((", " if index else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for index in range(samples):
            entry = {"id": index, "image_id": index, "category_id": 1 + index % 2, "bbox": [10, 20, 30, 40]}
            file.write((", " if index else "") + json.dumps(entry))
        file.write("]}")
    return path


def results(ids: list[int], run: int, chance: random.Random) -> list[Result]:
    """Answer five questions about each sample, as a run would."""
    made = []
    for sample_id in ids:
        answers = []
        for place, (name, words) in enumerate(WORDS.items()):
            word, sure = chance.choice(words), 0.4 + 0.6 * chance.random()
            rest = (1 - sure) / (len(words) - 1)
            probabilities = tuple(sure if other == word else rest for other in words)
            accepted = sure >= 0.5
            reason = "" if accepted else "below threshold"
            answers.append(Answer(run, name, place, words, probabilities, 0.99, word, sure, accepted, reason))
        made.append(Result(sample_id, tuple(answers)))
    return made


def ids_of(cursor: Cursor, dataset_id: int, limit: int, after: int = -1) -> list[int]:
    rows = cursor.execute(
        "select id from samples where dataset_id = ? and id > ? order by id limit ?", [dataset_id, after, limit]
    ).fetchall()
    return [row[0] for row in rows]


def measure(folder: Path, samples: int, answered: int) -> dict[str, Any]:
    chance = random.Random(11)
    store = opened(folder / "samples.duckdb")
    figures: dict[str, Any] = {"machine": machine(), "samples": samples}
    figures |= measure_import(store, folder, samples)
    answered = answer_samples(store, 1, 1, answered / samples)
    figures |= measure_pages(store, samples)
    figures |= measure_undo(store, min(UNDONE, samples))
    figures |= measure_merging(store, answered, chance)
    figures |= measure_comparing(store, answered / samples)
    store.close()
    figures["file, MB"] = round((folder / "samples.duckdb").stat().st_size / 1e6)
    return figures


def measure_kept(path: Path, samples: int, answered: int) -> dict[str, Any]:
    """Measure the store at ``path``, which is filled first where nothing is there."""
    chance = random.Random(11)
    figures: dict[str, Any] = {"machine": machine(), "samples": samples}
    is_new = not path.exists()
    store = opened(path)
    if is_new:
        add_samples(store, 1, samples)
        answer_samples(store, 1, 1, answered / samples)
    figures |= measure_pages(store, samples)
    figures |= measure_merging(store, answered, chance)
    figures |= measure_size(store, answered, chance)
    store.close()
    figures["file, MB"] = round(path.stat().st_size / 1e6)
    return figures


def opened(path: Path) -> SampleStore:
    return SampleStore(path, memory_limit="2GB", threads=os.cpu_count() or 2)


def measure_import(store: SampleStore, folder: Path, samples: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    start = time.perf_counter()
    write_coco(folder, samples)
    made = time.perf_counter() - start
    start = time.perf_counter()
    scan = scan_coco(folder, ["instances.json"])
    with staged(scan, folder) as source:
        read = time.perf_counter() - start
        imported = import_rows(store, dataset_id=1, source=source)
    seconds = time.perf_counter() - start
    figures["writing the JSON and its files, s"] = round(made, 1)
    figures["import, rows/s"] = round(imported.total / seconds)
    figures["import: reading and staging, s"] = round(read, 1)
    figures["import: store's writer held, s"] = round(seconds - read, 1)
    figures["import: peak memory, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return figures


def measure_pages(store: SampleStore, samples: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with store.read() as cursor:
        there = bool(ids_of(cursor, 2, 1))
    if not there:
        add_samples(store, 2, min(SLICE, samples))  # a second data set of 200,000, beside the big one
        answer_samples(store, 2, 2, 1)
    with store.write() as cursor:
        tags_add(cursor, dataset_id=1, target=("s.dataset_id = 1 and s.id % 100 = 0", []), tag="mine", dimension=None)

    everything = SampleFilter()
    three = SampleFilter(all_of=("dark", "outdoor", "crowded"))
    with store.read() as cursor:

        def page(chosen: SampleFilter, order: str = "name", after: str = "", dataset_id: int = 1) -> Any:
            return samples_page(cursor, dataset_id, chosen, WORDS, order=order, after=after)

        # The cursor in front of page 10,000, without walking there.
        place = min(10_000 * 60, samples - 100)
        row = cursor.execute(
            "select sort, id from samples where dataset_id = 1 order by sort, id limit 1 offset ?", [place]
        ).fetchall()[0]
        deep = page_cursor("name", row)
        figures["first page by name, ms"] = median_ms(lambda: page(everything))
        figures["keyset page 10,000 by name, ms"] = median_ms(lambda: page(everything, after=deep))
        figures["first page by import order, ms"] = median_ms(lambda: page(everything, "added"))
        figures["first page, least certain first, ms"] = median_ms(lambda: page(everything, "uncertain"))
        figures["page of three tags, all of, ms"] = median_ms(lambda: page(three))
        figures["page of a part of the file name, ms"] = median_ms(lambda: page(SampleFilter(text="12345")))
        for order in ("-filesize", "taken", "camera", "tag:weather", "own", "-probability:weather"):
            figures[f"first page by {order}, ms"] = median_ms(lambda order=order: page(everything, order), repeat=5)
        figures["page of a month and a camera, ms"] = median_ms(
            lambda: page(SampleFilter(taken=("2022-03",), cameras=("Camera 7",)))
        )
        figures["facets of 200,000, ms"] = median_ms(lambda: facets(cursor, 2, everything, WORDS), repeat=5)
        figures["facets of 200,000, one tag chosen, ms"] = median_ms(
            lambda: facets(cursor, 2, SampleFilter(all_of=("dark",)), WORDS), repeat=5
        )
        for name, chosen in (
            ("of the whole", everything),
            ("of the whole, one tag chosen", SampleFilter(all_of=("dark",))),
            ("of the whole, one camera chosen", SampleFilter(cameras=("Camera 7",))),
            ("of a part of the file name", SampleFilter(text="12345")),
            ("of a part of nearly every file name", SampleFilter(text="1")),
        ):
            figures[f"facets {name}, ms"] = median_ms(lambda: facets(cursor, 1, chosen, WORDS), repeat=5)  # noqa: B023
            figures[f"facets {name}, CPU ms"] = cpu_ms(lambda: facets(cursor, 1, chosen, WORDS), repeat=3)  # noqa: B023
        figures["figures of a data set, ms"] = median_ms(lambda: dataset_stats(cursor, [1]))
        figures |= measure_asking(cursor)
        figures |= measure_distributions(cursor)
    return figures


def measure_asking(cursor: Cursor) -> dict[str, Any]:
    """Count what lacks an answer, and read the ids that come next: for a dimension that is new, and for all of them."""
    scope = where(1, SampleFilter(), WORDS)
    asked = questions()
    new = Question.of(model="pretended", revision="1", mode="score", dimension="new", asked={})
    figures: dict[str, Any] = {}
    for name, wanted in (("a new dimension", [new]), ("one dimension more", [*asked, new]), ("the same again", asked)):
        missing = Wanted(scope, question_ids(cursor, wanted), only_missing=True)

        def count(missing: Wanted = missing) -> int:
            return pending_count(cursor, missing, run_id=3)

        def page(missing: Wanted = missing, limit: int = BATCH) -> Any:
            return pending(cursor, missing, run_id=3, after=-1, limit=limit)

        figures[f"what lacks an answer, counted: {name}, ms"] = median_ms(count)
        figures[f"what lacks an answer, the next 256: {name}, ms"] = median_ms(page)
        figures[f"what lacks an answer, the next {AHEAD:,}: {name}, ms"] = median_ms(partial(page, limit=AHEAD))
        figures[f"what lacks an answer, the next {AHEAD:,}: {name}, CPU ms"] = cpu_ms(partial(page, limit=AHEAD))
    figures["a run's counts, ms"] = median_ms(lambda: run_counts(cursor, 1))
    return figures


def measure_distributions(cursor: Cursor) -> dict[str, Any]:
    """Count how all words are spread, two dimensions against each other, and a filter beside another that overlaps it."""
    everything = distributions.within(cursor, 1, SampleFilter(), WORDS)
    axes = [Axis(Sorting("dimension", name, of)) for name, of in WORDS.items()]
    weather, lighting = (next(axis for axis in axes if axis.sorting.name == name) for name in ("weather", "lighting"))
    category = Axis(Sorting("category", "category", ("car", "person")))
    dark, tenth = SampleFilter(all_of=("dark",)), SampleFilter(text="7.jpg")

    def spread(source: Source) -> None:
        grouped = distributions.by_tags(cursor, source)
        for axis in axes:
            distributions.count(cursor, grouped, axis)

    def compare() -> None:
        source = distributions.side_by_side(cursor, where(1, dark, WORDS), where(1, tenth, WORDS))
        grouped = distributions.by_tags(cursor, source)
        for axis in axes:
            distributions.count_sides(cursor, grouped, axis)

    def against_each_other(other: Axis) -> None:
        found = distributions.count(cursor, everything, weather, other)
        cross(found.cells, rows=found.rows, columns=found.columns, total=found.total)

    return {
        "distributions of all dimensions, ms": median_ms(lambda: spread(everything), repeat=5),
        "two dimensions against each other, tested, ms": median_ms(lambda: against_each_other(lighting), repeat=5),
        "a dimension against categories, tested, ms": median_ms(lambda: against_each_other(category), repeat=5),
        "two filters side by side, all dimensions, ms": median_ms(compare, repeat=5),
    }


def measure_comparing(store: SampleStore, share: float) -> dict[str, Any]:
    """Compare two runs that answered the same samples."""
    answered = answer_samples(store, 1, 3, share)
    with store.read() as cursor:
        took = median_ms(lambda: flips(cursor, 1, 3), repeat=5)
    return {f"two runs compared, {answered:,} samples, {len(WORDS)} dimensions, ms": took}


def measure_undo(store: SampleStore, samples: int) -> dict[str, Any]:
    """Give a tag to many samples, and take that back."""
    with store.read() as cursor:
        last = ids_of(cursor, 1, samples)[-1]
    start = time.perf_counter()
    with store.write() as cursor:
        target = ("s.dataset_id = 1 and s.id <= ?", [last])
        edit = tags_add(cursor, dataset_id=1, target=target, tag="bulk", dimension=None)
    given = time.perf_counter() - start
    start = time.perf_counter()
    with store.write() as cursor:
        undo(cursor, edit.id or 0)
    return {
        f"a tag for {samples:,} samples, s": round(given, 2),
        "the same taken back, s": round(time.perf_counter() - start, 2),
    }


def measure_size(store: SampleStore, answered: int, chance: random.Random) -> dict[str, Any]:
    """Answer samples with probabilities that no two share, which compress as little as a model's, and see how the file grows."""
    with store.read() as cursor:
        ids = ids_of(cursor, 1, SIZED, after=answered + BATCH * 12)
    store.close()
    before, start = store.path.stat().st_size, time.perf_counter()
    for place in range(0, len(ids), AHEAD):
        made = []
        for result in results(ids[place : place + AHEAD], 9, chance):
            answers = []
            for answer in result.answers:
                weights = [chance.expovariate(1) for _ in answer.words]
                answers.append(replace(answer, probabilities=tuple(weight / sum(weights) for weight in weights)))
            made.append(replace(result, answers=tuple(answers)))
        with store.write() as cursor:
            merge_batch(cursor, dataset_id=1, run_id=9, results=made)
    took = time.perf_counter() - start
    store.close()
    return {
        f"merging {AHEAD:,} a commit, samples/s": round(len(ids) / took),
        "file, bytes per answered sample": round((store.path.stat().st_size - before) / len(ids)),
    }


def measure_merging(store: SampleStore, answered: int, chance: random.Random) -> dict[str, Any]:
    with store.read() as cursor:
        ids = ids_of(cursor, 1, BATCH * 12, after=answered)
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    run = iter(range(10, 1000))

    def merge() -> None:
        number = next(run)
        made = results(batches[number % len(batches)], number, chance)
        with store.write() as cursor:
            merge_batch(cursor, dataset_id=1, run_id=number, results=made)

    merging = median_ms(merge)
    # The obvious way: one statement and one commit per sample.
    few = ids[:40]
    start = time.perf_counter()
    for sample_id in few:
        with store.write() as cursor:
            cursor.execute(
                "update samples set tags = list_distinct(list_concat(tags, ?)) where id = ?",
                [[chance.choice(words) for words in WORDS.values()], sample_id],
            ).fetchall()
    each = (time.perf_counter() - start) / len(few)
    with store.write() as cursor:
        cursor.execute("create or replace temp table touched as select unnest(?::bigint[]) as id", [few]).fetchall()
        derive(cursor)
    return {
        "merging 256 answered samples, ms": merging,
        "one update per sample, ms each": round(each * 1000, 2),
        "merging over one update per sample, times": round(each * 1000 * BATCH / merging, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--answered", type=int, help="samples with answers (default: three quarters)")
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="measure this store, filled in SQL where it is not there"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.store is not None:
        answered = options.answered or options.samples * 3 // 4
        show(measure_kept(options.store, options.samples, answered), as_json=options.json)
        return
    with tempfile.TemporaryDirectory(prefix="datavisor-benchmark-") as folder:
        answered = options.answered or options.samples * 3 // 4
        show(measure(Path(folder), options.samples, answered), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
