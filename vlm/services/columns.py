"""Columns: scores, flags and words that users bring along; they are filters, orders, facets and a part of exports."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.contrib.auth.models import User

from vlm import nudges
from vlm.errors import Refusal
from vlm.formats.scores import Kind, read_scores
from vlm.formats.table import TableBroken
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Column, ColumnFacet, Cursor, SampleFilter, columns, reading
from vlm.samples.conditions import column_of
from vlm.services.samples import counts_known
from vlm.statistics.histograms import edges

AT_ONCE = 50_000  # paths that are read together
MOST_FACETS = 12  # columns that the sidebar counts; the others have their page


class NoSuchColumn(Refusal):
    """A column that is not there."""

    title = "There is no such column"
    status = 404


@dataclass(frozen=True, slots=True)
class ScoresImported:
    """What an import of scores did; ``problems`` are the first of the ``problem_count`` things that were not used."""

    columns: tuple[Column, ...]
    rows: int
    problems: tuple[str, ...]
    problem_count: int

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "columns": [to_json(column) for column in self.columns],
            "problem_count": self.problem_count,
            "problems": list(self.problems),
        }


def listed(*, dataset: Dataset) -> list[Column]:
    """Return the columns of a data set by name."""
    with sample_store().read() as cursor:
        return columns.columns(cursor, dataset.pk)


def get(*, dataset: Dataset, name: str) -> Column:
    """Return a column. Raises ``NoSuchColumn``, which says which there are."""
    there = listed(dataset=dataset)
    found = next((column for column in there if column.name == name), None)
    if found is None:
        raise unknown(name, there)
    return found


def import_scores(
    *,
    dataset: Dataset,
    file: BinaryIO,
    source: str = "",
    kinds: Mapping[str, Kind] | None = None,
    only: Iterable[str] = (),
    partly: bool = False,
    user: User | None,
) -> ScoresImported:
    """Bring columns in from a table with a row per file, each in place of one of its name.

    All or nothing: files that are unknown or named twice, and cells that are not what their column is, are listed, and with
    any of them nothing is kept.

    Args:
        source: name of the table, to be remembered.
        kinds: of columns that are not to be found out.
        only: columns to take; all without any.
        partly: keep what can be used.

    Raises:
        TableBroken: it cannot be read at all, or holds nothing to keep.
        FilterError: too many columns.
    """
    found = read_scores(file, lambda: _paths(dataset), kinds=kinds, only=only)
    if found.problem_count and not partly:
        return ScoresImported((), found.rows, found.problems, found.problem_count)
    if not found.columns:
        raise TableBroken("The table has no value for any file of the data set, so there is nothing to keep.")
    name = user.get_username() if user is not None else ""
    with sample_store().write() as cursor:
        put = tuple(
            columns.column_put(
                cursor,
                dataset_id=dataset.pk,
                name=one.name,
                kind=one.kind,
                ids=one.ids,
                values=one.values,
                source=source[:200],
                user_name=name,
            )
            for one in found.columns
        )
    nudges.count_change(dataset.pk)
    return ScoresImported(put, found.rows, found.problems, found.problem_count)


def describe(*, dataset: Dataset, name: str, description: str) -> None:
    """Say what a column is. Raises ``NoSuchColumn``."""
    with sample_store().write() as cursor:
        if not columns.column_describe(cursor, dataset_id=dataset.pk, name=name, description=description):
            raise unknown(name, columns.columns(cursor, dataset.pk))


def remove(*, dataset: Dataset, name: str) -> None:
    """Forget a column with its values. Raises ``NoSuchColumn``."""
    with sample_store().write() as cursor:
        if not columns.column_delete(cursor, dataset_id=dataset.pk, name=name):
            raise unknown(name, columns.columns(cursor, dataset.pk))
    nudges.count_change(dataset.pk)


def facets(*, dataset: Dataset, filter: SampleFilter) -> list[ColumnFacet]:
    """Count the values of the columns among the samples of a filter: of those that it asks for, and the first others.

    What the filter asks of a column is left out of that column's own counts, so that the alternatives keep theirs.
    """
    words = words_by_dimension()
    asked = {column_of(part) for part in filter.columns} | set(filter.no_value)
    with sample_store().read() as cursor:
        there = columns.columns(cursor, dataset.pk)
        known = counts_known(dataset.pk, words, reading.revision(cursor, dataset.pk)) if there else {}
        shown = sorted(there, key=lambda column: column.name not in asked)[:MOST_FACETS]
        found = []
        for column in sorted(shown, key=lambda column: column.name):
            key = ("column", column.id, filter)
            if key not in known:
                known[key] = columns.facet(
                    cursor, dataset.pk, column, filter, words, edges=edges_of(cursor, column, known)
                )
            found.append(known[key])
    return found


def of_sample(*, dataset: Dataset, sample_id: int) -> list[tuple[str, str]]:
    """Return the columns that have a value for a sample, with the value as people read it."""
    with sample_store().read() as cursor:
        found = columns.values_of(cursor, dataset.pk, [sample_id]).get(sample_id, {})
    return [(name, columns.said(value)) for name, value in found.items()]


def edges_of(cursor: Cursor, column: Column, known: dict[Any, Any]) -> tuple[float, ...]:
    """Return where the bars of a column of numbers end; of another column none."""
    if column.kind != "number":
        return ()
    key = ("edges", column.id)
    if key not in known:
        span = columns.span(cursor, column)
        known[key] = edges(span.low, span.high, span.first, span.last) if span else ()
    ends: tuple[float, ...] = known[key]
    return ends


def to_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "values": column.values,
        "description": column.description,
        "source": column.source,
        "by": column.user_name,
        "created": column.created.isoformat(timespec="seconds") if column.created else None,
    }


def unknown(name: str, there: list[Column]) -> NoSuchColumn:
    """Return the refusal of a column that is not among those ``there``."""
    names = ", ".join(column.name for column in there[:20])
    return NoSuchColumn(
        f"There is no column “{name[:80]}”. "
        + (f"There are: {names}." if names else "Bring scores in first: import_scores, or the page “Columns”.")
    )


def _paths(dataset: Dataset) -> Iterator[tuple[int, str]]:
    """Yield id and path of every sample, some at a time, so that nobody waits for the store meanwhile."""
    after = -1
    while True:
        with sample_store().read() as cursor:
            rows = cursor.execute(
                "select id, path from samples where dataset_id = ? and id > ? order by id limit ?",
                [dataset.pk, after, AT_ONCE],
            ).fetchall()
        yield from rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1][0]
