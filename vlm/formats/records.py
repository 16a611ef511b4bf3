"""What an import yields: sample records, and skips with their reasons."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from vlm.errors import Refusal
from vlm.roots import Root
from vlm.samples import Annotation

__all__ = ["Annotation", "ImportFailed", "SampleRecord", "Scan", "Skip"]

MAX_KEPT_SKIPS = 10_000  # the rest is counted only
LONGEST_CATEGORY = 500  # characters; more could not be filtered by

ReportSkip = Callable[[str, str], None]  # takes a path and the reason


class ImportFailed(Refusal):
    """A data set cannot be imported; the message says what to do."""

    title = "This cannot be imported"


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """An image of a data set.

    Attributes:
        path: below the data set's root, with '/' between folders; the identity when the data set is imported again.
        file_name: what is shown, and what an exported COCO JSON is matched by.
        split: '' where the data set has none.
        width: pixels of the upright image, ``None`` where the image would have to be opened.
        height: likewise.
        categories: distinct, in the order of the annotations.
        annotations: in the order of the data set.
        content_key: changes whenever the file does (size and modification time).
        external_id: the image's id in a COCO JSON, '' otherwise.
        source_file: the JSON that described it, below the root, '' where none did.
    """

    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    content_key: str
    external_id: str
    source_file: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """Something in a data set's folder that did not become a sample or was not used, and why."""

    path: str
    reason: str


@dataclass
class Scan:
    """A data set that can be read: iterate over it for its records.

    ``skips`` (10,000 at most) and ``skip_count`` fill while it is iterated over and start anew each time. ``total`` is
    how many samples are expected, for progress. ``notes`` are what was seen while looking the folder over; they are
    skips too. Iterating raises ``ImportFailed`` at the end where nothing came.
    """

    root: Root
    format: str
    total: int | None
    records: Callable[[ReportSkip], Iterator[SampleRecord]] = field(repr=False)
    notes: list[Skip] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    skip_count: int = 0

    def __iter__(self) -> Iterator[SampleRecord]:
        self.skips.clear()
        self.skip_count = 0
        for note in self.notes:
            self._report(note.path, note.reason)
        empty = True
        for record in self.records(self._report):
            empty = False
            yield record
        if empty:
            told = self.skips[len(self.notes) :] or self.skips
            first = f" The first of them: {told[0].path}: {told[0].reason}" if told else ""
            raise ImportFailed(
                f"No image could be imported from “{self.root}”; {self.skip_count:,} entries were skipped.{first}"
            )

    def _report(self, path: str, reason: str) -> None:
        self.skip_count += 1
        if len(self.skips) < MAX_KEPT_SKIPS:
            self.skips.append(Skip(printable(path), reason))


def printable(path: str) -> str:
    r"""Return a path that can be stored and shown: bytes that are no UTF-8 become ``\udc..``."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def is_unicode(path: str) -> bool:
    """Tell whether a path can be stored as UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def distinct_categories(annotations: tuple[Annotation, ...]) -> tuple[str, ...]:
    """Return the categories of annotations, each once, in order, without empty ones."""
    return tuple(dict.fromkeys(annotation.category for annotation in annotations if annotation.category))


def summed_up(skips: Iterable[Skip]) -> list[Skip]:
    """Return skips with those of one folder and one reason as a single line, where they are more than three."""
    groups: defaultdict[tuple[str, str, str], list[Skip]] = defaultdict(list)
    for skip in skips:
        folder, _, name = skip.path.rpartition("/")
        groups[folder, name[name.rfind(".") :], skip.reason].append(skip)
    told: list[Skip] = []
    for (folder, _, reason), group in groups.items():
        if len(group) <= 3:
            told += group
        else:
            told.append(Skip(f"{group[0].path} and {len(group) - 1:,} others in {folder or 'the folder'}", reason))
    return told
