"""Turns what goes wrong into a page, a message for htmx, or JSON: whichever was asked for."""

import logging
import math
from collections.abc import Callable

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DatabaseError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from rest_framework.throttling import SimpleRateThrottle

from vlm import services
from vlm.views.access import not_good_for
from vlm.views.operations import operations_of
from vlm.views.problems import Problem, is_htmx, refused, sent_token, told, wants_json

logger = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")
LOGGED_OUT = "Your session is over, so nothing was changed. Log in again, then do it once more."
UNKNOWN_TOKEN = "This token is unknown, revoked, or past its last day. Make a new one on the page “Tokens”."  # noqa: S105  (a sentence)
CLOSED = "A token does not open this address. Log in with a browser."
TOO_FAST = "This token has sent too many requests in a minute. Go on when the time in Retry-After is over."
PLAIN = {
    403: "You may not do this. Ask an administrator for the permission.",
    404: "This is no longer here. Reload the page.",
    500: "Something broke. The server’s log says what; reload the page to go on.",
}
FOR_PROGRAMS = {
    401: "Log in first: send a token (“Authorization: Bearer …”), or the session’s cookie.",
    403: "Refused: the user lacks the permission, or a POST came without a token and without the header X-CSRFToken.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    500: "Something broke. The server’s log says what.",
}


class ProblemMiddleware:
    """Answers every :class:`Refusal`; stands after ``HtmxMiddleware``, and before ``CsrfViewMiddleware``.

    Programs that accept JSON are told every failure in one form, ``{"error", "title", "status"}``.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        logged_out = response.status_code == 302 and response.headers["Location"].startswith(
            resolve_url(settings.LOGIN_URL)
        )
        if not is_htmx(request):
            status = 401 if logged_out else response.status_code
            as_json = response.headers.get("Content-Type") == "application/json"
            if status >= 400 and not as_json and wants_json(request):
                answer = refused(request, Problem(FOR_PROGRAMS.get(status, response.reason_phrase), status))
                for name in ("Allow", "Retry-After"):
                    if name in response.headers:
                        answer.headers[name] = response.headers[name]
                return answer
            return response
        if "HX-Reswap" in response.headers:
            return response
        lost = logged_out or (response.status_code == 403 and not _is_logged_in(request))
        if lost and request.method not in SAFE:
            return refused(request, Problem(LOGGED_OUT, 401, title="Not changed"))
        if lost:
            # The session is over: let the browser itself go to the log-in page, instead of swapping it into a corner.
            return HttpResponse(headers={"HX-Refresh": "true"})
        if response.status_code >= 400:
            message = PLAIN.get(response.status_code, "The server refused this. Reload the page and try again.")
            return refused(request, Problem(message, response.status_code))
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return told(request, error)


def _is_logged_in(request: HttpRequest) -> bool:
    try:
        return bool(request.user.is_authenticated)
    except (AttributeError, DatabaseError):
        return False


class _Pace(SimpleRateThrottle):  # type: ignore[misc]  # REST framework ships no types
    """How many requests a minute one token may send."""

    def get_rate(self) -> str | None:
        return f"{settings.TOKEN_RATE}/min" if settings.TOKEN_RATE else None

    def get_cache_key(self, request: HttpRequest, view: object) -> str:
        return f"pace-{request.token.token_key}"  # type: ignore[attr-defined]


class TokenMiddleware:
    """Lets a program in that sends a token, as the token's user, and to nothing but what a view declares for programs.

    Stands behind the session's user, whom it replaces, and before the log-in is asked for. A token is sent by whoever means
    it, never by a browser on its own, so a POST with one needs no CSRF token.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.token = None  # type: ignore[attr-defined]
        if text := sent_token(request):
            try:
                token = services.tokens.find(text=text)
            except DatabaseError as error:
                if (answer := told(request, error)) is None:
                    raise
                return answer
            if token is None:
                answer = refused(request, Problem(UNKNOWN_TOKEN, 401, title="Not logged in"))
                answer.headers["WWW-Authenticate"] = "Bearer"
                return answer
            request.token, request.user = token, token.user  # type: ignore[attr-defined]
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # as REST framework does
            pace = _Pace()
            if not pace.allow_request(request, None):
                answer = refused(request, Problem(TOO_FAST, 429, title="Too many requests"))
                answer.headers["Retry-After"] = str(math.ceil(pace.wait() or 1))
                return answer
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: object, *_: object) -> HttpResponse | None:
        token = request.token  # type: ignore[attr-defined]
        if token is None:
            return None
        declared = [one for one in operations_of(view) if one.tokens]
        if not declared:
            return refused(request, Problem(CLOSED, 403, title="Not with a token"))
        method = "GET" if request.method == "HEAD" else request.method
        asked = next((one for one in declared if one.method == method), None)
        if asked is not None and asked.scope not in token.scopes:
            return refused(request, not_good_for(asked.scope))
        return None


class LastingSessionMiddleware(SessionMiddleware):
    """Django's own, but that a page which only reads is shown though its session cannot be written (the disk is full)."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except OperationalError as error:
            answer = told(request, error)
            if answer is None or (request.method in SAFE and response.status_code < 300):
                logger.warning("A session could not be saved: %s", error)
                return response
            return answer
