"""One sample: the picture, what the model said about it, and its tags."""

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from vlm import live, services
from vlm.forms import LONGEST_TAGS
from vlm.models import Dataset
from vlm.permissions import EDIT, TAG
from vlm.samples import Answer, SampleDetail, SampleRow
from vlm.samples.conditions import MEASURES
from vlm.views import answers
from vlm.views.access import Request, get_dataset
from vlm.views.operations import operation, respond
from vlm.views.place import Place
from vlm.views.problems import wants_json

HISTORY = 60  # events that the page shows
BESIDE = 6  # pictures of the filmstrip, before and behind the one on show


def bars(answer: Answer) -> list[tuple[str, float]]:
    """Return each word with its probability; none for a generated answer, which has only its text."""
    return list(zip(answer.words, answer.probabilities, strict=True)) if answer.probabilities else []


def shared_answers(dataset: Dataset, detail: SampleDetail) -> list[tuple[SampleRow, int, list[str]]]:
    """Return the samples whose answers stand for the sample's own, each with the run and the dimensions."""
    found: dict[tuple[int, int], list[str]] = {}
    for answer in detail.answers:
        if answer.shared_from is not None:
            found.setdefault((answer.shared_from, answer.run), []).append(answer.dimension)
    rows = {row.id: row for row in services.samples.by_id(dataset=dataset, ids=sorted({of for of, _ in found}))}
    return [(rows[source], run, names) for (source, run), names in found.items() if source in rows]


@operation("GET", answers.SampleFull, query={"order": str}, filter=True)
@require_safe
def sample(request: Request, dataset_id: int, sample_id: int) -> HttpResponse:
    """Show an image, what the model said about it, and its tags; ``previous`` and ``next`` are those of the filter."""
    dataset = get_dataset(request, dataset_id)
    place = Place.of(request.GET)
    detail = services.samples.detail(dataset=dataset, sample_id=sample_id)
    if detail is None:
        raise Http404("There is no such sample in this data set.")
    before, after = services.samples.neighbours(
        dataset=dataset, filter=place.filter, order=place.order, sample_id=sample_id, each=BESIDE
    )
    if wants_json(request):
        previous, following = before[-1].id if before else None, after[0].id if after else None
        return respond(answers.sample_full(dataset.pk, detail, previous, following))
    query = f"?{place.query}" if place.query else ""

    def address(neighbour: SampleRow) -> str:
        return reverse("sample", args=[dataset.pk, neighbour.id]) + query

    strip = [(one, address(one)) for one in (*before, detail.sample, *after)]
    run = services.runs.current(dataset=dataset)
    state = services.runs.state(run=run) if run else None

    answered = {answer.dimension: answer for answer in detail.answers}
    models = services.runs.models(run_ids=[answer.run for answer in answered.values()])
    row = detail.sample
    withheld = services.vocabulary.withheld(detail=detail)
    group = services.pixels.group_of(dataset=dataset, sample_id=sample_id)
    pixels = services.pixels.of_sample(dataset=dataset, sample_id=sample_id)
    values = {
        "dataset": dataset,
        "pixels": pixels,
        "group": group,
        "others": group[1] - 1 if group else 0,
        "measures": [(label, getattr(pixels.measures, name), pixels.above[name]) for name, label in MEASURES.items()]
        if pixels
        else [],
        "detail": detail,
        "sample": row,
        "answers": [
            (answer, bars(answer), models.get(answer.run, ""), withheld.get(answer.dimension))
            for answer in answered.values()
        ],
        "shared": shared_answers(dataset, detail),
        "boxes": [a for a in detail.annotations if a.box is not None] if row.width and row.height else [],
        "stroke": max(row.width or 0, row.height or 0) / 400,
        "letters": max(row.width or 0, row.height or 0) / 50,
        "columns": services.columns.of_sample(dataset=dataset, sample_id=sample_id),
        "place": place,
        "changes": dataset.changes,
        "previous": address(before[-1]) if before else "",
        "next": address(after[0]) if after else "",
        "strip": strip,
        "file": services.samples.file_facts(dataset=dataset, sample=row),
        "back": place.url(dataset.pk, at=str(sample_id)),
        "here": request.get_full_path(),
        "history": services.samples.history(dataset=dataset, sample_id=sample_id, limit=HISTORY),
        "words": services.vocabulary.words(),
        "longest_tags": LONGEST_TAGS,
        "can_edit": request.user.has_perm(EDIT),
    } | live.context(dataset.pk, state, request.user.has_perm(TAG))
    return render(request, "vlm/sample.html", values)
