"""The vocabulary's pages: what is asked, edited without losing the tags that are there."""

import json
from collections.abc import Callable
from typing import Any, Literal

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from vlm import services, vocabulary_file
from vlm.forms import first_error
from vlm.permissions import VIEW, VOCABULARY
from vlm.services.vocabulary import Removed, TagsAtStake
from vlm.views import answers
from vlm.views.access import Request, require
from vlm.views.operations import File, operation, respond
from vlm.views.problems import Problem, wants_json
from vlm.vocabulary import Dimension, VocabularyError
from vlm.vocabulary_file import Entry
from vlm.vocabulary_forms import DimensionForm

REMOVED = {"removed": Literal["", "keep", "take"]}
SAVING = REMOVED | {"action": Literal["save", "try"], "dataset": int, "ids": list[int], "orders": Literal["", "1"]}
OUTDOORS = ("setting", "outdoor")  # the condition that the page offers for weather


def as_json(entries: tuple[Entry, ...]) -> dict[str, Any]:
    """Return a vocabulary as programs get and send it."""
    return {"dimensions": [entry.dimension.to_json() | {"enabled": entry.enabled} for entry in entries]}


def from_json(value: object) -> tuple[Entry, ...]:
    """Read what a program sent. Raises ``VocabularyError``."""
    listed = value.get("dimensions") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise VocabularyError("Send an object with a list “dimensions”, as this address gives it.")
    return tuple(
        Entry(
            Dimension.from_json({key: given for key, given in one.items() if key != "enabled"}),
            one.get("enabled") is not False,
        )
        for one in listed
    )


@operation("GET", answers.VocabularyInfo)
@operation("POST", answers.VocabularyInfo, "vocabulary", body=answers.VocabularyWanted)
@require_http_methods(["GET", "HEAD", "POST"])
def vocabulary(request: Request) -> HttpResponse:
    """List the dimensions; a program gets, and with POST replaces, all of them as JSON."""
    require(request, VIEW)
    if request.method == "POST":
        require(request, VOCABULARY)
        try:
            sent = json.loads(request.body)
        except (ValueError, RecursionError):
            raise VocabularyError("The request's body is no JSON.") from None
        services.vocabulary.replace_all(
            wanted=from_json(sent),
            removed=_removed(sent.get("removed", "")),
            user=request.user,
            text="Replaced by a program",
        )
        return JsonResponse(as_json(services.vocabulary.entries()))
    if wants_json(request):
        return JsonResponse(as_json(services.vocabulary.entries()))
    entries = services.vocabulary.entries()
    names = {entry.dimension.name: entry.dimension for entry in entries}
    offered = (
        "weather" in names
        and names["weather"].only is None
        and OUTDOORS[0] in names
        and OUTDOORS[1] in names[OUTDOORS[0]].words
    )
    changes = services.vocabulary.changes()
    values = {
        "entries": entries,
        "changes": changes,
        "undoable": next((change.pk for change in changes if change.undone is None), None),
        "can_edit": request.user.has_perm(VOCABULARY),
        "offered": offered,
        "usual": entries == services.vocabulary.default_entries(),
    }
    return render(request, "vlm/vocabulary.html", values)


@operation(
    "POST",
    answers.VocabularyInfo | answers.TrialStarted,
    "vocabulary",
    form=DimensionForm,
    fields=SAVING,
    status=(200, 202),
)
@require_http_methods(["GET", "HEAD", "POST"])
def dimension_new(request: Request) -> HttpResponse:
    """Add a dimension."""
    require(request, VOCABULARY)
    return _edit(request, None)


@operation("GET", answers.DimensionInfo, "vocabulary")
@operation(
    "POST",
    answers.VocabularyInfo | answers.TrialStarted,
    "vocabulary",
    form=DimensionForm,
    fields=SAVING,
    status=(200, 202),
)
@require_http_methods(["GET", "HEAD", "POST"])
def dimension(request: Request, name: str) -> HttpResponse:
    """Edit a dimension, or try the draft before it is saved."""
    require(request, VOCABULARY)
    return _edit(request, _entry(name))


def _edit(request: Request, entry: Entry | None) -> HttpResponse:
    initial = DimensionForm.initial_of(entry) if entry else {"kind": "one-of", "enabled": True}
    if request.method != "POST" and entry and request.GET.get("only") == "outdoor":
        initial |= {"only_dimension": OUTDOORS[0], "only_words": [OUTDOORS[1]]}
    form = DimensionForm(request.POST if request.method == "POST" else None, initial=initial)
    name = entry.dimension.name if entry else ""
    values: dict[str, Any] = {
        "form": form,
        "entry": entry,
        "name": name,
        "datasets": services.datasets.listed(),
        "chosen_dataset": request.POST.get("dataset") or request.GET.get("dataset", ""),
        "chosen_ids": request.POST.get("ids") or request.GET.get("ids", ""),
        "others": [one.dimension for one in services.vocabulary.entries() if one.dimension.name != name],
        "stakes": {one.word: one.samples for one in services.vocabulary.stakes(words=entry.dimension.words)}
        if entry
        else {},
    }
    if request.method != "POST":
        if entry and wants_json(request):
            return JsonResponse(entry.dimension.to_json() | {"enabled": entry.enabled})
        return render(request, "vlm/dimension.html", values)
    if not form.is_valid():
        if wants_json(request):
            raise Problem(first_error(form))
        return render(request, "vlm/dimension.html", values, status=400)
    if request.POST.get("action") == "edit":
        return render(request, "vlm/dimension.html", values)
    if request.POST.get("action") == "try":
        return _try(request, form.entry, values)

    def save(removed: Removed) -> HttpResponse:
        services.vocabulary.save(entry=form.entry, name=name, removed=removed, user=request.user)
        return _changed(request)

    try:
        return _asking(request, save)
    except VocabularyError as error:
        if wants_json(request):
            raise
        form.add_error(None, str(error))
        return render(request, "vlm/dimension.html", values, status=400)


def _try(request: Request, draft: Entry, values: dict[str, Any]) -> HttpResponse:
    """Ask the draft of some images; nothing is saved."""
    try:
        trial = services.trials.start(
            dimension=draft.dimension,
            replaces=values["name"],
            dataset_id=request.POST.get("dataset", ""),
            sample_ids=request.POST.get("ids", ""),
            orders=bool(request.POST.get("orders")),
            user=request.user,
        )
    except VocabularyError as error:
        if wants_json(request):
            raise
        values["form"].add_error(None, str(error))
        return render(request, "vlm/dimension.html", values, status=400)
    if wants_json(request):
        return respond(answers.TrialStarted(trial.pk, reverse("trial", args=[trial.pk])), status=202)
    return redirect("trial", trial.pk)


@operation("GET", dict[str, Any], "vocabulary")
@require_safe
def trial(request: Request, trial_id: int) -> HttpResponse:
    """Show what a draft made of some images, beside what is stored; htmx asks for more until it is over."""
    require(request, VOCABULARY)
    found = services.trials.get(trial_id=trial_id)
    if found is None:
        raise Http404("There is no such trial any more.")
    if wants_json(request):
        return JsonResponse(services.trials.as_json(trial=found))
    shown = services.trials.report(trial=found)
    draft = Dimension.from_json(found.asked)
    values = {
        "trial": found,
        "report": shown,
        "draft": DimensionForm(initial=DimensionForm.initial_of(Entry(draft))),
        "address": reverse("dimension", args=[found.replaces]) if found.replaces else reverse("dimension_new"),
    }
    return render(request, "vlm/_trial.html" if request.htmx else "vlm/trial.html", values)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields=REMOVED | {"wording": str})
@require_POST
def trial_choose(request: Request, trial_id: int) -> HttpResponse:
    """Save the question that was tried with the wording that was chosen, or with all of them."""
    require(request, VOCABULARY)
    found = services.trials.get(trial_id=trial_id)
    if found is None:
        raise Http404("There is no such trial any more.")
    tried = Dimension.from_json(found.tried_with)
    dimension = services.trials.chosen(dimension=tried, choice=request.POST.get("wording", ""))
    there = services.vocabulary.entry(name=found.replaces) if found.replaces else None

    def save(removed: Removed) -> HttpResponse:
        entry = Entry(dimension, there is None or there.enabled)
        services.vocabulary.save(entry=entry, name=found.replaces, removed=removed, user=request.user)
        if wants_json(request):
            return JsonResponse(as_json(services.vocabulary.entries()))
        return redirect("vocabulary")

    return _asking(request, save)


@operation(
    "POST",
    answers.VocabularyInfo | answers.Stake,
    "vocabulary",
    fields={"old": str, "new": str, "action": Literal["preview", "confirm"]},
    needs=("old", "new"),
)
@require_http_methods(["POST"])
def word_rename(request: Request, name: str) -> HttpResponse:
    """Rename a word, or merge it into another, after saying how many images have it."""
    require(request, VOCABULARY)
    entry = _entry(name)
    old, new = request.POST.get("old", ""), request.POST.get("new", "")
    if request.POST.get("action") != "confirm":
        if new:
            services.vocabulary.reworded(entry.dimension, old, new)  # what cannot be is refused before it is confirmed
        stake = next(iter(services.vocabulary.stakes(words=[old])), None)
        values = {
            "name": name,
            "old": old,
            "new": new.strip(),
            "samples": stake.samples if stake else 0,
            "merging": new.strip() in entry.dimension.words,
        }
        if wants_json(request):
            return respond(answers.Stake(old, new.strip(), stake.samples if stake else 0, bool(values["merging"])))
        return render(request, "vlm/word_rename.html", values)
    services.vocabulary.rename_word(name=name, old=old, new=new, user=request.user)
    return _changed(request) if wants_json(request) else redirect("dimension", name)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields=REMOVED)
@require_POST
def dimension_remove(request: Request, name: str) -> HttpResponse:
    """Take a dimension out; its tags are kept as users' own or go, as is said."""
    require(request, VOCABULARY)

    def remove(removed: Removed) -> HttpResponse:
        services.vocabulary.remove(name=name, removed=removed, user=request.user)
        return _changed(request)

    return _asking(request, remove)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields={"to": Literal["up", "down"]})
@require_POST
def dimension_move(request: Request, name: str) -> HttpResponse:
    require(request, VOCABULARY)
    services.vocabulary.move(name=name, by=-1 if request.POST.get("to") == "up" else 1, user=request.user)
    return _changed(request)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields={"enabled": Literal["0", "1"]})
@require_POST
def dimension_switch(request: Request, name: str) -> HttpResponse:
    require(request, VOCABULARY)
    services.vocabulary.switch(name=name, enabled=request.POST.get("enabled") == "1", user=request.user)
    return _changed(request)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields=REMOVED)
@require_POST
def vocabulary_reset(request: Request) -> HttpResponse:
    """Put the vocabulary back that DataVisor comes with."""
    require(request, VOCABULARY)

    def reset(removed: Removed) -> HttpResponse:
        services.vocabulary.reset(removed=removed, user=request.user)
        return _changed(request)

    return _asking(request, reset)


@operation("POST", answers.VocabularyInfo, "vocabulary")
@require_POST
def vocabulary_undo(request: Request, change_id: int) -> HttpResponse:
    require(request, VOCABULARY)
    change = services.vocabulary.change(change_id=change_id)
    if change is None:
        raise Http404("There is no such edit.")
    services.vocabulary.undo(change=change, user=request.user)
    return _changed(request)


@operation("GET", File(("application/toml",)))
@require_GET
def vocabulary_export(request: Request) -> HttpResponse:
    require(request, VIEW)
    text = vocabulary_file.dump(services.vocabulary.entries())
    headers = {"Content-Disposition": 'attachment; filename="vocabulary.toml"'}
    return HttpResponse(text, content_type="application/toml", headers=headers)


@operation("POST", answers.VocabularyInfo, "vocabulary", fields=REMOVED | {"text": str}, files=("file",))
@require_POST
def vocabulary_import(request: Request) -> HttpResponse:
    """Replace the vocabulary by that of a TOML file."""
    require(request, VOCABULARY)
    upload = request.FILES.get("file")
    text: str | bytes = (
        upload.read(vocabulary_file.MAX_FILE + 1) if upload is not None else request.POST.get("text", "")
    )
    if not text:
        raise VocabularyError("Choose a TOML file first.")
    entries = vocabulary_file.load(text)

    def replace(removed: Removed) -> HttpResponse:
        services.vocabulary.replace_all(wanted=entries, removed=removed, user=request.user)
        return _changed(request)

    return _asking(request, replace, also={"text": vocabulary_file.dump(entries)})


# -- inside --------------------------------------------------------------------------------------------------------------
def _changed(request: HttpRequest) -> HttpResponse:
    """Go back to the vocabulary; a program gets it as it is now."""
    if wants_json(request):
        return JsonResponse(as_json(services.vocabulary.entries()))
    return redirect("vocabulary")


def _entry(name: str) -> Entry:
    entry = services.vocabulary.entry(name=name)
    if entry is None:
        raise Http404("There is no such dimension.")
    return entry


def _removed(value: object) -> Removed:
    if value == "keep":
        return "keep"
    if value == "take":
        return "take"
    return ""


def _asking(
    request: HttpRequest, act: Callable[[Removed], HttpResponse], also: dict[str, str] | None = None
) -> HttpResponse:
    """Do something, and where tags are at stake ask first what becomes of them."""
    try:
        return act(_removed(request.POST.get("removed")))
    except TagsAtStake as error:
        if wants_json(request):
            raise
        kept = [(key, value) for key, values in request.POST.lists() for value in values]
        left_out = {"csrfmiddlewaretoken", "removed", *(also or {})}
        values = {
            "counts": error.counts,
            "again": [pair for pair in kept if pair[0] not in left_out] + list((also or {}).items()),
            "address": request.path,
            "back": reverse("vocabulary"),
        }
        return render(request, "vlm/tags_at_stake.html", values, status=error.status)
