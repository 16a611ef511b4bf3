"""What the pixels say of a data set: measuring it, tags that they contradict, images that are nearly the same."""

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from vlm import services
from vlm.models import Dataset
from vlm.permissions import EDIT, TAG
from vlm.samples.conditions import MEASURES
from vlm.services.pixels import FARTHEST, Contradictions
from vlm.views.access import Request, found, get_dataset
from vlm.views.operations import operation
from vlm.views.problems import Problem, wants_json

LISTED = 24  # groups on show
PICTURES = 6  # of each


@operation("GET", dict[str, Any])
@require_safe
def pixels(request: Request, dataset_id: int) -> HttpResponse:
    """Show how far a data set is measured, how the measures are spread, and what was found by them."""
    dataset = get_dataset(request, dataset_id)
    measured = services.pixels.measured(dataset=dataset)
    job = services.pixels.measure_job(dataset=dataset)
    contradicting = services.pixels.contradictions(dataset=dataset)
    leaking = "leaking" in request.GET
    near = services.pixels.nearly_same(dataset=dataset, listed=LISTED, pictures=PICTURES, leaking=leaking)
    if wants_json(request):
        return JsonResponse(
            {
                "dataset": dataset.pk,
                "measured": measured.measured,
                "left": measured.left,
                "measures": {spread.name: _without_name(asdict(spread)) for spread in measured.spreads},
                "job": services.pixels.measure_state(job=job) if job else None,
                "contradictions": contradicting.to_json(),
                "nearly_same": near.to_json(),
            }
        )
    values = _job_values(request, dataset) | {
        "contradicting": contradicting,
        "dimensions": _by_dimension(contradicting),
        "near": near,
        "beyond": 100 * contradicting.looked.setting if contradicting.looked else None,
        "distance": int(near.looked.setting) if near.looked else None,
        "farthest": FARTHEST,
        "can_edit": request.user.has_perm(EDIT),
        "measured": measured,
        "spreads": [(spread, MEASURES[spread.name]) for spread in measured.spreads],
    }
    return render(request, "vlm/pixels.html", values)


@operation("GET", dict[str, Any])
@operation("POST", dict[str, Any], "run", status=202)
@require_http_methods(["GET", "HEAD", "POST"])
def measure(request: Request, dataset_id: int) -> HttpResponse:
    """Measure what nobody has measured (POST), or show how that goes; htmx asks each second until it is over."""
    if request.method != "POST":
        dataset = get_dataset(request, dataset_id)
        if not request.htmx and not wants_json(request):
            return redirect("pixels", dataset.pk)
        job = services.pixels.measure_job(dataset=dataset)
        if wants_json(request):
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


@operation("POST", dict[str, Any], "run")
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


@operation("POST", dict[str, Any], "run", fields={"distance": str, "beyond": str})
@require_POST
def find(request: Request, dataset_id: int) -> HttpResponse:
    """Look for contradictions and for images that are nearly the same, in place of what was found before."""
    dataset = get_dataset(request, dataset_id, TAG)
    distance = request.POST.get("distance", "")
    if distance and not (distance.isascii() and distance.isdecimal() and len(distance) < 3):
        raise Problem(f"The distance is a whole number from 0 to {FARTHEST}.")
    beyond = _percent(request.POST.get("beyond", ""))
    services.pixels.find(dataset=dataset, distance=int(distance) if distance else None, beyond=beyond)
    if wants_json(request):
        return JsonResponse(
            {
                "contradictions": services.pixels.contradictions(dataset=dataset).to_json(),
                "nearly_same": services.pixels.nearly_same(dataset=dataset, listed=LISTED, pictures=PICTURES).to_json(),
            }
        )
    messages.success(request, "The findings are up to date.")
    return redirect("pixels", dataset.pk)


@operation("POST", dict[str, Any], "edit", fields={"dimension": str}, needs=("dimension",))
@require_POST
def contradictions_review(request: Request, dataset_id: int) -> HttpResponse:
    """Put the contradictions of a dimension up for review, the strongest first, and go there."""
    dataset = get_dataset(request, dataset_id, EDIT)
    dimension = request.POST.get("dimension", "")
    draw = services.pixels.contradictions_draw(dataset=dataset, dimension=dimension)
    if wants_json(request):
        return JsonResponse({"draw": draw, "dimension": dimension})
    return redirect(f"{reverse('review', args=[dataset.pk])}?{urlencode({'dimension': dimension})}")


def _percent(text: str) -> float | None:
    """Return “98” as 0.98; nothing for an empty text."""
    try:
        return float(text) / 100 if text.strip() else None
    except ValueError as error:
        raise Problem("Write a number of percent, such as 98.") from error


def _by_dimension(found: Contradictions) -> list[tuple[str, list[Any]]]:
    rows: dict[str, list[Any]] = {}
    for name, one in found.words:
        rows.setdefault(name, []).append(one)
    return list(rows.items())


def _job_values(request: Request, dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "job": services.pixels.measure_job(dataset=dataset),
        "can_tag": request.user.has_perm(TAG),
    }


def _without_name(spread: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spread.items() if key != "name"}
