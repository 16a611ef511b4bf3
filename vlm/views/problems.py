"""A request that cannot be served, with a sentence that says what to do."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, DataError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.csrf import csrf_failure
from django.views.defaults import server_error

from vlm.errors import DatabaseUnusable, Refusal, Unstorable, Unwritable

logger = logging.getLogger(__name__)


class Problem(Refusal):
    """Raised by a view itself; ``vlm.middleware`` answers with the message as page, fragment or JSON."""

    def __init__(self, message: str, status: int = 400, *, title: str = "", target: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.title = title or self.title
        self.target = target


@contextmanager
def told_at(target: str) -> Iterator[None]:
    """Have htmx show whatever is refused within the block at ``target``."""
    try:
        yield
    except Refusal as refusal:
        refusal.target = target
        raise


def is_htmx(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def sent_token(request: HttpRequest) -> str:
    """Return the token that a program sent; empty for none."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def wants_json(request: HttpRequest) -> bool:
    """Whether JSON is rather accepted than a page; with a token also where both are."""
    if is_htmx(request):
        return False
    kinds = ["text/html", "application/json"]
    return request.get_preferred_type(kinds[::-1] if sent_token(request) else kinds) == "application/json"


def refused(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """Answer with what is refused, in the caller's language: a fragment for htmx, JSON, or a page."""
    response = _told(request, refusal)
    if refusal.retry_after:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def told(request: HttpRequest, error: BaseException | None) -> HttpResponse | None:
    """Return the answer to an error that was foreseen, ``None`` for one that was not."""
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, OperationalError):
        refusal = DatabaseUnusable.of(error)
    elif isinstance(error, DataError):
        refusal = Unstorable.of(error)
    elif error is not None and (full := Unwritable.of(error)) is not None:
        refusal = full
    else:
        return None
    if refusal is not error:
        logger.error("%s", refusal, exc_info=error)
    try:
        return refused(request, refusal)
    except DatabaseError:  # the page itself asks who is looking
        return HttpResponse(refusal.message, status=refusal.status, content_type="text/plain; charset=utf-8")


def _told(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    if is_htmx(request) and refusal.target:
        response = render(request, "vlm/_problem.html", {"problem": refusal}, status=refusal.status)
        response.headers["HX-Retarget"] = refusal.target
        response.headers["HX-Reswap"] = "innerHTML"
        return response
    if is_htmx(request):
        notice = {"level_tag": "error", "message": refusal.message}
        response = render(request, "vlm/_messages.html", {"notices": [notice], "oob": True}, status=refusal.status)
        response.headers["HX-Reswap"] = "none"
        return response
    if wants_json(request):
        said = {"error": refusal.message, "title": refusal.title, "status": refusal.status}
        return JsonResponse(said, status=refusal.status)
    return render(request, "vlm/problem.html", {"problem": refusal}, status=refusal.status)


def not_used(problems: dict[str, Any]) -> JsonResponse:
    """Answer a program whose table cannot be used: as any refusal is told, with what is wrong line by line."""
    sentence = "Lines of the table cannot be used, so nothing came in. “problems” has them: mend these."
    return JsonResponse(problems | {"error": sentence, "title": "Nothing came in", "status": 400}, status=400)


def broken(request: HttpRequest) -> HttpResponse:
    """Answer what no view and no middleware has caught: in the caller's language too, and foreseen where it is."""
    answer = told(request, sys.exc_info()[1])
    if answer is not None:
        return answer
    if wants_json(request) or is_htmx(request):
        return refused(request, Problem("Something broke. The server’s log says what.", 500, title="Something broke"))
    return server_error(request)


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without a valid CSRF token: mostly that of a session that is over."""
    if is_htmx(request) or wants_json(request):
        sentence = (
            "Refused: a POST needs the header X-CSRFToken with the value of the cookie csrftoken."
            if wants_json(request)
            else "This page is of a session that is over, so nothing was changed. Reload it, log in, then do it once more."
        )
        return refused(request, Problem(sentence, 403, title="Not changed"))
    return csrf_failure(request, reason)
