"""A request that cannot be served, with a sentence that says what to do."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


class Problem(Exception):
    """Raised by a view; ``vlm.middleware`` answers with the message as page, fragment or JSON.

    ``target`` is the place in the page where htmx shows it (a CSS selector) instead of the messages at the top.
    """

    def __init__(self, message: str, status: int = 400, *, title: str = "", target: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.title = title or "This did not work"
        self.target = target


def is_htmx(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def wants_json(request: HttpRequest) -> bool:
    return request.get_preferred_type(["text/html", "application/json"]) == "application/json"


def problem_response(request: HttpRequest, problem: Problem) -> HttpResponse:
    if is_htmx(request) and problem.target:
        response = render(request, "vlm/_problem.html", {"problem": problem}, status=problem.status)
        response.headers["HX-Retarget"] = problem.target
        response.headers["HX-Reswap"] = "innerHTML"
        return response
    if is_htmx(request):
        notice = {"level_tag": "error", "message": problem.message}
        response = render(request, "vlm/_messages.html", {"notices": [notice], "oob": True}, status=problem.status)
        response.headers["HX-Reswap"] = "none"
        return response
    if wants_json(request):
        return JsonResponse({"error": problem.message}, status=problem.status)
    return render(request, "vlm/problem.html", {"problem": problem}, status=problem.status)
