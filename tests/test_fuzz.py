"""Whatever is sent to an address, a form or the websocket: it is never a 500 and never a trace."""

import asyncio
import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.children import PATIENCE
from tests.effort import examples
from tests.page.conftest import admin, dataset  # noqa: F401  (fixtures)
from vlm.models import Dataset, TaggingRun
from vlm.routing import websocket_urlpatterns

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = examples(120)
LEFT_OUT = ("accounts/logout/", "admin/logout/", "admin/jsi18n/", "admin/autocomplete/")
NAMES = (
    *("q", "split", "category", "all", "any", "none", "lacking", "state", "source", "dimension", "pmin", "pmax", "run"),
    *("failed_in", "discarded_in", "id", "ids", "order", "size", "after", "loaded", "before", "shown", "format", "v"),
    *("action", "tag", "filter", "scope", "within", "dimensions", "detail", "mode", "min_probability", "min_mass"),
    *(
        "limit",
        "failed_of",
        "count",
        "forget",
        "name",
        "query",
        "path",
        "back",
        "next",
        "sesame",
        "username",
        "password",
    ),
    *("_changelist_filters", "e", "p", "o", "_to_field", "_popup", "status__exact", "dataset__id__exact", "position"),
)


def cursor(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


ODD = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "0",
                "1",
                "-1",
                "1.5",
                "nan",
                "inf",
                "1e999",
                "true",
                "all",
                "name",
                "uncertain",
                "csv",
                "coco",
                "add",
            ),
            *(
                "9" * 20,
                "9" * 45,
                "9" * 5000,
                "-" + "9" * 5000,
                "\u0661",
                "\u00b2",
                "1_000",
                " 1 ",
                "0x10",
                "%00",
                "\x00",
            ),
            *(
                "\ufffd",
                "\x1b[31m",
                "../../etc/passwd",
                "/",
                "//evil.example",
                "\\",
                "'",
                '"',
                "<script>",
                "=1+1",
                "{{ 7 }}",
            ),
            *(
                "a" * 5000,
                ",".join(map(str, range(50))),
                "q=v1.0",
                "all=x&all=y",
                "&".join(f"all=x{i}" for i in range(80)),
            ),
            base64.urlsafe_b64encode(b"[" * 9000).decode(),
            *map(cursor, (["name", "\ud800", 1], ["added", 10**400, 1], ["uncertain", "x", 1], ["name"], {}, 1, None)),
            *map(cursor, (["name", "a", 2**63], ["added", True, 1], ["name", ["a"], 1], ["uncertain", 1e308, -1])),
        ]
    ),
    st.text(max_size=30),
    st.integers(-(2**70), 2**70).map(str),
)
PARTS = st.one_of(
    st.sampled_from(
        ["1", "1", "1", "160", "0", "9" * 18, "9" * 19, "9" * 20, "9" * 45, "9" * 5000, "x", "-1", "\u0661", "a%00"]
    ),
)


def addresses(resolver: URLResolver | None = None, before: str = "") -> list[str]:
    """Return all addresses, with a mark for each part that varies."""
    found: list[str] = []
    for pattern in (resolver or get_resolver()).url_patterns:
        path = before + str(pattern.pattern).lstrip("^")
        if isinstance(pattern, URLResolver):
            found += addresses(pattern, path)
        elif isinstance(pattern, URLPattern) and not path.startswith(LEFT_OUT):
            found.append(path)
    return found


def filled(address: str, parts: list[str]) -> str:
    pieces = address.replace("\\", "").rstrip("$").split("<")
    tail = [part + piece.partition(">")[2] for part, piece in zip(parts, pieces[1:], strict=False)]
    return "/" + pieces[0] + "".join(tail)


@pytest.fixture
def quiet_client(admin: Client, dataset: Dataset) -> Client:  # noqa: F811
    """An administrator's client to whom an error is a 500, as to a browser; with a data set and a run that is over."""
    TaggingRun.objects.create(dataset=dataset, status="completed", model="m", vocabulary_hash="0" * 64)
    admin.raise_request_exception = False
    return admin


@pytest.mark.parametrize("language", ["page", "htmx", "json"])
def test_no_request_is_a_500(quiet_client: Client, language: str) -> None:
    known = sorted(addresses())
    headers: dict[str, str] = {"page": {}, "htmx": {"HX-Request": "true"}, "json": {"Accept": "application/json"}}[
        language
    ]  # type: ignore[assignment]

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.sampled_from(known),
        st.lists(PARTS, min_size=4, max_size=4),
        st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4),
        st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4),
        st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT"]),
    )
    def ask(address: str, parts: list[str], query: dict[str, str], form: dict[str, str], method: str) -> None:
        if method == "POST" and ("delete" in address or "user" in address):
            return  # the data set, and whoever asks, are needed to the end
        path = f"{filled(address, parts)}?{urlencode(query, errors='replace')}"
        body: dict[str, Any] = {}
        if method in ("POST", "PUT"):
            body = {
                "data": urlencode(form, errors="replace"),
                "content_type": "application/x-www-form-urlencoded",
            }
        answer = quiet_client.generic(method, path, **body, headers=headers)
        assert answer.status_code < 500, (method, path, form)
        answer.close()

    ask()


def test_no_message_of_a_socket_breaks_it(quiet_client: Client, dataset: Dataset) -> None:  # noqa: F811
    user = User.objects.get()

    @settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200), ODD), max_size=5))
    def speak(said: list[str | bytes]) -> None:
        asyncio.run(_speak(user, dataset.pk, said))

    speak()


async def _speak(user: User, dataset_id: int, said: list[str | bytes]) -> None:
    listener = WebsocketCommunicator(URLRouter(websocket_urlpatterns), f"/ws/datasets/{dataset_id}/progress/")
    listener.scope["user"] = user
    assert (await listener.connect(timeout=PATIENCE))[0]
    assert "live" in await listener.receive_from(timeout=PATIENCE)
    for message in said:
        kind = "bytes" if isinstance(message, bytes) else "text"
        await listener.send_input({"type": "websocket.receive", kind: message})
    await listener.disconnect(timeout=PATIENCE)


async def test_no_address_of_a_socket_breaks_it(quiet_client: Client) -> None:
    user = await sync_to_async(User.objects.get)()
    for part in ("x", "0", "9" * 18, "9" * 19, "9" * 5000, "\u0661", "-1", "1/..", "\x00", ""):
        listener = WebsocketCommunicator(URLRouter(websocket_urlpatterns), f"/ws/datasets/{part}/progress/")
        listener.scope["user"] = user
        assert (await listener.connect(timeout=PATIENCE))[0]
        closing = await listener.receive_output(timeout=PATIENCE)
        assert (closing["type"], closing["code"]) == ("websocket.close", 4404)
