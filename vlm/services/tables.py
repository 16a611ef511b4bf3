"""The table view of samples: which columns there are, which of them a user sees, and what stands in them.

A column is called as the order by it is (see ``vlm.samples.orders``): ``split``, ``tag:weather``, ``column:error``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User

from vlm.errors import Refusal
from vlm.figures import figure, percent, size
from vlm.models import Dataset, TableColumns, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Measures, SampleRow, Tag, columns, reading, values
from vlm.samples.conditions import MEASURES

MOST = 40  # columns that are shown at once
PLAIN = {
    "split": "split",
    "own": "own tags",
    "megapixels": "pixels",
    "filesize": "file size",
    "taken": "taken",
    "camera": "camera",
}
NUMBERS = frozenset({"megapixels", "filesize", "taken", "uncertain", "probability", "measure"})


class ColumnsRefused(Refusal):
    """Columns that are not there, or too many of them."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column that can be shown; ``group`` says what it is one of."""

    name: str
    label: str
    group: str
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a column of a sample: tags, or a text."""

    text: str = ""
    tags: tuple[Tag, ...] = ()


def known(*, dataset: Dataset) -> list[TableColumn]:
    """Return the columns that there are, beside the name of the file, which every table begins with."""
    dimensions = words_by_dimension()
    with sample_store().read() as cursor:
        brought = columns.columns(cursor, dataset.pk)
        measured = values.has_measures(cursor, dataset.pk)
    found = [TableColumn(f"tag:{name}", name, "Tags") for name in dimensions]
    found.append(TableColumn("own", PLAIN["own"], "Tags"))
    found += [TableColumn(n, PLAIN[n], "File", n in NUMBERS) for n in PLAIN if n != "own"]
    found.append(TableColumn("uncertain", "least certain answer", "Probability", True))
    found += [TableColumn(f"probability:{name}", f"{name}, probability", "Probability", True) for name in dimensions]
    if measured:
        found += [TableColumn(f"measure:{name}", label, "Pixels", True) for name, label in MEASURES.items()]
    return found + [TableColumn(f"column:{one.name}", one.name, "Your columns", one.kind != "word") for one in brought]


def shown(*, dataset: Dataset, user: User, among: Sequence[TableColumn]) -> list[TableColumn]:
    """Return the columns that a user sees, in their order; those that are gone are left out."""
    kept = TableColumns.objects.filter(dataset=dataset, user=user).first()
    if kept is None:
        return [one for one in among if one.group == "Tags" or one.name in ("split", "megapixels", "filesize")]
    by_name = {one.name: one for one in among}
    return [by_name[name] for name in kept.names if name in by_name]


def choose(*, dataset: Dataset, user: User, names: Sequence[str]) -> list[TableColumn]:
    """Keep which columns a user wants to see, in the order in which :func:`known` lists them. Raises ``ColumnsRefused``."""
    there = known(dataset=dataset)
    wanted = set(names)
    if unknown := sorted(wanted - {one.name for one in there}):
        raise ColumnsRefused(
            f"There is no column “{unknown[0][:80]}”. There are: {', '.join(one.name for one in there[:30])}."
        )
    if len(wanted) > MOST:
        raise ColumnsRefused(f"A table has at most {MOST} columns. Choose fewer.")
    found = [one for one in there if one.name in wanted]
    TableColumns.objects.update_or_create(dataset=dataset, user=user, defaults={"names": [one.name for one in found]})
    return found


def cells(*, dataset: Dataset, samples: Sequence[SampleRow], among: Sequence[TableColumn]) -> list[list[Cell]]:
    """Return what stands in the columns ``among``, a row for each sample."""
    words = words_by_dimension()
    ids = [sample.id for sample in samples]
    kinds = {one.name.partition(":")[0] for one in among}
    with sample_store().read() as cursor:
        certain = reading.probabilities_of(cursor, ids) if kinds & {"uncertain", "probability"} else {}
        measured = values.measures_of(cursor, dataset.pk, ids=ids) if "measure" in kinds else {}
        brought = columns.values_of(cursor, dataset.pk, ids) if "column" in kinds else {}
    own = {word for of in words.values() for word in of}

    def cell(sample: SampleRow, column: TableColumn) -> Cell:
        kind, _, name = column.name.partition(":")
        match kind:
            case "tag":
                return Cell(tags=tuple(tag for tag in sample.tags if tag.tag in words.get(name, ())))
            case "own":
                return Cell(tags=tuple(tag for tag in sample.tags if tag.tag not in own))
            case "uncertain":
                return Cell(percent(min(certain.get(sample.id, {}).values(), default=None)))
            case "probability":
                return Cell(percent(certain.get(sample.id, {}).get(name)))
            case "measure":
                return Cell(_measure(measured.get(sample.id), name))
            case "column":
                return Cell(columns.said(brought[sample.id][name]) if name in brought.get(sample.id, {}) else "")
            case _:
                return Cell(_of_file(sample, kind))

    return [[cell(sample, column) for column in among] for sample in samples]


def _of_file(sample: SampleRow, name: str) -> str:
    match name:
        case "megapixels":
            return f"{sample.width:,} × {sample.height:,}" if sample.width and sample.height else ""
        case "filesize":
            return size(sample.bytes) if sample.bytes is not None else ""
        case "taken":
            return f"{sample.taken:%Y-%m-%d %H:%M:%S}" if sample.taken else ""
        case "camera":
            return sample.camera or ""
        case _:
            return sample.split


def _measure(measures: Measures | None, name: str) -> str:
    return figure(getattr(measures, name)) if measures is not None else ""
