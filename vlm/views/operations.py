"""What programs may do at an address, declared beside the view that does it.

A view without a declaration is closed to tokens. Where there is one, the same few words give the view's place in the
OpenAPI document, with the types of what it takes and answers, so that the document says what the code does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from django import forms
from django.http import HttpResponse
from pydantic import TypeAdapter

from vlm.permissions import Scope

View = TypeVar("View", bound=Callable[..., Any])
Method = Literal["GET", "POST"]
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class File:
    """An answer that is a file: its media types."""

    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of an address.

    Attributes:
        answer: the type of the JSON that is answered, or a :class:`File`.
        scope: what a token must be good for, beside “read”.
        query: parameters of the address and their types; all may be left out.
        query_form: the form that the address is read with.
        filter: the address also takes the parts of a filter.
        form: the form that a POST sends, with
        fields: further fields and their types, and
        needs: those of them that must be there.
        files: fields that are files.
        body: the type of a POST's JSON, where it sends that.
        tokens: whether a token opens it, too.
        status: of an answer that is no refusal; several where that depends.
    """

    method: Method
    answer: Any
    scope: Scope
    query: Mapping[str, Any] = field(default_factory=dict)
    query_form: type[forms.Form] | None = None
    filter: bool = False
    form: type[forms.Form] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    body: Any = None
    tokens: bool = True
    status: int | tuple[int, ...] = 200


def operation(method: Method, answer: Any, scope: Scope = "read", **more: Any) -> Callable[[View], View]:
    """Declare what a view does for programs that call it with ``method``; see :class:`Operation`."""
    declared = Operation(method, answer, scope, **more)

    def declare(view: View) -> View:
        view.operations = [declared, *operations_of(view)]  # type: ignore[attr-defined]
        return view

    return declare


def operations_of(view: object) -> list[Operation]:
    """Return what a view declares; nothing where it is for people alone."""
    return getattr(view, "operations", [])


def respond(value: Any, status: int = 200) -> HttpResponse:
    """Answer with a record as JSON, by its type; what is no number in JSON becomes ``null``."""
    return HttpResponse(TypeAdapter(type(value)).dump_json(value), content_type=JSON, status=status)
