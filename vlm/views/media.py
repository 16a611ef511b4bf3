"""Pictures, by id only: no path ever comes from a request."""

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.views.decorators.http import require_safe

from vlm import services
from vlm.errors import RootAway
from vlm.imaging import ImageUnreadable
from vlm.views.access import Request, get_dataset
from vlm.views.operations import File, operation
from vlm.views.problems import Problem

PICTURE = File(("image/webp", "image/svg+xml"))
YEAR = 60 * 60 * 24 * 365
PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 120" width="{size}">'
    '<rect width="160" height="120" fill="#808a93" fill-opacity=".18"/>'
    '<path d="M62 42h36v28H62zM66 66l10-12 8 8 5-5 7 9M60 40l40 34" fill="none" stroke="#808a93" stroke-width="2.5"/>'
    '<text x="80" y="96" text-anchor="middle" font-family="sans-serif" font-size="10" fill="#808a93">cannot be read</text>'
    "</svg>"
)


@operation("GET", PICTURE)
@require_safe
def thumbnail(request: Request, dataset_id: int, sample_id: int, size: int) -> HttpResponseBase:
    """Serve a thumbnail, or a drawing in its place when the file is gone or cannot be read."""
    dataset = get_dataset(request, dataset_id)
    if size not in services.samples.THUMBNAIL_SIZES:
        raise Problem(f"Thumbnails are {', '.join(map(str, services.samples.THUMBNAIL_SIZES))} pixels long.", 404)
    try:
        found = services.samples.thumbnail(dataset=dataset, sample_id=sample_id, size=size)
    except (ImageUnreadable, RootAway):
        return _placeholder(size)
    return _picture(request, found)


@operation("GET", PICTURE)
@require_safe
def image(request: Request, dataset_id: int, sample_id: int) -> HttpResponseBase:
    """Serve the upright picture in a form that browsers read."""
    dataset = get_dataset(request, dataset_id)
    try:
        found = services.samples.image(dataset=dataset, sample_id=sample_id)
    except (ImageUnreadable, RootAway):
        return _placeholder(640)
    return _picture(request, found)


def _picture(request: Request, found: services.samples.Thumbnail | None) -> HttpResponseBase:
    """Serve a picture, whose name changes with the file it was made from."""
    if found is None:
        raise Http404("There is no such sample in this data set.")
    etag = f'"{found.name}"'
    response = get_conditional_response(request, etag)
    if response is None:
        response = HttpResponse(found.content, content_type="image/webp")
    response.headers["ETag"] = etag
    # With the content's key in the address the answer never changes; without it, ask again each hour.
    response.headers["Cache-Control"] = (
        f"private, max-age={YEAR}, immutable" if "v" in request.GET else "private, max-age=3600"
    )
    return response


def _placeholder(size: int) -> HttpResponse:
    response = HttpResponse(PLACEHOLDER.format(size=size), content_type="image/svg+xml")
    response.headers["Cache-Control"] = "no-store"
    return response
