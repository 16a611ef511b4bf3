"""What can be done with a data set as a whole: rename it, point it to its new folder, import it again, watch it, delete it."""

from typing import Any, Literal

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from vlm import services
from vlm.errors import Refusal
from vlm.figures import duration
from vlm.forms import INTERVALS, WatchForm, first_error
from vlm.models import Dataset
from vlm.permissions import CHANGE, DELETE, IMPORT, TAG
from vlm.views import answers
from vlm.views.access import Request, get_dataset, require
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, wants_json


@operation("GET", answers.DatasetInfo)
@operation(
    "POST",
    answers.DatasetInfo | answers.Deleted,
    "manage",
    fields={
        "action": Literal["rename", "move", "delete", "watch", "unwatch"],
        "name": str,
        "path": str,
        "every": str,
        "tag": Literal["", "on"],
    },
    needs=("action",),
)
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_settings(request: Request, dataset_id: int) -> HttpResponse:
    """Show what the data set is, and change it; a refusal stands beside the field that it is about."""
    dataset = get_dataset(request, dataset_id)
    if request.method != "POST":
        return respond(answers.described(dataset)) if wants_json(request) else _page(request, dataset)
    action = request.POST.get("action", "")
    require(request, RIGHTS.get(action, CHANGE))
    try:
        return ACTIONS[action](request, dataset)
    except KeyError:
        if wants_json(request):
            raise Problem(f"Say in “action” what to change: {', '.join(ACTIONS)}.") from None
        return _page(request, dataset, complaints={"rename": "Choose what to change."}, status=400)
    except Refusal as refusal:
        if wants_json(request):
            raise
        dataset.refresh_from_db()
        return _page(request, dataset, complaints={action: refusal.message}, status=refusal.status)


def _rename(request: Request, dataset: Dataset) -> HttpResponse:
    services.datasets.rename(dataset=dataset, name=request.POST.get("name", ""))
    if wants_json(request):
        return respond(answers.described(dataset))
    messages.success(request, f"The data set is called “{dataset.name}” now.")
    return redirect("dataset_settings", dataset.pk)


def _move(request: Request, dataset: Dataset) -> HttpResponse:
    found = services.datasets.relocate(dataset=dataset, path=request.POST.get("path", ""))
    if wants_json(request):
        return respond(answers.described(dataset))
    said = f"Images are read below {dataset.root} from now on: {found.there:,} of {found.looked_for:,} looked for are there."
    messages.success(request, said)
    return redirect("dataset_settings", dataset.pk)


def _delete(request: Request, dataset: Dataset) -> HttpResponse:
    name = dataset.name
    if request.POST.get("name", "").strip() != name:
        complaint = "Write the data set's name to confirm that you mean this one."
        if wants_json(request):
            raise Problem(complaint)
        return _page(request, dataset, complaints={"delete": complaint}, status=400)
    number = dataset.pk
    services.datasets.delete(dataset=dataset)
    if wants_json(request):
        return respond(answers.Deleted(number))
    messages.success(request, f"“{name}” is deleted. Its pictures lie where they were.")
    return redirect("datasets")


def _watch(request: Request, dataset: Dataset) -> HttpResponse:
    form = WatchForm(request.POST)
    if not form.is_valid():
        if wants_json(request):
            raise Problem(first_error(form))
        return _page(request, dataset, complaints={"watch": first_error(form)}, status=400)
    tag = form.cleaned_data["tag"]
    if tag:
        require(request, TAG)
    services.watches.watch(dataset=dataset, seconds=form.cleaned_data["every"], tag=tag, user=request.user)
    if wants_json(request):
        return respond(answers.described(dataset))
    messages.success(request, "The folder is watched from now on.")
    return redirect("dataset_settings", dataset.pk)


def _unwatch(request: Request, dataset: Dataset) -> HttpResponse:
    services.watches.unwatch(dataset=dataset)
    if wants_json(request):
        return respond(answers.described(dataset))
    messages.success(request, "The folder is not watched any more.")
    return redirect("dataset_settings", dataset.pk)


ACTIONS = {"rename": _rename, "move": _move, "delete": _delete, "watch": _watch, "unwatch": _unwatch}
RIGHTS = {"delete": DELETE, "watch": IMPORT, "unwatch": IMPORT}


def _page(
    request: Request, dataset: Dataset, *, complaints: dict[str, str] | None = None, status: int = 200
) -> HttpResponse:
    user = request.user
    watch = services.watches.get(dataset=dataset)
    intervals = dict(INTERVALS)
    if watch is not None:
        intervals.setdefault(watch.seconds, duration(watch.seconds))
    values: dict[str, Any] = {
        "dataset": dataset,
        "stats": services.datasets.stats(datasets=[dataset])[dataset.pk],
        "runs": services.runs.count(dataset=dataset),
        "complaints": complaints or {},
        "asked": request.POST,
        "can_change": user.has_perm(CHANGE),
        "can_delete": user.has_perm(DELETE),
        "can_import": user.has_perm(IMPORT),
        "can_tag": user.has_perm(TAG),
        "watch": watch,
        "watched_every": intervals[watch.seconds] if watch else "",
        "intervals": sorted(intervals.items()),
    }
    return render(request, "vlm/settings.html", values, status=status)
