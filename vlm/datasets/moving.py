"""Renaming a data set, and pointing it to the folder that its images have moved to. Ids, tags and answers stay."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction

from vlm import errands
from vlm.datasets.places import allowed_root
from vlm.formats import ImportFailed
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.roots import LocalRoot
from vlm.runs.state import check_idle
from vlm.samples import reading
from vlm.vocabulary import is_plain

LOOKED_AT = 1000  # images, spread over the data set
LEAST_FOUND = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the images that were looked for lie below the new folder, and the first that does not."""

    looked_for: int
    there: int
    lacking: str


def rename(*, dataset: Dataset, name: str) -> None:
    """Give a data set another name.

    Raises:
        ImportFailed: the name is empty, too long, or another data set's.
    """
    name = " ".join(name.split())
    if not name or len(name) > 200 or not is_plain(name):
        raise ImportFailed("A data set's name has between 1 and 200 characters, none of them a control character.")
    try:
        with transaction.atomic():
            Dataset.objects.filter(pk=dataset.pk).update(name=name)
    except IntegrityError:
        raise ImportFailed(f"There is a data set “{name}” already. Choose another name.") from None
    dataset.refresh_from_db()


def relocate(*, dataset: Dataset, path: str) -> Found:
    """Have a data set read its images below another folder; returns how many were looked for and found there.

    Raises:
        ImportFailed: the folder may not be read, or holds less than half of the images.
        RootRefused, RootAway: the URL is none that is read from, or its store does not answer.
        RunActive: a run reads the old folder.
    """
    folder = allowed_root(path)
    if isinstance(folder, LocalRoot) and not folder.path.is_dir():
        raise ImportFailed(f"There is no folder {folder}.")
    folder.probe()
    check_idle(dataset.pk)
    with sample_store().read() as cursor:
        paths = reading.some_paths(cursor, dataset.pk, LOOKED_AT)
    with ThreadPoolExecutor(folder.at_once) as threads:
        there = list(threads.map(folder.has, paths))
    lacking = [path for path, is_there in zip(paths, there, strict=True) if not is_there]
    found = Found(len(paths), len(paths) - len(lacking), lacking[0] if lacking else "")
    if paths and found.there < LEAST_FOUND * found.looked_for:
        raise ImportFailed(
            f"Only {found.there:,} of {found.looked_for:,} images that were looked for lie below {folder}; “{found.lacking}” "
            "does not. Choose the folder that holds them under the same names."
        )
    before = dataset.root

    def change(root: str = str(folder)) -> dict[str, Any]:
        Dataset.objects.filter(pk=dataset.pk).update(root=root)
        return {"dataset": dataset.pk}

    errands.carry_out("relocate", about=f"data set {dataset.pk}", change=change, undo=lambda: change(before))
    dataset.refresh_from_db()
    return found
