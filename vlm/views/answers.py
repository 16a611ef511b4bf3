"""What programs are answered: records whose types are also what the OpenAPI document says of them.

Records of the rooms below (a run's state, facets, tags, answers) are told as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import (
    Any,
    Literal,
    Required,  # pydantic reads the one of “typing” from Python 3.12 on
)

from django.urls import reverse
from typing_extensions import TypedDict

from vlm import services
from vlm.models import Dataset, ImportJob, SavedView, TaggingRun
from vlm.runs.state import RunState
from vlm.samples import (
    Annotation,
    Answer,
    DatasetStats,
    Discard,
    EditRow,
    Facets,
    Failure,
    SampleDetail,
    SampleRow,
    Tag,
    WordCount,
)


class Refused(TypedDict):
    """Why a request was not served, in one sentence that says what to do."""

    error: str
    title: str
    status: int


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A data set: its folder, its figures, and its newest run."""

    id: int
    name: str
    format: str
    root: str
    imported: datetime | None
    images: int
    tagged: int
    missing: int
    run: RunState | None
    address: str


@dataclass(frozen=True, slots=True)
class DatasetList:
    datasets: list[DatasetInfo]


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: int


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """An image with its tags; ``path`` is relative to the data set's folder.

    What the head of its file says (``width`` to ``camera``, but for ``bytes``) is ``None`` until somebody has read it.
    """

    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    bytes: int | None
    taken: datetime | None
    camera: str | None
    missing: bool
    tags: tuple[Tag, ...]
    address: str


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Images in an order; ``next`` is what ``after`` must be to get those behind them, ``None`` at the end."""

    samples: list[SampleInfo]
    next: str | None


@dataclass(frozen=True, slots=True)
class DatasetPage:
    """A data set under a filter: how many images it finds, what it could be narrowed to, and the first of them."""

    dataset: DatasetInfo
    filter: str
    order: str
    total: int
    facets: Facets
    samples: list[SampleInfo]
    next: str | None


@dataclass(frozen=True, slots=True)
class SampleFull:
    """An image in full: the newest answer of each dimension, and the tags that users took away."""

    sample: SampleInfo
    categories: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    answers: tuple[Answer, ...]
    rejected: tuple[str, ...]
    image: str
    previous: int | None
    next: int | None


@dataclass(frozen=True, slots=True)
class Suggestions:
    tags: list[str]


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit did; ``edit`` is by which it can be undone, ``None`` where there was nothing to change.

    Several tags at once are as many edits: ``also`` names the further ones, as the address that undoes them takes them.
    """

    done: str
    changed: int
    edit: int | None
    tag: str = ""
    dimension: str = ""
    replaced: int = 0
    also: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OwnTags:
    """Tags that are no words of the vocabulary, and what users say that they mean."""

    tags: list[services.tags.OwnTag]


@dataclass(frozen=True, slots=True)
class EditList:
    """The edits of a data set, newest first."""

    edits: list[EditRow]


@dataclass(frozen=True, slots=True)
class ViewInfo:
    """A saved view; ``filter`` is what the address has behind “?”."""

    id: int
    name: str
    filter: str


@dataclass(frozen=True, slots=True)
class ViewList:
    views: list[ViewInfo]


@dataclass(frozen=True, slots=True)
class TableShown:
    """Columns of the table that the user sees, and those that there are; each is also an order."""

    columns: list[str]
    known: list[services.tables.TableColumn]


@dataclass(frozen=True, slots=True)
class RunList:
    """Runs, newest first; ``older`` is what ``before`` must be to get those behind them."""

    runs: list[RunState]
    older: int | None


@dataclass(frozen=True, slots=True)
class RunsNow:
    """The runs that go on, in the order in which they began, and the latest that are over."""

    active: list[RunState]
    recent: list[RunState]


@dataclass(frozen=True, slots=True)
class RunFull:
    """A run: its options, how each word fared, and the first images that failed or whose answers were discarded."""

    state: RunState
    scope: str
    detail: str
    mode: str
    dtype: str
    min_probability: float
    min_mass: float
    created: datetime
    finished: datetime | None
    words: list[WordCount]
    failures: list[Failure]
    discards: list[Discard]
    priors: Any


@dataclass(frozen=True, slots=True)
class Started:
    """A run that has begun; ``progress`` is where it tells how it goes."""

    run: int
    progress: str


class NoRun(TypedDict):
    run: None


@dataclass(frozen=True, slots=True)
class Reverted:
    run: int
    changed: int


@dataclass(frozen=True, slots=True)
class RunChoices:
    """What a run may be asked, and what it takes where a field is left out."""

    dimensions: list[str]
    scopes: list[str]
    details: list[str]
    modes: list[str]
    min_probability: float
    min_mass: float
    detail: str


@dataclass(frozen=True, slots=True)
class Expected:
    """How many images a run would cover, and how many seconds that will take by the last runs' pace, where any tells.

    Of these it would ask ``asked``; with ``one_per_group`` the others take an answer over. Where no run tells, ``seconds`` to
    ``most`` is what was measured on the machine that ``measured_on`` names, if this one is like it.
    """

    count: int
    seconds: float | None
    asked: int
    most: float | None = None
    measured_on: str = ""


class Skipped(TypedDict):
    path: str
    reason: str


# ``import`` is no name that a class could have.
ImportState = TypedDict(
    "ImportState",
    {
        "import": int,
        "dataset": int | None,
        "status": str,
        "done": int,
        "total": int,
        "skipped": list[Skipped],
        "error": str,
        "summary": dict[str, int],
    },
)
ImportStarted = TypedDict("ImportStarted", {"import": int, "progress": str})


@dataclass(frozen=True, slots=True)
class ImportFound:
    """What an import would bring in; nothing is written."""

    name: str
    root: str
    format: str
    total: int
    examples: list[str]
    skipped: list[Skipped]
    skip_count: int
    summary: dict[str, int]


class ImportChoices(TypedDict):
    """Folders below which imports may lie, formats, and the latest imports."""

    roots: list[str]
    formats: list[str]
    recent: list[ImportState]


class ReviewNext(TypedDict):
    sample: int
    path: str


class ReviewState(TypedDict):
    """A review: the draw at hand, how far it is, and the next images."""

    dimension: str
    batch: str
    drawn: int
    done: int
    words: list[str]
    next: list[ReviewNext]


class LabelsDone(TypedDict):
    labels: int
    problems: list[str]
    problem_count: int


class OnlyWhere(TypedDict):
    dimension: str
    words: list[str]


class DimensionInfo(TypedDict, total=False):
    """A question; what may be left out of it is what the vocabulary’s file may leave out."""

    name: Required[str]
    question: Required[str]
    words: Required[list[str]]
    kind: str
    enabled: bool
    levels: list[str]
    wordings: list[str]
    spellings: dict[str, list[str]]
    only: OnlyWhere | None
    label: str
    labels: dict[str, str]


class VocabularyInfo(TypedDict):
    dimensions: list[DimensionInfo]


class VocabularyWanted(TypedDict, total=False):
    """A vocabulary to put in the place of the present one; ``removed`` says what becomes of tags whose words go."""

    dimensions: Required[list[DimensionInfo]]
    removed: Literal["", "keep", "take"]


@dataclass(frozen=True, slots=True)
class Stake:
    """How many images have a word that is to be renamed, and whether the new name is a word already."""

    old: str
    new: str
    images: int
    merging: bool


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A question that is asked of some images; ``progress`` is where it tells what came of it."""

    trial: int
    progress: str


class AccuracyInfo(TypedDict):
    """Figures per dimension; see the reference of the statistics for what each means."""

    dataset: int
    dimensions: list[dict[str, Any]]


# -- making them -----------------------------------------------------------------------------------------------------------
def dataset_info(dataset: Dataset, stats: DatasetStats, run: RunState | None) -> DatasetInfo:
    return DatasetInfo(
        id=dataset.pk,
        name=dataset.name,
        format=dataset.format,
        root=dataset.root,
        imported=dataset.imported,
        images=stats.samples,
        tagged=stats.tagged,
        missing=stats.missing,
        run=run,
        address=reverse("dataset", args=[dataset.pk]),
    )


def described(dataset: Dataset) -> DatasetInfo:
    """Return a data set with its figures and its newest run."""
    run = services.runs.current(dataset=dataset)
    stats = services.datasets.stats(datasets=[dataset])[dataset.pk]
    return dataset_info(dataset, stats, services.runs.state(run=run) if run else None)


def dataset_list() -> DatasetList:
    found = services.datasets.newest_runs()
    stats = services.datasets.stats(datasets=[card.dataset for card in found])
    return DatasetList([dataset_info(card.dataset, stats[card.dataset.pk], card.state) for card in found])


def sample_info(dataset_id: int, row: SampleRow) -> SampleInfo:
    return SampleInfo(
        id=row.id,
        path=row.path,
        file_name=row.file_name,
        split=row.split,
        width=row.width,
        height=row.height,
        bytes=row.bytes,
        taken=row.taken,
        camera=row.camera,
        missing=row.missing,
        tags=row.tags,
        address=reverse("sample", args=[dataset_id, row.id]),
    )


def sample_page(dataset_id: int, rows: Iterable[SampleRow], following: str) -> SamplePage:
    return SamplePage([sample_info(dataset_id, row) for row in rows], following or None)


def sample_full(dataset_id: int, detail: SampleDetail, previous: int | None, following: int | None) -> SampleFull:
    return SampleFull(
        sample=sample_info(dataset_id, detail.sample),
        categories=detail.categories,
        annotations=detail.annotations,
        answers=detail.answers,
        rejected=detail.rejected,
        image=reverse("image", args=[dataset_id, detail.sample.id]),
        previous=previous,
        next=following,
    )


def run_states(runs: Iterable[TaggingRun]) -> list[RunState]:
    return [services.runs.state(run=run) for run in runs]


def run_full(run: TaggingRun, *, listed: int) -> RunFull:
    return RunFull(
        state=services.runs.state(run=run),
        scope=run.scope,
        detail=run.detail,
        mode=run.mode,
        dtype=run.dtype,
        min_probability=run.min_probability,
        min_mass=run.min_mass,
        created=run.created,
        finished=run.finished,
        words=services.runs.words(run=run),
        failures=services.runs.failures(run=run, limit=listed),
        discards=services.runs.discards(run=run, limit=listed),
        priors=run.priors,
    )


def view_list(views: Iterable[SavedView]) -> ViewList:
    return ViewList([ViewInfo(view.pk, view.name, view.query) for view in views])


def import_state(job: ImportJob) -> ImportState:
    return {
        "import": job.pk,
        "dataset": job.dataset_id,
        "status": job.status,
        "done": job.done,
        "total": job.total,
        "skipped": job.skipped,
        "error": job.error,
        "summary": job.summary,
    }
