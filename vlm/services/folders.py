"""Pictures laid out in folders, as links or copies, and XMP sidecars beside pictures. What is there is never written over."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from datavisor.private import as_the_user_wants
from vlm.errors import Refusal
from vlm.formats import ExportRow
from vlm.formats.export import xmp
from vlm.imaging import ImageUnreadable, open_source
from vlm.models import Dataset, words_by_dimension
from vlm.roots import LocalRoot, root_of
from vlm.samples import SampleFilter
from vlm.services.exports import rows_of

SPLIT = "split"
NONE = "none"  # the folder of images without a word, or without a split
TOLD = 1000  # problems that are kept with their reason


class LayoutRefused(Refusal):
    """Pictures cannot be laid out as asked."""

    title = "Nothing was laid out"


@dataclass
class LaidOut:
    """What was done: files made, files that were there already and stay as they are, and what could not be done."""

    made: int = 0
    kept: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    def complain(self, problem: str) -> None:
        self.failed += 1
        if len(self.problems) < TOLD:
            self.problems.append(problem)


def lay_out(
    *, dataset: Dataset, filter: SampleFilter, into: Path, by: Sequence[str] = (), copy: bool = False
) -> LaidOut:
    """Put links to the pictures of a filter, or copies, below a folder.

    Args:
        by: what the folders are called after, from the outside in: “split”, or a dimension's word. Below them pictures keep
            their paths.

    Raises:
        LayoutRefused: ``by`` names something else, or the folder lies within the data set.
        FilterError: the filter cannot be read.
    """
    words = words_by_dimension()
    if unknown := [name for name in by if name not in (SPLIT, *words)]:
        raise LayoutRefused(f"There is no “{unknown[0]}” to go by. There are: {', '.join((SPLIT, *words))}.")
    root, target = root_of(dataset.root), into.expanduser().resolve()
    if isinstance(root, LocalRoot):
        inside = root.path.resolve()
        if target == inside or inside in target.parents:
            raise LayoutRefused(
                f"{target} lies within the data set, which would then hold its pictures twice. Choose a folder elsewhere."
            )
    elif not copy:
        raise LayoutRefused(
            f"The pictures lie at {root}, and nothing here can be a link to them. Say --copy for copies."
        )

    def place(row: ExportRow) -> None:
        source = root.source(row.path)
        path = target.joinpath(*(_folder(row, name, words) for name in by), row.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not copy and isinstance(source, Path):
            path.symlink_to(source)
            return
        with open_source(source) as file, _new(path) as made:
            shutil.copyfileobj(file, made)
        if isinstance(source, Path):
            shutil.copystat(source, path)

    return _each(rows_of(dataset, filter), place)


def write_sidecars(*, dataset: Dataset, filter: SampleFilter, into: Path | None = None) -> LaidOut:
    """Write an XMP sidecar for each picture of a filter: beside it, or below another folder.

    Raises:
        LayoutRefused: the pictures lie in a bucket, and no other folder is given.
        FilterError: the filter cannot be read.
    """
    root = root_of(dataset.root)
    if into is None and not isinstance(root, LocalRoot):
        raise LayoutRefused(
            f"Nothing is written to {root}, where the pictures lie. Give a folder for the sidecars with --into."
        )
    target = into.expanduser().resolve() if into is not None else None

    def place(row: ExportRow) -> None:
        if target is None:
            # Beside the picture as the data set names it; a link out of the data set is followed nowhere.
            path = Path(xmp.name_of(str(root.source(row.path))))
        else:
            if isinstance(root, LocalRoot):
                root.source(row.path)  # of what is gone there is nothing to say
            path = target / xmp.name_of(row.path)
            path.parent.mkdir(parents=True, exist_ok=True)
        with _new(path) as file:
            file.write(xmp.packet(row))

    return _each(rows_of(dataset, filter), place)


def _each(rows: Iterator[ExportRow], place: Callable[[ExportRow], None]) -> LaidOut:
    done = LaidOut()
    with as_the_user_wants():
        for row in rows:
            try:
                place(row)
                done.made += 1
            except FileExistsError:
                done.kept += 1
            except (OSError, ImageUnreadable) as error:
                done.complain(f"{row.path}: {getattr(error, 'strerror', None) or error}")
    return done


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that was not there; it goes again if the disk is full, since a part would be taken for the whole."""
    file = path.open("xb")
    try:
        with file:  # what is buffered is written at the end only
            yield file
    except OSError:
        path.unlink()
        raise


def _folder(row: ExportRow, name: str, words: dict[str, tuple[str, ...]]) -> str:
    """Return the folder of a picture; a word may have a letter that no folder's name has."""
    found = row.split if name == SPLIT else next((tag.tag for tag in row.tags if tag.tag in words[name]), "")
    plain = found.replace(os.sep, "_").strip(". ")
    return plain or NONE
