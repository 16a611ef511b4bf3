"""What was computed of a data set's answers and labels, kept until they change.

Counting a million answers is nearly all that a page of accuracy waits for. They change with a run, an import, an edit of the
vocabulary; but not with a decision of a review, after which what is known of them is carried along.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from vlm import nudges
from vlm.process import sample_store
from vlm.samples import Cursor, reading

DATASETS = 20  # of which something is kept
MOST = 1000  # results of a data set

Key = tuple[str, tuple[str, ...]]  # a dimension and its words


@dataclass
class Known:
    """What is known of a data set at a revision. Whoever computes writes into the object that he was given, whatever came since."""

    revision: int
    answers: dict[Key, Any] = field(default_factory=dict)  # what follows from the answers alone
    results: dict[tuple[Any, ...], Any] = field(default_factory=dict)  # from the labels, too; the dimension comes first


_known: dict[tuple[str, int], Known] = {}
_lock = threading.Lock()


def of(cursor: Cursor, dataset_id: int) -> Known:
    """Return what is known of a data set as it is now, to be read and added to."""
    revision = reading.revision(cursor, dataset_id)
    with _lock:
        found = _known.get(_key(dataset_id))
        if found is None or found.revision != revision or len(found.results) > MOST:
            found = _keep(dataset_id, Known(revision))
        return found


@contextmanager
def deciding(dataset_id: int, *dimensions: str) -> Iterator[Cursor]:
    """Yield a cursor to write with what changes labels of some dimensions and no answer: all else that is known stays known."""
    with sample_store().write() as cursor:
        before = reading.revision(cursor, dataset_id)
        yield cursor
        after = reading.revision(cursor, dataset_id)
    nudges.count_change(dataset_id)
    with _lock:
        found = _known.get(_key(dataset_id))
        if found is not None and found.revision == before:
            kept: Mapping[tuple[Any, ...], Any] = {k: v for k, v in found.results.items() if k[0] not in dimensions}
            _keep(dataset_id, Known(after, dict(found.answers), dict(kept)))


def _keep(dataset_id: int, known: Known) -> Known:
    if len(_known) >= DATASETS:
        _known.clear()
    _known[_key(dataset_id)] = known
    return known


def _key(dataset_id: int) -> tuple[str, int]:
    return str(settings.DUCKDB_PATH), dataset_id
