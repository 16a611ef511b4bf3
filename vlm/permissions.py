"""The rights that a user can have, and what somebody without one is told."""

from collections.abc import Iterable

from django.contrib.auth.models import User

VIEW = "vlm.view_dataset"
TAG = "vlm.autotag_dataset"
EDIT = "vlm.edit_tags"
IMPORT = "vlm.import_dataset"

REFUSALS = {
    VIEW: "You may not see data sets.",
    TAG: "You may not auto-tag data sets.",
    EDIT: "You may not edit tags.",
    IMPORT: "You may not import data sets.",
}

_BACKEND = "django.contrib.auth.backends.ModelBackend"


def holders(permission: str, user_ids: Iterable[int]) -> set[int]:
    """Return those of ``user_ids`` who have the permission."""
    found = User.objects.with_perm(permission, backend=_BACKEND).filter(pk__in=user_ids)
    return set(found.values_list("pk", flat=True))
