"""Columns: scores, flags and words that users bring along; listed, described, removed, and chosen from by a range."""

from typing import Any, Literal
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse, JsonResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from vlm import services
from vlm.figures import counted
from vlm.permissions import EDIT
from vlm.samples.filters import PAGE_KEYS
from vlm.samples.ranges import span_of
from vlm.views.access import Request, get_dataset
from vlm.views.operations import operation
from vlm.views.place import Place
from vlm.views.problems import Problem, not_used, wants_json

LISTED_PROBLEMS = 200


@operation("GET", dict[str, Any])
@operation("POST", dict[str, Any], "edit", files=("file",), fields={"partly": Literal["", "1"]}, needs=("file",))
@require_http_methods(["GET", "HEAD", "POST"])
def columns(request: Request, dataset_id: int) -> HttpResponse:
    """List the columns of a data set; POST: bring some in from a table."""
    if request.method != "POST":
        dataset = get_dataset(request, dataset_id)
        there = services.columns.listed(dataset=dataset)
        if wants_json(request):
            return JsonResponse({"columns": [services.columns.to_json(column) for column in there]})
        values = {
            "dataset": dataset,
            "columns": [(column, _shows(dataset.pk, column.name, column.kind)) for column in there],
            "can_edit": request.user.has_perm(EDIT),
        }
        return render(request, "vlm/columns.html", values)
    dataset = get_dataset(request, dataset_id, EDIT)
    upload = request.FILES.get("file")
    if upload is None or upload.file is None:
        raise Problem("Choose a CSV file: a column “file” (or “path”), and one for each score.")
    done = services.columns.import_scores(
        dataset=dataset,
        file=upload.file,  # type: ignore[arg-type]
        source=upload.name or "",
        partly=bool(request.POST.get("partly")),
        user=request.user,
    )
    if wants_json(request):
        return JsonResponse(done.to_json()) if done.columns else not_used(done.to_json())
    if not done.columns:
        values = {"dataset": dataset, "done": done, "listed": done.problems[:LISTED_PROBLEMS]}
        return render(request, "vlm/columns_problems.html", values, status=400)
    said = f"{counted(len(done.columns), 'column')} for {counted(done.rows, 'image')}: " + ", ".join(
        column.name for column in done.columns
    )
    left = f". {done.problem_count:,} things could not be used" if done.problem_count else ""
    messages.success(request, f"{said}{left}.")
    return redirect("columns", dataset.pk)


@operation(
    "POST",
    dict[str, Any],
    "edit",
    fields={"name": str, "action": Literal["describe", "remove"], "description": str},
    needs=("name", "action"),
)
@require_POST
def column_change(request: Request, dataset_id: int) -> HttpResponse:
    """Describe a column, or remove it."""
    dataset = get_dataset(request, dataset_id, EDIT)
    name, action = request.POST.get("name", ""), request.POST.get("action", "")
    if action == "remove":
        services.columns.remove(dataset=dataset, name=name)
        said = f"The column “{name}” is gone."
    elif action == "describe":
        services.columns.describe(dataset=dataset, name=name, description=request.POST.get("description", ""))
        said = f"“{name}” is described."
    else:
        raise Problem("Say what to do with the column: describe or remove.")
    if wants_json(request):
        return JsonResponse({"done": said})
    messages.success(request, said)
    return redirect("columns", dataset.pk)


@require_safe
def column_range(request: Request, dataset_id: int) -> HttpResponse:
    """Go to the images whose value lies between two: what the form beside a histogram asks for."""
    dataset = get_dataset(request, dataset_id)
    rest = QueryDict(mutable=True)
    for key, values in request.GET.lists():
        if key not in ("name", "low", "high") and (key not in PAGE_KEYS or key in ("order", "size")):
            rest.setlist(key, values)
    place = Place.of(rest)
    name, low, high = (request.GET.get(key, "").strip() for key in ("name", "low", "high"))
    others = tuple(part for part in place.filter.columns if not part.startswith(f"{name}:"))
    if low or high:
        if span_of(f"{low}..{high}") is None:
            raise Problem("Write numbers: from which value on, up to which.")
        others = (*others, f"{name}:{low}..{high}")
    return redirect(place.filtered(columns=others).url(dataset.pk))


def _shows(dataset_id: int, name: str, kind: str) -> str:
    """Return the address of the images in the order of a column, the highest first."""
    order = f"{'' if kind == 'word' else '-'}column:{name}"
    return f"{reverse('dataset', args=[dataset_id])}?{urlencode({'order': order})}"
