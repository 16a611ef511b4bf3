"""What programs get: JSON at every address, personal tokens, and an OpenAPI document that says what is so."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.page.conftest import admin, allow, dataset, sample_ids, user  # noqa: F401  (fixtures)
from vlm import services
from vlm.models import ApiToken, Dataset, TaggingRun
from vlm.permissions import MEANINGS
from vlm.views.openapi import addresses, document
from vlm.views.operations import File, operations_of

pytestmark = pytest.mark.django_db(transaction=True)

FOR_PEOPLE = {
    "/healthz",
    "/find",
    "/runs/queue",
    "/accounts/enter/",
    "/accounts/login/",
    "/accounts/logout/",
    "/accounts/password/",
    "/datasets/<id:dataset_id>/columns/range",  # of a form: it leads to an address that programs write themselves
}
EXAMPLES = 3
# What an answer promises. Whether what is made up is refused, and what happens without credentials, the tests below say.
PROMISED: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EVERYTHING = tuple(scope for scope in MEANINGS if scope != "read")


def token_of(user: User, *scopes: Any) -> str:  # noqa: F811
    until = timezone.localdate() + timedelta(days=1)
    return services.tokens.make(user=user, name="a test", scopes=scopes, until=until)[1]


def program(token: str) -> Client:
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def ada(admin: Client) -> User:  # noqa: F811
    return User.objects.get(username="ada")


def filled(path: str, **ids: object) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(ids.get(part[1], "1")), path)


# -- every address -----------------------------------------------------------------------------------------------------------
def test_every_address_is_for_programs_too() -> None:
    undeclared = {path for path, view in addresses() if not path.startswith("/admin/") and not operations_of(view)}
    assert undeclared == FOR_PEOPLE


def test_pages_answer_json_under_their_own_address(ada: User, dataset: Dataset) -> None:  # noqa: F811
    run = TaggingRun.objects.create(dataset=dataset, status="completed", model="m", vocabulary_hash="0" * 64)
    client = program(token_of(ada, *EVERYTHING))
    ids = {"dataset_id": dataset.pk, "run_id": run.pk, "name": "weather", "sample_id": sample_ids(dataset)[0]}
    services.pixels.measure_start(dataset=dataset, user=ada)
    asked = 0
    for path, view in addresses():
        if any(part in path for part in ("<id:other_id>", "<id:job_id>", "<id:trial_id>")):
            continue
        for declared in operations_of(view):
            if declared.method == "GET" and declared.tokens and not isinstance(declared.answer, File):
                answer = client.get(filled(path, **ids), {"dimension": "weather"} if "calibration" in path else {})
                assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), path
                asked += 1
    assert asked > 15


def test_a_program_walks_through_a_data_set_page_by_page(ada: User, dataset: Dataset) -> None:  # noqa: F811
    client = program(token_of(ada))
    listed = client.get(reverse("datasets")).json()["datasets"]
    assert [(one["name"], one["images"]) for one in listed] == [("Six pictures", 7)]
    page = client.get(listed[0]["address"], {"limit": 2}).json()
    assert page["total"] == 7
    found, following = [sample["id"] for sample in page["samples"]], page["next"]
    while following:
        page = client.get(reverse("cells", args=[dataset.pk]), {"limit": 2, "after": following}).json()
        found, following = found + [sample["id"] for sample in page["samples"]], page["next"]
    assert found == sample_ids(dataset)
    assert client.get(reverse("cells", args=[dataset.pk]), {"limit": "1001"}).status_code == 400


def test_a_program_edits_and_undoes(ada: User, dataset: Dataset) -> None:  # noqa: F811
    client = program(token_of(ada, "edit"))
    form = {"action": "add", "tag": "tunnel", "ids": sample_ids(dataset)[:2]}
    done = client.post(reverse("edit_tags", args=[dataset.pk]), form).json()
    assert (done["changed"], done["tag"]) == (2, "tunnel")
    listed = client.get(reverse("edits", args=[dataset.pk])).json()["edits"]
    assert [(one["id"], one["user_name"], one["samples"]) for one in listed] == [(done["edit"], "ada", 2)]
    filtered = client.get(reverse("cells", args=[dataset.pk]), {"all": "tunnel"}).json()["samples"]
    assert [sample["tags"][0]["source"] for sample in filtered] == ["user", "user"]
    assert client.post(reverse("edit_undo", args=[dataset.pk, done["edit"]])).json()["changed"] == 2
    assert client.get(reverse("dataset", args=[dataset.pk]), {"all": "tunnel"}).json()["total"] == 0


# -- tokens ----------------------------------------------------------------------------------------------------------------
def test_a_token_is_shown_once_and_kept_as_a_hash(admin: Client) -> None:  # noqa: F811
    until = timezone.localdate() + timedelta(days=30)
    page = admin.post(reverse("tokens"), {"name": "laptop", "scopes": ["edit"], "until": until.isoformat()})
    text = re.search(r'id="made"[^>]*value="(dv_\w+)"', page.content.decode())
    assert text is not None
    assert "no-store" in page.headers["Cache-Control"]
    row = ApiToken.objects.get()
    assert (row.name, row.scopes) == ("laptop", ["read", "edit"])
    kept = json.dumps([str(value) for value in vars(row).values()])
    assert text[1] not in kept
    assert timezone.localtime(row.expiry).date() == until
    again = admin.get(reverse("tokens")).content.decode()
    assert text[1] not in again
    assert row.token_key in again
    assert program(text[1]).get(reverse("datasets")).json() == {"datasets": []}
    row.refresh_from_db()
    assert row.last_used is not None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, "Say what the token is for."),
        ({"until": "2001-01-01"}, "between today and a year from now"),
        ({"until": "2999-01-01"}, "between today and a year from now"),
        ({"until": "soon"}, "Last day"),
        ({"scopes": ["admin"]}, "admin"),
    ],
)
def test_a_token_that_cannot_be(admin: Client, fields: dict[str, Any], complaint: str) -> None:  # noqa: F811
    form = {"name": "x", "until": (timezone.localdate() + timedelta(days=1)).isoformat()} | fields
    page = admin.post(reverse("tokens"), form)
    assert page.status_code == 400
    assert complaint in page.content.decode()
    told = admin.post(reverse("tokens"), form, headers={"Accept": "application/json"})
    assert (told.status_code, complaint in told.json()["error"]) == (400, True)
    assert not ApiToken.objects.exists()


def test_a_token_that_is_over_opens_nothing(ada: User) -> None:
    def status(token: str) -> int:
        answer = program(token).get(reverse("datasets"))
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert list(answer.json()) == ["error", "title", "status"]
        return answer.status_code

    revoked, expired, wrong = token_of(ada), token_of(ada), token_of(ada)
    assert status(revoked) == status(expired) == 200
    client = Client()
    client.force_login(ada)
    assert client.post(reverse("token_revoke", args=[revoked[:15]])).status_code == 302
    ApiToken.objects.filter(token_key=expired[:15]).update(expiry=timezone.now() - timedelta(seconds=1))
    assert [status(text) for text in (revoked, expired, wrong[:-1] + "x", "", "x", "\u00e9")][:3] == [401, 401, 401]
    assert status("x") == 401
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert status(wrong) == 401


def test_nobody_touches_another_user_s_tokens(ada: User, user: User) -> None:  # noqa: F811
    mine = token_of(user)
    client = Client()
    client.force_login(ada)
    assert mine[:15] not in client.get(reverse("tokens")).content.decode()
    assert client.post(reverse("token_revoke", args=[mine[:15]])).status_code == 404
    assert ApiToken.objects.count() == 1


def test_a_token_has_its_user_s_rights_and_no_more(user: User, dataset: Dataset) -> None:  # noqa: F811
    client = program(token_of(user, *EVERYTHING))
    assert client.get(reverse("datasets")).status_code == 403
    allow(user, "view_dataset")
    assert client.get(reverse("datasets")).status_code == 200
    form = {"action": "add", "tag": "x", "ids": sample_ids(dataset)[:1]}
    assert client.post(reverse("edit_tags", args=[dataset.pk]), form).status_code == 403


def test_a_token_is_good_for_what_it_was_made_for(ada: User, dataset: Dataset) -> None:  # noqa: F811
    client = program(token_of(ada))
    refused = 0
    for path, view in addresses():
        for declared in operations_of(view):
            if declared.tokens and declared.scope != "read":
                answer = client.generic(declared.method, filled(path, dataset_id=dataset.pk))
                assert (answer.status_code, f"“{declared.scope}”" in answer.json()["error"]) == (403, True), path
                refused += 1
    assert refused > 20


def test_a_token_never_opens_what_is_for_people(ada: User) -> None:
    client = program(token_of(ada, *EVERYTHING))
    for path in ("/admin/", "/admin/auth/user/", "/admin/vlm/apitoken/", "/accounts/password/", "/accounts/tokens/"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["title"]) == (403, "Not with a token"), path
    until = (timezone.localdate() + timedelta(days=1)).isoformat()
    assert client.post(reverse("tokens"), {"name": "more", "until": until}).status_code == 403
    assert ApiToken.objects.count() == 1


def test_a_token_makes_no_session_and_needs_no_csrf_token(ada: User, dataset: Dataset) -> None:  # noqa: F811
    client = program(token_of(ada, "edit"))
    form = {"action": "add", "tag": "x", "ids": sample_ids(dataset)[:1]}
    answer = client.post(reverse("edit_tags", args=[dataset.pk]), form)
    assert answer.status_code == 200
    assert not client.cookies
    bare = Client(enforce_csrf_checks=True)
    bare.force_login(ada)
    assert bare.post(reverse("edit_tags", args=[dataset.pk]), form).status_code == 403


def test_a_token_that_hurries_is_told_to_wait(ada: User, settings: Any) -> None:
    settings.TOKEN_RATE = 2
    client, other = program(token_of(ada)), program(token_of(ada))
    answers = [client.get(reverse("datasets")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert answers[-1].json()["status"] == 429
    assert other.get(reverse("datasets")).status_code == 200


def test_the_admin_lists_tokens_and_revokes_them(admin: Client, ada: User) -> None:  # noqa: F811
    text = token_of(ada, "run")
    listed = admin.get(reverse("admin:vlm_apitoken_changelist")).content.decode()
    assert text[:15] in listed
    row = ApiToken.objects.get()
    assert text not in listed
    assert admin.get(reverse("admin:vlm_apitoken_add")).status_code == 403
    assert admin.post(reverse("admin:vlm_apitoken_delete", args=[row.pk]), {"post": "yes"}).status_code == 302
    assert program(text).get(reverse("datasets")).status_code == 401


# -- the document ------------------------------------------------------------------------------------------------------------
def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_document_stands_on_its_own(ada: User) -> None:
    served = program(token_of(ada)).get(reverse("openapi")).json()
    assert served == json.loads(json.dumps(document()))
    for reference in references(served):
        place: Any = served
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    names = [
        one["operationId"] for path in served["paths"].values() for key, one in path.items() if key != "parameters"
    ]
    assert len(names) == len(set(names)) > 40


def test_what_is_answered_is_what_the_document_says(ada: User, dataset: Dataset) -> None:  # noqa: F811
    run = TaggingRun.objects.create(dataset=dataset, status="completed", model="m", vocabulary_hash="0" * 64)
    headers = {"Authorization": f"Bearer {token_of(ada, *EVERYTHING)}", "Accept": "application/json"}
    headers |= {"Accept-Encoding": "identity"}
    schema = schemathesis.openapi.from_wsgi("/openapi.json", WSGIHandler(), headers=headers)
    ids = {"dataset_id": dataset.pk, "run_id": run.pk, "other_id": run.pk, "sample_id": sample_ids(dataset)[0]}
    ids |= {"name": "weather", "size": 160}  # type: ignore[dict-item]
    tried = 0

    def ask(operation: Any) -> None:
        own = {name: value for name, value in ids.items() if f"{{{name}}}" in operation.path}

        @hypothesis_settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(path_parameters=own or None))
        def asked(case: Any) -> None:
            nonlocal tried
            tried += 1
            sent = headers if not operation.label.endswith("/export") else headers | {"Accept": "*/*"}
            case.call_and_validate(headers=sent, checks=PROMISED)

        asked()

    found: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    for operation in sorted(found, key=lambda one: (one.method != "get", one.path)):
        if "/accounts/" not in operation.path:
            ask(operation)
    assert tried > 100
