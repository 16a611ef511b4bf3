"""Where one can go from anywhere: data sets, saved views, words and pages, found by a few letters."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from vlm import services
from vlm.models import Dataset
from vlm.permissions import EDIT, IMPORT, VIEW, VOCABULARY
from vlm.samples import SampleFilter
from vlm.views.access import Request, require
from vlm.views.place import Place

MOST = 12  # of each kind
LONGEST = 100  # characters that are looked for


@dataclass(frozen=True, slots=True)
class Goal:
    """A place to go to, and what kind of place it is."""

    label: str
    kind: str
    url: str


@require_safe
@vary_on_headers("HX-Request")
def find(request: Request) -> HttpResponse:
    """List what ``q`` finds; htmx asks for the list alone. ``dataset`` is the one at hand, whose words are found too."""
    require(request, VIEW)
    text = request.GET.get("q", "").strip()[:LONGEST]
    number = request.GET.get("dataset", "")
    dataset = services.datasets.get(dataset_id=int(number)) if number.isdecimal() and len(number) < 19 else None
    values = {"goals": list(_goals(request, text, dataset)), "q": text, "dataset": dataset}
    return render(request, "vlm/_found.html" if request.htmx else "vlm/find.html", values)


def _goals(request: Request, text: str, dataset: Dataset | None) -> Iterator[Goal]:
    parts = text.casefold().split()
    if dataset is not None and text:
        yield from _fitting(parts, _words(dataset))
    for found in services.datasets.named(words=parts, limit=MOST):
        yield Goal(found.name, "data set", reverse("dataset", args=[found.pk]))
    for view in services.datasets.views_named(user=request.user, words=parts, limit=MOST):
        address = f"{reverse('dataset', args=[view.dataset_id])}?{view.query}"
        yield Goal(view.name, f"view of {view.dataset.name}", address)
    yield from _fitting(parts, [*(_of_dataset(request, dataset) if dataset else ()), *_pages(request)])
    if dataset is not None and text:
        address = Place(SampleFilter(text=text)).url(dataset.pk)
        yield Goal(f"Images with “{text}” in their names", dataset.name, address)


def _fitting(parts: Iterable[str], goals: Iterable[Goal]) -> list[Goal]:
    wanted = list(parts)
    return [goal for goal in goals if all(part in f"{goal.label} {goal.kind}".casefold() for part in wanted)][:MOST]


def _words(dataset: Dataset) -> Iterator[Goal]:
    for name, of in services.vocabulary.words().items():
        for word in of:
            yield Goal(word, f"images, {name}", Place(SampleFilter(all_of=(word,))).url(dataset.pk))


def _of_dataset(request: Request, dataset: Dataset) -> Iterator[Goal]:
    pages = [
        ("Runs", "runs"),
        ("Accuracy", "accuracy"),
        ("Edits", "edits"),
        ("Own tags", "own_tags"),
        ("Settings", "dataset_settings"),
    ]
    if request.user.has_perm(EDIT):
        pages.append(("Review", "review"))
    for label, name in pages:
        yield Goal(label, dataset.name, reverse(name, args=[dataset.pk]))


def _pages(request: Request) -> Iterator[Goal]:
    yield Goal("Data sets", "page", reverse("datasets"))
    yield Goal("Runs", "page", reverse("active_runs"))
    if request.user.has_perm(IMPORT):
        yield Goal("Import", "page", reverse("import_new"))
    if request.user.has_perm(VOCABULARY):
        yield Goal("Vocabulary", "page", reverse("vocabulary"))
    if request.user.is_staff:
        yield Goal("Admin", "page", reverse("admin:index"))
