"""Review, accuracy, and runs side by side: how right the tags are, and how that was found out."""

import csv
import io
from dataclasses import asdict
from typing import Annotated, Any, Literal

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST, require_safe
from pydantic import Field

from vlm import services
from vlm.figures import counted
from vlm.models import Dataset
from vlm.permissions import EDIT, TAG, VIEW
from vlm.samples import SampleFilter
from vlm.services.accuracy import TARGET, Accuracy
from vlm.statistics import plots
from vlm.statistics.intervals import Estimate
from vlm.statistics.thresholds import Kept
from vlm.views import answers
from vlm.views.access import Request, get_dataset, get_run
from vlm.views.operations import File, operation
from vlm.views.problems import Problem, not_used, wants_json
from vlm.vocabulary import VocabularyError

DIMENSION = {"dimension": str}
MOST_LABELS_FILE = 32 << 20  # bytes
TARGETS = ((0.8, "80 %"), (0.9, "90 %"), (0.95, "95 %"), (0.98, "98 %"))


@operation("GET", answers.ReviewState, "edit", query=DIMENSION)
@require_safe
def review(request: Request, dataset_id: int) -> HttpResponse:
    """Show the next picture to decide, or offer a draw."""
    dataset = get_dataset(request, dataset_id, EDIT)
    return _review_page(request, dataset)


@operation(
    "POST",
    answers.ReviewState,
    "edit",
    fields=DIMENSION | {"size": Annotated[int, Field(ge=1, le=services.review.MOST)], "filter": str},
    needs=("size",),
)
@require_POST
def review_draw(request: Request, dataset_id: int) -> HttpResponse:
    """Draw images to decide: of the whole data set, or for looking within a filter; of one dimension, or of all in turn."""
    dataset = get_dataset(request, dataset_id, EDIT)
    size = request.POST.get("size", "")
    if not (size.isascii() and size.isdecimal() and 1 <= int(size[:9]) <= services.review.MOST):
        raise Problem(f"Say how many images to draw: 1 to {services.review.MOST:,}.")
    asked: dict[str, Any] = {
        "dataset": dataset,
        "size": int(size),
        "filter": SampleFilter.from_text(request.POST.get("filter", "")),
    }
    if _in_turn(request):
        services.review.draw_in_turn(**asked)
    else:
        services.review.draw(dimension=_dimension(request), **asked)
    if wants_json(request):
        return _review_page(request, dataset)
    return redirect(_review_address(request, dataset))


@operation(
    "POST",
    answers.ReviewState,
    "edit",
    fields=DIMENSION
    | {"action": Literal["decide", "unknown", "skip", "undo"], "batch": str, "sample": int, "word": str},
)
@require_POST
def review_decide(request: Request, dataset_id: int) -> HttpResponse:
    """Keep a decision, skip an image or take the last decision back; answers with the next image."""
    dataset = get_dataset(request, dataset_id, EDIT)
    dimension, batch = _dimension(request), request.POST.get("batch", "")
    action = request.POST.get("action", "")
    if action == "undo":
        of = "" if _in_turn(request) else dimension
        services.review.undo(dataset=dataset, dimension=of, user=request.user)
    else:
        sample = request.POST.get("sample", "")
        if not (sample.isascii() and sample.isdecimal() and len(sample) < 19):
            raise Problem("The decision names no image. Reload the page.")
        if action == "skip":
            services.review.skip(dataset=dataset, dimension=dimension, batch=batch, sample_id=int(sample))
        else:
            word = "" if action == "unknown" else request.POST.get("word", "")
            if action != "unknown" and "word" not in request.POST:
                raise Problem("Choose a word, or “cannot tell”.")
            services.review.decide(
                dataset=dataset, dimension=dimension, batch=batch, sample_id=int(sample), word=word, user=request.user
            )
    if request.htmx or wants_json(request):
        return _review_page(request, dataset)
    return redirect(_review_address(request, dataset))


@operation("POST", answers.LabelsDone, "edit", files=("file",), fields={"random": Literal["", "1"]}, needs=("file",))
@require_POST
def labels_import(request: Request, dataset_id: int) -> HttpResponse:
    """Bring labels in from a table."""
    dataset = get_dataset(request, dataset_id, EDIT)
    upload = request.FILES.get("file")
    if upload is None:
        raise Problem("Choose a CSV file with the columns file, dimension and value.")
    done = services.review.import_labels(
        dataset=dataset,
        content=upload.read(MOST_LABELS_FILE + 1),
        random=bool(request.POST.get("random")),
        strict=True,
        user=request.user,
    )
    if wants_json(request):
        told = {"labels": done.labels, "problems": list(done.problems), "problem_count": done.problem_count}
        return not_used(told) if done.problem_count else JsonResponse(told)
    if done.problem_count:
        return render(request, "vlm/labels_problems.html", {"dataset": dataset, "done": done}, status=400)
    messages.success(request, f"{done.labels:,} label{'' if done.labels == 1 else 's'} came in.")
    return redirect("accuracy", dataset.pk)


@operation("GET", answers.AccuracyInfo, query=DIMENSION | {"target": str})
@require_safe
def accuracy(request: Request, dataset_id: int) -> HttpResponse:
    """Show how right the tags are, dimension by dimension."""
    dataset = get_dataset(request, dataset_id)
    target = _share(request.GET.get("target", ""), TARGET)
    chosen = request.GET.get("dimension", "")
    if wants_json(request):
        found = _evaluated(dataset, chosen, target)
        return JsonResponse({"dataset": dataset.pk, "dimensions": [one.to_json() for one in found]})
    return _accuracy_page(request, dataset, chosen, target)


@operation(
    "POST",
    dict[str, Any],
    "run",
    fields=DIMENSION
    | {"action": Literal["preview", "apply"], "target": str, "by_word": Literal["", "1"], "drop": Literal["", "1"]},
)
@require_POST
def promise(request: Request, dataset_id: int) -> HttpResponse:
    """Show what tagging by a promise would change, or do it: of a dimension, or word by word; the model is not asked again."""
    dataset = get_dataset(request, dataset_id, TAG)
    dimension = _dimension(request)
    target = _share(request.POST.get("target", ""), TARGET)
    drop = bool(request.POST.get("drop"))
    found = services.accuracy.evaluate(dataset=dataset, dimension=dimension, target=target)
    thresholds = services.promises.thresholds_of(found, by_word=bool(request.POST.get("by_word")), drop=drop)
    applied = request.POST.get("action") == "apply"
    act = services.promises.apply if applied else services.promises.preview
    change = act(dataset=dataset, thresholds=thresholds)
    if wants_json(request):
        return JsonResponse({**asdict(change), "applied": applied, "thresholds": thresholds.to_json()})
    if applied:
        messages.success(
            request,
            f"Tagged {dimension} by the promise: {counted(change.changed, 'image')} changed, {change.accepted:,} answers "
            f"accepted, {change.discarded:,} discarded.",
        )
        return redirect(f"{reverse('accuracy', args=[dataset.pk])}?target={target:g}#{dimension}")
    preview = {"thresholds": thresholds, "change": change, "drop": drop}
    return _accuracy_page(request, dataset, "", target, preview=preview)


def _evaluated(dataset: Dataset, chosen: str, target: float) -> list[Accuracy]:
    names = list(services.vocabulary.words())
    asked = [chosen] if chosen in names else names
    return [services.accuracy.evaluate(dataset=dataset, dimension=name, target=target) for name in asked]


def _accuracy_page(
    request: Request, dataset: Dataset, chosen: str, target: float, *, preview: dict[str, Any] | None = None
) -> HttpResponse:
    found = _evaluated(dataset, chosen, target)
    values = {
        "dataset": dataset,
        "rows": [(one, _drawn(one)) for one in found if one.samples],
        "target": target,
        "targets": TARGETS,
        "can_edit": request.user.has_perm(EDIT),
        "can_tag": request.user.has_perm(TAG),
        "chosen": chosen,
        "preview": preview,
    }
    return render(request, "vlm/accuracy.html", values)


@operation("GET", File(("text/csv",)))
@require_GET
def accuracy_csv(request: Request, dataset_id: int) -> HttpResponse:
    """Give every figure of the accuracy page as a table."""
    dataset = get_dataset(request, dataset_id)
    target = _share(request.GET.get("target", ""), TARGET)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["dimension", "of", "figure", "value", "low", "high", "labels"])
    for one in services.accuracy.overview(dataset=dataset, target=target):
        for row in figures_of(one):
            writer.writerow(row)
    name = f"accuracy-{dataset.pk}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse("\ufeff" + buffer.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)


@operation("GET", dict[str, Any])
@require_safe
def runs_compared(request: Request, run_id: int, other_id: int) -> HttpResponse:
    """Show two runs side by side: agreement, and every kind of flip as a filter."""
    first, second = get_run(request, run_id, VIEW), get_run(request, other_id, VIEW)
    found = services.accuracy.compare(first=first, second=second)
    if wants_json(request):
        return JsonResponse(found.to_json())
    dimensions = []
    for name, (words, agreed) in found.dimensions.items():
        everything = services.accuracy.flips_filter(found, name).to_query()
        rows = [
            (flip, services.accuracy.flips_filter(found, name, flip.before, flip.after).to_query())
            for flip in agreed.flips
        ]
        dimensions.append((name, words, agreed, everything, rows))
    return render(
        request,
        "vlm/runs_compared.html",
        {"dataset": first.dataset, "first": first, "second": second, "dimensions": dimensions},
    )


def figures_of(one: Accuracy) -> list[list[Any]]:
    """Return the rows that a table of a dimension's figures has; ``of`` is a word, or whatever else a figure is of."""
    rows: list[list[Any]] = []

    def add(of: str, figure: str, value: float | None, low: Any = "", high: Any = "", labels: Any = "") -> None:
        if value is not None:
            rows.append(
                [one.dimension, of, figure, *(round(v, 6) if v != "" else "" for v in (value, low, high)), labels]
            )

    def add_estimate(of: str, figure: str, estimate: Estimate | None) -> None:
        if estimate is not None:
            add(of, figure, estimate.value, estimate.low, estimate.high, estimate.labels)

    if one.evaluation is None:
        return rows
    add_estimate("", "accuracy", one.evaluation.accuracy)
    add("", "more labels for 5 percent", one.evaluation.more)
    for word in one.evaluation.words:
        for figure, estimate in (("precision", word.precision), ("recall", word.recall), ("share", word.share)):
            add_estimate(word.word or "no", figure, estimate)
        add(word.word or "no", "model's share", word.said)
    for said, counts in zip(one.words, one.evaluation.confusion, strict=True):
        for right, count in zip(one.words, counts, strict=True):
            add(f"{said or 'no'} > {right or 'no'}", "labels said > right", count)
    if one.quality is not None:
        add("", "log loss", one.quality.log_loss)
        add("", "expected calibration error", one.quality.ece)
    for bin in one.reliability:
        add_estimate(f"said {bin.said:.6f}", "right", bin.right)
    for point in one.curve:
        add(f"from {point.threshold:.6f}", "tagged", point.tagged)
        add_estimate(f"from {point.threshold:.6f}", "right", point.accuracy)
    for of, promise in [("", one.promise), *((word or "no", own) for word, own in one.word_promises.items())]:
        if isinstance(promise, Kept):
            add(of, f"threshold for {promise.target:g}", promise.threshold)
            add(of, f"tagged by the threshold for {promise.target:g}", promise.tagged)
        elif promise is not None and promise.more is not None:
            add(of, f"more labels for {promise.target:g}", promise.more)
    return rows


# -- inside --------------------------------------------------------------------------------------------------------------
def _in_turn(request: Request) -> bool:
    return bool(request.POST.get("turn") or request.GET.get("turn"))


def _review_address(request: Request, dataset: Dataset) -> str:
    query = "turn=1" if _in_turn(request) else f"dimension={_dimension(request)}"
    return f"{reverse('review', args=[dataset.pk])}?{query}"


def _review_page(request: Request, dataset: Dataset) -> HttpResponse:
    in_turn = _in_turn(request)
    dimension = services.review.turn(dataset=dataset) if in_turn else _dimension(request)
    found = services.review.queue(dataset=dataset, dimension=dimension, who=services.review.who(request.user))
    if wants_json(request):
        return JsonResponse(
            {
                "dimension": dimension,
                "batch": found.batch,
                "drawn": found.drawn,
                "done": found.done,
                "words": list(services.review.filter_empty(found.words)),
                "next": [{"sample": item.sample.id, "path": item.sample.path} for item in found.items],
            }
        )
    values = {
        "dataset": dataset,
        "queue": found,
        "dimension": dimension,
        "in_turn": in_turn,
        "dimensions": list(services.vocabulary.words()),
        "item": found.current,
        "ahead": found.items[1:],
        "words": [(place + 1, word) for place, word in enumerate(found.words)],
        "said": list(zip(found.answer.words, found.answer.probabilities, strict=False)) if found.answer else [],
        "filter": request.GET.get("filter", ""),
        "size": services.review.BATCH,
    }
    template = "vlm/_review.html" if request.htmx else "vlm/review.html"
    return render(request, template, values)


def _dimension(request: Request) -> str:
    names = list(services.vocabulary.words())
    chosen: str = request.POST.get("dimension") or request.GET.get("dimension") or (names[0] if names else "")
    if chosen not in names:
        raise VocabularyError(f"There is no dimension “{chosen[:60]}”.")
    return chosen


def _share(text: str, default: float) -> float:
    try:
        value = float(text) / 100 if text.strip().endswith("%") else float(text)
    except ValueError:
        return default
    return value if 0.5 <= value < 1 else default


def _drawn(one: Accuracy) -> dict[str, Any]:
    """Return the plots of a dimension, as figures that the template draws and tells as tables."""
    return {"curve": plots.promise_curve(one.curve), "reliability": plots.reliability(one.reliability)}
