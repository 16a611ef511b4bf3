"""The history of a data set's runs, and what can be done about one."""

from typing import Any, Literal

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from vlm import live, services
from vlm.figures import counted
from vlm.forms import ThresholdsForm, first_error
from vlm.models import TaggingRun
from vlm.permissions import TAG, VIEW
from vlm.runs.state import RunState
from vlm.samples import Reapplied
from vlm.views import answers
from vlm.views.access import Request, back_to, get_dataset, get_run, require
from vlm.views.autotag import started
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, wants_json

PAGE = 50
LISTED = 200
RECENT = 20


@operation("GET", answers.RunList, query={"before": int})
@require_safe
def run_list(request: Request, dataset_id: int) -> HttpResponse:
    """List the runs of a data set, newest first."""
    dataset = get_dataset(request, dataset_id)
    before = request.GET.get("before", "")
    older_than = int(before) if before.isdecimal() and len(before) < 12 else None
    runs = services.runs.history(dataset=dataset, before=older_than, limit=PAGE + 1)
    older = runs[PAGE - 1].pk if len(runs) > PAGE else None
    if wants_json(request):
        return respond(answers.RunList(answers.run_states(runs[:PAGE]), older))
    rows = [(run, services.runs.state(run=run)) for run in runs[:PAGE]]
    return render(request, "vlm/runs.html", {"dataset": dataset, "rows": rows, "older": older})


@operation("GET", answers.RunsNow)
@require_safe
def active_runs(request: Request) -> HttpResponse:
    """Show who runs what on all data sets, and what waits for what; htmx asks for the list alone."""
    require(request, VIEW)
    rows = [(run, services.runs.state(run=run)) for run in services.runs.active()]
    recent = services.runs.ended(limit=RECENT)
    if wants_json(request):
        return respond(answers.RunsNow([state for _, state in rows], answers.run_states(recent)))
    broken_off = services.runs.interrupted() if request.user.has_perm(TAG) and not request.htmx else []
    values = {
        "rows": rows,
        "interrupted": [(run, services.runs.state(run=run)) for run in broken_off],
        "recent": [] if request.htmx else [(r, services.runs.state(run=r)) for r in recent],
    }
    return render(request, "vlm/_active_runs.html" if request.htmx else "vlm/active_runs.html", values)


@require_safe
def queue(request: Request) -> HttpResponse:
    """Draw the queue in the header: a word, and the list of active runs."""
    require(request, VIEW)
    rows = [(run, services.runs.state(run=run)) for run in services.runs.active()]
    return render(request, "vlm/_queue.html", {"rows": rows})


@operation("GET", answers.RunFull)
@require_safe
def run(request: Request, run_id: int) -> HttpResponse:
    """Show one run: what it said, what it could not read, what was discarded."""
    run = get_run(request, run_id)
    if wants_json(request):
        return respond(answers.run_full(run, listed=LISTED))
    return render(request, "vlm/run.html", _run_context(request, run))


def _run_context(request: Request, run: TaggingRun) -> dict[str, Any]:
    state = services.runs.state(run=run)
    can_tag = request.user.has_perm(TAG)
    words: dict[str, list[Any]] = {}
    for count in services.runs.words(run=run):
        words.setdefault(count.dimension, []).append(count)
    return live.context(run.dataset_id, state, can_tag) | {
        "changes": run.dataset.changes,
        "dataset": run.dataset,
        "run": run,
        "words": words,
        "priors": services.runs.priors(run=run),
        "failures": services.runs.failures(run=run, limit=LISTED),
        "discards": services.runs.discards(run=run, limit=LISTED),
        "listed": LISTED,
        "changed": services.vocabulary.changed_since(run=run),
        "others": services.accuracy.comparable(run=run),
    }


@operation("POST", RunState, "run")
@require_POST
def run_cancel(request: Request, run_id: int) -> HttpResponse:
    """Ask the run to stop after the batch at hand."""
    run = get_run(request, run_id, TAG)
    stops = services.runs.cancel(run=run)
    run.refresh_from_db()
    if wants_json(request):
        if not stops:
            raise Problem(f"Run {run.pk} is not active: it is {run.get_status_display()}.", 409)
        return respond(services.runs.state(run=run))
    if request.htmx:
        values = live.context(run.dataset_id, services.runs.state(run=run), True)
        return render(request, "vlm/_live.html", values)
    return redirect(back_to(request, reverse("run", args=[run.pk])))


@operation("POST", answers.Started, "run", status=202)
@require_POST
def run_resume(request: Request, run_id: int) -> HttpResponse:
    """Go on where the run stopped."""
    run = get_run(request, run_id, TAG)
    run = services.runs.resume(run=run, user=request.user, origin=TaggingRun.Origin.PAGE)
    return started(request, run)


@operation("POST", answers.Reverted, "run")
@require_POST
def run_revert(request: Request, run_id: int) -> HttpResponse:
    """Take back what the run tagged."""
    run = get_run(request, run_id, TAG)
    changed = services.runs.revert(run=run)
    if wants_json(request):
        return respond(answers.Reverted(run.pk, changed))
    messages.success(request, f"Run {run.pk} is taken back: {counted(changed, 'image')} changed.")
    return redirect("run", run.pk)


@operation("POST", Reapplied, "run", form=ThresholdsForm, fields={"action": Literal["preview", "apply"]})
@require_POST
def run_thresholds(request: Request, run_id: int) -> HttpResponse:
    """Show what other thresholds would change, or apply them: the answers are stored, so the model is not asked again."""
    run = get_run(request, run_id, TAG)
    form = ThresholdsForm(request.POST)
    if not form.is_valid():
        raise Problem(first_error(form))
    if request.POST.get("action") == "apply":
        done = services.runs.reapply(run=run, **form.cleaned_data)
        if wants_json(request):
            return respond(done)
        messages.success(
            request,
            f"Thresholds applied: {done.accepted:,} tags accepted, {done.discarded:,} answers discarded, "
            f"{done.changed:,} of them changed.",
        )
        return redirect("run", run.pk)
    preview = services.runs.reapply_preview(run=run, **form.cleaned_data)
    if wants_json(request):
        return respond(preview)
    values = _run_context(request, run) | {"preview": preview, "asked": form.cleaned_data}
    return render(request, "vlm/run.html", values)
