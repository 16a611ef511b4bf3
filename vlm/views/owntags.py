"""Tags of one's own: rename, merge, describe and delete them for a whole data set."""

from typing import Literal

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from vlm import services
from vlm.figures import counted
from vlm.models import Dataset
from vlm.permissions import EDIT
from vlm.views import answers
from vlm.views.access import Request, get_dataset
from vlm.views.browse import done, undo_address
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, wants_json


@operation("GET", answers.OwnTags)
@operation(
    "POST",
    answers.Edited,
    "edit",
    fields={"action": Literal["rename", "describe", "delete"], "tag": str, "new": str, "note": str},
    needs=("action", "tag"),
)
@require_http_methods(["GET", "HEAD", "POST"])
def own_tags(request: Request, dataset_id: int) -> HttpResponse:
    """List the data set's own tags (GET), or change one (POST: ``action``, ``tag``, and ``new`` or ``note``)."""
    dataset = get_dataset(request, dataset_id)
    if request.method == "POST":
        return _changed(request, get_dataset(request, dataset_id, EDIT))
    tags = services.tags.own(dataset=dataset)
    if wants_json(request):
        return respond(answers.OwnTags(tags))
    return render(
        request, "vlm/own_tags.html", {"dataset": dataset, "tags": tags, "can_edit": request.user.has_perm(EDIT)}
    )


def _changed(request: Request, dataset: Dataset) -> HttpResponse:
    action, tag = request.POST.get("action", ""), request.POST.get("tag", "")
    back = reverse("own_tags", args=[dataset.pk])
    if action == "describe":
        services.tags.describe(dataset=dataset, tag=tag, text=request.POST.get("note", ""))
        return done(request, f"“{tag}” is described.", back, change=services.tags.Change(None, 0, tag))
    if action == "rename":
        change = services.tags.rename(dataset=dataset, old=tag, new=request.POST.get("new", ""), user=request.user)
        said = f"“{tag}” is “{change.tag}” now on {counted(change.samples, 'image')}"
        if change.dimension:
            said += f", as the word of {change.dimension}"
        if change.replaced:
            said += f"; on {change.replaced:,} it took the place of another word of {change.dimension}"
    elif action == "delete":
        change = services.tags.delete(dataset=dataset, tag=tag, user=request.user)
        said = f"“{tag}” is gone from {counted(change.samples, 'image')}"
    else:
        raise Problem("Choose what to do with the tag: rename, describe or delete.")
    undo = undo_address(dataset, [] if change.edit is None else [change.edit])
    return done(request, f"{said}.", back, undo=undo, change=change)
