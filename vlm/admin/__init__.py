"""Django's admin: data sets with the auto-tag action, runs to read and steer, and the vocabulary to edit."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

import vlm.admin.words
import vlm.converters  # noqa: F401  (<id:…>)
from vlm import services
from vlm.admin.base import TellsRefusals, user_of
from vlm.errors import Refusal
from vlm.figures import pace
from vlm.formats import asked_choices
from vlm.forms import BIGGEST_COUNT, MOST_QUERY, read_filter
from vlm.models import ApiToken, Dataset, ImportJob, SavedView, TaggingRun, Watch
from vlm.runs.options import DETAILS, FULL_SHARE, RunOptions

admin.site.site_header = admin.site.site_title = "DataVisor"


class RunOptionsForm(forms.Form):
    """What the intermediate page of the auto-tag action asks."""

    scope = forms.ChoiceField(choices=TaggingRun.Scope, initial=TaggingRun.Scope.MISSING)
    limit = forms.IntegerField(
        min_value=1, max_value=BIGGEST_COUNT, required=False, help_text="The first so many images of each."
    )
    dimensions = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple, error_messages={"required": "Choose at least one dimension."}
    )
    detail = forms.ChoiceField(choices=list(DETAILS.items()))
    full_share = forms.FloatField(
        min_value=0.01,
        max_value=0.99,
        initial=FULL_SHARE,
        required=False,
        label="Share at full detail",
        help_text="With detail as needed: of the images, how many are asked again.",
    )
    mode = forms.ChoiceField(choices=TaggingRun.Mode, initial=TaggingRun.Mode.SCORE)
    min_probability = forms.FloatField(
        min_value=0,
        max_value=1,
        label="Least probability of a word",
        help_text="Among the allowed words; an answer below it is discarded.",
    )
    min_mass = forms.FloatField(
        min_value=0,
        max_value=1,
        label="Least probability on the list",
        help_text="How much of the model's whole probability must lie on the allowed words.",
    )
    one_per_group = forms.BooleanField(
        required=False,
        label="One image per group",
        help_text="Of images that are nearly the same one is asked, and the others take its answers over, marked as shared.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [dimension.name for dimension in services.vocabulary.enabled()]
        self.fields["dimensions"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        self.fields["dimensions"].initial = names
        own = RunOptions()
        for name in ("detail", "min_probability", "min_mass"):
            self.fields[name].initial = getattr(own, name)

    def options(self) -> RunOptions:
        data = self.cleaned_data
        return RunOptions(
            scope=data["scope"],
            limit=data["limit"],
            dimensions=tuple(data["dimensions"]),
            detail=data["detail"],
            full_share=data["full_share"] or FULL_SHARE,
            mode=data["mode"],
            min_probability=data["min_probability"],
            min_mass=data["min_mass"],
            one_per_group=data["one_per_group"],
        )


class ImportForm(forms.Form):
    """An import below the import roots or URLs."""

    path = forms.CharField(
        max_length=4096, help_text="A folder below the import roots, or a URL below the import URLs."
    )
    name = forms.CharField(max_length=200, required=False, help_text="The folder's name if empty.")
    format = forms.ChoiceField(choices=asked_choices)


@admin.register(Dataset)
class DatasetAdmin(TellsRefusals):
    list_display = ["name", "format", "sample_count", "missing_count", "imported", "last_run"]
    list_filter = ["format"]
    search_fields = ["name", "root"]
    readonly_fields = ["root", "format", "sample_count", "missing_count", "created", "imported"]
    actions = ["autotag"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        newest = TaggingRun.objects.only("dataset", "status", "processed", "total").order_by("-id")[:1]
        return super().get_queryset(request).prefetch_related(Prefetch("runs", newest, to_attr="newest_runs"))

    def view_on_site(self, dataset: Dataset) -> str:
        return reverse("dataset", args=[dataset.pk])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("vlm.import_dataset")

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Return what goes with the data sets: their runs and views need no permission of their own.

        A data set with an active run is protected: its samples would vanish under the feet of the run.
        """
        found, counts, lacking, protected = super().get_deleted_objects(objs, request)
        lacking -= {str(model._meta.verbose_name) for model in (TaggingRun, SavedView)}
        active = services.runs.active(datasets=objs)
        protected += [f"{run}, which is active. Wait for its end, or cancel it." for run in active]
        return found, counts, lacking, protected

    def has_autotag_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("vlm.autotag_dataset")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Import a data set: its samples come from a folder, not from a form."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ImportForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                job = services.datasets.import_start(user=user_of(request), **form.cleaned_data)
            except Refusal as refusal:
                form.add_error("path", str(refusal))
            else:
                self.message_user(request, f"“{job.path}” is being imported.", messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:vlm_importjob_change", args=[job.pk]))
        context = {"title": "Import a data set", "form": form, "submit": "Import", "opts": self.opts}
        return TemplateResponse(request, "admin/vlm/form.html", {**self.admin_site.each_context(request), **context})

    @admin.display(description="last run")
    def last_run(self, dataset: Dataset) -> str | SafeString:
        run = next(iter(getattr(dataset, "newest_runs", [])), None)
        if run is None:
            return "–"
        address = reverse("admin:vlm_taggingrun_change", args=[run.pk])
        return format_html(
            '<a href="{}">{}: {}, {} of {}</a>', address, run.pk, run.get_status_display(), run.processed, run.total
        )

    @admin.action(description="Auto-tag selected data sets", permissions=["autotag"])
    def autotag(self, request: HttpRequest, datasets: QuerySet[Dataset]) -> HttpResponse | None:
        form = RunOptionsForm(request.POST if "start" in request.POST else None)
        if "start" in request.POST and form.is_valid():
            for dataset in datasets:
                self._start(request, dataset, form.options())
            return None
        context = {
            "title": "Auto-tag data sets",
            "form": form,
            "datasets": datasets,
            "submit": "Start",
            "opts": self.opts,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/vlm/form.html", {**self.admin_site.each_context(request), **context})

    def _start(self, request: HttpRequest, dataset: Dataset, options: RunOptions) -> None:
        with self.telling(request, f"“{dataset.name}”"):
            run = services.runs.start(
                dataset=dataset, options=options, user=user_of(request), origin=TaggingRun.Origin.ADMIN
            )
            text = format_html(
                '“{}”: <a href="{}">run {}</a> started, {} images.',
                dataset.name,
                reverse("admin:vlm_taggingrun_change", args=[run.pk]),
                run.pk,
                run.total,
            )
            self.message_user(request, text, messages.SUCCESS)


class ReadOnlyAdmin(TellsRefusals):
    """Rows that only the program itself writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(TaggingRun)
class TaggingRunAdmin(ReadOnlyAdmin):
    list_display = [
        "id",
        "dataset",
        "status",
        "created",
        "processed",
        "total",
        "tagged",
        "discarded",
        "failed",
        "shared",
        "rate_shown",
    ]
    list_filter = ["status", "dataset", "origin"]
    list_select_related = ["dataset"]
    actions = ["cancel", "resume", "revert"]
    change_form_template = "admin/vlm/run.html"
    fieldsets = [
        (
            None,
            {"fields": ["dataset", "status", "error", "total", "processed", "tagged", "discarded", "failed", "shared"]},
        ),
        (
            "Time",
            {"fields": ["created", "started", "finished", "reverted", "heartbeat", "seconds_shown", "rate_shown"]},
        ),
        (
            "What was asked",
            {"fields": ["scope", "filter_query", "sample_limit", "one_per_group", "failed_of", "asked"]},
        ),
        (
            "How",
            {
                "fields": [
                    "model",
                    "revision",
                    "device",
                    "dtype",
                    "detail",
                    "full_share",
                    "mode",
                    "batch_size",
                    "workers",
                ]
            },
        ),
        ("Thresholds", {"fields": ["min_probability", "min_mass"]}),
        ("Who", {"fields": ["started_by", "origin", "worker"]}),
    ]
    readonly_fields = ["created", "worker", "seconds_shown", "rate_shown", "asked"]

    def has_delete_permission(self, request: HttpRequest, obj: TaggingRun | None = None) -> bool:
        return False  # its answers would be left without their run: reverting takes both back

    def has_autotag_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("vlm.autotag_dataset")

    def view_on_site(self, run: TaggingRun) -> str:
        return reverse("run", args=[run.pk])

    @admin.display(description="vocabulary")
    def asked(self, run: TaggingRun) -> SafeString:
        rows = ((d["name"], d["question"], ", ".join(d["words"])) for d in run.vocabulary_json)
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}: {} <em>{}</em></li>", rows))

    @admin.display(description="seconds")
    def seconds_shown(self, run: TaggingRun) -> str:
        return f"{run.seconds:,.1f}"

    @admin.display(description="pace")
    def rate_shown(self, run: TaggingRun) -> str:
        return pace(run.rate)

    def before_looking(self) -> None:
        services.runs.fail_stale()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        extra: dict[str, Any] = {"may_steer": self.has_autotag_permission(request)}
        with self.telling(request, level=messages.ERROR):
            self.before_looking()
            run = services.runs.get(run_id=int(object_id)) if object_id.isdecimal() and len(object_id) < 19 else None
            if run is not None:
                extra |= {"state": services.runs.state(run=run), "failures": services.runs.failures(run=run)}
                extra["words"] = services.runs.words(run=run)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def get_urls(self) -> list[Any]:
        own = [
            path(
                f"<id:run_id>/{name}/",
                self.admin_site.admin_view(self.steer),
                {"action": name},
                f"vlm_taggingrun_{name}",
            )
            for name in ("cancel", "resume", "revert")
        ]
        return [*own, *super().get_urls()]

    def steer(self, request: HttpRequest, run_id: int, action: str) -> HttpResponse:
        """Do to one run what the list's action of that name does to many."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_autotag_permission(request):
            raise PermissionDenied
        runs = self.get_queryset(request).filter(pk=run_id)
        if not runs:
            raise Http404("There is no such run.")
        getattr(self, action)(request, runs)
        return HttpResponseRedirect(reverse("admin:vlm_taggingrun_change", args=[run_id]))

    @admin.action(description="Cancel selected runs", permissions=["autotag"])
    def cancel(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            with self.telling(request):
                if services.runs.cancel(run=run):
                    self.message_user(request, f"Run {run.pk} stops after the batch at hand.", messages.SUCCESS)
                else:
                    self.message_user(request, f"Run {run.pk} is not active.", messages.WARNING)

    @admin.action(description="Resume selected runs", permissions=["autotag"])
    def resume(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            with self.telling(request):
                services.runs.resume(run=run, user=user_of(request), origin=TaggingRun.Origin.ADMIN)
                self.message_user(request, f"Run {run.pk} goes on.", messages.SUCCESS)

    @admin.action(description="Revert selected runs", permissions=["autotag"])
    def revert(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            with self.telling(request):
                count = services.runs.revert(run=run)
                text = f"Run {run.pk} is taken back: its answers about {count:,} images are gone."
                self.message_user(request, text, messages.SUCCESS)


@admin.register(ImportJob)
class ImportJobAdmin(ReadOnlyAdmin):
    list_display = ["path", "name", "status", "done", "total", "created", "started_by"]
    list_filter = ["status"]
    list_select_related = ["started_by"]
    fields = [
        *("path", "name", "format", "status", "error", "dataset", "done", "total"),
        *("skipped_shown", "created", "finished", "started_by"),
    ]
    readonly_fields = ["created", "skipped_shown"]

    def has_delete_permission(self, request: HttpRequest, obj: ImportJob | None = None) -> bool:
        running = obj is not None and obj.status == ImportJob.Status.RUNNING
        return not running and super().has_delete_permission(request, obj)

    def before_looking(self) -> None:
        services.datasets.fail_stale_imports()

    @admin.display(description="skipped")
    def skipped_shown(self, job: ImportJob) -> str | SafeString:
        if not job.skipped:
            return "–"
        rows = ((skip["path"], skip["reason"]) for skip in job.skipped)
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}: {}</li>", rows))


class SavedViewForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_query(self) -> str:
        query: str = self.cleaned_data["query"]
        if len(query) > MOST_QUERY:
            raise forms.ValidationError("This filter is too long to be saved.")
        read_filter(query)
        return query


@admin.register(SavedView)
class SavedViewAdmin(TellsRefusals):
    form = SavedViewForm
    list_select_related = ["dataset", "user"]
    list_display = ["name", "dataset", "user", "query"]
    list_filter = ["dataset"]


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """Who has which tokens; to delete one is to revoke it."""

    list_display = fields = ["token_key", "user", "name", "scopes", "created", "expiry", "last_used"]  # type: ignore[assignment]
    list_select_related = ["user"]


@admin.register(Watch)
class WatchAdmin(TellsRefusals):
    list_display = ["dataset", "seconds", "tag", "looked", "due", "error"]
    fields = ["dataset", "seconds", "tag"]

    def save_model(self, request: HttpRequest, obj: Watch, form: object, change: bool) -> None:
        obj.pk = services.watches.watch(dataset=obj.dataset, seconds=obj.seconds, tag=obj.tag, user=user_of(request)).pk
