"""Insights: what explains a score, with every figure one click from its images."""

from typing import Any

from django.http import HttpResponse, JsonResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from vlm import services
from vlm.models import Dataset
from vlm.samples import Column, SampleFilter
from vlm.services.insights import AMONG, Explained, Found
from vlm.views.access import Request, get_dataset
from vlm.views.operations import operation
from vlm.views.problems import wants_json

OWN_KEYS = frozenset({"score", "lower", "among"})  # of these pages, and no filter


@operation("GET", dict[str, Any], query={"score": str, "lower": str, "among": list[str]}, filter=True)
@require_safe
def explain(request: Request, dataset_id: int) -> HttpResponse:
    """Show which tags, splits, categories and values of columns raise a score, or lower it."""
    dataset = get_dataset(request, dataset_id)
    filter, score = filter_of(request.GET), request.GET.get("score", "").strip()
    lower = bool(request.GET.get("lower"))
    among = [kind for kind in AMONG if kind in request.GET.getlist("among")] or list(AMONG)
    found = (
        services.insights.explain(dataset=dataset, score=score, filter=filter, lower=lower, among=among)
        if score
        else None
    )
    if wants_json(request):
        if found is None:
            there = services.columns.listed(dataset=dataset)
            return JsonResponse({"columns": [services.columns.to_json(column) for column in there]})
        return JsonResponse(found.to_json())
    values = common(dataset, filter, "explain") | {
        "scores": _scores(dataset, services.columns.listed(dataset=dataset)),
        "score": score,
        "lower": lower,
        "among": [(kind, label, kind in among) for kind, label in AMONG.items()],
        "found": found,
        "rows": [_row(dataset, found, one) for one in found.slices] if found else [],
    }
    return render(request, "vlm/explain.html", values)


def filter_of(query: QueryDict) -> SampleFilter:
    """Return the filter that an address of these pages holds beside their own keys. Raises ``FilterError``."""
    return SampleFilter.from_query({key: values for key, values in query.lists() if key not in OWN_KEYS})


def common(dataset: Dataset, filter: SampleFilter, tab: str) -> dict[str, Any]:
    """Return what the pages share: the data set, the filter with its chips, and what a form must carry along."""
    keeps = QueryDict(filter.to_query())
    return {
        "dataset": dataset,
        "tab": tab,
        "filter": filter,
        "chips": [(chip.label, chip.without.to_query()) for chip in filter.chips()],
        "keeps": [(key, value) for key, values in keeps.lists() for value in values],
    }


def shown(dataset: Dataset, filter: SampleFilter) -> str:
    """Return the address of a filter's images."""
    query = filter.to_query()
    return reverse("dataset", args=[dataset.pk]) + (f"?{query}" if query else "")


def _scores(dataset: Dataset, there: list[Column]) -> list[str]:
    """Return what can be explained: columns of numbers and flags, and the words of columns of words."""
    found = [column.name for column in there if column.kind != "word"]
    for facet in services.columns.facets(dataset=dataset, filter=SampleFilter()):
        if facet.column.kind == "word":
            found += [f"{facet.column.name}:{count.value}" for count in facet.counts[:20]]
    return found


def _row(dataset: Dataset, explained: Explained, found: Found) -> dict[str, Any]:
    """Return a slice with the addresses of its images."""
    return {
        "found": found,
        "url": shown(dataset, found.filter),
        "hit_url": shown(dataset, found.hit_filter) if found.hit_filter is not None else "",
        "folded": [_row(dataset, explained, other) for other in found.folded],
    }
