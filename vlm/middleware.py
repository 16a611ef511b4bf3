"""Turns what goes wrong into a page, a message for htmx, or JSON: whichever was asked for."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from vlm.samples import FilterError, StoreBusy, StoreError
from vlm.views.problems import Problem, is_htmx, problem_response

RETRY_SECONDS = 5
PLAIN = {
    403: "You may not do this. Ask an administrator for the permission.",
    404: "This is no longer here. Reload the page.",
    500: "Something broke. The server’s log says what; reload the page to go on.",
}


class ProblemMiddleware:
    """Answers ``Problem``, a bad filter and a store that cannot be read; stands after ``HtmxMiddleware``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if not is_htmx(request) or "HX-Reswap" in response.headers:
            return response
        if response.status_code == 302 and response.headers["Location"].startswith(resolve_url(settings.LOGIN_URL)):
            # The session is over: let the browser itself go to the log-in page, instead of swapping it into a corner.
            return HttpResponse(headers={"HX-Refresh": "true"})
        if response.status_code >= 400:
            message = PLAIN.get(response.status_code, "The server refused this. Reload the page and try again.")
            return problem_response(request, Problem(message, response.status_code))
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, Problem):
            return problem_response(request, error)
        if isinstance(error, FilterError):
            return problem_response(request, Problem(str(error), title="That filter cannot be read"))
        if isinstance(error, StoreBusy):
            response = problem_response(request, Problem(str(error), 503, title="The samples are busy"))
            response.headers["Retry-After"] = str(RETRY_SECONDS)
            return response
        if isinstance(error, StoreError):
            return problem_response(request, Problem(str(error), 503, title="The samples cannot be read"))
        return None
