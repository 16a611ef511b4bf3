"""What the pixels say: measuring without the model, tags that they contradict, images that are nearly the same."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.contrib.auth.models import User

from vlm.datasets import finding as looking
from vlm.datasets import measuring
from vlm.models import Dataset, MeasureJob, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Drawn, Measures, SampleFilter, SampleRow, drawing, finding, reading, values
from vlm.samples.finding import LEAK, Contradiction, Group, Looked, WordContradictions
from vlm.samples.values import Spread
from vlm.services.review import NothingToReview, draw_name
from vlm.statistics.duplicates import FARTHEST as FARTHEST

MOST_DRAWN = 10_000  # contradictions that are put up for review together


@dataclass(frozen=True, slots=True)
class Measured:
    """How far a data set is measured, and how what was measured is spread."""

    measured: int
    left: int
    spreads: tuple[Spread, ...]


@dataclass(frozen=True, slots=True)
class SamplePixels:
    """What was measured of a sample; ``above``: measure → the share of the data set's images that have less of it."""

    measures: Measures
    above: Mapping[str, float]
    contradictions: Sequence[Contradiction] = ()


@dataclass(frozen=True, slots=True)
class Contradictions:
    """How many samples contradict which word; ``looked`` is ``None`` where nobody has looked."""

    looked: Looked | None
    words: Sequence[tuple[str, WordContradictions]]  # each with the word's dimension
    samples: int

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "beyond": self.looked and self.looked.setting,
            "out_of_date": self.looked and self.looked.changed,
            "words": [
                {
                    "dimension": name,
                    "word": one.word,
                    "measure": one.rule.measure,
                    "side": one.rule.side,
                    "count": one.count,
                }
                for name, one in self.words
            ],
        }


@dataclass(frozen=True, slots=True)
class Leak:
    """Two splits that share groups: how many, and how many images of both are in them."""

    split: str
    other: str
    groups: int
    samples: int


@dataclass(frozen=True, slots=True)
class NearlySame:
    """The groups of images that are nearly the same, the largest first, with some of their pictures."""

    looked: Looked | None
    groups: int
    samples: int
    leaks: Sequence[Leak]
    leaking: int  # images
    listed: Sequence[tuple[Group, Sequence[SampleRow]]]

    def to_json(self) -> dict[str, Any]:
        return {
            "groups": self.groups,
            "samples": self.samples,
            "leaking": self.leaking,
            "distance": self.looked and int(self.looked.setting),
            "out_of_date": self.looked and self.looked.changed,
            "leaks": [asdict(leak) for leak in self.leaks],
            "listed": [
                {
                    "group": group.number,
                    "size": group.size,
                    "splits": list(group.splits),
                    "first": [s.path for s in samples],
                }
                for group, samples in self.listed
            ],
        }


def measure_create(*, dataset: Dataset, user: User | None) -> MeasureJob:
    """Claim the data set for measuring what nobody measured. Raises ``MeasureActive``."""
    return measuring.create(dataset=dataset, user=user)


def measure_start(*, dataset: Dataset, user: User | None) -> MeasureJob:
    """Measure in a thread of this process what nobody measured. Raises ``MeasureActive``."""
    job = measuring.create(dataset=dataset, user=user)
    measuring.launch(job)
    return job


def measure_execute(*, job_id: int, stop: threading.Event) -> MeasureJob:
    """Work on a job in this thread until it ends, or until the images at hand are done after ``stop`` is set."""
    return measuring.execute(job_id=job_id, stop=stop)


def measure_cancel(*, job: MeasureJob) -> bool:
    """Ask a job to stop after the images at hand; returns whether it was active."""
    return measuring.cancel(job=job)


def measure_job(*, dataset: Dataset, job_id: int | None = None) -> MeasureJob | None:
    """Return the newest job of a data set, or the one of that number."""
    measuring.fail_stale()
    rows = MeasureJob.objects.filter(dataset=dataset)
    return (rows if job_id is None else rows.filter(pk=job_id)).first()


def measure_state(*, job: MeasureJob) -> dict[str, Any]:
    """Return a job as programs see it."""
    names = ("status", "done", "total", "failed", "problems", "error")
    return {"job": job.pk, "dataset": job.dataset_id} | {name: getattr(job, name) for name in names}


def measured(*, dataset: Dataset) -> Measured:
    with sample_store().read() as cursor:
        spreads, count = values.measures_spread(cursor, dataset.pk)
        return Measured(count, values.unmeasured_count(cursor, dataset.pk), spreads)


def is_measured(*, dataset: Dataset) -> bool:
    """Return whether any image of a data set is measured."""
    with sample_store().read() as cursor:
        return values.has_measures(cursor, dataset.pk)


def of_sample(*, dataset: Dataset, sample_id: int) -> SamplePixels | None:
    """Return what was measured of a sample, ``None`` where nobody measured it."""
    with sample_store().read() as cursor:
        found = values.measures_of(cursor, dataset.pk, ids=[sample_id]).get(sample_id)
        if found is None:
            return None
        return SamplePixels(
            found,
            values.measures_below(cursor, dataset.pk, found),
            finding.contradictions(cursor, dataset.pk, ids=[sample_id]),
        )


# -- what is found ---------------------------------------------------------------------------------------------------------
def find(*, dataset: Dataset, distance: int | None = None, beyond: float | None = None) -> None:
    """Look for contradictions and for images that are nearly the same, in place of what was found before.

    Args:
        distance: bits in which two hashes may differ.
        beyond: the share of a word's images that a contradicting one is beyond.

    Raises:
        FindingRefused: a setting that means nothing.
    """
    looking.find(dataset_id=dataset.pk, distance=distance, beyond=beyond)


def find_groups(*, dataset: Dataset, distance: int | None = None) -> None:
    """Look for images that are nearly the same only. Raises ``FindingRefused``."""
    looking.find_groups(dataset_id=dataset.pk, distance=distance)


def find_contradictions(*, dataset: Dataset, beyond: float | None = None) -> None:
    """Look for contradictions only. Raises ``FindingRefused``."""
    looking.find_contradictions(dataset_id=dataset.pk, beyond=beyond)


def contradictions(*, dataset: Dataset) -> Contradictions:
    dimension_of = {word: name for name, words in words_by_dimension().items() for word in words}
    samples = contradicting(dataset=dataset)
    with sample_store().read() as cursor:
        found = finding.contradictions_count(cursor, dataset.pk)
        looked = finding.looked(cursor, dataset.pk, finding.CONTRADICTION)
    return Contradictions(looked, [(dimension_of.get(one.word, ""), one) for one in found], samples)


def contradicting(*, dataset: Dataset) -> int:
    """Return how many samples contradict a tag of theirs."""
    with sample_store().read() as cursor:
        return reading.count(cursor, dataset.pk, SampleFilter(marks=(finding.CONTRADICTION,)), {})


def strongest(*, dataset: Dataset, limit: int) -> list[tuple[Contradiction, SampleRow]]:
    """Return the strongest contradictions with their samples."""
    with sample_store().read() as cursor:
        found = finding.contradictions(cursor, dataset.pk, limit=limit)
        samples = {one.id: one for one in reading.samples_by_id(cursor, dataset.pk, [one.sample_id for one in found])}
    return [(one, samples[one.sample_id]) for one in found if one.sample_id in samples]


def contradictions_draw(*, dataset: Dataset, dimension: str) -> str:
    """Put the contradictions of a dimension's words up for review, the strongest first; returns the draw's name.

    Such labels count for no figure: the images were chosen because something is odd about them.

    Raises:
        NothingToReview: there is none.
    """
    words = words_by_dimension().get(dimension, ())
    name = draw_name("contradictions")
    with sample_store().write() as cursor:
        found = [one for one in finding.contradictions(cursor, dataset.pk, limit=MOST_DRAWN) if one.word in words]
        ids = dict.fromkeys(one.sample_id for one in found)
        if not ids:
            raise NothingToReview(f"No image contradicts its word of {dimension}. Look again after tags have changed.")
        drawn = [Drawn(sample, place, None, "") for place, sample in enumerate(ids)]
        drawing.draws_put(cursor, dataset_id=dataset.pk, dimension=dimension, batch=name, drawn=drawn)
    return name


def nearly_same(*, dataset: Dataset, listed: int, pictures: int = 0, leaking: bool = False) -> NearlySame:
    """Return what is nearly the same.

    Args:
        listed: groups to list, with ``pictures`` of each.
        leaking: list only groups that lie in several splits.
    """
    with sample_store().read() as cursor:
        count, samples = finding.groups_count(cursor, dataset.pk)
        groups = finding.groups(cursor, dataset.pk, kind=LEAK if leaking else finding.NEAR, limit=listed)
        members = finding.group_members(cursor, dataset.pk, [group.number for group in groups], each=pictures)
        ids = [sample for of in members.values() for sample in of]
        rows = {one.id: one for one in reading.samples_by_id(cursor, dataset.pk, ids)}
        return NearlySame(
            finding.looked(cursor, dataset.pk, finding.NEAR),
            count,
            samples,
            [Leak(*row) for row in finding.leaks(cursor, dataset.pk)],
            finding.groups_count(cursor, dataset.pk, kind=LEAK)[1],
            [(group, [rows[sample] for sample in members.get(group.number, ()) if sample in rows]) for group in groups],
        )


def group_of(*, dataset: Dataset, sample_id: int) -> tuple[int, int] | None:
    """Return the number of a sample's group and how many images it holds; ``None`` for a sample that is alone."""
    with sample_store().read() as cursor:
        return finding.group_of(cursor, dataset.pk, sample_id)
