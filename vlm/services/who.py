"""Who changes something, as the store writes it down."""

from django.contrib.auth.models import User

from vlm.samples import Edit, Way


def edit_by(user: User | None, way: Way) -> Edit:
    """Return the edit of a user; ``None`` is a command's, of nobody who is known."""
    return Edit(way=way) if user is None else Edit(user.pk, user.get_username(), way)
