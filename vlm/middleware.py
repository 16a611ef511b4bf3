"""Turns what goes wrong into a page, a message for htmx, or JSON: whichever was asked for."""

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from vlm.errors import DatabaseUnusable, Refusal
from vlm.views.problems import Problem, is_htmx, refused, wants_json

logger = logging.getLogger(__name__)

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
    """Answers every :class:`Refusal`; stands after ``HtmxMiddleware``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        logged_out = response.status_code == 302 and response.headers["Location"].startswith(
            resolve_url(settings.LOGIN_URL)
        )
        if not is_htmx(request):
            status = 401 if logged_out else response.status_code
            told = response.headers.get("Content-Type") == "application/json"
            if status >= 400 and not told and wants_json(request):
                answer = refused(request, Problem(FOR_PROGRAMS.get(status, response.reason_phrase), status))
                if "Allow" in response.headers:  # the methods that the address takes
                    answer.headers["Allow"] = response.headers["Allow"]
                return answer
            return response
        if "HX-Reswap" in response.headers:
            return response
        if logged_out:
            # The session is over: let the browser itself go to the log-in page, instead of swapping it into a corner.
            return HttpResponse(headers={"HX-Refresh": "true"})
        if response.status_code >= 400:
            message = PLAIN.get(response.status_code, "The server refused this. Reload the page and try again.")
            return refused(request, Problem(message, response.status_code))
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, Refusal):
            return refused(request, error)
        if not isinstance(error, OperationalError):
            return None
        logger.error("The database could not be used", exc_info=error)
        refusal = DatabaseUnusable.of(error)
        try:
            return refused(request, refusal)
        except DatabaseError:  # the page itself asks who is looking
            return HttpResponse(refusal.message, status=refusal.status, content_type="text/plain; charset=utf-8")
