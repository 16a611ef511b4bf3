"""Start a run from the page, and say how it goes."""

from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from vlm import live, services
from vlm.forms import AutoTagForm, first_error
from vlm.models import Dataset, TaggingRun
from vlm.permissions import TAG
from vlm.runs.errors import RunError
from vlm.runs.options import RunOptions
from vlm.runs.state import RunState
from vlm.samples import FilterError
from vlm.views import answers
from vlm.views.access import Request, get_dataset
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, told_at, wants_json
from vlm.vocabulary import VocabularyError

SELECTION = {"ids": list[int]}
PROBLEM_PLACE = "#auto-tag-problem"
ASK_ABOVE_SECONDS: float = 600  # a run that will take longer is asked about once


@operation("GET", answers.RunChoices, "run")
@operation("POST", answers.Started, "run", form=AutoTagForm, fields=SELECTION, status=202)
@require_http_methods(["GET", "HEAD", "POST"])
def auto_tag(request: Request, dataset_id: int) -> HttpResponse:
    """Start a run (POST), or show its options as a page (GET).

    A POST answers 202 with the run, 400 when there is nothing to do or an option is wrong, 409 while another run goes on.
    """
    dataset = get_dataset(request, dataset_id, TAG)
    if request.method != "POST" and wants_json(request):
        return respond(_choices())
    if request.method != "POST" or "count" in request.POST:
        return _options_page(request, dataset)
    form = AutoTagForm(request.POST)
    if not form.is_valid():
        raise Problem(first_error(form), target=PROBLEM_PLACE)
    options = form.options()
    with told_at(PROBLEM_PLACE):
        if "confirmed" not in request.POST and not wants_json(request):
            extent = services.runs.extent(dataset=dataset, options=options)
            expected = services.runs.expected(dataset=dataset, options=options, count=extent.asked)
            if expected is not None and expected.seconds > ASK_ABOVE_SECONDS:
                return _ask(request, dataset, {"count": extent.images, "expected": expected})
        run = services.runs.start(dataset=dataset, options=options, user=request.user, origin=TaggingRun.Origin.PAGE)
    return started(request, run)


def _ask(request: Request, dataset: Dataset, values: dict[str, Any]) -> HttpResponse:
    """Ask once whether a long run is meant, where the click was."""
    if not request.htmx:
        return _options_page(request, dataset, ask=True)
    response = render(request, "vlm/_auto_tag_ask.html", values)
    response.headers["HX-Retarget"] = PROBLEM_PLACE
    response.headers["HX-Reswap"] = "innerHTML"
    return response


def started(request: Request, run: TaggingRun) -> HttpResponse:
    """Answer that ``run`` has begun, in the caller's language."""
    if request.htmx:
        values = live.context(run.dataset_id, services.runs.state(run=run), True)
        return render(request, "vlm/_live.html", values, status=202)
    if wants_json(request):
        return respond(answers.Started(run.pk, reverse("auto_tag_progress", args=[run.dataset_id])), status=202)
    return redirect("dataset", run.dataset_id)


@operation("GET", answers.Expected, "run", query_form=AutoTagForm, query=SELECTION)
@require_safe
def auto_tag_count(request: Request, dataset_id: int) -> HttpResponse:
    """Say how many images the options in the address cover."""
    dataset = get_dataset(request, dataset_id, TAG)
    form = AutoTagForm(request.GET)
    if not form.is_valid():
        if request.htmx:
            return HttpResponse("– images")
        raise Problem(first_error(form))
    if request.htmx:
        return render(request, "vlm/_auto_tag_count.html", _counted(dataset, form))
    options = form.options()
    extent = services.runs.extent(dataset=dataset, options=options)
    expected = services.runs.expected(dataset=dataset, options=options, count=extent.asked)
    if expected is None:
        return respond(answers.Expected(extent.images, None, extent.asked))
    told = (expected.most, expected.measured_on)
    return respond(answers.Expected(extent.images, expected.seconds, extent.asked, *told))


@operation("GET", RunState | answers.NoRun)
@never_cache
@require_safe
def auto_tag_progress(request: Request, dataset_id: int) -> HttpResponse:
    """Return the newest run's state as JSON, or ``{"run": null}``."""
    dataset = get_dataset(request, dataset_id)
    run = services.runs.current(dataset=dataset)
    return respond(services.runs.state(run=run)) if run else JsonResponse({"run": None})


def _options_page(request: Request, dataset: Dataset, *, ask: bool = False) -> HttpResponse:
    """Show the options on a page of their own; when they were sent, also how many images they cover."""
    asked = request.POST if request.method == "POST" else request.GET
    form = AutoTagForm(asked if request.method == "POST" else None)
    values: dict[str, Any] = option_choices() | {
        "dataset": dataset,
        "form": form,
        "asked": asked,
        "asked_dimensions": asked.getlist("dimensions"),
        "ids": ",".join(asked.getlist("ids")),
        "filter_query": asked.get("filter", ""),
    }
    if form.is_bound:
        values |= {"ask": ask} | _counted(dataset, form)
    return render(request, "vlm/auto_tag.html", values)


def _counted(dataset: Dataset, form: AutoTagForm) -> dict[str, Any]:
    """Return how many images the options cover, or why they cover none."""
    if not form.is_valid():
        return {"complaint": first_error(form)}
    try:
        options = form.options()
        extent = services.runs.extent(dataset=dataset, options=options)
        expected = services.runs.expected(dataset=dataset, options=options, count=extent.asked)
        return {
            "count": extent.images,
            "taking": extent.images - extent.asked,
            "questions": len(options.dimensions or form.dimension_list),
            "expected": expected,
        }
    except (RunError, VocabularyError, FilterError) as error:
        return {"complaint": str(error)}


def _choices() -> answers.RunChoices:
    plain = RunOptions()
    return answers.RunChoices(
        dimensions=[dimension.name for dimension in services.vocabulary.enabled()],
        scopes=list(TaggingRun.Scope.values),
        details=[name for name, _ in AutoTagForm.DETAILS],
        modes=list(TaggingRun.Mode.values),
        min_probability=plain.min_probability,
        min_mass=plain.min_mass,
        detail=plain.detail,
    )


def option_choices() -> dict[str, Any]:
    """Return what the fields of a run's options offer."""
    return {
        "defaults": RunOptions(),
        "scopes": [("missing", "images that lack an answer"), ("all", "all images, anew")],
        "details": AutoTagForm.DETAILS,
        "modes": TaggingRun.Mode.choices,
    }
