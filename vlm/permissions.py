"""The rights that a user can have, and what somebody without one is told."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Literal

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User

VIEW = "vlm.view_dataset"
TAG = "vlm.autotag_dataset"
EDIT = "vlm.edit_tags"
IMPORT = "vlm.import_dataset"
VOCABULARY = "vlm.change_vocabulary"
CHANGE = "vlm.change_dataset"
DELETE = "vlm.delete_dataset"

Scope = Literal["read", "edit", "run", "import", "vocabulary", "manage"]

# What a token must be good for, so that its user's right counts: never more than the right itself.
SCOPES: dict[str, Scope] = {
    VIEW: "read",
    EDIT: "edit",
    TAG: "run",
    IMPORT: "import",
    VOCABULARY: "vocabulary",
    CHANGE: "manage",
    DELETE: "manage",
}
MEANINGS: dict[Scope, str] = {
    "read": "look at data sets, runs and the vocabulary, and export",
    "edit": "add and remove tags, review, bring labels in",
    "run": "start, cancel, resume and take back runs",
    "import": "import folders",
    "vocabulary": "edit the vocabulary",
    "manage": "rename, move and delete data sets",
}

REFUSALS = {
    VIEW: "You may not see data sets.",
    TAG: "You may not auto-tag data sets.",
    EDIT: "You may not edit tags.",
    IMPORT: "You may not import data sets.",
    VOCABULARY: "You may not edit the vocabulary.",
    CHANGE: "You may not rename data sets or point them to other folders.",
    DELETE: "You may not delete data sets.",
}

_BACKEND = "django.contrib.auth.backends.ModelBackend"


def holders(permission: str, user_ids: Iterable[int]) -> set[int]:
    """Return those of ``user_ids`` who have the permission."""
    found = User.objects.with_perm(permission, backend=_BACKEND).filter(pk__in=user_ids)
    return set(found.values_list("pk", flat=True))


def ended(sessions: Mapping[str, int]) -> set[str]:
    """Return which of the sessions (key → user) are over: logged out, expired, or older than the user's present password."""
    if not sessions:
        return set()
    store = import_module(settings.SESSION_ENGINE).SessionStore
    users = User.objects.filter(is_active=True).in_bulk(set(sessions.values()))
    over = set()
    for key, user_id in sessions.items():
        held, user = store(key), users.get(user_id)
        mine = user is not None and held.get(SESSION_KEY) == str(user_id)
        if not mine or held.get(HASH_SESSION_KEY, "") != users[user_id].get_session_auth_hash():
            over.add(key)
    return over
