"""Who may do what: each helper returns the object, or ends the request with 403 or 404."""

from typing import TypeVar
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.middleware import HtmxDetails

from vlm import services
from vlm.models import ApiToken, Dataset, TaggingRun
from vlm.permissions import REFUSALS, SCOPES, VIEW, Scope
from vlm.views.problems import Problem

T = TypeVar("T")


class Request(HttpRequest):
    """A request behind the middleware: somebody is logged in, and htmx requests are known as such."""

    user: User
    htmx: HtmxDetails
    token: ApiToken | None


def found(thing: T | None) -> T:
    """Return ``thing``, or end the request with 404."""
    if thing is None:
        raise Http404("There is no such thing any more.")
    return thing


def require(request: Request, permission: str) -> None:
    if not request.user.has_perm(permission):
        raise PermissionDenied(f"{REFUSALS[permission]} Ask an administrator for the permission “{permission}”.")
    if request.token is not None and SCOPES[permission] not in request.token.scopes:
        raise not_good_for(SCOPES[permission])


def not_good_for(scope: Scope) -> Problem:
    """Return what a program is told whose token was not made for what it asks."""
    return Problem(
        f"This token is not good for “{scope}”. Make one that is, on the page “Tokens”.",
        403,
        title="Not with this token",
    )


def get_dataset(request: Request, dataset_id: int, permission: str = VIEW) -> Dataset:
    require(request, VIEW)
    require(request, permission)
    return found(services.datasets.get(dataset_id=dataset_id))


def get_run(request: Request, run_id: int, permission: str = VIEW) -> TaggingRun:
    require(request, VIEW)
    require(request, permission)
    return found(services.runs.get(run_id=run_id))


def back_to(request: Request, default: str) -> str:
    """Return the address in the form’s ``back`` if it is one of ours, else ``default``."""
    back: str = request.POST.get("back", "")
    if back.startswith("/") and url_has_allowed_host_and_scheme(back, allowed_hosts=None) and urlsplit(back).path:
        return back
    return default
