"""The table view of a data set: its headings sort, its columns are chosen, its rows are cells of the grid in another form."""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from vlm import services
from vlm.models import Dataset
from vlm.samples import Page, turned
from vlm.services.tables import TableColumn
from vlm.views import answers
from vlm.views.access import Request, back_to, get_dataset
from vlm.views.operations import operation, respond
from vlm.views.place import Place
from vlm.views.problems import wants_json


@dataclass(frozen=True, slots=True)
class Heading:
    """A column's heading; its link sorts by it, or the other way round where it does already (``sorted`` says how)."""

    label: str
    url: str
    sorted: str
    is_number: bool


def table(request: Request, dataset: Dataset, place: Place, page: Page) -> dict[str, Any]:
    """Return what the table's templates draw beside what those of the grid do."""
    known = services.tables.known(dataset=dataset)
    among = services.tables.shown(dataset=dataset, user=request.user, among=known)
    rows = services.tables.cells(dataset=dataset, samples=page.samples, among=among)
    return {
        "headings": [_heading(dataset, place, one) for one in (NAME, *among)],
        "rows": [
            (sample, list(zip(row, (one.is_number for one in among), strict=True)))
            for sample, row in zip(page.samples, rows, strict=True)
        ],
        "span": 1 + len(among),
        "column_groups": [
            (group, [(one, one in among) for one in of]) for group, of in groupby(known, lambda one: one.group)
        ],
    }


NAME = TableColumn("name", "file name", "File")


def _heading(dataset: Dataset, place: Place, column: TableColumn) -> Heading:
    here = place.order.removeprefix("-") == column.name
    falling = here and place.order.startswith("-")
    order = turned(place.order) if here else column.name
    direction = ("descending" if falling else "ascending") if here else ""
    return Heading(column.label, replace(place, order=order).url(dataset.pk), direction, column.is_number)


@operation("GET", answers.TableShown)
@operation("POST", answers.TableShown, fields={"columns": list[str]})
@require_http_methods(["GET", "HEAD", "POST"])
def table_columns(request: Request, dataset_id: int) -> HttpResponse:
    """Choose which columns of the table one sees (POST); a program gets those, and which there are."""
    dataset = get_dataset(request, dataset_id)
    if request.method == "POST":
        services.tables.choose(dataset=dataset, user=request.user, names=request.POST.getlist("columns"))
    if wants_json(request):
        known = services.tables.known(dataset=dataset)
        shown = services.tables.shown(dataset=dataset, user=request.user, among=known)
        return respond(answers.TableShown([one.name for one in shown], known))
    return redirect(back_to(request, reverse("dataset", args=[dataset.pk]) + "?view=table"))
