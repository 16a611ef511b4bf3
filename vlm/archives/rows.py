"""What Django's database says of data sets, as JSON: the sets themselves, their runs, frozen slices, saved views and notes.

Whoever did something is named, since numbers of users mean others elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models

from vlm.archives.manifest import ArchiveFailed
from vlm.models import Dataset, FrozenSlice, SavedView, TaggingRun, TagNote
from vlm.samples import FilterError, SampleFilter

Row = dict[str, Any]
Made = TypeVar("Made", bound=models.Model)

# Of the moment, or written by other names beside the rest.
_LEFT_OUT = frozenset({"id", "worker", "heartbeat", "dataset", "user", "started_by", "failed_of"})


@dataclass(frozen=True, slots=True)
class Rows:
    """What is written of each kind; ``number`` is a row's own, ``of`` that of its data set, ``by`` a user's name.

    Attributes:
        vocabulary: as a TOML file (see ``vlm.vocabulary_file``).
    """

    vocabulary: str
    datasets: list[Row]
    runs: list[Row] = field(default_factory=list)
    slices: list[Row] = field(default_factory=list)
    views: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)

    def to_json(self) -> str:
        told = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(told, default=datetime.isoformat, indent=1, ensure_ascii=False)


def told(datasets: Sequence[Dataset], vocabulary: str) -> Rows:
    """Return the rows of data sets."""
    runs = TaggingRun.objects.filter(dataset__in=datasets).select_related("started_by").order_by("pk")
    slices = FrozenSlice.objects.filter(dataset__in=datasets).select_related("user").order_by("pk")
    views = SavedView.objects.filter(dataset__in=datasets).select_related("user").order_by("pk")
    notes = TagNote.objects.filter(dataset__in=datasets).order_by("pk")
    return Rows(
        vocabulary=vocabulary,
        datasets=[_told(dataset) for dataset in datasets],
        runs=[_told(run, run.dataset_id, run.started_by) | {"failed_of": run.failed_of_id} for run in runs],
        slices=[_told(one, one.dataset_id, one.user) for one in slices],
        views=[_told(view, view.dataset_id, view.user) for view in views],
        notes=[_told(note, note.dataset_id) for note in notes],
    )


def read(text: str) -> Rows:
    """Return what :meth:`Rows.to_json` wrote. Raises ``ArchiveFailed``."""
    try:
        found = json.loads(text)
        rows = Rows(**found)
        kinds: dict[str, type[models.Model]] = {
            "datasets": Dataset,
            "runs": TaggingRun,
            "slices": FrozenSlice,
            "views": SavedView,
            "notes": TagNote,
        }
        for name, model in kinds.items():
            for row in getattr(rows, name):
                values(model, row)
        numbers = [row["number"] for row in rows.datasets]
        if not all(type(number) is int and number > 0 for number in numbers) or len(set(numbers)) != len(numbers):
            raise ValueError("its data sets have no numbers of their own")
        if any(row["of"] not in numbers for name in kinds if name != "datasets" for row in getattr(rows, name)):
            raise ValueError("something in it is of no data set")
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        FieldDoesNotExist,
        ValidationError,
    ) as error:
        raise ArchiveFailed(f"What the archive says of its data sets cannot be read: {error}.") from error
    return rows


def values(model: type[models.Model], row: Row) -> Row:
    """Return the fields of a row as the model has them. Raises ``ValidationError``, ``FieldDoesNotExist``."""
    found: Row = {}
    for name, value in row.items():
        if name not in ("number", "of", "by", "failed_of"):
            own = model._meta.get_field(name)
            if not isinstance(own, models.Field) or name in _LEFT_OUT:
                raise FieldDoesNotExist(name)
            empty = isinstance(own, models.JSONField) and not value
            found[name] = value if empty else own.clean(value, None)
    return found


def put(model: type[Made], row: Row, **own: Any) -> Made:
    """Make the row in the database, with ``own`` fields beside those that were written."""
    given = values(model, row) | own
    made = model._default_manager.create(**given)
    # Times that are set as a row is made are those of the archive.
    times = {
        f.name: given[f.name]
        for f in model._meta.concrete_fields
        if getattr(f, "auto_now_add", False) and f.name in given
    }
    if times:
        model._default_manager.filter(pk=made.pk).update(**times)
    return made


def users(names: Iterable[str]) -> dict[str, User]:
    """Return name → user, of those that there are."""
    return {user.get_username(): user for user in User.objects.filter(username__in=set(names))}


@dataclass(frozen=True, slots=True)
class Renumbering:
    """How numbers in filters change: samples and edits by a shift, runs and slices one by one."""

    samples: int
    edits: int
    runs: Mapping[int, int]
    slices: Mapping[int, int]

    def query(self, query: str) -> str:
        """Return a filter, as in the page's address, that means the same among the new numbers."""
        try:
            chosen = SampleFilter.from_query(query)
            return self._renumbered(chosen).to_query() if query else query
        except FilterError:  # of a release that knew other filters: it says as little as before
            return query

    def _renumbered(self, chosen: SampleFilter) -> SampleFilter:
        def of(number: int | None, change: Callable[[int], int]) -> int | None:
            return None if number is None else change(number)

        def run(number: int) -> int:
            return self.runs.get(number, 0)

        first, _, rest = chosen.flip.partition(",")
        second, comma, words = rest.partition(",")
        flip = (
            f"{run(int(first))},{run(int(second))}{comma}{words}"
            if first.isdecimal() and second.isdecimal()
            else chosen.flip
        )
        return replace(
            chosen,
            ids=tuple(one + self.samples for one in chosen.ids),
            group=of(chosen.group, lambda number: number + self.samples),
            edit=of(chosen.edit, lambda number: number + self.edits),
            slice=of(chosen.slice, lambda number: self.slices.get(number, 0)),
            run=of(chosen.run, run),
            failed_in=of(chosen.failed_in, run),
            discarded_in=of(chosen.discarded_in, run),
            shared_in=of(chosen.shared_in, run),
            flip=flip,
        )


def _told(row: models.Model, of: int | None = None, by: User | None = None) -> Row:
    found = {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields if f.name not in _LEFT_OUT}
    return (
        {"number": row.pk} | ({"of": of} if of is not None else {}) | ({"by": by.get_username()} if by else {}) | found
    )
