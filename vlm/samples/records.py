"""What goes into the store and comes out of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Source = Literal["user", "model"]


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


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that stands in ``samples.tags``, with who says so. A model's tag that a user confirmed is the user's."""

    tag: str
    dimension: str | None
    source: Source
    probability: float | None = None
    run: int | None = None


@dataclass(frozen=True, slots=True)
class SampleRow:
    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    missing: bool
    content_key: str
    tags: tuple[Tag, ...]


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


@dataclass(frozen=True, slots=True)
class DatasetStats:
    samples: int
    tagged: int
    missing: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said about one dimension of one image.

    Attributes:
        place: position of the dimension in the run's vocabulary.
        words: the allowed words, and
        probabilities: their probabilities given that the answer is one of them (empty if the answer was generated).
        mass: probability that the answer is an allowed word at all.
        word: the best word, empty if a generated text is none.
        accepted: whether it became a tag; if not,
        reason: says why.
        text: the generated text.
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


@dataclass(frozen=True, slots=True)
class SampleDetail:
    sample: SampleRow
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    answers: tuple[Answer, ...]
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found out about one sample: its answers, or why there are none."""

    sample_id: int
    answers: tuple[Answer, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A sample that waits for a run."""

    id: int
    path: str


@dataclass(slots=True)
class Merged:
    """What merging a batch did; replayed samples count nowhere."""

    processed: int = 0
    tagged: int = 0
    discarded: int = 0
    failed: int = 0

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(
            self.processed + other.processed,
            self.tagged + other.tagged,
            self.discarded + other.discarded,
            self.failed + other.failed,
        )


@dataclass(frozen=True, slots=True)
class WordCount:
    dimension: str
    word: str
    accepted: int
    discarded: int


@dataclass(frozen=True, slots=True)
class Failure:
    sample_id: int
    file_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    sample_id: int
    file_name: str
    dimension: str
    word: str
    probability: float | None
    mass: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reapplied:
    """What other thresholds make of a run: accepted and discarded answers, and samples whose tags change."""

    accepted: int
    discarded: int
    changed: int


@dataclass(slots=True)
class Imported:
    """What an import did to the samples of a data set."""

    added: int = 0
    updated: int = 0
    returned: int = 0
    missing: int = 0
    total: int = 0
    duplicates: list[str] = field(default_factory=list)


Records = Iterable[Importable]
