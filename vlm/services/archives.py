"""Archives of data sets: written while the server runs, and read back. What they are is in ``vlm.archives``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm import vocabulary_file
from vlm.archives import reading, writing
from vlm.archives.manifest import ArchiveFailed, Manifest
from vlm.models import Dataset
from vlm.services import vocabulary


@dataclass(frozen=True, slots=True)
class Read:
    """What came of an archive.

    Attributes:
        datasets: the data sets that are there now.
        views_left_out: saved views of users whom nobody here is called like.
        vocabulary: “taken over”, or “the same”, or “left out” where another one is in use here.
    """

    manifest: Manifest
    datasets: list[Dataset]
    views_left_out: int
    vocabulary: str


def write(*, folder: Path, datasets: Sequence[Dataset]) -> Manifest:
    """Write data sets with all that is known of them into a new folder. Raises ``ArchiveFailed``, ``StoreError``."""
    chosen = list({dataset.pk: dataset for dataset in datasets}.values())
    if not chosen:
        raise ArchiveFailed("There is no data set to write into an archive. Import one first.")
    return writing.write(folder=folder, datasets=chosen, vocabulary=vocabulary_file.dump(vocabulary.entries()))


def read(*, folder: Path, rename: bool = False) -> Read:
    """Bring the data sets of an archive in, beside those that are there.

    The vocabulary of the archive becomes this installation's where there is no data set yet; otherwise the present one stays.

    Args:
        rename: give a data set whose name is taken another one, with a number behind it.

    Raises:
        ArchiveFailed, StoreError, VocabularyError: nothing has changed.
    """
    archive = reading.look(folder=folder, rename=rename)
    wanted = vocabulary_file.load(archive.rows.vocabulary)
    change, said = None, "the same"
    if wanted != vocabulary.entries():
        said = "left out" if Dataset.objects.exists() else "taken over"
    if said == "taken over":
        change = vocabulary.replace_all(wanted=wanted, user=None, text="Read an archive")
    try:
        done = reading.read(archive)
    except BaseException:
        if change is not None:
            vocabulary.undo(change=change, user=None)
        raise
    return Read(done.manifest, done.datasets, done.views_left_out, said)
