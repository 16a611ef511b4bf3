"""Import a folder: say where it is, see what was found, then watch it come in."""

from dataclasses import asdict
from typing import Any, Literal

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from vlm import services
from vlm.errors import RootAway, RootRefused
from vlm.formats import ImportFailed, asked_choices
from vlm.forms import ImportForm, first_error
from vlm.permissions import IMPORT
from vlm.views import answers
from vlm.views.access import Request, found, require
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, wants_json

RECENT = 5  # imports that the page lists


@operation("GET", answers.ImportChoices, "import")
@operation(
    "POST",
    answers.ImportFound | answers.ImportStarted,
    "import",
    form=ImportForm,
    fields={"action": Literal["preview", "start"]},
    status=(200, 202),
)
@require_http_methods(["GET", "HEAD", "POST"])
def import_new(request: Request) -> HttpResponse:
    """Ask for the folder, show what it holds (nothing is written yet), and start."""
    require(request, IMPORT)
    if request.method != "POST":
        if wants_json(request):
            return JsonResponse(
                {
                    "roots": _roots(),
                    "formats": [name for name, _ in asked_choices()],
                    "recent": [answers.import_state(job) for job in services.datasets.recent_imports(limit=RECENT)],
                }
            )
        return _asking(request)
    form = ImportForm(request.POST)
    if not form.is_valid():
        if wants_json(request):
            raise Problem(first_error(form))
        return _asking(request, complaint=first_error(form), status=400)
    path, chosen = form.cleaned_data["path"], form.cleaned_data["format"]
    try:
        if request.POST.get("action") == "start":
            job = services.datasets.import_start(
                path=path, name=form.cleaned_data["name"], format=chosen, user=request.user
            )
            if wants_json(request):
                return JsonResponse({"import": job.pk, "progress": reverse("import_job", args=[job.pk])}, status=202)
            return redirect("import_job", job.pk)
        preview = services.datasets.import_preview(path=path, name=form.cleaned_data["name"], format=chosen)
    except (ImportFailed, RootRefused, RootAway) as error:
        if wants_json(request):
            raise
        return _asking(request, complaint=str(error), status=error.status)
    if wants_json(request):
        skipped: list[answers.Skipped] = [{"path": skip.path, "reason": skip.reason} for skip in preview.skips]
        return respond(
            answers.ImportFound(
                name=preview.name,
                root=str(preview.root),
                format=preview.format,
                total=preview.total,
                examples=preview.examples,
                skipped=skipped,
                skip_count=preview.skip_count,
                summary=preview.summary,
            )
        )
    return _asking(request, preview=preview, name=preview.name)


def _roots() -> list[str]:
    """Return the folders and URLs below which the page imports."""
    return [*map(str, settings.IMPORT_ROOTS), *settings.IMPORT_URLS]


def _asking(request: Request, *, status: int = 200, **more: Any) -> HttpResponse:
    """Draw the page as it was filled in, with the folders that lie where the path leads."""
    asked = request.POST or request.GET
    values: dict[str, Any] = {
        "roots": _roots(),
        "has_urls": bool(settings.IMPORT_URLS),
        "formats": asked_choices(),
        "asked": asked,
        "name": request.POST.get("name", ""),
        "recent": services.datasets.recent_imports(limit=RECENT),
    }
    return render(request, "vlm/import_new.html", values | _listed(asked.get("path", "")) | more, status=status)


@operation("GET", dict[str, Any], "import", query={"path": str})
@require_safe
def import_folders(request: Request) -> HttpResponse:
    """List what lies in a folder below the import roots, or what the end of a path could become while it is typed.

    With ``pick`` the path is written into the field, too: it was chosen from the list.
    """
    require(request, IMPORT)
    path = request.GET.get("path", "")
    if wants_json(request):
        return JsonResponse(asdict(services.datasets.folders(path=path)))
    values = {"picked": path if "pick" in request.GET else "", "roots": _roots()}
    return render(request, "vlm/_folders.html", values | _listed(path))


def _listed(path: str) -> dict[str, Any]:
    """Return what the list of folders shows; while somebody types, a path that is none is no error yet."""
    try:
        return {"listing": services.datasets.folders(path=path)}
    except ImportFailed as refusal:
        return {"refused": refusal.message}


@operation("GET", answers.ImportState, "import")
@require_safe
def import_job(request: Request, job_id: int) -> HttpResponse:
    """Show how an import goes; htmx asks for the changing part each second until it is over."""
    require(request, IMPORT)
    job = found(services.datasets.import_job(job_id=job_id))
    if wants_json(request):
        return JsonResponse(answers.import_state(job))
    return render(request, "vlm/_import_job.html" if request.htmx else "vlm/import_job.html", {"job": job})
