"""Distributions: shares of words and values, two of them against each other, two sets of images side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from vlm import services
from vlm.models import Dataset
from vlm.samples import SampleFilter
from vlm.services.distributions import Compared, Comparison, Crossed, Distribution, Side
from vlm.services.subjects import Subject, Value
from vlm.statistics.plots import Whisker, whiskers
from vlm.views.access import Request, get_dataset
from vlm.views.insights import common, shown
from vlm.views.operations import operation
from vlm.views.problems import Problem, wants_json

EVERYTHING = "everything"
OWN_KEYS = frozenset({"by", "across", "against", "other"})  # of this page, and no filter
QUERY = {"by": list[str], "across": str, "against": str, "other": str}
CLEAREST = 12  # differences at the head of a comparison


@dataclass(frozen=True, slots=True)
class Row:
    """A value with the address of its images, their share, and the length of its bar: a part of the longest one's."""

    label: str
    what: str
    url: str
    images: int
    share: float
    length: float

    @property
    def above(self) -> float:
        return 1 - self.length


@dataclass(frozen=True, slots=True)
class Cell:
    """Images with two values: of how many independence would give, and which share of the row they are."""

    url: str
    images: int
    expected: float
    sign: int
    length: float


@dataclass(frozen=True, slots=True)
class Line:
    """A value in two sets, with the addresses of its images in both."""

    one: Compared
    first: str
    second: str
    whisker: Whisker


@operation("GET", dict[str, Any], query=QUERY, filter=True)
@require_safe
def distributions(request: Request, dataset_id: int) -> HttpResponse:
    """Show how often each word and value is there, two against each other (``across``), or two sets of images (``against``)."""
    dataset = get_dataset(request, dataset_id)
    query = request.GET
    filter = SampleFilter.from_query({key: values for key, values in query.lists() if key not in OWN_KEYS})
    by = [name for text in query.getlist("by") if (name := text.strip())]
    across, against = query.get("across", "").strip(), query.get("against", "").strip()
    other = _other(request, query.get("other", "").strip())
    if across and (against or other):
        raise Problem("Two against each other, or two sets of images: leave out “across”, or “against” and “other”.")
    if across and len(by) != 1:
        raise Problem("Two against each other need one “by” beside “across”.")
    found: Any
    drawn: dict[str, Any]
    if across:
        found = services.distributions.crossed(dataset=dataset, by=by[0], across=across, filter=filter)
        drawn = {"crossed": found, "cells": _cells(dataset, found), "heads": _heads(dataset, found)}
    elif against or other:
        second = SampleFilter() if against in ("", EVERYTHING) else SampleFilter.from_text(against)
        found = services.distributions.comparison(dataset=dataset, filter=filter, against=second, other=other, by=by)
        drawn = _compared(found)
    else:
        found = services.distributions.overview(dataset=dataset, filter=filter, by=by)
        drawn = {"overview": found, "cards": [_card(dataset, one) for one in found.shown]}
    if wants_json(request):
        return JsonResponse(found.to_json())
    subjects = services.distributions.subjects(dataset=dataset)
    values = common(dataset, filter, "distributions") | drawn
    values |= {
        "subjects": [(subject.key, subject.title, _is_meant(subject, by)) for subject in subjects],
        "others": [(subject.key, subject.title, _is_meant(subject, [across])) for subject in subjects],
        "against": against,
        "other": other,
        "datasets": [one for one in services.datasets.listed() if one != dataset],
        "frozen": services.slices.listed(dataset=dataset),
        "views": services.datasets.saved_views(dataset=dataset, user=request.user),
        "asked": urlencode([(key, value) for key in sorted(OWN_KEYS) for value in query.getlist(key) if value]),
        "left_out": getattr(found, "left_out", ()),
    }
    return render(request, "vlm/distributions.html", values)


def _other(request: Request, text: str) -> Dataset | None:
    """Return the data set of that name or number; ``None`` for an empty text."""
    if not text:
        return None
    found = services.datasets.find(text=text)
    if found is None:
        raise Problem(f"There is no data set “{text[:80]}”.", 404)
    return get_dataset(request, found.pk)


def _is_meant(subject: Subject, names: Sequence[str]) -> bool:
    return any(name in (subject.key, subject.name, subject.title) for name in names)


def _address(dataset: Dataset, filter: SampleFilter | None) -> str:
    """Return the address of a filter's images; empty where there are none, or no filter says which they are."""
    return shown(dataset, filter) if filter is not None else ""


def _card(dataset: Dataset, one: Distribution) -> tuple[Distribution, list[Row], tuple[str, ...]]:
    """Return a distribution as it is drawn: its rows, and of a histogram what its first and its last bar stand for."""
    most = max((row.images for row in one.rows), default=0)
    rows = [
        Row(
            row.value.label,
            row.value.what,
            _address(dataset, row.value.filter),
            row.images,
            row.share,
            row.images / max(1, most),
        )
        for row in one.rows
    ]
    bars = [row.label for row in rows if row.what == "value"] if one.subject.is_number else []
    return one, rows, (bars[0], bars[-1]) if len(bars) > 1 else ()


def _heads(dataset: Dataset, found: Crossed) -> list[tuple[Value, str, int]]:
    """Return the columns of a table of two, with the addresses of their images."""
    return [
        (value, _address(dataset, value.filter), images)
        for value, images in zip(found.columns, found.table.columns, strict=True)
    ]


def _cells(dataset: Dataset, found: Crossed) -> list[tuple[Value, str, int, list[Cell]]]:
    """Return the rows of a table of two, with the addresses of all their images."""
    table, rows = found.table, []
    for i, value in enumerate(found.rows):
        total = table.rows[i]
        cells = [
            Cell(
                _address(dataset, found.filters[i][j]),
                table.counts[i][j],
                table.expected[i][j],
                table.sign(i, j),
                table.counts[i][j] / max(1, total),
            )
            for j in range(len(found.columns))
        ]
        rows.append((value, _address(dataset, value.filter), total, cells))
    return rows


def _compared(found: Comparison) -> dict[str, Any]:
    """Return a comparison as it is drawn: all intervals on one scale."""
    drawn, reach = whiskers([one.difference for _, rows in found.shown for one in rows])
    marks = iter(drawn)

    def line(one: Compared) -> Line:
        first, second = (
            _address(side.dataset, value.filter)
            for side, value in zip((found.first, found.second), one.values, strict=True)
        )
        return Line(one, first, second, next(marks))

    lines = {id(one): line(one) for _, rows in found.shown for one in rows}
    return {
        "comparison": found,
        "first": _side(found, found.first),
        "second": _side(found, found.second),
        "reach": reach,
        "tables": [(subject, [lines[id(one)] for one in rows]) for subject, rows in found.shown],
        "clearest": [lines[id(one)] for one in found.clear[:CLEAREST]],
    }


def _side(found: Comparison, side: Side) -> dict[str, str]:
    """Return what a set of images is called, and their address."""
    label = ", ".join(chip.label for chip in side.filter.chips()) or "all images"
    if found.first.dataset != found.second.dataset:
        label = side.dataset.name if side.filter.is_empty else f"{side.dataset.name}: {label}"
    return {"label": label, "url": shown(side.dataset, side.filter)}
