"""What the pixels say of a data set: measuring it, how the measures are spread."""

from dataclasses import asdict
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from vlm import services
from vlm.models import Dataset
from vlm.permissions import TAG
from vlm.samples.filters import MEASURES
from vlm.views.access import Request, found, get_dataset
from vlm.views.problems import Problem, wants_json


@require_safe
def pixels(request: Request, dataset_id: int) -> HttpResponse:
    """Show how far a data set is measured, and how the measures are spread."""
    dataset = get_dataset(request, dataset_id)
    measured = services.pixels.measured(dataset=dataset)
    job = services.pixels.measure_job(dataset=dataset)
    if wants_json(request):
        return JsonResponse(
            {
                "dataset": dataset.pk,
                "measured": measured.measured,
                "left": measured.left,
                "measures": {spread.name: _without_name(asdict(spread)) for spread in measured.spreads},
                "job": services.pixels.measure_state(job=job) if job else None,
            }
        )
    values = _job_values(request, dataset) | {
        "measured": measured,
        "spreads": [(spread, MEASURES[spread.name]) for spread in measured.spreads],
    }
    return render(request, "vlm/pixels.html", values)


@require_http_methods(["GET", "HEAD", "POST"])
def measure(request: Request, dataset_id: int) -> HttpResponse:
    """Measure what nobody has measured (POST), or show how that goes; htmx asks each second until it is over."""
    if request.method != "POST":
        dataset = get_dataset(request, dataset_id)
        if not request.htmx and not wants_json(request):
            return redirect("pixels", dataset.pk)
        job = services.pixels.measure_job(dataset=dataset)
        if wants_json(request) and not request.htmx:
            return JsonResponse(services.pixels.measure_state(job=found(job)))
        if job is None or not job.is_active:
            return HttpResponse(headers={"HX-Refresh": "true"})  # the figures of the whole page are new
        return render(request, "vlm/_measure.html", _job_values(request, dataset))
    dataset = get_dataset(request, dataset_id, TAG)
    started = services.pixels.measure_start(dataset=dataset, user=request.user)
    if wants_json(request):
        progress = reverse("measure", args=[dataset.pk])
        return JsonResponse(services.pixels.measure_state(job=started) | {"progress": progress}, status=202)
    return redirect("pixels", dataset.pk)


@require_POST
def measure_cancel(request: Request, dataset_id: int) -> HttpResponse:
    """Ask the measuring to stop after the images at hand; what was measured stays."""
    dataset = get_dataset(request, dataset_id, TAG)
    job = services.pixels.measure_job(dataset=dataset)
    if job is None or not services.pixels.measure_cancel(job=job):
        raise Problem("This data set is not being measured.", 409)
    if wants_json(request):
        return JsonResponse(services.pixels.measure_state(job=job))
    return redirect("pixels", dataset.pk)


def _job_values(request: Request, dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "job": services.pixels.measure_job(dataset=dataset),
        "can_tag": request.user.has_perm(TAG),
    }


def _without_name(spread: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spread.items() if key != "name"}
