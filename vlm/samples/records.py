"""What goes into the store and comes out of it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from vlm.exif import taken
from vlm.measures import Measures as Measures

Source = Literal["user", "model"]
Way = Literal["single", "bulk", "review", "import", "group", "vocabulary", "undo"]
ColumnKind = Literal["number", "boolean", "word"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object in the image; ``box`` is x, y, width, height in pixels of the upright image, where there is one."""

    category: str
    box: tuple[float, float, float, float] | None


class Importable(Protocol):
    """What the store needs to know of an image that is imported; paths are relative to the data set's root."""

    @property
    def path(self) -> str: ...
    @property
    def file_name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def categories(self) -> tuple[str, ...]: ...
    @property
    def annotations(self) -> "Sequence[Annotation]": ...
    @property
    def content_key(self) -> str: ...
    @property
    def external_id(self) -> str: ...
    @property
    def source_file(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that stands in ``samples.tags``, with who says so. A model's tag that a user confirmed is the user's.

    Attributes:
        user, time, way: who gave it, when (UTC), and how (see ``Way``; ``run`` for the model's), where that was looked up.
            Nobody is named for a command's, and for those of before it was kept.
        shared_from: the sample of the same group that the run asked in place of this one, if it did.
    """

    tag: str
    dimension: str | None
    source: Source
    probability: float | None = None
    run: int | None = None
    user: str = ""
    time: datetime | None = None
    way: str = ""
    shared_from: int | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Who changes tags, and by which way; ``user_id`` is ``None`` for a command."""

    user_id: int | None = None
    user_name: str = ""
    way: Way = "single"


COMMAND = Edit()  # nobody who is known


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit did: its id (``None`` where there was nothing to change) and how many samples it changed.

    ``replaced`` is on how many of them its word took the place of another one that a user had given.
    """

    id: int | None
    samples: int
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class EditRow:
    """An edit as the store remembers it; ``undone_by`` is the edit that took it back."""

    id: int
    dataset_id: int
    user_id: int | None
    user_name: str
    way: str
    action: str
    tag: str
    value: str
    dimension: str | None
    samples: int
    created: datetime
    undone_by: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a sample has seen: an edit, or an answer of a run (``said``).

    Attributes:
        time: UTC; ``None`` where it is not known.
        word: the tag or the label, empty for “cannot tell”; or what the run answered.
        value: what an edit put in its place, where it did.
        undone: the edit was taken back.
        samples: how many samples the edit changed together.
        current, shared_from: nothing newer has taken the answer's place; the sample of the same group that the run asked.
    """

    time: datetime | None
    action: str
    dimension: str
    word: str
    user: str = ""
    way: str = ""
    value: str = ""
    undone: bool = False
    samples: int = 1
    run: int | None = None
    probability: float | None = None
    accepted: bool = False
    current: bool = False
    shared_from: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked of which model. Equal keys mean that an answer to one is an answer to the other."""

    key: str
    model: str
    revision: str
    mode: str
    dimension: str
    asked: Mapping[str, Any]

    @classmethod
    def of(cls, *, model: str, revision: str, mode: str, dimension: str, asked: Mapping[str, Any]) -> Self:
        """Return the question with its key: a hash over all that decides the answer.

        Args:
            model: what the model is, not how its path was spelt.
            asked: question, words and whatever else of the dimension decides the answer.
        """
        text = json.dumps(
            [model, revision, mode, dimension, asked], ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
        return cls(hashlib.sha256(text.encode()).hexdigest(), model, revision, mode, dimension, asked)


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a file says.

    Attributes:
        size: width and height in pixels of the upright picture; ``None`` where it cannot be read.
        taken: when, by the camera's clock.
        camera: its maker and name, empty where the file names none.
    """

    size: tuple[int, int] | None = None
    taken: datetime | None = None
    camera: str = ""

    @classmethod
    def of(cls, size: tuple[int, int], exif: Mapping[int, object]) -> Self:
        """Return what a size and EXIF (tag → value, see ``imaging.header``) say."""
        found = taken(exif)
        return cls(size, found.when, found.camera)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A sample with its tags; ``width``, ``height``, ``taken`` and ``camera`` as far as somebody has read them (see :class:`Head`)."""

    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    missing: bool
    content_key: str
    tags: tuple[Tag, ...]
    bytes: int | None = None
    taken: datetime | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Samples in an order; ``next`` is the cursor of the page behind, empty at the end."""

    samples: list[SampleRow]
    next: str


@dataclass(frozen=True, slots=True)
class Count:
    value: str
    count: int


@dataclass(frozen=True, slots=True)
class DimensionFacet:
    """Words of a dimension with their counts, zero included; ``lacking`` counts samples without any of them."""

    name: str
    words: tuple[Count, ...]
    lacking: int


@dataclass(frozen=True, slots=True)
class Facets:
    total: int
    dimensions: tuple[DimensionFacet, ...]
    user_tags: tuple[Count, ...]
    splits: tuple[Count, ...]
    categories: tuple[Count, ...]
    states: tuple[Count, ...]
    sources: tuple[Count, ...]
    marks: tuple[Count, ...] = ()
    cameras: tuple[Count, ...] = ()
    taken: tuple[Count, ...] = ()  # years; of a year that was chosen its months, of a month its days
    megapixels: tuple[Count, ...] = ()
    file_sizes: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetStats:
    samples: int
    tagged: int
    missing: int


@dataclass(frozen=True, slots=True)
class Raw:
    """What the model said itself, where an answer is calibrated."""

    probabilities: tuple[float, ...]
    word: str
    probability: float
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said about one dimension of one image.

    Attributes:
        place: position of the dimension in the run's vocabulary.
        words: the allowed words, and
        probabilities: their probabilities given that the answer is one of them (empty if the answer was generated).
        mass: probability that the answer is an allowed word at all.
        word: the best word, empty if a generated text is none.
        accepted: whether it reached the thresholds and is no word that a user took away; if not,
        reason: says why.
        text: the generated text.
        disagreement: the share of the question's other wordings that say another word; ``None`` where it has one wording.
        raw: what the model said itself, where probabilities, word and decision are calibrated.
        shared_from: the sample of the same group about which it was said, where the run asked one of each group.
    """

    run: int
    dimension: str
    place: int
    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    mass: float | None
    word: str
    probability: float | None
    accepted: bool
    reason: str
    text: str = ""
    disagreement: float | None = None
    raw: Raw | None = None
    shared_from: int | None = None


@dataclass(frozen=True, slots=True)
class SampleDetail:
    sample: SampleRow
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    answers: tuple[Answer, ...]
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found out about one sample: its answers, or why there are none.

    Attributes:
        digest: SHA-256 of the file's bytes, empty if it was not made.
        measures: what was measured while the image was decoded.
        head: what the file says of itself.
    """

    sample_id: int
    answers: tuple[Answer, ...] = ()
    error: str = ""
    digest: str = ""
    measures: Measures | None = None
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A sample that waits for a run, and the dimensions whose question it lacks an answer to."""

    id: int
    path: str
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody decided about a dimension of a sample; an empty ``word`` means that it cannot be told.

    Attributes:
        probability: of the sample to be drawn; ``None`` where it was not drawn by chance.
        stratum, design: of the draw.
    """

    sample_id: int
    dimension: str
    word: str
    probability: float | None = None
    stratum: str = ""
    design: str = ""


@dataclass(frozen=True, slots=True)
class KeptLabel:
    """A label in force, with who gave it."""

    id: int
    sample_id: int
    dimension: str
    word: str
    probability: float | None
    stratum: str
    design: str
    user_id: int | None
    user_name: str
    way: str
    edit_id: int | None
    created: datetime


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample that was drawn to be labelled."""

    sample_id: int
    place: int
    probability: float | None
    stratum: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was found about a sample: a contradiction (``word``, and how strong), or a group that it is of."""

    sample_id: int
    member_of: int | None = None
    value: float | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of values that a user brought along.

    Attributes:
        values: how many samples have one.
        description: what users say that it is.
        source: name of the table that it came from, with who brought it and when.
    """

    id: int
    name: str
    kind: ColumnKind
    values: int
    description: str = ""
    source: str = ""
    user_name: str = ""
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class ColumnSpan:
    """The range of a column of numbers, and between what its middle 98 of 100 values lie."""

    low: float
    high: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class ColumnFacet:
    """How many samples of a filter have which value of a column.

    Attributes:
        counts: of words and flags (“yes”, “no”), most frequent first; of numbers those of the ranges between ``edges``,
            ``len(edges) + 1`` of them, the first and the last one open.
        lacking: samples without a value.
    """

    column: Column
    counts: tuple[Count, ...]
    lacking: int
    edges: tuple[float, ...] = ()


@dataclass(slots=True)
class Imported:
    """What an import did to the samples of a data set.

    Attributes:
        moved: files that lie elsewhere now; they kept their tags and answers.
        replaced: files with another content; they lack answers again.
    """

    added: int = 0
    updated: int = 0
    returned: int = 0
    moved: int = 0
    replaced: int = 0
    missing: int = 0
    total: int = 0
    duplicates: list[str] = field(default_factory=list)


Records = Iterable[Importable]
