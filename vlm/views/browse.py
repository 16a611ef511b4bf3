"""Data sets and their grids: look, filter, select, edit tags, export."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import IO, Any, Literal
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse, QueryDict, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import trigger_client_event

from vlm import live, services
from vlm.figures import counted
from vlm.formats import EXPORTS
from vlm.forms import LONGEST_TAGS, AutoTagForm, SavedViewForm, TagsForm, first_error, selected_ids
from vlm.models import Dataset
from vlm.permissions import EDIT, IMPORT, TAG, VIEW
from vlm.samples import (
    FILE_ORDERS,
    MARK_ORDERS,
    MEASURE_ORDERS,
    ORDERS,
    TIME_ORDERS,
    DatasetStats,
    Facets,
    Page,
    SampleFilter,
    is_steady,
    said_order,
)
from vlm.samples.conditions import MEASURES
from vlm.views import answers
from vlm.views.access import Request, back_to, get_dataset, require
from vlm.views.autotag import option_choices
from vlm.views.columns_sidebar import column_facets, column_orders
from vlm.views.operations import File, operation, respond
from vlm.views.place import LIMIT, PAGING, SHAPES, SIZES, VIEWS, Place, limit_of
from vlm.views.problems import Problem, wants_json
from vlm.views.sidebar import FILE_RANGES, sidebar
from vlm.views.table import table

PAGE = 60
PIECE = 1 << 18  # bytes of an export that are sent at once
MOST_LOADED = 1200  # cells that a refresh draws again; what lies below comes back by scrolling
CARD_PICTURES = 4
SUGGESTED = 200
LISTED_EDITS = 200
VERBS = {"add": "added to", "remove": "removed from", "confirm": "confirmed on"}


@operation("GET", answers.DatasetList)
@require_safe
def datasets(request: Request) -> HttpResponse:
    """List the data sets; htmx asks for the bars of those that it shows."""
    require(request, VIEW)
    if request.htmx:
        shown = services.datasets.newest_runs()
        if request.GET.get("shown", "") != ",".join(str(card.dataset.pk) for card in shown):
            return HttpResponse(headers={"HX-Refresh": "true"})  # one has come or gone
        return render(request, "vlm/_bars.html", {"bars": [(card.dataset.pk, card.state) for card in shown]})
    if wants_json(request):
        return respond(answers.dataset_list())
    values = {
        "cards": services.datasets.cards(pictures=CARD_PICTURES),
        "can_import": request.user.has_perm(IMPORT),
        "can_tag": request.user.has_perm(TAG),
    }
    return render(request, "vlm/datasets.html", values)


@operation("GET", answers.DatasetPage, query=PAGING, filter=True)
@require_safe
def dataset(request: Request, dataset_id: int) -> HttpResponse:
    """Draw the grid with its sidebar; for htmx only these, since the rest of the page stays."""
    dataset = get_dataset(request, dataset_id)
    place = Place.of(request.GET)
    if name := request.GET.get("measured"):  # the sidebar's form, which cannot write a range as one word
        span = f"{request.GET.get('least', '').strip()}..{request.GET.get('most', '').strip()}"
        ranged = {name: (span,)} if name in FILE_RANGES else {"measures": (*place.filter.measures, f"{name}:{span}")}
        return redirect(place.filtered(**ranged).url(dataset.pk))
    if wants_json(request):
        return _dataset_json(request, dataset, place)
    cut = _cut(request, dataset, place)
    facets = services.samples.facets(dataset=dataset, filter=place.filter)
    measured = services.pixels.is_measured(dataset=dataset)
    column_counts = services.columns.facets(dataset=dataset, filter=place.filter)
    orders = (
        ORDERS
        | FILE_ORDERS
        | (TIME_ORDERS if facets.taken else {})
        | (MARK_ORDERS if facets.marks else {})
        | column_orders(facet.column for facet in column_counts)
        | (MEASURE_ORDERS if measured else {})
    )
    user = request.user
    values = {
        "dataset": dataset,
        "stats": _stats(dataset, place, facets),
        "place": place,
        "changes": dataset.changes,
        "after": request.GET.get("after", ""),
        # What a run changes on show: counts only, or also which images match and where they stand.
        "follow": "counts" if place.view == "grid" and place.filter.is_empty and is_steady(place.order) else "cells",
        "facets": facets,
        "sidebar": sidebar(dataset.pk, place, facets, services.tags.notes(dataset=dataset) if facets.user_tags else {}),
        "chips": [(chip.label, replace(place, filter=chip.without).url(dataset.pk)) for chip in place.filter.chips()],
        "clear": replace(place, filter=SampleFilter()).url(dataset.pk),
        "orders": [(o, label, replace(place, order=o).url(dataset.pk)) for o, label in orders.items()],
        "contradicting": services.pixels.contradicting(dataset=dataset),
        "order_label": orders.get(place.order) or said_order(place.order),
        "measures": MEASURES if measured else {},
        "file_ranges": FILE_RANGES,
        "measure_keeps": _kept(place),
        "column_facets": column_facets(dataset.pk, place, column_counts),
        "sizes": [(s, label, replace(place, size=s).url(dataset.pk)) for s, (label, _) in SIZES.items()],
        "views": [(v, label, replace(place, view=v).url(dataset.pk)) for v, label in VIEWS.items()],
        "shapes": [(s, label, replace(place, shape=s).url(dataset.pk)) for s, label in SHAPES.items()],
        "words": {facet.name: [count.value for count in facet.words] for facet in facets.dimensions},
        "longest_tags": LONGEST_TAGS,
        "search_keeps": _kept(place, "q"),
        "range_keeps": _kept(place, "dimension", "pmin", "pmax"),
        "frozen": services.slices.listed(dataset=dataset),
        "column_keeps": _kept(place),
        "saved": services.datasets.saved_views(dataset=dataset, user=user),
        "exports": [(name, place.url(dataset.pk, "export", format=name)) for name in EXPORTS],
        "can_tag": user.has_perm(TAG),
        "can_edit": user.has_perm(EDIT),
        "here": place.url(dataset.pk),
    } | cut
    if place.view == "table":
        values |= table(request, dataset, place, cut["page"])
    if request.htmx and not request.htmx.history_restore_request:
        response = render(request, "vlm/_browse.html", values | {"oob": True})
    else:
        run = services.runs.current(dataset=dataset)
        state = services.runs.state(run=run) if run else None
        values |= live.context(dataset.pk, state, user.has_perm(TAG)) | option_choices() | {"form": AutoTagForm()}
        response = render(request, "vlm/dataset.html", values)
    patch_vary_headers(response, ["HX-Request"])
    return response


def _dataset_json(request: Request, dataset: Dataset, place: Place) -> HttpResponse:
    page = _page(request, dataset, place, limit_of(request.GET))
    facets = services.samples.facets(dataset=dataset, filter=place.filter)
    told = answers.sample_page(dataset.pk, page.samples, page.next)
    return respond(
        answers.DatasetPage(
            dataset=answers.described(dataset),
            filter=place.filter.to_query(),
            order=place.order,
            total=facets.total,
            facets=facets,
            samples=told.samples,
            next=told.next,
        )
    )


def _page(request: Request, dataset: Dataset, place: Place, limit: int) -> Page:
    return services.samples.page(
        dataset=dataset,
        filter=place.filter,
        order=place.order,
        after=request.GET.get("after", ""),
        limit=limit,
    )


@operation("GET", answers.SamplePage, query=PAGING | {"ids": list[int]}, filter=True)
@require_safe
def cells(request: Request, dataset_id: int) -> HttpResponse:
    """Draw the next cells of the grid, or the present tags of the cells that ``ids`` names; as JSON, images page by page."""
    dataset = get_dataset(request, dataset_id)
    as_json = wants_json(request)
    if "ids" in request.GET:
        try:
            ids = selected_ids(request.GET.getlist("ids"))[: LIMIT if as_json else MOST_LOADED]
        except ValidationError as error:
            raise Problem(str(error.message)) from error
        if as_json:
            return respond(answers.sample_page(dataset.pk, services.samples.by_id(dataset=dataset, ids=ids), ""))
        return HttpResponse(live.cells_html(services.samples.by_id(dataset=dataset, ids=ids), dataset.changes))
    place = Place.of(request.GET)
    if as_json:
        page = _page(request, dataset, place, limit_of(request.GET))
        return respond(answers.sample_page(dataset.pk, page.samples, page.next))
    if before := request.GET.get("before", ""):
        page = services.samples.earlier(
            dataset=dataset, filter=place.filter, order=place.order, before=before, limit=PAGE
        )
        values = _links(dataset, place, Page(page.samples, ""), page.next)
    else:
        values = _links(dataset, place, _page(request, dataset, place, PAGE))
    if place.view == "table":
        values |= table(request, dataset, place, values["page"])
    template = "vlm/_rows.html" if place.view == "table" else "vlm/_cells.html"
    return render(request, template, values | {"dataset": dataset, "place": place})


def _cut(request: Request, dataset: Dataset, place: Place) -> dict[str, Any]:
    """Return the part of the grid that the address asks for, with the links to what lies before and behind it.

    ``after`` and ``before`` are cursors; ``at`` is the sample that one comes back to, with the page that stands before it;
    ``from`` is the sample that a redrawn grid begins with, and ``loaded`` how many it showed: none, if only counts are wanted.
    """
    get = request.GET
    if get.get("loaded") == "0":
        return {"page": Page([], "")}
    limit = _loaded(request)
    at, start = _id(get.get("at", "")), _id(get.get("from", ""))
    if at is not None or start is not None:
        page, before = services.samples.window(
            dataset=dataset,
            filter=place.filter,
            order=place.order,
            at=start if start is not None else at or 0,
            before=PAGE if start is None else 0,
            limit=limit,
        )
        return _links(dataset, place, page, before)
    if before := get.get("before", ""):
        page = services.samples.earlier(
            dataset=dataset, filter=place.filter, order=place.order, before=before, limit=limit
        )
        return _links(dataset, place, Page(page.samples, before), page.next)
    return _links(dataset, place, _page(request, dataset, place, limit))


def _links(dataset: Dataset, place: Place, page: Page, before: str = "") -> dict[str, Any]:
    return {
        "page": page,
        "more": place.url(dataset.pk, after=page.next) if page.next else "",
        "more_cells": place.url(dataset.pk, "cells", after=page.next) if page.next else "",
        "earlier": place.url(dataset.pk, before=before) if before else "",
        "earlier_cells": place.url(dataset.pk, "cells", before=before) if before else "",
    }


def _id(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None


@operation("GET", answers.Suggestions, "edit", query={"tag": str})
@operation("POST", answers.Edited, "edit", form=TagsForm, fields={"ids": list[int]})
@require_http_methods(["GET", "HEAD", "POST"])
def edit_tags(request: Request, dataset_id: int) -> HttpResponse:
    """Add, remove or confirm a tag on a selection or a whole filter, or go on to auto-tag it. GET: suggest tags."""
    if request.method != "POST":
        dataset = get_dataset(request, dataset_id, EDIT)
        tags = services.tags.suggestions(dataset=dataset, prefix=request.GET.get("tag", ""), limit=SUGGESTED)
        if wants_json(request):
            return respond(answers.Suggestions(tags))
        return render(request, "vlm/_suggestions.html", {"tags": tags})
    if request.POST.get("action") == "auto-tag":
        return _to_auto_tag(request, dataset_id)
    dataset = get_dataset(request, dataset_id, EDIT)
    form = TagsForm(request.POST)
    if not form.is_valid():
        raise Problem(first_error(form))
    action, tags, samples = (form.cleaned_data[key] for key in ("action", "tags", "samples"))
    changes = services.tags.change(dataset=dataset, filter=samples, action=action, tags=tags, user=request.user)
    back = back_to(request, reverse("dataset", args=[dataset.pk]))
    typed = {tag.strip() for tag in tags}
    edits = [change.edit for change in changes if change.edit is not None]
    return done(
        request,
        " ".join(_said(action, typed, change) for change in changes),
        back,
        undo=undo_address(dataset, edits),
        change=replace(changes[0], samples=max(change.samples for change in changes), edit=edits[0] if edits else None),
        also=edits[1:],
    )


def undo_address(dataset: Dataset, edits: list[int]) -> str:
    """Return the address that takes edits back together, empty for none."""
    if not edits:
        return ""
    also = f"?{urlencode({'also': ','.join(map(str, edits[1:]))})}" if edits[1:] else ""
    return reverse("edit_undo", args=[dataset.pk, edits[0]]) + also


def _said(action: str, typed: set[str], change: services.tags.Change) -> str:
    """Say what an edit did, in full: how many images, which word was meant, and what it took the place of."""
    said = f"“{change.tag}” {VERBS[action]} {counted(change.samples, 'image')}"
    if change.tag not in typed and change.dimension:
        said += f", as the word of {change.dimension}"
    if change.replaced:
        said += f"; on {change.replaced:,} it took the place of another word of {change.dimension}"
    return f"{said}."


@operation("GET", answers.EditList)
@require_safe
def edits(request: Request, dataset_id: int) -> HttpResponse:
    """Show what users have changed, newest first; each change can be taken back."""
    dataset = get_dataset(request, dataset_id)
    rows = services.tags.edits(dataset=dataset, limit=LISTED_EDITS)
    if wants_json(request):
        return respond(answers.EditList(rows))
    values = {"dataset": dataset, "rows": rows, "can_edit": request.user.has_perm(EDIT), "verbs": VERBS}
    return render(request, "vlm/edits.html", values)


@operation("POST", answers.Edited, "edit")
@require_POST
def edit_undo(request: Request, dataset_id: int, edit_id: int) -> HttpResponse:
    """Take an edit back, exactly, with those that ``also`` names in the address."""
    dataset = get_dataset(request, dataset_id, EDIT)
    try:
        also = selected_ids(request.GET.getlist("also"))
    except ValidationError as error:
        raise Problem("This address names edits that are none.") from error
    undone = services.tags.undo(dataset=dataset, edits=[edit_id, *also], user=request.user)
    said = f"Undone: {counted(undone.samples, 'image')} {'is' if undone.samples == 1 else 'are'} as before."
    return done(request, said, back_to(request, reverse("edits", args=[dataset.pk])), change=undone)


def _to_auto_tag(request: Request, dataset_id: int) -> HttpResponse:
    """Go to the run's options with the selection taken along: the way without JavaScript."""
    if "all" in request.POST:
        chosen = {"within": "filter", "filter": request.POST.get("filter", "")}
    else:
        chosen = {"within": "selection", "ids": ",".join(request.POST.getlist("ids"))}
    return redirect(f"{reverse('auto_tag', args=[dataset_id])}?{urlencode(chosen)}")


@operation("GET", answers.ViewList)
@operation("POST", answers.ViewList, form=SavedViewForm, fields={"forget": int})
@require_http_methods(["GET", "HEAD", "POST"])
def saved_views(request: Request, dataset_id: int) -> HttpResponse:
    """Save the filter under a name, or forget a saved one; a program gets the list of those that its user has."""
    dataset = get_dataset(request, dataset_id)
    if request.method != "POST":
        if not wants_json(request):
            return redirect("dataset", dataset.pk)
        return respond(answers.view_list(services.datasets.saved_views(dataset=dataset, user=request.user)))
    back = back_to(request, reverse("dataset", args=[dataset.pk]))
    if forget := request.POST.get("forget", ""):
        if not forget.isdecimal() or len(forget) > 18:
            raise Problem("This saved view is no longer there. Reload the page.", 404)
        services.datasets.forget_view(dataset=dataset, user=request.user, view_id=int(forget))
        return _view_done(request, dataset, "The saved view is gone.", back)
    form = SavedViewForm(request.POST)
    if not form.is_valid():
        raise Problem(first_error(form))
    query = Place.of(QueryDict(form.cleaned_data["query"])).query
    services.datasets.save_view(dataset=dataset, user=request.user, name=form.cleaned_data["name"], query=query)
    return _view_done(request, dataset, f"Saved as “{form.cleaned_data['name']}”.", back)


def _view_done(request: Request, dataset: Dataset, said: str, back: str) -> HttpResponse:
    if wants_json(request):
        return respond(answers.view_list(services.datasets.saved_views(dataset=dataset, user=request.user)))
    return done(request, said, back)


@operation(
    "GET",
    File(tuple(dict.fromkeys(format.mime for format in EXPORTS.values()))),
    query={"format": Literal[tuple(EXPORTS)]},
    filter=True,
)
@require_safe
def export(request: Request, dataset_id: int) -> HttpResponseBase:
    """Send the samples of the filter as a file. It is made first: what fails is a page with a reason, no broken download."""
    dataset = get_dataset(request, dataset_id)
    name = request.GET.get("format", "csv")
    if name not in EXPORTS:
        raise Problem(f"There is no format “{name}”. There are: {', '.join(EXPORTS)}.")
    place = Place.of(request.GET)
    view = services.datasets.saved_view(dataset=dataset, user=request.user, query=place.query)
    asked: dict[str, Any] = {
        "dataset": dataset,
        "filter": place.filter,
        "format": name,
        "view": view.name if view else "",
    }
    if request.method != "HEAD":
        return download(services.exports.make(**asked))
    return _called(HttpResponse(content_type=EXPORTS[name].mime), services.exports.file_name(**asked))


def download(made: services.exports.Export) -> HttpResponseBase:
    """Send a file that is complete, with its length."""
    response = StreamingHttpResponse(_FileInPieces(made.file), content_type=made.mime)
    response.headers["Content-Length"] = str(made.size)
    return _called(response, made.name)


def _called(response: HttpResponseBase, name: str) -> HttpResponseBase:
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    return response


class _FileInPieces:
    """A file as the server's loop reads it, a piece at a time in a thread; closed with the response, come what may."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = sync_to_async(self._file.read, thread_sensitive=False)
        while piece := await read(PIECE):
            yield piece

    def close(self) -> None:
        self._file.close()


def _stats(dataset: Dataset, place: Place, facets: Facets) -> DatasetStats:
    """Return the whole data set's figures; without a filter the facets have counted them already."""
    if not place.filter.is_empty:
        return services.datasets.stats(datasets=[dataset])[dataset.pk]
    states = {count.value: count.count for count in facets.states}
    return DatasetStats(facets.total, facets.total - states.get("untagged", 0), states.get("missing", 0))


def _loaded(request: Request) -> int:
    """Return how many samples to draw: a refresh names how many were on show."""
    asked = request.GET.get("loaded", "")
    return min(max(int(asked), PAGE), MOST_LOADED) if asked.isdecimal() and len(asked) < 9 else PAGE


def _kept(place: Place, *dropped: str) -> list[tuple[str, str]]:
    """Return the parts of the address, without ``dropped``, that a form must carry along."""
    query = QueryDict(place.query)
    return [(key, value) for key, values in query.lists() if key not in dropped for value in values]


def done(
    request: Request,
    said: str,
    back: str,
    *,
    undo: str = "",
    change: services.tags.Change | None = None,
    also: Sequence[int] = (),
) -> HttpResponse:
    """Say that it is done: in JSON, for htmx with the page's changing part drawn again, else by going back.

    JSON tells the ``change``, and the edits that were made ``also``.
    ``undo`` is the address that takes it back.
    """
    if change is not None and wants_json(request):
        made = (change.samples, change.edit, change.tag, change.dimension, change.replaced)
        return respond(answers.Edited(said, *made, also=list(also)))
    if not request.htmx:
        # The way back is in the message's extra tags, from where the next page takes it.
        messages.success(request, said, extra_tags=undo)
        return redirect(back)
    notice = {"level_tag": "success", "message": said, "extra_tags": undo}
    response = render(request, "vlm/_messages.html", {"notices": [notice], "oob": True})
    return trigger_client_event(response, "datavisor:changed")
