"""Django's admin: data sets with the auto-tag action, runs to read and steer, and the vocabulary to edit."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from vlm import services
from vlm.models import Dataset, Dimension, ImportJob, SavedView, TaggingRun, Word, current_vocabulary
from vlm.samples import StoreError
from vlm.vocabulary import Dimension as AskedDimension
from vlm.vocabulary import VocabularyError

admin.site.site_header = admin.site.site_title = "DataVisor"


class AutotagForm(forms.Form):
    """What the intermediate page of the auto-tag action asks."""

    scope = forms.ChoiceField(choices=TaggingRun.Scope, initial=TaggingRun.Scope.MISSING)
    limit = forms.IntegerField(min_value=1, required=False, help_text="The first so many samples of each data set.")
    dimensions = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    detail = forms.ChoiceField(choices=[("full", "full: all crops"), ("low", "low: one crop per image")])
    mode = forms.ChoiceField(choices=TaggingRun.Mode, initial=TaggingRun.Mode.SCORE)
    min_probability = forms.FloatField(min_value=0, max_value=1, label="Least probability of a word")
    min_mass = forms.FloatField(min_value=0, max_value=1, label="Least probability on the list")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = Dimension.objects.filter(enabled=True).values_list("name", flat=True)
        self.fields["dimensions"] = forms.MultipleChoiceField(
            choices=[(name, name) for name in names],
            initial=list(names),
            widget=forms.CheckboxSelectMultiple,
        )
        own = services.RunOptions.defaults()
        for name in ("detail", "min_probability", "min_mass"):
            self.fields[name].initial = getattr(own, name)

    def options(self) -> services.RunOptions:
        data = self.cleaned_data
        return services.RunOptions(
            scope=data["scope"],
            limit=data["limit"],
            dimensions=tuple(data["dimensions"]),
            detail=data["detail"],
            mode=data["mode"],
            min_probability=data["min_probability"],
            min_mass=data["min_mass"],
        )


class ImportForm(forms.Form):
    """An import below the import roots."""

    path = forms.CharField(max_length=4096, help_text="A folder below the import roots.")
    name = forms.CharField(max_length=200, required=False, help_text="The folder's name if empty.")
    format = forms.ChoiceField(choices=[("auto", "find out"), *Dataset.Format.choices])


@admin.register(Dataset)
class DatasetAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "format", "sample_count", "missing_count", "imported", "last_run"]
    list_filter = ["format"]
    search_fields = ["name", "root"]
    readonly_fields = ["root", "format", "sample_count", "missing_count", "created", "imported"]
    actions = ["autotag"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        return super().get_queryset(request).prefetch_related("runs")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("vlm.import_dataset")

    def has_delete_permission(self, request: HttpRequest, obj: Dataset | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        # Its samples would vanish under the feet of the run.
        return allowed and not (obj is not None and any(run.is_active for run in obj.runs.all()))

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
                job = services.import_start(user=_user(request), **form.cleaned_data)
            except services.ImportFailed as error:
                form.add_error("path", str(error))
            else:
                self.message_user(request, f"{job.path} is being imported.", messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:vlm_importjob_change", args=[job.pk]))
        context = {"title": "Import a data set", "form": form, "submit": "Import", "opts": self.opts}
        return TemplateResponse(request, "admin/vlm/form.html", {**self.admin_site.each_context(request), **context})

    @admin.display(description="last run")
    def last_run(self, dataset: Dataset) -> str | SafeString:
        run = next(iter(dataset.runs.all()), None)
        if run is None:
            return "–"
        address = reverse("admin:vlm_taggingrun_change", args=[run.pk])
        return format_html(
            '<a href="{}">{}: {}, {} of {}</a>', address, run.pk, run.get_status_display(), run.processed, run.total
        )

    @admin.action(description="Auto-tag selected data sets", permissions=["autotag"])
    def autotag(self, request: HttpRequest, datasets: QuerySet[Dataset]) -> HttpResponse | None:
        form = AutotagForm(request.POST if "start" in request.POST else None)
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

    def _start(self, request: HttpRequest, dataset: Dataset, options: services.RunOptions) -> None:
        try:
            run = services.run_start(
                dataset=dataset, options=options, user=_user(request), origin=TaggingRun.Origin.ADMIN
            )
        except (services.RunError, VocabularyError, StoreError) as error:
            self.message_user(request, f"{dataset.name}: {error}", messages.WARNING)
        else:
            text = format_html(
                '{}: <a href="{}">run {}</a> started, {} samples.',
                dataset.name,
                reverse("admin:vlm_taggingrun_change", args=[run.pk]),
                run.pk,
                run.total,
            )
            self.message_user(request, text, messages.SUCCESS)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that only the program itself writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
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
        "rate_shown",
    ]
    list_filter = ["status", "dataset", "origin"]
    list_select_related = ["dataset"]
    actions = ["cancel", "resume", "revert"]
    change_form_template = "admin/vlm/run.html"

    def has_delete_permission(self, request: HttpRequest, obj: TaggingRun | None = None) -> bool:
        return False  # its answers would be left without their run: reverting takes both back

    def has_autotag_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("vlm.autotag_dataset")

    @admin.display(description="images/s")
    def rate_shown(self, run: TaggingRun) -> str:
        return f"{run.rate:.2f}" if run.rate else "–"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        services.fail_stale_runs()
        run = TaggingRun.objects.filter(pk=object_id).first() if object_id.isdecimal() else None
        extra: dict[str, Any] = {"may_steer": self.has_autotag_permission(request)}
        if run is not None:
            try:
                extra |= {"state": services.run_state(run=run), "failures": services.run_failures(run=run)}
                extra["words"] = services.run_words(run=run)
            except StoreError as error:
                self.message_user(request, str(error), messages.ERROR)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def get_urls(self) -> list[Any]:
        own = [
            path(
                f"<int:run_id>/{name}/",
                self.admin_site.admin_view(self.steer),
                {"action": name},
                f"vlm_taggingrun_{name}",
            )
            for name in ("cancel", "resume", "revert")
        ]
        return [*own, *super().get_urls()]

    def steer(self, request: HttpRequest, run_id: int, action: str) -> HttpResponse:
        if request.method != "POST" or not self.has_autotag_permission(request):
            raise PermissionDenied
        getattr(self, action)(request, TaggingRun.objects.filter(pk=run_id))
        return HttpResponseRedirect(reverse("admin:vlm_taggingrun_change", args=[run_id]))

    @admin.action(description="Cancel selected runs", permissions=["autotag"])
    def cancel(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            if services.run_cancel(run=run):
                self.message_user(request, f"Run {run.pk} stops after the batch at hand.", messages.SUCCESS)
            else:
                self.message_user(request, f"Run {run.pk} is not active.", messages.WARNING)

    @admin.action(description="Resume selected runs", permissions=["autotag"])
    def resume(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            try:
                services.run_resume(run=run, user=_user(request), origin=TaggingRun.Origin.ADMIN)
            except (services.RunError, StoreError) as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                self.message_user(request, f"Run {run.pk} goes on.", messages.SUCCESS)

    @admin.action(description="Revert selected runs", permissions=["autotag"])
    def revert(self, request: HttpRequest, runs: QuerySet[TaggingRun]) -> None:
        for run in runs:
            try:
                count = services.run_revert(run=run)
            except (services.RunError, StoreError) as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                text = f"Run {run.pk} is reverted: its answers about {count:,} samples are gone."
                self.message_user(request, text, messages.SUCCESS)


@admin.register(ImportJob)
class ImportJobAdmin(ReadOnlyAdmin):
    list_display = ["path", "name", "status", "done", "total", "created", "started_by"]
    list_filter = ["status"]


class WordFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """Checks the words of a dimension as the vocabulary will."""

    def clean(self) -> None:
        super().clean()
        kept = [form.cleaned_data for form in self.forms if getattr(form, "cleaned_data", None)]
        words = tuple(data["text"] for data in kept if not data.get("DELETE"))
        try:
            AskedDimension("name", "question", words)
        except VocabularyError as error:
            raise forms.ValidationError(str(error).replace("“name”", "").replace("  ", " ")) from error


class WordInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Word
    formset = WordFormSet
    extra = 1


@admin.register(Dimension)
class DimensionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "question", "words_shown", "enabled", "position"]
    list_editable = ["enabled", "position"]
    inlines = [WordInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dimension]:
        return super().get_queryset(request).prefetch_related("words")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            current_vocabulary()
        except VocabularyError as error:
            self.message_user(request, f"Nothing can be asked like this: {error}", messages.WARNING)
        return super().changelist_view(request, extra_context)

    @admin.display(description="allowed words")
    def words_shown(self, dimension: Dimension) -> str:
        return ", ".join(word.text for word in dimension.words.all())


@admin.register(SavedView)
class SavedViewAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "dataset", "user", "query"]
    list_filter = ["dataset"]


def _user(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
