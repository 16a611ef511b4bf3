"""The calibration of a dimension: what it would change, having it in force, and taking it back."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from vlm import services
from vlm.figures import counted
from vlm.models import Dataset
from vlm.permissions import TAG, VIEW
from vlm.services.calibrations import NotCalibrated
from vlm.views.access import Request, get_dataset
from vlm.views.operations import operation
from vlm.views.problems import Problem, wants_json


@operation("GET", dict[str, Any], query={"dimension": str, "preview": str})
@operation("POST", dict[str, Any], "run", fields={"dimension": str, "action": str}, needs=("dimension",))
@require_http_methods(["GET", "HEAD", "POST"])
def calibration(request: Request, dataset_id: int) -> HttpResponse:
    """Show a dimension's calibration and, with ``preview``, what it would change; a POST applies it or removes it."""
    dataset = get_dataset(request, dataset_id, TAG if request.method == "POST" else VIEW)
    dimension = (request.POST.get("dimension") or request.GET.get("dimension", ""))[:100]
    services.accuracy.words_of(dimension)
    if request.method == "POST":
        return _changed(request, dataset, dimension)
    found = services.calibrations.in_force(dataset=dataset).get(dimension)
    fitted, why = None, ""
    try:
        fitted = services.calibrations.fitted(dataset=dataset, dimension=dimension)
    except NotCalibrated as refusal:
        why = refusal.message
    changes = None
    if "preview" in request.GET and found is not None:
        changes = services.calibrations.preview_removal(dataset=dataset, dimension=dimension)
    elif "preview" in request.GET and fitted is not None:
        _, changes = services.calibrations.preview(dataset=dataset, dimension=dimension)
    if wants_json(request):
        said = found.calibration if found is not None else fitted
        told = services.calibrations.to_json(dimension, said, changes, in_force=found is not None)
        return JsonResponse(told | {"why_not": why})
    values: dict[str, Any] = {
        "dataset": dataset,
        "dimension": dimension,
        "found": found,
        "fitted": fitted,
        "why": why,
        "changes": changes,
        "shown": found.calibration if found is not None else fitted,
        "can_tag": request.user.has_perm(TAG),
    }
    return render(request, "vlm/calibration.html", values)


def _changed(request: Request, dataset: Dataset, dimension: str) -> HttpResponse:
    action = request.POST.get("action", "")
    if action == "apply":
        fitted, done = services.calibrations.apply(dataset=dataset, dimension=dimension, user=request.user)
        told = services.calibrations.to_json(dimension, fitted, done, in_force=True)
        said = "is calibrated"
    elif action == "remove":
        done = services.calibrations.remove(dataset=dataset, dimension=dimension)
        told = services.calibrations.to_json(dimension, None, done, in_force=False)
        said = "goes by what the model said itself again"
    else:
        raise Problem("Choose whether to apply the calibration or to remove it.")
    if wants_json(request):
        return JsonResponse(told)
    messages.success(
        request,
        f"{dimension.capitalize()} {said}: {counted(done.accepted_after, 'answer')} accepted, {done.accepted_before:,} before; "
        f"{counted(done.changed, 'image')} changed.",
    )
    return redirect(f"{reverse('accuracy', args=[dataset.pk])}#{dimension}")
