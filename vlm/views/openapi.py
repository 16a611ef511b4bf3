"""The OpenAPI document: made of the addresses, what their views declare, and the forms and records that they use."""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from django import forms
from django.http import HttpResponse, JsonResponse
from django.urls import URLPattern, URLResolver, get_resolver
from django.views.decorators.http import require_safe
from pydantic import TypeAdapter

from datavisor import __version__
from vlm.permissions import MEANINGS, VIEW
from vlm.samples.filters import described_parts
from vlm.views.access import Request, require
from vlm.views.answers import Refused
from vlm.views.operations import JSON, File, Operation, operation, operations_of
from vlm.vocabulary_forms import LinesField, PairsField

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
PLACE = "#/components/schemas/"
INTRODUCTION = (
    "The page’s addresses, as programs see them: send “Accept: application/json”. Log in with a token "
    "(“Authorization: Bearer …”), which its user makes on the page “Tokens”, or with the session’s cookie, and then with the "
    "header X-CSRFToken in each POST. What is refused is told as “Refused” under any status from 400 on."
)
_PART = re.compile(r"<(?:(\w+):)?(\w+)>")
_KINDS: dict[str, dict[str, Any]] = {
    "id": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "slug": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$", "maxLength": 60},
}


@operation("GET", dict[str, Any])
@require_safe
def openapi(request: Request) -> HttpResponse:
    """Give the OpenAPI document of these addresses."""
    require(request, VIEW)
    return JsonResponse(document(), json_dumps_params={"ensure_ascii": False})


@cache
def document() -> dict[str, Any]:
    """Return the whole document, as OpenAPI 3.1 has it."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for address, view in addresses():
        for declared in operations_of(view):
            path = paths.setdefault(_PART.sub(r"{\2}", address), {"parameters": _in_path(address)})
            path[declared.method.lower()] = _operation(declared, view, address, schemas)
    schema_of(Refused, schemas)
    token = {"type": "http", "scheme": "bearer", "description": _scopes()}
    session = {"type": "apiKey", "in": "cookie", "name": "sessionid"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "DataVisor", "version": __version__, "description": INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "parameters": _filter_parts(),
            "securitySchemes": {"token": token, "session": session},
        },
    }


def addresses() -> Iterator[tuple[str, Any]]:
    """Yield every address with its view; parts that vary stand in angle brackets."""

    def walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[tuple[str, Any]]:
        for pattern in patterns:
            path = before + str(pattern.pattern)
            if isinstance(pattern, URLPattern):
                yield path, pattern.callback
            else:
                yield from walk(pattern.url_patterns, path)

    yield from walk(get_resolver().url_patterns, "/")


def schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a type; records that it refers to are put into ``schemas``."""
    schema = TypeAdapter(kind).json_schema(ref_template=PLACE + "{model}", mode="serialization")
    schemas |= schema.pop("$defs", {})
    name = schema.get("title", "")
    if schema.get("type") != "object" or not name or "properties" not in schema:
        return schema
    schemas[name] = schema
    return {"$ref": PLACE + name}


# -- inside --------------------------------------------------------------------------------------------------------------
def _operation(declared: Operation, view: Any, address: str, schemas: dict[str, Any]) -> dict[str, Any]:
    said = inspect.getdoc(view) or ""
    summary, _, rest = said.partition("\n")
    found: dict[str, Any] = {
        "operationId": f"{view.__name__}_{declared.method.lower()}",
        "summary": summary.replace("``", "`"),
        "security": [*([{"token": sorted({"read", declared.scope})}] if declared.tokens else []), {"session": []}],
        "responses": _responses(declared, schemas),
    }
    if rest.strip():
        found["description"] = rest.strip()
    if parameters := _query(declared):
        found["parameters"] = parameters
    if declared.method == "POST" and (body := _body(declared, schemas)):
        found["requestBody"] = body
    return found


def _responses(declared: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(declared.answer, File):
        content = {kind.split(";")[0]: {"schema": {"type": "string"}} for kind in declared.answer.types}
    else:
        content = {JSON: {"schema": schema_of(declared.answer, schemas)}}
    statuses = declared.status if isinstance(declared.status, tuple) else (declared.status,)
    refused = {"description": "It is refused, and why.", "content": {JSON: {"schema": {"$ref": PLACE + "Refused"}}}}
    return {
        **{str(status): {"description": "It is done.", "content": content} for status in statuses},
        **({"304": {"description": "As it was."}} if isinstance(declared.answer, File) else {}),
        "4XX": refused,
        "503": refused,
        "507": refused,
    }


def _in_path(address: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _KINDS[kind]} for kind, name in _PART.findall(address)
    ]


def _query(declared: Operation) -> list[dict[str, Any]]:
    found = [_parameter(name, _plain(kind)) for name, kind in declared.query.items()]
    if declared.query_form is not None:
        found += [_parameter(name, _field(field)) for name, field in declared.query_form.base_fields.items()]
    if declared.filter:
        found += [{"$ref": f"#/components/parameters/{name}"} for name in _filter_parts()]
    return found


def _filter_parts() -> dict[str, dict[str, Any]]:
    return {
        f"filter-{key}": _parameter(key, schema) | {"description": said.replace("``", "`")}
        for key, schema, said in described_parts()
    }


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    listed = schema.get("type") == "array" and schema["items"].get("type") == "integer"
    commas = {"style": "form", "explode": False} if listed else {}
    return {"name": name, "in": "query", "schema": schema} | commas


def _body(declared: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if declared.body is not None:
        return {"required": True, "content": {JSON: {"schema": schema_of(declared.body, schemas)}}}
    fields = declared.form.base_fields if declared.form is not None else {}
    properties = {name: _field(field) for name, field in fields.items()}
    properties |= {name: _plain(kind) for name, kind in declared.fields.items()}
    properties |= {name: {"type": "string", "format": "binary"} for name in declared.files}
    if not properties:
        return {}
    needed = [name for name, field in fields.items() if field.required] + list(declared.needs)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if needed:
        schema["required"] = needed
    return {"required": bool(needed), "content": {MULTIPART if declared.files else FORM: {"schema": schema}}}


def _plain(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = TypeAdapter(kind).json_schema()
    return schema


def _field(field: forms.Field) -> dict[str, Any]:
    """Return the schema of what a form's field takes."""
    schema: dict[str, Any]
    match field:
        case forms.MultipleChoiceField():
            schema = {"type": "array", "items": {"type": "string"}}
        case forms.ChoiceField():
            schema = {"type": "string", "enum": [value for value, _ in field.choices]}  # type: ignore[union-attr, misc]
        case forms.BooleanField():
            schema = {"type": "boolean"}
        case forms.IntegerField():
            schema = {"type": "number" if isinstance(field, forms.FloatField) else "integer"}
            schema |= _known(minimum=field.min_value, maximum=field.max_value)
        case LinesField() | PairsField():
            schema = {"type": "string"}
        case _:
            schema = {"type": "string"} | _known(maxLength=getattr(field, "max_length", None))
    label = str(field.help_text or "")
    return schema | ({"description": label} if label else {})


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _scopes() -> str:
    listed = "; ".join(f"“{scope}”: {meaning}" for scope, meaning in MEANINGS.items())
    return f"A personal token. What it is good for is chosen when it is made. {listed}."
