"""What needs no data set."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

SESAME_BACKEND = "sesame.backends.ModelBackend"
AHEAD = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")  # by which browsers say that they only load a page ahead


@login_not_required
@never_cache
@require_safe
@vary_on_headers(*AHEAD)
def enter(request: HttpRequest) -> HttpResponse:
    """The link that logs in, once; whoever follows it again comes to the page or to the log-in.

    A look at it does not use it up: neither HEAD nor a browser or messenger that loads ahead what may be clicked.
    A wrong link is told and counted nowhere: it cannot be guessed, and any page could call this address in somebody's name.
    """
    from sesame.backends import ModelBackend  # reads the secret key, which the import of the addresses must not make

    if request.method == "HEAD" or _is_ahead(request):
        return HttpResponse(status=204)
    # Asked itself, past ``authenticate``: there, wrong links would count as wrong passwords and lock out the right one.
    user = ModelBackend().authenticate(request, sesame=request.GET.get("sesame"))
    if user is not None:
        login(request, user, backend=SESAME_BACKEND)  # its date makes the link a used one
        return redirect(settings.LOGIN_REDIRECT_URL)
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    messages.error(
        request,
        "This link was used already, or it is older than ten minutes. Log in, or start DataVisor again for a new one.",
    )
    return redirect(settings.LOGIN_URL)


def _is_ahead(request: HttpRequest) -> bool:
    said = " ".join(request.headers.get(name, "") for name in AHEAD).lower()
    return any(word in said for word in ("prefetch", "prerender", "preview"))


class ChangePassword(PasswordChangeView):
    """A new password for whoever is logged in, staff or not; their other sessions end with the old one."""

    template_name = "registration/change_password.html"
    success_url = reverse_lazy("datasets")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, "Your password is changed. Wherever else you were logged in, you no longer are.")
        return super().form_valid(form)


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the server answers; needs no log-in and reads nothing."""
    return HttpResponse("ok\n", content_type="text/plain")
