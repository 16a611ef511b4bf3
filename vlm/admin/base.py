"""What the admin's pages have in common: refusals told as messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from vlm.errors import Refusal


class TellsRefusals(admin.ModelAdmin):  # type: ignore[type-arg]
    """Says what is refused as a message on the admin's own pages."""

    @contextmanager
    def telling(self, request: HttpRequest, about: object = "", level: int = messages.WARNING) -> Iterator[None]:
        """Tell what is refused within the block, and go on behind it."""
        try:
            yield
        except Refusal as refusal:
            self.message_user(request, f"{about}: {refusal}" if about else str(refusal), level)

    def before_looking(self) -> None:
        """Bring the rows up to date that are about to be shown."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        with self.telling(request, level=messages.ERROR):
            self.before_looking()
            return super().changelist_view(request, extra_context)
        return self._elsewhere()

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        with self.telling(request, level=messages.ERROR):
            self.before_looking()
            return super().changeform_view(request, object_id, form_url, extra_context)
        return self._elsewhere()

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with self.telling(request, level=messages.ERROR):
            return super().delete_view(request, object_id, extra_context)
        return self._elsewhere()

    def _elsewhere(self) -> HttpResponse:
        """Go to the admin's first page: the one that was asked for would be refused again."""
        return HttpResponseRedirect(reverse("admin:index"))


def user_of(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
