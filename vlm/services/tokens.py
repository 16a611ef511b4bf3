"""Personal tokens, by which programs act for a user: made once, kept as a hash, good for some things until a day.

django-rest-knox makes, hashes, finds, compares and expires them.
"""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from vlm.errors import Refusal
from vlm.models import ApiToken
from vlm.permissions import Scope

MOST = 50  # of one user
LONGEST = timedelta(days=366)
USUAL = timedelta(days=90)
NOTED = timedelta(minutes=1)  # in which one use is written down


class TokenRefused(Refusal):
    """A token cannot be made as asked."""

    title = "No token was made"


def make(*, user: User, name: str, scopes: Iterable[Scope], until: date) -> tuple[ApiToken, str]:
    """Make a token that is good to the end of a day; returns its row, and the text that is shown this once.

    Raises:
        TokenRefused: the day has passed or lies more than a year ahead, or the user has as many as one may have.
    """
    end = timezone.make_aware(datetime.combine(until, time(23, 59)))
    lasts = end - timezone.now()
    if not timedelta(0) < lasts <= LONGEST:
        raise TokenRefused("The last day of a token lies between today and a year from now.")
    if of(user=user).count() >= MOST:
        raise TokenRefused(f"You have {MOST} tokens. Revoke one first.")
    chosen = ["read", *(scope for scope in dict.fromkeys(scopes) if scope != "read")]
    made: tuple[ApiToken, str] = ApiToken.objects.create(user=user, expiry=lasts, name=name, scopes=chosen)
    return made


def of(*, user: User) -> QuerySet[ApiToken]:
    """Return a user's tokens that are still good, newest first."""
    found: QuerySet[ApiToken] = ApiToken.objects.filter(Q(expiry=None) | Q(expiry__gt=timezone.now()), user=user)
    return found


def revoke(*, user: User, key: str) -> bool:
    """End a token of a user at once; returns whether there was one that begins so."""
    return bool(ApiToken.objects.filter(user=user, token_key=key).delete()[0])


def find(*, text: str) -> ApiToken | None:
    """Return the token that a program sent, with its user; ``None`` for one that is unknown, over, or of nobody any more."""
    try:
        _, token = TokenAuthentication().authenticate_credentials(text.encode())
    except AuthenticationFailed:
        return None
    found: ApiToken = token
    now = timezone.now()
    if found.last_used is None or now - found.last_used > NOTED:
        ApiToken.objects.filter(pk=found.pk).update(last_used=now)
    return found
