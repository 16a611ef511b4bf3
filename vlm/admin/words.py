"""The vocabulary in the admin: what becomes of tags is asked here, too, and they follow once the rows are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from vlm import services
from vlm.admin.base import TellsRefusals, user_of
from vlm.models import Dimension, Word
from vlm.services.vocabulary import TagsAtStake
from vlm.vocabulary import KINDS, VocabularyError, normalise
from vlm.vocabulary_forms import LinesField, PairsField


class WordForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_text(self) -> str:
        return normalise(self.cleaned_data["text"])


class WordFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """Checks the words of a dimension as the vocabulary will."""

    def clean(self) -> None:
        if any(self.errors):
            return
        kept = [form.cleaned_data for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        words = [data["text"] for data in kept]
        dimension = self.instance
        dimension.forget_words_but(words)
        try:
            Dimension(
                name=dimension.name or "new",
                question="Any?",
                kind=dimension.kind,
                levels=dimension.levels,
                spellings=dimension.spellings,
                wordings=dimension.wordings,
            ).asked(words)
            services.vocabulary.check_words(words=words, but=dimension.pk)
        except VocabularyError as error:
            raise forms.ValidationError(str(error)) from error
        super().clean()

    def save(self, commit: bool = True) -> Any:
        if commit:
            # Words may swap, or take the text of one that goes: no two may ever be the same in between.
            for form in self.initial_forms:
                if form.has_changed():
                    Word.objects.filter(pk=form.instance.pk).update(text=f"\N{SYMBOL FOR NULL}{form.instance.pk}")
        return super().save(commit)


class DimensionAdminForm(forms.ModelForm):  # type: ignore[type-arg]
    """Writes in lines what the database keeps as JSON."""

    kind = forms.ChoiceField(choices=list(KINDS.items()), required=False, initial="one-of")
    levels = LinesField(help_text="Words of an ordered dimension, lowest first, if they stand otherwise.")
    wordings = LinesField(tidy=False, help_text="Further wordings of the question, one per line.")
    spellings = PairsField(many=True, help_text="A line for each word: rainy = rain, wet")
    labels = PairsField(many=False, help_text="A line for each word, as the page calls it: sunny = sonnig")
    only_words = LinesField(help_text="One per line; tags are made only where that dimension has one of them.")

    def clean_kind(self) -> str:
        kind: str = self.cleaned_data["kind"] or self.instance.kind
        return kind


class WordInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Word
    form = WordForm
    formset = WordFormSet
    extra = 1


@admin.register(Dimension)
class DimensionAdmin(TellsRefusals):
    list_display = ["name", "question", "words_shown", "enabled", "position"]
    list_editable = ["enabled", "position"]
    form = DimensionAdminForm
    inlines = [WordInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dimension]:
        return super().get_queryset(request).prefetch_related("words")

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Leave out deleting many at once: for each it is asked what becomes of the tags."""
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        with self.asking(request) as answer:
            answer.append(super().changeform_view(request, object_id, form_url, extra_context))
        return answer[0]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with self.asking(request) as answer:
            answer.append(super().delete_view(request, object_id, extra_context))
        return answer[0]

    @contextmanager
    def telling(self, request: HttpRequest, about: object = "", level: int = messages.WARNING) -> Iterator[None]:
        """Tell refusals, but for the question what becomes of tags."""
        asked: TagsAtStake | None = None
        with super().telling(request, about, level):
            try:
                yield
            except TagsAtStake as error:
                asked = error
        if asked is not None:
            raise asked

    @contextmanager
    def asking(self, request: HttpRequest) -> Iterator[list[HttpResponse]]:
        """Yield a list for the answer; where tags are at stake, it becomes the question what is to become of them."""
        answer: list[HttpResponse] = []
        try:
            yield answer
        except TagsAtStake as error:
            left_out = {"csrfmiddlewaretoken", "removed"}
            values = {
                "title": error.title,
                "counts": error.counts,
                "again": [(key, each) for key, sent in request.POST.lists() if key not in left_out for each in sent],
                "opts": self.opts,
            }
            context = {**self.admin_site.each_context(request), **values}
            answer.append(TemplateResponse(request, "admin/vlm/tags_at_stake.html", context, status=error.status))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        new = form.instance.name
        old = form.initial.get("name") or new
        self._follow(
            request, f"Changed {old}" if change else f"Added {new}", {old: new} if change and old != new else {}
        )

    def save_model(self, request: HttpRequest, obj: Dimension, form: Any, change: bool) -> None:
        self._remember(request)
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Dimension) -> None:
        self._remember(request)
        super().delete_model(request, obj)
        self._follow(request, f"Removed {obj.name}", {})

    def _remember(self, request: HttpRequest) -> None:
        request.vocabulary_before = services.vocabulary.entries()  # type: ignore[attr-defined]

    def _follow(self, request: HttpRequest, text: str, renamed: dict[str, str]) -> None:
        removed = request.POST.get("removed", "")
        services.vocabulary.follow(
            before=request.vocabulary_before,  # type: ignore[attr-defined]
            renamed=renamed,
            removed=removed if removed in ("keep", "take") else "",  # type: ignore[arg-type]
            text=text,
            user=user_of(request),
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        with self.telling(request, "Nothing can be asked like this"):
            services.vocabulary.current()
        return super().changelist_view(request, extra_context)

    @admin.display(description="allowed words")
    def words_shown(self, dimension: Dimension) -> str:
        return ", ".join(word.text for word in dimension.words.all())
