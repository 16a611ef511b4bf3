"""A real DuckDB file for every test."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.children import PATIENCE
from vlm.samples import Annotation, Answer, Result, SampleStore
from vlm.samples.ingest import import_rows, staged

WORDS = {"lighting": ("dark", "bright"), "setting": ("indoor", "outdoor")}


@dataclass(frozen=True)
class Record:
    """An image as an import would describe it."""

    path: str
    file_name: str = ""
    split: str = ""
    width: int | None = 640
    height: int | None = 480
    categories: tuple[str, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    content_key: str = "1-1"
    external_id: str = ""
    source_file: str = ""


def record(path: str, **fields: object) -> Record:
    return Record(path, **({"file_name": path} | fields))  # type: ignore[arg-type]


def answer(run: int, word: str, probability: float = 0.9, *, accepted: bool = True, mass: float = 1.0) -> Answer:
    dimension = next(name for name, words in WORDS.items() if word in words)
    words = WORDS[dimension]
    rest = (1 - probability) / (len(words) - 1)
    probabilities = tuple(probability if other == word else rest for other in words)
    reason = "" if accepted else "below threshold"
    place = list(WORDS).index(dimension)
    return Answer(run, dimension, place, words, probabilities, mass, word, probability, accepted, reason)


def result(sample_id: int, *answers: Answer, error: str = "") -> Result:
    return Result(sample_id, answers, error)


def copied(made: Path, folder: Path) -> SampleStore:
    """Return a store of one's own that holds what the file ``made`` does; whoever takes it closes it."""
    return SampleStore(
        Path(shutil.copy(made, folder / "samples.duckdb")), memory_limit="512MB", threads=2, wait=PATIENCE
    )


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[SampleStore]:
    store = copied(empty_store, tmp_path)
    yield store
    store.close()


@pytest.fixture
def filled(tmp_path: Path, made: Path) -> Iterator[SampleStore]:
    """A store of the test's own with all that the module's fixture ``made`` wrote."""
    store = copied(made, tmp_path)
    yield store
    store.close()


def fill(store: SampleStore, count: int = 4, dataset_id: int = 1) -> list[int]:
    """Import ``count`` samples and return their ids."""
    records = [record(f"{index:03}.jpg") for index in range(count)]
    with staged(records, store.path.parent) as source:
        import_rows(store, dataset_id=dataset_id, source=source)
    with store.read() as cursor:
        rows = cursor.execute("select id from samples where dataset_id = ? order by id", [dataset_id]).fetchall()
    return [row[0] for row in rows]
