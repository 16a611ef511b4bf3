"""Reading the heads of files that nobody has read yet: after an import, and before measuring.

Each batch is committed, so whoever is stopped has lost nothing, and the next import or measuring goes on.
"""

import threading
from collections.abc import Callable
from functools import partial

from vlm import imaging
from vlm.datasets.looking import look_at
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.roots import Root, root_of
from vlm.samples import Head
from vlm.samples.deriving import changed
from vlm.samples.heads import heads_keep, heads_unread, heads_unread_count
from vlm.samples.values import present

BATCH = 2000  # files whose heads are read and committed together


def heads_read(
    *,
    dataset: Dataset,
    wanted: Callable[[], bool],
    report: Callable[[int, int], None] = lambda _, __: None,
    halt: threading.Event | None = None,
    seconds: float = 0,
) -> None:
    """Read the heads of a data set's files that nobody has read, as long as they are ``wanted``.

    Of a file that is no readable picture nothing is known; it is not tried again until its content changes.

    Args:
        report: called with how many were read, of how many.
        halt: set to end in the middle of a batch.
        seconds: how long a root that is away is waited for.

    Raises:
        RootAway: it was away for longer; what was committed stays.
    """
    store, root, after, done = sample_store(), root_of(dataset.root), -1, 0
    with store.read() as cursor:
        total = heads_unread_count(cursor, dataset.pk)
    while done < total and wanted():
        with store.read() as cursor:
            batch = heads_unread(cursor, dataset.pk, after=after, limit=BATCH)
        if not batch:
            return
        heads, bad = look_at(root, batch, partial(_head, root), halt or threading.Event(), seconds=seconds)
        unreadable = {problem["path"] for problem in bad}
        heads |= {sample: Head() for sample, path in batch if path in unreadable}
        with store.write() as cursor:
            there = present(cursor, dataset.pk, list(heads))  # the data set may have gone meanwhile
            if there:
                heads_keep(cursor, dataset_id=dataset.pk, heads={sample: heads[sample] for sample in there})
                changed(cursor, dataset.pk)
        after, done = batch[-1][0], done + len(batch)
        report(done, total)


def _head(root: Root, path: str) -> Head:
    return root.look(path, lambda source: Head.of(*imaging.header(source)))
