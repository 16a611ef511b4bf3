"""What needs no data set."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from sesame.views import LoginView


class Enter(LoginView):  # type: ignore[misc]
    """The link that logs in, once; whoever follows it again comes to the page or to the log-in."""

    def login_failed(self) -> HttpResponseRedirect:
        if self.request.user.is_authenticated:
            return redirect(settings.LOGIN_REDIRECT_URL)
        messages.error(
            self.request,
            "This link was used already, or it is older than ten minutes. Log in, or start DataVisor again for a new one.",
        )
        return redirect(settings.LOGIN_URL)


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the server answers; needs no log-in and reads nothing."""
    return HttpResponse("ok\n", content_type="text/plain")
