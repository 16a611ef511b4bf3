"""Turns what goes wrong into a page, a message for htmx, or JSON: whichever was asked for."""

import logging
from collections.abc import Callable

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DatabaseError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from vlm.views.problems import Problem, is_htmx, refused, told, wants_json

logger = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")
LOGGED_OUT = "Your session is over, so nothing was changed. Log in again, then do it once more."
PLAIN = {
    403: "You may not do this. Ask an administrator for the permission.",
    404: "This is no longer here. Reload the page.",
    500: "Something broke. The server’s log says what; reload the page to go on.",
}
FOR_PROGRAMS = {
    401: "Log in first and send the session’s cookie.",
    403: "Refused: the user lacks the permission, or a POST came without the header X-CSRFToken.",
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
