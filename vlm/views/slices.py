"""Frozen slices: freeze a filter's samples, list them, take the manifest, remove them."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse, JsonResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from vlm import services
from vlm.figures import counted
from vlm.forms import MOST_QUERY
from vlm.models import Dataset, FrozenSlice
from vlm.permissions import EDIT
from vlm.samples import SampleFilter
from vlm.views.access import Request, found, get_dataset
from vlm.views.browse import download
from vlm.views.operations import File, operation
from vlm.views.place import Place
from vlm.views.problems import Problem, wants_json


@operation("GET", dict[str, Any])
@operation("POST", dict[str, Any], "edit", fields={"name": str, "query": str}, needs=("name",), status=201)
@require_http_methods(["GET", "HEAD", "POST"])
def slices(request: Request, dataset_id: int) -> HttpResponse:
    """List the frozen slices, or freeze the samples that a filter has now (POST with ``name`` and ``query``)."""
    if request.method == "POST":
        return _freeze(request, get_dataset(request, dataset_id, EDIT))
    dataset = get_dataset(request, dataset_id)
    rows = services.slices.listed(dataset=dataset)
    if wants_json(request):
        told = [services.slices.as_json(frozen=frozen) for frozen in rows]
        return JsonResponse({"dataset": dataset.pk, "slices": told})
    values = {
        "dataset": dataset,
        "slices": [(frozen, [chip.label for chip in _filter(frozen.query).chips()]) for frozen in rows],
        "saved": services.datasets.saved_views(dataset=dataset, user=request.user),
        "can_edit": request.user.has_perm(EDIT),
    }
    return render(request, "vlm/slices.html", values)


@operation("GET", File(("application/json",)))
@require_safe
def slice_manifest(request: Request, dataset_id: int, slice_id: int) -> HttpResponseBase:
    """Send a frozen slice as JSON that other tools can read."""
    frozen = _slice(request, get_dataset(request, dataset_id), slice_id)
    return download(services.slices.manifest(frozen=frozen))


@operation("POST", dict[str, Any], "edit")
@require_POST
def slice_remove(request: Request, dataset_id: int, slice_id: int) -> HttpResponse:
    """Forget a frozen slice; its images and tags stay."""
    dataset = get_dataset(request, dataset_id, EDIT)
    frozen = _slice(request, dataset, slice_id)
    name = frozen.name
    services.slices.remove(frozen=frozen)
    if wants_json(request):
        return JsonResponse({"removed": slice_id})
    messages.success(request, f"The frozen slice “{name}” is gone. Its images and their tags stay.")
    return redirect("slices", dataset.pk)


def _freeze(request: Request, dataset: Dataset) -> HttpResponse:
    query = request.POST.get("query", "")
    if len(query) > MOST_QUERY:
        raise Problem("This filter is too long to be frozen.")
    frozen = services.slices.freeze(
        dataset=dataset, name=request.POST.get("name", ""), filter=SampleFilter.from_text(query), user=request.user
    )
    if wants_json(request):
        return JsonResponse(services.slices.as_json(frozen=frozen), status=201)
    messages.success(
        request, f"“{frozen.name}” holds {counted(frozen.samples, 'image')}, whatever becomes of their tags."
    )
    return redirect("slices", dataset.pk)


def _filter(query: str) -> SampleFilter:
    """Return the filter of an address; its order and size do not matter to a slice."""
    return Place.of(QueryDict(query)).filter


def _slice(request: Request, dataset: Dataset, slice_id: int) -> FrozenSlice:
    return found(services.slices.get(dataset=dataset, slice_id=slice_id))
