"""What the addresses answer: who may, in which form, and with how many queries."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone
from django.utils.html import escape
from django.utils.text import slugify

import vlm
from tests.page.conftest import HOSTILE, PASSWORD, allow, draw_images, sample_ids
from vlm import services
from vlm.formats import EXPORTS
from vlm.models import Dataset, ImportJob, SavedView, TaggingRun
from vlm.samples import DatasetStats, SampleFilter, StoreBusy
from vlm.views.place import Place

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}
SCRIPTS = sorted((Path(vlm.__file__).parent / "static" / "vlm").glob("*.js"))
OPEN = {"healthz", "login", "logout"}


def make_run(dataset: Dataset, **fields: object) -> TaggingRun:
    return TaggingRun.objects.create(
        dataset=dataset, vocabulary_hash="0" * 64, model="m", **({"status": "completed", "total": 6} | fields)
    )


def addresses(dataset: Dataset) -> dict[str, str]:
    """Return every address of the page, by name."""
    run, job = make_run(dataset), ImportJob.objects.create(path="/x", name="x")
    values = {
        "dataset_id": dataset.pk,
        "run_id": run.pk,
        "job_id": job.pk,
        "sample_id": sample_ids(dataset)[0],
        "size": 160,
        "name": "lighting",
    }
    found = {}

    def walk(patterns: Iterable[object], outer: set[str]) -> None:
        for pattern in patterns:
            wanted = outer | set(pattern.pattern.converters)  # type: ignore[attr-defined]
            if not isinstance(pattern, URLPattern):
                walk(pattern.url_patterns, wanted)  # type: ignore[attr-defined]
            elif pattern.name is not None and pattern.callback.__module__.startswith("vlm.views"):
                found[pattern.name] = reverse(pattern.name, kwargs={name: values.get(name, 1) for name in wanted})

    walk(get_resolver().url_patterns, set())
    return found


def test_nothing_is_open_but_the_log_in_and_the_health_check(dataset: Dataset) -> None:
    client, found = Client(), addresses(dataset)
    assert len(found) > 18
    for name, address in found.items():
        answer = client.get(address)
        if name in OPEN:
            assert answer.status_code == HTTPStatus.OK, name
        else:
            assert answer.status_code == HTTPStatus.FOUND, name
            assert answer.headers["Location"].startswith(reverse("login")), name


def test_without_a_permission_everything_is_refused(dataset: Dataset, user: User, client: Client) -> None:
    client.force_login(user)
    for name, address in addresses(dataset).items():
        if name in (
            *OPEN,
            *("enter", "change_password", "tokens", "token_revoke"),
        ):  # the link leads on whoever is logged in; a password and tokens are one's own
            continue
        statuses = {client.get(address).status_code, client.post(address).status_code}
        assert statuses <= {403, 405}, name
        assert 403 in statuses, name


@pytest.mark.parametrize(
    ("permission", "name", "allowed"),
    [
        ("view_dataset", "dataset", 200),
        ("view_dataset", "auto_tag", 403),
        ("view_dataset", "edit_tags", 403),
        ("view_dataset", "import_new", 403),
        ("edit_tags", "edit_tags", 400),
        ("autotag_dataset", "auto_tag", 400),
        ("import_dataset", "import_new", 400),
    ],
)
def test_each_right_opens_its_own_door(
    dataset: Dataset, user: User, client: Client, permission: str, name: str, allowed: int
) -> None:
    allow(user, "view_dataset", permission)
    client.force_login(user)
    address = addresses(dataset)[name]
    answer = client.get(address) if name == "dataset" else client.post(address, {"scope": "nonsense"})
    assert answer.status_code == allowed


def test_buttons_are_only_for_those_who_may(dataset: Dataset, user: User, client: Client) -> None:
    allow(user, "view_dataset")
    client.force_login(user)
    page = client.get(reverse("dataset", args=[dataset.pk])).content.decode()
    assert "auto-tag-form" not in page
    assert 'name="action"' not in page


def test_a_form_needs_its_token(dataset: Dataset) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("eve", password=PASSWORD))
    for name in ("edit_tags", "auto_tag", "run_cancel", "run_revert", "import_new"):
        assert client.post(addresses(dataset)[name], {"tag": "x"}).status_code == 403, name


def test_hostile_names_and_tags_are_only_text(dataset: Dataset, admin: Client) -> None:
    ids, shown = sample_ids(dataset), set[str]()
    services.tags.add(dataset=dataset, filter=SampleFilter(), tag="<script>alert(2)</script>", user=None)
    for address in (
        reverse("dataset", args=[dataset.pk]),
        reverse("cells", args=[dataset.pk]),
        *(reverse("sample", args=[dataset.pk, sample_id]) for sample_id in ids),
    ):
        page = admin.get(address).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        shown |= {name for name in (HOSTILE,) if escape(name) in page}
    assert shown == {HOSTILE}  # it was there, as text


def test_the_policy_allows_no_inline_code(dataset: Dataset, admin: Client) -> None:
    answer = admin.get(reverse("dataset", args=[dataset.pk]))
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    page = answer.content.decode()
    assert " style=" not in page
    assert " onclick=" not in page
    assert "<script>" not in page


# -- browsing ------------------------------------------------------------------------------------------------------------
def test_the_first_load_is_light(dataset: Dataset, admin: Client) -> None:
    """At most 150 kB before pictures, as it travels."""
    page = admin.get(reverse("dataset", args=[dataset.pk]), headers={"Accept-Encoding": "gzip"})
    assert page.headers["Content-Encoding"] == "gzip"
    from gzip import compress

    from django.contrib.staticfiles import finders

    files = (
        "vlm/app.css",
        *(f"vlm/{path.name}" for path in SCRIPTS),
        "vlm/icon.svg",
        "django_htmx/htmx-2.min.js",
        "django_htmx/ext/hx-ws-2.min.js",
    )
    static = sum(len(compress(Path(str(finders.find(name))).read_bytes())) for name in files)
    assert len(page.content) + static < 150_000


def test_a_filter_is_in_the_address_and_every_part_can_go(dataset: Dataset, admin: Client) -> None:
    ids = sample_ids(dataset)
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=tuple(ids[:2])), tag="dark", user=None)
    page = admin.get(reverse("dataset", args=[dataset.pk]), {"all": "dark", "order": "added", "size": "l"})
    content = page.content.decode()
    assert content.count('class="cell"') == 2
    chips = page.context["chips"]
    assert [label for label, _ in chips] == ["dark"]
    assert parse_qs(urlsplit(chips[0][1]).query) == {"order": ["added"], "size": ["l"]}


def test_a_word_replaces_its_siblings_and_leaves_other_dimensions(dataset: Dataset, admin: Client) -> None:
    page = admin.get(reverse("dataset", args=[dataset.pk]), {"all": ["dark", "indoor"]})
    lighting = page.context["sidebar"].dimensions[0]
    bright = next(word for word in lighting.words if word.word == "bright")
    assert parse_qs(urlsplit(bright.require).query)["all"] == ["indoor", "bright"]
    dark = next(word for word in lighting.words if word.word == "dark")
    assert dark.mode == "all"
    assert parse_qs(urlsplit(dark.require).query)["all"] == ["indoor"]
    assert parse_qs(urlsplit(dark.exclude).query) == {"all": ["indoor"], "none": ["dark"]}


@pytest.mark.parametrize("query", ["state=odd", "pmin=2", "order=odd", "size=xxl", "after=!", "run=x", "lacking=odd"])
def test_a_bad_address_says_what_is_wrong(dataset: Dataset, admin: Client, query: str) -> None:
    answer = admin.get(f"{reverse('dataset', args=[dataset.pk])}?{query}")
    assert answer.status_code == 400
    assert "<h1>" in answer.content.decode()
    fragment = admin.get(f"{reverse('dataset', args=[dataset.pk])}?{query}", headers=HTMX)
    assert fragment.status_code == 400
    assert fragment.headers["HX-Reswap"] == "none"
    assert fragment.content.startswith(b'<div id="messages"')


@pytest.mark.parametrize("number", ["99999999999999999999999999", "9223372036854775808"])
def test_numbers_beyond_all_ids_do_no_harm(dataset: Dataset, admin: Client, number: str) -> None:
    here = reverse("dataset", args=[dataset.pk])
    for address in (f"/datasets/{number}/", f"/runs/{number}/", f"/imports/{number}/", f"{here}samples/{number}/",
                    f"{here}samples/{number}/thumbnail/160"):  # fmt: skip
        assert admin.get(address).status_code == 404, address
    for query in (f"id={number}", f"run={number}", f"failed_in={number}", f"loaded={number}"):
        assert admin.get(f"{here}?{query}").status_code in (200, 400), query
    assert admin.get(f"{here}cells?ids={number}").status_code == 400
    assert admin.post(f"{here}tags", {"action": "add", "tag": "x", "ids": number}).status_code == 400
    assert admin.post(f"{here}auto-tag", {"scope": "failed", "failed_of": number}).status_code == 400


def test_pages_follow_each_other_without_gap(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.views.browse.PAGE", 3)
    seen: list[str] = []
    address = reverse("dataset", args=[dataset.pk])
    while address:
        page = admin.get(address)
        seen += [sample.file_name for sample in page.context["page"].samples]
        address = page.context["more"]
    assert seen == sorted(seen)
    assert len(seen) == 7


def test_htmx_gets_the_changing_part_alone(dataset: Dataset, admin: Client) -> None:
    answer = admin.get(reverse("dataset", args=[dataset.pk]), headers=HTMX)
    assert answer.content.startswith(b'<div id="browse"')
    assert "HX-Request" in answer.headers["Vary"]
    whole = admin.get(reverse("dataset", args=[dataset.pk]), headers=HTMX | {"HX-History-Restore-Request": "true"})
    assert whole.content.startswith(b"<!doctype html>")


def queries(client: Client, address: str) -> int:
    client.get(address)  # the session's first request has some of its own
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_queries_do_not_grow_with_what_is_shown(
    dataset: Dataset, admin: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, runs, sets = reverse("dataset", args=[dataset.pk]), reverse("runs", args=[dataset.pk]), reverse("datasets")
    make_run(dataset)
    before = {address: queries(admin, address) for address in (grid, runs, sets)}
    services.datasets.import_folder(path=draw_images(tmp_path / "images", 40), name="Six pictures")
    for index in range(8):
        make_run(dataset)
        SavedView.objects.create(dataset=dataset, user=User.objects.get(username="ada"), name=f"v{index}")
    after = {address: queries(admin, address) for address in (grid, runs)}
    assert after == {grid: before[grid], runs: before[runs]}
    assert max(after.values()) <= 16
    for index in range(3):
        services.datasets.import_folder(path=draw_images(tmp_path / f"set{index}", 1), name=f"Set {index}")
    assert queries(admin, sets) == before[sets]  # and the store is read once for all cards


# -- tags ----------------------------------------------------------------------------------------------------------------
def tags_of(dataset: Dataset, sample_id: int) -> set[str]:
    (row,) = services.samples.by_id(dataset=dataset, ids=[sample_id])
    return {tag.tag for tag in row.tags}


def test_tags_are_added_to_a_selection_or_to_all_of_a_filter(dataset: Dataset, admin: Client) -> None:
    ids, address = sample_ids(dataset), reverse("edit_tags", args=[dataset.pk])
    back = f"{reverse('dataset', args=[dataset.pk])}?size=s"
    answer = admin.post(
        address, {"action": "add", "tag": " odd one ", "ids": [str(ids[0]), f"{ids[1]},{ids[2]}"], "back": back}
    )
    assert answer.headers["Location"] == back
    assert [("odd one" in tags_of(dataset, i)) for i in ids] == [True] * 3 + [False] * 4
    admin.post(address, {"action": "remove", "tag": "odd one", "all": "1", "filter": f"id={ids[0]}"})
    assert tags_of(dataset, ids[0]) == set()
    said = admin.post(address, {"action": "add", "tag": "x", "ids": ids[3]}, headers=HTMX)
    assert "added to 1 image." in said.content.decode()
    assert said.headers["HX-Trigger"] == json.dumps({"datavisor:changed": {}})


def test_tags_are_suggested(dataset: Dataset, admin: Client) -> None:
    services.tags.add(dataset=dataset, filter=SampleFilter(), tag="<b>", user=None)
    answer = admin.get(reverse("edit_tags", args=[dataset.pk]))
    assert answer.content == b'<option value="&lt;b&gt;">\n'


def test_the_header_counts_alike_with_and_without_a_filter(dataset: Dataset, admin: Client) -> None:
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=(sample_ids(dataset)[0],)), tag="x", user=None)
    pages = [admin.get(reverse("dataset", args=[dataset.pk]), query) for query in ({}, {"none": "x"})]
    assert pages[0].context["stats"] == pages[1].context["stats"] == DatasetStats(7, 1, 0)


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({"action": "add", "tag": "x"}, "Select at least one image"),
        ({"action": "add", "tag": " ", "ids": "1"}, "Write the tag first"),
        ({"action": "add", "tag": "x" * 999, "ids": "1"}, "at most 200 characters"),
        ({"action": "add", "tag": "x", "ids": "1,b"}, "cannot be read"),
        ({"action": "paint", "tag": "x", "ids": "1"}, "paint"),
        ({"action": "add", "tag": "x", "all": "1", "filter": "pmin=7"}, "pmin"),
    ],
)
def test_an_edit_that_cannot_be_done_is_refused(
    dataset: Dataset, admin: Client, form: dict[str, str], complaint: str
) -> None:
    answer = admin.post(reverse("edit_tags", args=[dataset.pk]), form)
    assert answer.status_code == 400
    assert complaint in answer.content.decode()


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
def test_back_leads_nowhere_else(dataset: Dataset, admin: Client, back: str) -> None:
    form = {"action": "add", "tag": "x", "ids": sample_ids(dataset)[0], "back": back}
    answer = admin.post(reverse("edit_tags", args=[dataset.pk]), form)
    assert answer.headers["Location"] == reverse("dataset", args=[dataset.pk])


def test_views_are_saved_for_their_owner(dataset: Dataset, admin: Client, user: User, client: Client) -> None:
    address = reverse("saved_views", args=[dataset.pk])
    admin.post(address, {"name": "Dark ones", "query": "all=dark"})
    admin.post(address, {"name": "Dark ones", "query": "all=dim"})
    view = SavedView.objects.get()
    assert view.query == "all=dim"
    assert admin.post(address, {"name": "Odd", "query": "pmin=9"}).status_code == 400
    allow(user, "view_dataset")
    client.force_login(user)
    assert "Dark ones" not in client.get(reverse("dataset", args=[dataset.pk])).content.decode()
    client.post(address, {"forget": view.pk})
    assert SavedView.objects.exists()
    admin.post(address, {"forget": view.pk})
    assert not SavedView.objects.exists()


# -- runs ----------------------------------------------------------------------------------------------------------------
def test_progress_and_conflict_are_plain_json(dataset: Dataset, admin: Client) -> None:
    progress = reverse("auto_tag_progress", args=[dataset.pk])
    assert admin.get(progress).json() == {"run": None}
    run = make_run(dataset, status="running", processed=3)
    assert admin.get(progress).json()["processed"] == 3
    answer = admin.post(reverse("auto_tag", args=[dataset.pk]), headers={"Accept": "application/json"})
    assert answer.status_code == 409
    assert f"Run {run.pk}" in answer.json()["error"]
    fragment = admin.post(reverse("auto_tag", args=[dataset.pk]), headers=HTMX)
    assert (fragment.status_code, fragment.headers["HX-Retarget"]) == (409, "#auto-tag-problem")
    assert admin.post(reverse("auto_tag", args=[10**6])).status_code == 404


def test_a_start_answers_202_with_the_run(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[TaggingRun] = []
    monkeypatch.setattr("vlm.services.runs.launch", launched.append)  # the run itself is tested elsewhere
    answer = admin.post(reverse("auto_tag", args=[dataset.pk]), headers={"Accept": "application/json"})
    assert answer.status_code == 202
    assert answer.json()["run"] == launched[0].pk == TaggingRun.objects.get().pk
    assert TaggingRun.objects.get().total == 7


def test_options_reach_the_run(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.services.runs.launch", lambda run: None)
    ids = sample_ids(dataset)
    form = {
        "scope": "all", "within": "selection", "ids": f"{ids[0]},{ids[1]}", "dimensions": ["clarity", "setting"],
        "min_probability": "0.7", "min_mass": "0", "detail": "low",
    }  # fmt: skip
    assert admin.post(reverse("auto_tag", args=[dataset.pk]), form).status_code == 302
    run = TaggingRun.objects.get()
    assert (run.scope, run.min_probability, run.min_mass, run.detail, run.total) == ("all", 0.7, 0, "low", 2)
    assert run.vocabulary.names == ("clarity", "setting")
    counted = admin.get(
        reverse("auto_tag_count", args=[dataset.pk]), {"within": "selection", "ids": str(ids[0])}, headers=HTMX
    )
    assert counted.content.startswith(b"<b>1</b> image, 5 questions")


@pytest.mark.parametrize(
    "form",
    [{"min_probability": "7"}, {"within": "selection"}, {"dimensions": "taste"}, {"limit": "0"}, {"detail": "x"}],
)
def test_bad_options_are_named(dataset: Dataset, admin: Client, form: dict[str, str]) -> None:
    answer = admin.post(reverse("auto_tag", args=[dataset.pk]), form, headers={"Accept": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not TaggingRun.objects.exists()


def test_a_run_is_cancelled_resumed_and_taken_back_by_post_only(
    dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.services.runs.launch", lambda run: None)
    run = make_run(dataset, status="running", worker="elsewhere:1")
    for name in ("run_cancel", "run_resume", "run_revert", "run_thresholds"):
        assert admin.get(reverse(name, args=[run.pk])).status_code == 405
    admin.post(reverse("run_cancel", args=[run.pk]))
    run.refresh_from_db()
    assert run.status == "cancelling"
    assert admin.post(reverse("run_resume", args=[run.pk])).status_code == 409
    TaggingRun.objects.filter(pk=run.pk).update(status="cancelled")
    assert admin.post(reverse("run_resume", args=[run.pk])).status_code == 302
    assert admin.post(reverse("run_revert", args=[run.pk])).status_code == 409
    TaggingRun.objects.filter(pk=run.pk).update(status="completed")
    assert admin.post(reverse("run_revert", args=[run.pk])).status_code == 302
    run.refresh_from_db()
    assert run.reverted


# -- pictures, files, imports --------------------------------------------------------------------------------------------
def test_thumbnails_are_kept_by_the_browser_and_never_fail(dataset: Dataset, admin: Client) -> None:
    rows = services.samples.page(dataset=dataset, filter=SampleFilter()).samples
    good = next(row for row in rows if row.file_name == "001.png")
    address = f"{reverse('thumbnail', args=[dataset.pk, good.id, 160])}?v={good.content_key}"
    answer = admin.get(address)
    assert answer.headers["Content-Type"] == "image/webp"
    assert "immutable" in answer.headers["Cache-Control"]
    assert "private" in answer.headers["Cache-Control"]
    again = admin.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for row in rows:
        assert admin.get(reverse("thumbnail", args=[dataset.pk, row.id, 320])).status_code == 200
        assert admin.get(reverse("image", args=[dataset.pk, row.id])).status_code == 200
    broken = next(row for row in rows if row.file_name.startswith("broken"))
    drawn = admin.get(reverse("thumbnail", args=[dataset.pk, broken.id, 320]))
    assert (drawn.headers["Content-Type"], drawn.headers["Cache-Control"]) == ("image/svg+xml", "no-store")
    assert admin.get(reverse("thumbnail", args=[dataset.pk, good.id, 161])).status_code == 404


def test_exports_hold_the_filter_and_say_how_long_they_are(dataset: Dataset, admin: Client) -> None:
    ids = sample_ids(dataset)
    for name in EXPORTS:
        answer = admin.get(reverse("export", args=[dataset.pk]), {"format": name, "id": str(ids[0])})
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")
        content = b"".join(answer)  # type: ignore[call-overload]
        assert len(content) == int(answer.headers["Content-Length"]) > 0
        asked = admin.head(reverse("export", args=[dataset.pk]), {"format": name, "id": str(ids[0])})
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["Content-Disposition"] == answer.headers["Content-Disposition"]
    assert admin.get(reverse("export", args=[dataset.pk]), {"format": "odd"}).status_code == 400


def test_an_export_is_called_after_the_data_set_and_the_view(dataset: Dataset, admin: Client) -> None:
    address = reverse("export", args=[dataset.pk])

    def name(**query: str) -> str:
        return admin.head(address, {"format": "jsonl"} | query).headers["Content-Disposition"]

    stem = slugify(dataset.name)
    assert name() == f'attachment; filename="{stem}-jsonl.jsonl"'
    assert name(all="dark") == f'attachment; filename="{stem}-alldark-jsonl.jsonl"'
    user = User.objects.get(username="ada")
    SavedView.objects.create(dataset=dataset, user=user, name="Dark ones", query="all=dark")
    assert name(all="dark") == f'attachment; filename="{stem}-dark-ones-jsonl.jsonl"'


def test_an_export_that_fails_is_told_before_a_byte_is_sent(
    dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the writing, too: a page with the reason, and not half a file."""
    whole = services.exports._rows

    def breaks(*asked: Any) -> Iterator[Any]:
        yield from whole(*asked)
        raise StoreBusy("Another process is writing. Try again in a moment.")

    monkeypatch.setattr("vlm.services.exports._rows", breaks)
    for name in EXPORTS:
        answer = admin.get(reverse("export", args=[dataset.pk]), {"format": name})
        assert answer.status_code == 503
        assert "Another process is writing" in answer.content.decode()


def test_an_import_shows_what_it_found_before_it_writes(
    db: None, data_dir: Path, tmp_path: Path, admin: Client
) -> None:
    folder = draw_images(tmp_path / "new", 3)
    looked = admin.post(reverse("import_new"), {"path": str(folder), "action": "preview"})
    assert looked.context["preview"].total == 3
    assert not Dataset.objects.exists()
    assert not ImportJob.objects.exists()
    services.datasets.import_folder(path=folder)
    first, second, *_ = sorted(folder.iterdir())
    first.rename(first.with_name("renamed" + first.suffix))
    second.unlink()
    draw_images(folder / "more", 2)
    looked = admin.post(reverse("import_new"), {"path": str(folder), "action": "preview"})
    expected = {"new": 2, "known": 2, "changed": 0, "renamed": 1, "back": 0, "gone": 1}
    assert looked.context["preview"].summary == expected
    assert "<b>1</b> renamed" in looked.content.decode()
    assert services.datasets.import_folder(path=folder, dry_run=True).imported.moved == 1
    assert services.datasets.import_folder(path=folder).imported.moved == 1  # none of the looks had done it
    Dataset.objects.all().delete()
    refused = admin.post(reverse("import_new"), {"path": "/etc", "action": "preview"})
    assert refused.status_code == 400
    assert "below" in refused.content.decode()


def test_a_busy_store_is_a_page_that_asks_for_patience(
    dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(**_: object) -> None:
        raise StoreBusy("Another process is writing. Try again in a moment.")

    monkeypatch.setattr("vlm.services.samples.page", busy)
    address = reverse("dataset", args=[dataset.pk])
    forms: list[Callable[[], dict[str, str]]] = [dict, lambda: HTMX, lambda: {"Accept": "application/json"}]
    for headers in forms:
        answer = admin.get(address, headers=headers())
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "Another process is writing" in answer.content.decode()


def test_programs_are_refused_in_json(dataset: Dataset, user: User, admin: Client) -> None:
    """Where a person gets a page: not logged in, no token, nothing there, the wrong method."""
    client = Client(headers={"Accept": "application/json"})
    address = reverse("auto_tag", args=[dataset.pk])
    unmasked = Client(enforce_csrf_checks=True, headers={"Accept": "application/json"})
    unmasked.force_login(user)
    refused = [client.get(address), unmasked.post(address)]
    headers = {"Accept": "application/json"}
    nowhere = [reverse("dataset", args=[10**6]), "/nowhere", reverse("run_cancel", args=[1])]
    refused += [unmasked.get("/nowhere"), *(admin.get(path, headers=headers) for path in nowhere)]
    assert [answer.status_code for answer in refused] == [401, 403, 404, 404, 404, 405]
    for answer in refused:
        assert list(answer.json()) == ["error", "title", "status"]
        assert answer.json()["status"] == answer.status_code
    assert refused[-1].headers["Allow"] == "POST"
    for accepted in ("*/*", "text/html,application/json;q=0.9"):
        page = admin.get("/nowhere", headers={"Accept": accepted})
        assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert Client().get(address, headers={"Accept": accepted}).status_code == 302


def test_programs_are_answered_in_json(dataset: Dataset, admin: Client) -> None:
    asked: dict[str, Any] = {"headers": {"Accept": "application/json"}}
    run = make_run(dataset, status="running")
    cancel = reverse("run_cancel", args=[run.pk])
    first, again = admin.post(cancel, **asked), None
    assert (first.status_code, first.json()["run"]) == (200, run.pk)
    TaggingRun.objects.update(status="completed")
    again = admin.post(cancel, **asked)
    assert (again.status_code, again.json()["status"]) == (409, 409)
    form = {"action": "add", "tag": "mine", "ids": [str(i) for i in sample_ids(dataset)[:2]]}
    assert admin.post(reverse("edit_tags", args=[dataset.pk]), form, **asked).json()["changed"] == 2
    refused = admin.post(reverse("edit_tags", args=[dataset.pk]), {"action": "add", "tag": "mine"}, **asked)
    assert (refused.status_code, "Select at least one image" in refused.json()["error"]) == (400, True)
    nowhere = admin.post(reverse("import_new"), {"path": "/nowhere/at/all", "action": "start"}, **asked)
    assert nowhere.status_code == 400
    assert "/nowhere/at/all" in nowhere.json()["error"] or "folder" in nowhere.json()["error"]
    assert nowhere.json()["error"] != "Bad Request"


def test_an_edit_lost_with_the_session_is_told(dataset: Dataset, user: User) -> None:
    address = reverse("edit_tags", args=[dataset.pk])
    form = {"action": "add", "tag": "mine", "ids": ["1"]}
    told = Client().post(address, form, headers=HTMX)
    assert told.status_code == 401
    assert "nothing was changed" in told.content.decode()
    told = Client(enforce_csrf_checks=True).post(address, form, headers=HTMX)
    assert told.status_code == 403
    assert "nothing was changed" in told.content.decode()
    assert told.headers["HX-Reswap"] == "none"


def test_anybody_can_change_their_password(user: User, client: Client) -> None:
    client.force_login(user)
    assert reverse("change_password") in client.get(reverse("change_password")).content.decode()
    form = {"old_password": PASSWORD, "new_password1": "another horse 9", "new_password2": "another horse 9"}
    assert "incorrect" in client.post(reverse("change_password"), form | {"old_password": "x"}).content.decode()
    assert client.post(reverse("change_password"), form).status_code == 302
    user.refresh_from_db()
    assert user.check_password("another horse 9")


def test_saved_views_are_bounded(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = reverse("saved_views", args=[dataset.pk])
    assert admin.post(address, {"name": "long", "query": "q=" + "x" * 10_000}).status_code == 400
    assert admin.post(address, {"forget": "9" * 5000}).status_code == 404
    monkeypatch.setattr("vlm.services.datasets.MOST_VIEWS", 2)
    assert [admin.post(address, {"name": name, "query": "q=x"}).status_code for name in "abcb"] == [302, 302, 409, 302]


def test_pictures_are_served_where_none_can_be_kept(dataset: Dataset, admin: Client, settings: Any) -> None:
    cache = settings.DATA_DIR / "taken"
    cache.write_text("a file, so no folder can be made of it")
    settings.THUMBNAIL_DIR = cache / "thumbnails"
    good = [reverse("thumbnail", args=[dataset.pk, sample_ids(dataset)[1], 160])]
    good.append(reverse("image", args=[dataset.pk, sample_ids(dataset)[1]]))
    for address in good:
        answer = admin.get(address)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")


def test_a_full_database_is_told_and_reading_goes_on(
    dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.save", full)
    assert admin.get("/").status_code == 200
    answer = Client().post(reverse("login"), {"username": "ada", "password": PASSWORD})
    assert answer.status_code == 507
    assert "Make room" in answer.content.decode()


def test_htmx_goes_to_the_log_in_as_a_whole_page(dataset: Dataset) -> None:
    answer = Client().get(reverse("dataset", args=[dataset.pk]), headers=HTMX)
    assert answer.headers["HX-Refresh"] == "true"


def test_ten_wrong_passwords_are_enough(user: User, client: Client) -> None:
    for _ in range(10):
        answer = client.post(reverse("login"), {"username": "grace", "password": "wrong"})
    assert answer.status_code == 429
    assert "quarter of an hour" in answer.content.decode()
    assert client.post(reverse("login"), {"username": "grace", "password": PASSWORD}).status_code == 429


def test_a_place_survives_its_own_address() -> None:
    from django.http import QueryDict

    place = Place.of(QueryDict("all=a+b&none=%26&pmin=0.25&order=uncertain&size=s&after=x&loaded=7"))
    assert Place.of(QueryDict(place.query)) == place
    assert place.filter.all_of == ("a b",)


# -- what is on show, and what can be taken back -------------------------------------------------------------------------
def test_an_import_that_skipped_files_is_still_a_page(admin: Client, db: None) -> None:
    skipped = [{"path": "odd <b>.txt", "reason": "is no image"}]
    job = ImportJob.objects.create(path="/x", name="x", status="completed", skipped=skipped)
    page = admin.get(reverse("import_job", args=[job.pk]))
    assert page.status_code == 200
    assert "odd &lt;b&gt;.txt" in page.content.decode()
    assert "is no image" in page.content.decode()


def test_a_words_link_leads_to_as_many_images_as_stand_beside_it(dataset: Dataset, admin: Client) -> None:
    ids = sample_ids(dataset)
    for tag, chosen in {"dark": ids[:3], "dim": ids[3:5], "indoor": ids[1:4], "odd": ids[:2]}.items():
        services.tags.add(dataset=dataset, filter=SampleFilter(ids=tuple(chosen)), tag=tag, user=None)
    queries = (
        "",
        "all=indoor",
        "any=dark&any=dim",
        "none=dark",
        "lacking=lighting",
        "all=dark&any=odd",
        "any=dark&any=odd",
    )
    counted: dict[str, int] = {}
    here = reverse("dataset", args=[dataset.pk])
    for query in queries:
        sidebar = admin.get(f"{here}?{query}").context["sidebar"]
        for group in (*sidebar.dimensions, sidebar.user_tags):
            lines = [(word.require, word.count, word.mode == "all") for word in group.words]
            if group.lacking:
                lines.append((group.lacking.url, group.lacking.count, group.lacking.chosen))
            for address, count, chosen_already in lines:
                if not chosen_already:
                    assert counted.setdefault(address, count) == count, (query, address)
            # A bar is as long as its count, the longest of its group all of the width, whatever the filter.
            longest = max(1, *(count for _, count, _ in lines)) if lines else 1
            assert [word.percent for word in group.words] == [-(-100 * word.count // longest) for word in group.words]
    for address, count in counted.items():
        path, _, query = address.partition("?")
        assert path == here
        assert services.samples.count(dataset=dataset, filter=SampleFilter.from_query(query)) == count, address
    some = sorted(counted)[:: len(counted) // 8]  # the page itself counts as the service does
    assert [admin.get(address).context["facets"].total for address in some] == [counted[address] for address in some]


def test_the_grid_opens_around_a_sample_and_leads_both_ways(
    dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.views.browse.PAGE", 2)
    ids = sample_ids(dataset)
    here = reverse("dataset", args=[dataset.pk])
    for order in ("name", "added", "uncertain"):
        everything = [s.id for s in services.samples.page(dataset=dataset, filter=SampleFilter(), order=order).samples]
        page = admin.get(here, {"at": everything[4], "order": order})
        shown = [sample.id for sample in page.context["page"].samples]
        assert shown == everything[2:6]
        before = admin.get(page.context["earlier_cells"])
        assert [sample.id for sample in before.context["page"].samples] == everything[0:2]
        assert not before.context["earlier"]
        behind = admin.get(page.context["more_cells"])
        assert [sample.id for sample in behind.context["page"].samples] == everything[6:]
        query: dict[str, str] = {"from": str(everything[3]), "loaded": "2", "order": str(order)}
        again = admin.get(here, query)
        assert [sample.id for sample in again.context["page"].samples] == everything[3:5]
        assert again.context["earlier"]
    # A sample that no longer matches still has its place.
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=(ids[4],)), tag="odd", user=None)
    page = admin.get(here, {"at": str(ids[4]), "none": "odd"})
    assert [sample.id for sample in page.context["page"].samples] == [ids[2], ids[3], ids[5], ids[6]]
    assert len(admin.get(here, {"at": 10**6}).context["page"].samples) == 2


def test_counts_alone_draw_no_cell(dataset: Dataset, admin: Client) -> None:
    page = admin.get(reverse("dataset", args=[dataset.pk]), {"loaded": "0"}, headers=HTMX)
    assert 'class="cell"' not in page.content.decode()
    assert page.context["facets"].total == 7


def test_an_edit_is_undone_exactly_and_once(dataset: Dataset, admin: Client) -> None:
    ids, address = sample_ids(dataset), reverse("edit_tags", args=[dataset.pk])
    admin.post(address, {"action": "add", "tag": "dim", "ids": ids[0]})
    said = admin.post(
        address, {"action": "add", "tag": "DARK", "ids": f"{ids[0]},{ids[1]}"}, headers=HTMX
    ).content.decode()
    assert (
        "“dark” added to 2 images, as the word of lighting; on 1 it took the place of another word of lighting." in said
    )
    assert [tags_of(dataset, i) for i in ids[:2]] == [{"dark"}, {"dark"}]
    undo = reverse("edit_undo", args=[dataset.pk, services.tags.edits(dataset=dataset)[0].id])
    assert undo in said
    assert "2 images are as before" in admin.post(undo, headers=HTMX).content.decode()
    assert [tags_of(dataset, i) for i in ids[:2]] == [{"dim"}, set()]
    assert admin.post(undo, headers=HTMX).status_code == 409
    assert "undone" in admin.get(reverse("edits", args=[dataset.pk])).content.decode()
    other = services.datasets.import_folder(
        path=draw_images(Path(dataset.root).parent / "other", 1), name="Other"
    ).dataset
    assert other is not None
    first = services.tags.edits(dataset=dataset)[-1].id
    assert admin.post(reverse("edit_undo", args=[other.pk, first])).status_code == 409


def test_a_run_that_was_broken_off_is_named_where_one_comes_back(dataset: Dataset, admin: Client, user: User) -> None:
    run = make_run(dataset, status="interrupted", processed=1, total=3)
    resume, said = reverse("run_resume", args=[run.pk]), f"Run {run.pk} was interrupted at 1 of 3 images."
    client = Client()
    client.force_login(user)
    allow(user, "view_dataset")
    for name in ("datasets", "active_runs"):
        page = admin.get(reverse(name)).content.decode()
        assert said in page
        assert f'action="{resume}"' in page
        assert resume not in client.get(reverse(name)).content.decode()


def test_anything_is_found(dataset: Dataset, admin: Client) -> None:
    services.datasets.save_view(
        dataset=dataset, user=User.objects.get(username="ada"), name="Dark ones", query="all=dark"
    )

    def found(**asked: str | int) -> list[tuple[str, str]]:
        goals = admin.get(reverse("find"), asked).context["goals"]
        return [(goal.label, goal.url) for goal in goals]

    here = reverse("dataset", args=[dataset.pk])
    assert found(q="pict SIX") == [("Six pictures", here)]
    assert ("dark", f"{here}?all=dark") in found(q="dark", dataset=dataset.pk)
    assert found(q="dark") == [("Dark ones", f"{here}?all=dark")]
    assert found(q="own", dataset=dataset.pk)[0] == ("Own tags", reverse("own_tags", args=[dataset.pk]))
    assert found(q="<b>", dataset="x") == []
    assert "Nothing is called “&lt;b&gt;”" in admin.get(reverse("find"), {"q": "<b>"}, headers=HTMX).content.decode()
    make_run(dataset, status="running", heartbeat=timezone.now() + timedelta(hours=1))
    assert "Six pictures" in admin.get(reverse("queue")).content.decode()


def test_own_tags_are_described_renamed_and_deleted(dataset: Dataset, admin: Client) -> None:
    ids, address = sample_ids(dataset), reverse("own_tags", args=[dataset.pk])
    for tag, of in (("tunnle", ids[:2]), ("tunnel", ids[1:3]), ("dark", ids[:1])):
        services.tags.add(dataset=dataset, filter=SampleFilter(ids=tuple(of)), tag=tag, user=None)
    admin.post(address, {"action": "describe", "tag": "tunnle", "note": " a road\n below ground "})
    said = admin.post(address, {"action": "rename", "tag": "tunnle", "new": "tunnel"}, headers=HTMX).content.decode()
    assert "“tunnle” is “tunnel” now on 2 images." in said
    listed = {"headers": {"Accept": "application/json"}}
    assert admin.get(address, **listed).json()["tags"] == [  # type: ignore[arg-type]
        {"tag": "tunnel", "samples": 3, "note": "a road below ground"}
    ]
    assert "a road below ground" in admin.get(reverse("dataset", args=[dataset.pk])).content.decode()
    assert "renamed <b>tunnle</b> to <b>tunnel</b>" in admin.get(reverse("edits", args=[dataset.pk])).content.decode()
    for form, status in (
        ({"action": "rename", "tag": "tunnel", "new": "tunnel"}, 400),
        ({"action": "rename", "tag": "dark", "new": "x"}, 404),
        ({"action": "delete", "tag": "nothing"}, 404),
        ({"action": "paint", "tag": "tunnel"}, 400),
        ({"action": "describe", "tag": "tunnel", "note": "x" * 501}, 400),
    ):
        assert admin.post(address, form).status_code == status, form
    admin.post(address, {"action": "delete", "tag": "tunnel"})
    assert "No own tag yet" in admin.get(address).content.decode()
    assert tags_of(dataset, ids[0]) == {"dark"}


def test_a_long_run_is_asked_about_once(dataset: Dataset, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.services.runs.launch", lambda run: None)
    from vlm.runs import scope
    from vlm.runs.options import RunOptions

    like = scope.draft(dataset, RunOptions())
    TaggingRun.objects.create(
        dataset=dataset,
        vocabulary_hash="0" * 64,
        status="completed",
        model=like.model,
        detail=like.detail,
        processed=10,
        seconds=2000,
        vocabulary_json=like.vocabulary_json,
    )
    address = reverse("auto_tag", args=[dataset.pk])
    counted = admin.get(reverse("auto_tag_count", args=[dataset.pk]), headers=HTMX)
    assert "about 23 min 20 s" in counted.content.decode()
    asked = admin.post(address, headers=HTMX)
    assert (asked.status_code, asked.headers["HX-Retarget"]) == (200, "#auto-tag-problem")
    assert "Start anyway" in asked.content.decode()
    assert "Start anyway" in admin.post(address).content.decode()
    assert TaggingRun.objects.count() == 1
    assert admin.post(address, {"confirmed": "1"}, headers=HTMX).status_code == 202


def test_thresholds_of_a_run_that_was_taken_back_are_refused_with_a_page(dataset: Dataset, admin: Client) -> None:
    from django.utils import timezone

    run = make_run(dataset, reverted=timezone.now())
    assert "Other thresholds" not in admin.get(reverse("run", args=[run.pk])).content.decode()
    for action in ("preview", "apply"):
        form = {"min_probability": "0.3", "min_mass": "0", "action": action}
        assert admin.post(reverse("run_thresholds", args=[run.pk]), form).status_code == 409


def test_a_queued_run_says_what_it_waits_for(dataset: Dataset, admin: Client, tmp_path: Path) -> None:
    other = services.datasets.import_folder(path=draw_images(tmp_path / "other", 1), name="Other").dataset
    assert other is not None
    busy = make_run(other, status="running", worker="elsewhere:1")
    make_run(dataset, status="queued")
    for address in (reverse("dataset", args=[dataset.pk]), reverse("active_runs")):
        assert f"run {busy.pk}</a>, which has the model" in admin.get(address).content.decode()


def test_a_viewer_reads_why_auto_tag_is_off(dataset: Dataset, user: User, client: Client) -> None:
    allow(user, "view_dataset")
    client.force_login(user)
    assert "not tag by model" in client.get(reverse("dataset", args=[dataset.pk])).content.decode()


def test_a_data_set_changes_only_by_those_who_may(dataset: Dataset, user: User, client: Client) -> None:
    allow(user, "view_dataset")
    client.force_login(user)
    address = reverse("dataset_settings", args=[dataset.pk])
    assert "Rename" not in client.get(address).content.decode()
    for action in ("rename", "move", "delete", "paint"):
        assert client.post(address, {"action": action, "name": dataset.name}).status_code == 403
    allow(user, "change_dataset", "delete_dataset")
    client.force_login(User.objects.get(pk=user.pk))
    assert client.post(address, {"action": "paint"}).status_code == 400
    assert client.post(address, {"action": "rename", "name": "  "}).status_code == 400
    assert client.post(address, {"action": "delete", "name": "another"}).status_code == 400
    make_run(dataset, status="running", worker="elsewhere:1")
    assert client.post(address, {"action": "delete", "name": dataset.name}).status_code == 409
    assert client.post(address, {"action": "move", "path": dataset.root}).status_code == 409
    assert Dataset.objects.filter(pk=dataset.pk).exists()
