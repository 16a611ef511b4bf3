"""What people write into the page, checked; the templates draw the fields themselves."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.http import QueryDict

from vlm import services
from vlm.formats import AUTO, asked_choices
from vlm.models import TaggingRun
from vlm.runs.options import RunOptions
from vlm.samples import FilterError, SampleFilter
from vlm.samples.filters import MAX_IDS

BIGGEST_ID = 2**63 - 1
BIGGEST_COUNT = 2**31 - 1
INTERVALS = (
    (60, "minute"),
    (600, "10 minutes"),
    (3600, "hour"),
    (6 * 3600, "6 hours"),
    (24 * 3600, "day"),
)  # seconds between two looks into a watched folder
MOST_TAGS = 20  # that are given at once
LONGEST_TAGS = 1200  # characters of a field that takes them
MOST_QUERY = 8000  # characters of a saved filter; more would not fit into an address


def first_error(form: forms.Form) -> str:
    """Return the form’s first complaint as one sentence."""
    for name, errors in form.errors.items():
        label = form.fields[name].label if name in form.fields else ""
        return f"{label}: {errors[0]}" if label else str(errors[0])
    return ""


def selected_ids(values: Iterable[str]) -> tuple[int, ...]:
    """Return the sample ids in ``values``, each of which is an id or several with commas between.

    Raises:
        ValidationError: one is not a number, or there are too many.
    """
    parts = [part for value in values for part in value.split(",") if part.strip()]
    if len(parts) > MAX_IDS:
        raise forms.ValidationError(f"At most {MAX_IDS:,} images can be selected one by one; use a filter.")
    try:
        ids = tuple(dict.fromkeys(int(part) for part in parts))
    except ValueError:
        ids = (-1,)
    if any(not 0 <= sample_id <= BIGGEST_ID for sample_id in ids):
        raise forms.ValidationError("The selection cannot be read. Reload the page and select again.")
    return ids


def read_filter(query: str) -> SampleFilter:
    """Return the filter that ``query`` spells.

    Raises:
        ValidationError: it cannot be read.
    """
    try:
        return SampleFilter.from_text(query)
    except FilterError as error:
        raise forms.ValidationError(str(error)) from error


class TagsForm(forms.Form):
    """Add, remove or confirm tags: on the selected images, on all that a filter shows, or on a whole group.

    ``tag`` is one tag, whatever it holds; ``tags`` is what somebody typed, with commas between several.
    """

    ACTIONS = (("add", "Add"), ("remove", "Remove"), ("confirm", "Confirm"))

    action = forms.ChoiceField(choices=ACTIONS, required=False)
    tag = forms.CharField(label="Tag", required=False)
    tags = forms.CharField(label="Tag", required=False)
    all = forms.BooleanField(required=False)
    filter = forms.CharField(required=False)
    group = forms.IntegerField(min_value=1, max_value=BIGGEST_ID, required=False, label="Group")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        data = self.data
        values["action"] = values.get("action") or "add"
        given = [values.get("tag", "")] if values.get("tag") else values.get("tags", "").split(",")
        values["tags"] = [tag for tag in given if tag.strip()]
        if not values["tags"]:
            raise forms.ValidationError("Write the tag first.")
        if len(values["tags"]) > MOST_TAGS:
            raise forms.ValidationError(f"At most {MOST_TAGS} tags at once.")
        ids = selected_ids(data.getlist("ids") if isinstance(data, QueryDict) else [])
        if group := values.get("group"):
            values["samples"] = SampleFilter(group=group)
        elif values.get("all"):
            values["samples"] = read_filter(values.get("filter", ""))
        elif ids:
            values["samples"] = SampleFilter(ids=ids)
        else:
            raise forms.ValidationError("Select at least one image first.")
        return values


class AutoTagForm(forms.Form):
    """The options of a run; whatever is left out has the settings' value."""

    WITHIN = (("dataset", "the whole data set"), ("filter", "this filter"), ("selection", "the selected images"))
    DETAILS = (("full", "full"), ("low", "low"), ("auto", "as needed"))

    scope = forms.ChoiceField(choices=TaggingRun.Scope, required=False, label="Which images")
    within = forms.ChoiceField(choices=WITHIN, required=False, label="Within")
    filter = forms.CharField(required=False)
    dimensions = forms.MultipleChoiceField(required=False, label="Questions")
    detail = forms.ChoiceField(choices=DETAILS, required=False, label="Detail")
    full_share = forms.FloatField(min_value=0.01, max_value=0.99, required=False, label="Share at full detail")
    mode = forms.ChoiceField(choices=TaggingRun.Mode, required=False, label="Answers")
    min_probability = forms.FloatField(min_value=0, max_value=1, required=False, label="Least probability")
    min_mass = forms.FloatField(min_value=0, max_value=1, required=False, label="Least mass")
    limit = forms.IntegerField(min_value=1, max_value=BIGGEST_COUNT, required=False, label="At most")
    one_per_group = forms.BooleanField(required=False, label="One image per group")
    failed_of = forms.IntegerField(min_value=1, max_value=BIGGEST_ID, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dimension_list = services.vocabulary.enabled()
        names = [(dimension.name, dimension.name) for dimension in self.dimension_list]
        self.fields["dimensions"].choices = names  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        within = values.get("within") or "dataset"
        data = self.data
        ids = selected_ids(data.getlist("ids") if isinstance(data, QueryDict) else [])
        if within == "selection" and not ids:
            raise forms.ValidationError("Select at least one image first, or choose the whole data set.")
        narrow = {"dataset": "", "filter": values.get("filter", ""), "selection": ""}[within]
        values["samples"] = SampleFilter(ids=ids) if within == "selection" else read_filter(narrow)
        return values

    def options(self) -> RunOptions:
        """Return the options of a valid form."""
        values = self.cleaned_data
        plain = RunOptions()
        asked = values["dimensions"]
        chosen = {
            key: values[key] or getattr(plain, key)
            for key in ("scope", "detail", "full_share", "mode", "limit", "failed_of", "one_per_group")
        } | {
            key: getattr(plain, key) if values[key] is None else values[key] for key in ("min_probability", "min_mass")
        }
        everything = len(asked) in (0, len(self.dimension_list))
        return RunOptions(**chosen, filter=values["samples"], dimensions=() if everything else tuple(asked))


class ThresholdsForm(forms.Form):
    min_probability = forms.FloatField(min_value=0, max_value=1, label="Least probability")
    min_mass = forms.FloatField(min_value=0, max_value=1, label="Least mass", required=False)
    dimension = forms.CharField(max_length=60, required=False, label="Dimension")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if values.get("min_mass") is None and "min_mass" not in self.errors:
            if not values.get("dimension"):
                self.add_error("min_mass", "This field is required.")
            values["min_mass"] = 0.0  # of one dimension: the run's own stays
        return values


class ImportForm(forms.Form):
    path = forms.CharField(max_length=4096, label="Folder", error_messages={"required": "Write the folder’s path."})
    name = forms.CharField(max_length=200, required=False, label="Name")
    format = forms.ChoiceField(choices=asked_choices, required=False, label="Format")

    def clean_format(self) -> str:
        return self.cleaned_data["format"] or AUTO


class WatchForm(forms.Form):
    """How often a data set's folder is looked into."""

    every = forms.IntegerField(min_value=1, max_value=BIGGEST_COUNT, label="Every")
    tag = forms.BooleanField(required=False)


class SavedViewForm(forms.Form):
    name = forms.CharField(max_length=100, label="Name", error_messages={"required": "Give the view a name."})
    query = forms.CharField(
        required=False, max_length=MOST_QUERY, error_messages={"max_length": "This filter is too long to be saved."}
    )
