"""The fields in which a dimension is written, on the page and in the admin: a line for each word."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from vlm.vocabulary import KINDS, Dimension, Only, VocabularyError, normalise
from vlm.vocabulary_file import Entry

SMALL = {"rows": 4}


class LinesField(forms.CharField):
    """Texts, one per line."""

    widget = forms.Textarea

    def __init__(self, *, tidy: bool = True, **kwargs: Any) -> None:
        super().__init__(required=kwargs.pop("required", False), **kwargs)
        self.tidy = tidy

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        lines = value if isinstance(value, list | tuple) else (super().to_python(value) or "").splitlines()
        tidied = [normalise(line) if self.tidy else line.strip() for line in lines]
        return [line for line in tidied if line]


class PairsField(forms.CharField):
    """A line per word, such as “rainy = rain, wet”; several values where ``many``, else one."""

    widget = forms.Textarea

    def __init__(self, *, many: bool, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self.many = many

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return "\n".join(
            f"{word} = {', '.join(given) if self.many else given}" for word, given in value.items() if given
        )

    def to_python(self, value: Any) -> dict[str, Any]:  # type: ignore[override]
        if isinstance(value, Mapping):
            return dict(value)
        found: dict[str, Any] = {}
        for line in (super().to_python(value) or "").splitlines():
            if not line.strip():
                continue
            word, equals, given = line.partition("=")
            if not equals:
                raise forms.ValidationError(f"“{line.strip()}” has no “=”: write a word, “=”, and what belongs to it.")
            parts = [part for part in map(normalise, given.split(",") if self.many else [given]) if part]
            if normalise(word) in found:
                raise forms.ValidationError(f"“{normalise(word)}” stands twice.")
            if parts:
                found[normalise(word)] = parts if self.many else parts[0]
        return found


class DimensionForm(forms.Form):
    """One dimension as the page edits it."""

    name = forms.CharField(max_length=60, help_text="Letters, digits, “-” and “_”; filters and exports call it so.")
    label = forms.CharField(
        max_length=60, required=False, label="Name on the page", help_text="In your language, if you like."
    )
    question = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 3}), help_text="What the model is asked. Name the words in it."
    )
    kind = forms.ChoiceField(choices=list(KINDS.items()), label="The answer is", initial="one-of")
    words = LinesField(
        widget=forms.Textarea(attrs={"rows": 7}),
        required=True,
        help_text="One per line. For yes or no: the one tag that a yes gives.",
    )
    levels = LinesField(
        widget=forms.Textarea(attrs=SMALL),
        label="Levels, lowest first",
        help_text="Of words in an order, if they stand otherwise above.",
    )
    spellings = PairsField(
        widget=forms.Textarea(attrs=SMALL),
        many=True,
        label="Further spellings",
        help_text="A line for each word: rainy = rain, wet",
    )
    labels = PairsField(
        widget=forms.Textarea(attrs=SMALL),
        many=False,
        label="Words on the page",
        help_text="A line for each word: sunny = sonnig. Tags stay as they are.",
    )
    wordings = LinesField(
        widget=forms.Textarea(attrs=SMALL),
        tidy=False,
        label="Further wordings",
        help_text="One per line, at most seven. The answer is then the mean of all.",
    )
    only_dimension = forms.CharField(max_length=60, required=False, label="Tags only where")
    only_words = LinesField(widget=forms.Textarea(attrs=SMALL), label="is", help_text="One word per line.")
    enabled = forms.BooleanField(required=False, initial=True, label="Ask it in new runs")

    @classmethod
    def initial_of(cls, entry: Entry) -> dict[str, Any]:
        """Return the form's initial values for a dimension that there is."""
        dimension, only = entry.dimension, entry.dimension.only
        return {
            "name": dimension.name,
            "label": dimension.label,
            "question": dimension.question,
            "kind": dimension.kind,
            "words": dimension.words,
            "levels": dimension.levels,
            "spellings": dimension.spellings,
            "labels": dimension.labels,
            "wordings": dimension.wordings,
            "only_dimension": only.dimension if only else "",
            "only_words": only.words if only else (),
            "enabled": entry.enabled,
        }

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if self.errors:
            return values
        try:
            values["entry"] = Entry(dimension_of(values), values["enabled"])
        except VocabularyError as error:
            raise forms.ValidationError(str(error)) from error
        return values

    @property
    def entry(self) -> Entry:
        """The dimension of a valid form."""
        entry: Entry = self.cleaned_data["entry"]
        return entry


def dimension_of(values: Mapping[str, Any], words: Sequence[str] | None = None) -> Dimension:
    """Return the dimension that a form's values spell. Raises ``VocabularyError``."""
    only_words = tuple(values["only_words"])
    if bool(values["only_dimension"]) != bool(only_words):
        raise VocabularyError("A condition needs a dimension and at least one of its words; leave both empty for none.")
    return Dimension(
        name=values["name"].strip(),
        question=" ".join(values["question"].split()),
        words=tuple(values["words"] if words is None else words),
        kind=values["kind"],
        spellings={word: tuple(others) for word, others in values["spellings"].items()},
        wordings=tuple(values["wordings"]),
        only=Only(values["only_dimension"], only_words) if only_words else None,
        label=normalise(values["label"]),
        labels=dict(values["labels"]),
        levels=tuple(values["levels"]) if values["kind"] == "ordered" else (),
    )
