"""What the templates need beside Django's own tags."""

from urllib.parse import urlencode

from django import template
from django.conf import settings
from django.urls import reverse

from vlm import figures, services
from vlm.samples import SampleRow, Tag

register = template.Library()

register.filter("number", figures.number)
register.filter("duration", figures.duration)
register.filter("roughly", figures.roughly)
register.filter("pace", figures.pace)
register.filter("figure", figures.figure)
register.filter("tenths", figures.tenths)
register.filter("percent_1", figures.percent_1)
register.filter("points", figures.points)
register.filter("rate", figures.rate)
register.filter("size", figures.size)


@register.filter
def share(part: int, whole: int) -> str:
    return figures.share(part, whole)


@register.filter
def percent(probability: float | None) -> str:
    return figures.percent(probability)


@register.filter
def beyond(share: float) -> str:
    """Return 0.9912 as “99.1 %”."""
    return f"{100 * share:.1f} %"


@register.filter
def measure(value: float) -> str:
    """Return a measure with three digits that count: 1,234, 87.3, 0.52."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@register.filter
def probability(value: float) -> str:
    """Return a threshold so that those near one are told apart: 0.873, 0.9996; “never” for one that no probability reaches."""
    if value > 1:
        return "never"
    return f"{value:.3f}" if value < 0.995 else f"{value:.6f}".rstrip("0").rstrip(".")


@register.filter
def length_of_bar(probability: float) -> str:
    """Return 0.873 as “87.3%”, a length for SVG."""
    return f"{100 * probability:.1f}%"


@register.filter
def says(tag: Tag) -> str:
    """Return who gave the tag, and how sure the model was."""
    if tag.source == "user":
        said = "by a user"
    else:
        said = f"by the model, {percent(tag.probability)}" if tag.probability is not None else "by the model"
    origin = f"{tag.dimension}: {tag.tag}" if tag.dimension else tag.tag
    run = f", run {tag.run}" if tag.run is not None else ""
    return f"{origin} – {said}{run}" + (
        f", shared from number {tag.shared_from}" if tag.shared_from is not None else ""
    )


EDIT_VERBS = {
    "add": "added",
    "remove": "took away",
    "confirm": "confirmed",
    "label": "labelled",
    "rename": "renamed",
    "rename tag": "renamed",
    "delete tag": "deleted",
    "undo": "undid an edit of",
    "content": "set aside: the file has another content",
}


@register.filter
def edit_verb(action: str) -> str:
    """Return what an edit did, as a verb before its tag."""
    return EDIT_VERBS.get(action, action)


@register.simple_tag
def thumbnail(dataset_id: int, sample: SampleRow, size: int) -> str:
    """Return the address of a thumbnail; it changes with the file, so that the browser may keep it for good."""
    address = reverse("thumbnail", args=[dataset_id, sample.id, size])
    return f"{address}?{urlencode({'v': sample.content_key})}"


@register.simple_tag
def demonstration() -> bool:
    """Return whether the model in use is the one for demonstration only."""
    return services.runs.is_demonstration(settings.VLM_MODEL)
