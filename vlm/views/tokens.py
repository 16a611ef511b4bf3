"""The page of a user's tokens. Whoever is logged in makes and revokes their own; a token cannot."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from vlm import services
from vlm.errors import Refusal
from vlm.forms import first_error
from vlm.models import ApiToken
from vlm.permissions import MEANINGS
from vlm.services.tokens import LONGEST, USUAL
from vlm.views.access import Request, found
from vlm.views.operations import operation, respond
from vlm.views.problems import Problem, wants_json


class TokenForm(forms.Form):
    name = forms.CharField(max_length=100, label="Name", error_messages={"required": "Say what the token is for."})
    scopes = forms.MultipleChoiceField(choices=list(MEANINGS.items()), required=False, label="Good for")
    until = forms.DateField(label="Last day", error_messages={"required": "Choose the token’s last day."})


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token; ``key`` is how it begins, and all of it that is known after it was made."""

    key: str
    name: str
    scopes: list[str]
    created: datetime
    expires: datetime | None
    used: datetime | None


@dataclass(frozen=True, slots=True)
class TokenList:
    """A user’s tokens; ``made`` is the one that was just made, which is told this once."""

    tokens: list[TokenInfo]
    made: str | None = None


@operation("GET", TokenList, tokens=False)
@operation("POST", TokenList, form=TokenForm, tokens=False)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: Request) -> HttpResponse:
    """List a user's tokens, and make one; what it is, is shown this once."""
    if request.method != "POST":
        return _page(request)
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _complain(request, Problem(first_error(form)))
    try:
        _, text = services.tokens.make(user=request.user, **form.cleaned_data)
    except Refusal as refusal:
        return _complain(request, refusal)
    return _page(request, made=text)


@operation("POST", TokenList, tokens=False)
@require_POST
def token_revoke(request: Request, key: str) -> HttpResponse:
    """End a token at once."""
    if not services.tokens.revoke(user=request.user, key=key):
        found(None)
    if wants_json(request):
        return _page(request)
    messages.success(request, f"The token {key}… is revoked.")
    return redirect("tokens")


def _complain(request: Request, refusal: Refusal) -> HttpResponse:
    if wants_json(request):
        raise refusal
    return _page(request, complaint=refusal.message)


def _page(request: Request, *, made: str = "", complaint: str = "") -> HttpResponse:
    rows = list(services.tokens.of(user=request.user))
    if wants_json(request):
        return respond(TokenList([_info(row) for row in rows], made or None))
    today = timezone.localdate()
    values: dict[str, Any] = {
        "tokens": rows,
        "made": made,
        "complaint": complaint,
        "asked": request.POST if complaint else {},
        "asked_scopes": request.POST.getlist("scopes") if complaint else [],
        "scopes": [(scope, meaning) for scope, meaning in MEANINGS.items() if scope != "read"],
        "usual": today + USUAL,
        "today": today,
        "latest": today + LONGEST,
    }
    return render(request, "vlm/tokens.html", values, status=400 if complaint else 200)


def _info(row: ApiToken) -> TokenInfo:
    return TokenInfo(row.token_key, row.name, list(row.scopes), row.created, row.expiry, row.last_used)
