"""Django's admin on the real engine and store: starting, steering and reading runs, importing, deleting, the vocabulary."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.children import wait_for
from tests.images import make_images
from vlm import services
from vlm.models import Dataset, Dimension, ImportJob, SavedView, TaggingRun, Word
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
HOSTILE = "<img src=x onerror=alert(1)>.jpg"


def wait_for_runs() -> None:
    wait_for(lambda: not TaggingRun.objects.filter(status__in=TaggingRun.ACTIVE).exists())


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five pictures and a file that is none."""
    folder = make_images(tmp_path / "photos", 5)
    (folder / HOSTILE).write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    dataset = services.datasets.import_folder(path=folder, name="photos").dataset
    assert dataset is not None
    return dataset


@pytest.fixture
def ada() -> User:
    return User.objects.create(username="ada", is_staff=True, is_superuser=True)


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def staff(*permissions: str) -> Client:
    """Return a client whose user may enter the admin and has these permissions."""
    user = User.objects.create(username=f"staff {'-'.join(permissions)}", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def execute(dataset: Dataset, **options: Any) -> TaggingRun:
    """Tag in a thread, as the admin does, and wait for the end."""
    run = services.runs.start(dataset=dataset, options=RunOptions(**options), user=None, origin="admin")
    wait_for_runs()
    run.refresh_from_db()
    return run


def autotag(client: Client, dataset: Dataset, **values: object) -> str:
    """Send the intermediate page's form; returns the text of what comes next."""
    defaults = {
        **{"action": "autotag", "_selected_action": dataset.pk, "start": "1", "scope": "missing", "limit": ""},
        **{"dimensions": ["lighting", "clarity", "setting", "weather", "density"], "detail": "low", "mode": "score"},
        **{"min_probability": "0", "min_mass": "0"},
    }
    page = client.post(reverse("admin:vlm_dataset_changelist"), defaults | values, follow=True)
    assert page.status_code == 200
    return page.content.decode()


def all_tags(dataset: Dataset) -> set[str]:
    page = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=1000)
    return {tag.tag for sample in page.samples for tag in sample.tags}


# -- auto-tagging --------------------------------------------------------------------------------------------------------
def test_the_action_asks_first(client: Client, dataset: Dataset) -> None:
    page = client.post(
        reverse("admin:vlm_dataset_changelist"), {"action": "autotag", "_selected_action": dataset.pk, "index": "0"}
    )
    text = page.content.decode()
    assert "photos (6 images)" in text
    assert text.count('type="checkbox" name="dimensions"') == 5
    assert not TaggingRun.objects.exists()


def test_scope_and_options_arrive_in_the_run(client: Client, dataset: Dataset, ada: User) -> None:
    options = {"scope": "all", "limit": "3", "dimensions": ["setting", "weather"], "detail": "full"}
    text = autotag(client, dataset, **options, mode="generate", min_probability="0.25", min_mass="0.125")
    run = TaggingRun.objects.get()
    assert f"run {run.pk}</a> started, 3 images." in text
    wait_for_runs()
    run.refresh_from_db()
    assert (run.status, run.processed, run.origin, run.started_by) == (Status.COMPLETED, 3, "admin", ada)
    assert (run.scope, run.sample_limit, run.detail, run.mode) == ("all", 3, "full", "generate")
    assert (run.vocabulary.names, run.min_probability, run.min_mass) == (("setting", "weather"), 0.25, 0.125)


def test_two_data_sets_are_tagged_by_one_action(client: Client, dataset: Dataset, tmp_path: Path) -> None:
    other = services.datasets.import_folder(path=make_images(tmp_path / "other", 2), name="other").dataset
    assert other is not None
    autotag(client, dataset, _selected_action=[dataset.pk, other.pk])
    wait_for_runs()
    ended = set(TaggingRun.objects.values_list("dataset__name", "status", "processed", "failed"))
    assert ended == {("photos", Status.COMPLETED, 6, 1), ("other", Status.COMPLETED, 2, 0)}


def test_what_cannot_start_is_told(client: Client, dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    text = autotag(client, dataset)
    assert f"“photos”: Run {run.pk} of this data set is active." in text
    services.runs.cancel(run=run)
    assert "No image is in this scope." in autotag(client, dataset, scope="failed")
    assert TaggingRun.objects.get() == run


def test_bad_options_are_refused(client: Client, dataset: Dataset) -> None:
    for values, complaint in (
        ({"dimensions": []}, "Choose at least one dimension."),
        ({"min_mass": "1.5"}, "less than or equal to 1"),
        ({"limit": "0"}, "greater than or equal to 1"),
        ({"scope": "everything"}, "Select a valid choice"),
    ):
        assert complaint in autotag(client, dataset, **values)
    assert not TaggingRun.objects.exists()


def test_auto_tagging_needs_its_permission(dataset: Dataset) -> None:
    address = reverse("admin:vlm_dataset_changelist")
    plain = staff("view_dataset", "change_dataset")
    assert 'value="autotag"' not in plain.get(address).content.decode()
    autotag(plain, dataset)
    assert not TaggingRun.objects.exists()
    allowed = staff("view_dataset", "autotag_dataset")
    assert 'value="autotag"' in allowed.get(address).content.decode()
    autotag(allowed, dataset, limit="1")
    wait_for_runs()
    assert TaggingRun.objects.get().processed == 1


# -- runs ----------------------------------------------------------------------------------------------------------------
def test_a_run_is_cancelled_resumed_and_reverted_by_post(client: Client, dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")

    def steer(name: str) -> str:
        page = client.post(reverse(f"admin:vlm_taggingrun_{name}", args=[run.pk]), follow=True)
        assert page.status_code == 200
        wait_for_runs()
        run.refresh_from_db()
        return page.content.decode()

    assert f"Run {run.pk} stops after the batch at hand." in steer("cancel")
    assert run.status == Status.CANCELLED
    assert f"Run {run.pk} is not active." in steer("cancel")
    assert f"Run {run.pk} goes on." in steer("resume")
    assert (run.status, run.processed) == (Status.COMPLETED, 6)
    assert all_tags(dataset)
    assert "only a cancelled, failed or interrupted run can go on." in steer("resume")
    assert "its answers about 6 images are gone." in steer("revert")
    assert run.reverted is not None
    assert all_tags(dataset) == set()


def test_steering_takes_a_post_and_a_permission(client: Client, dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    viewer = staff("view_taggingrun")
    page = viewer.get(reverse("admin:vlm_taggingrun_change", args=[run.pk])).content.decode()
    for name in ("cancel", "resume", "revert"):
        address = reverse(f"admin:vlm_taggingrun_{name}", args=[run.pk])
        assert client.get(address).status_code == 405
        assert viewer.post(address).status_code == 403
        assert address not in page
        assert client.post(reverse(f"admin:vlm_taggingrun_{name}", args=[run.pk + 1])).status_code == 404
    run.refresh_from_db()
    assert run.status == Status.QUEUED


def test_a_run_is_read_only_and_shows_what_failed(client: Client, dataset: Dataset) -> None:
    run = execute(dataset)
    address = reverse("admin:vlm_taggingrun_change", args=[run.pk])
    text = client.get(address).content.decode()
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg</a>" in text
    assert "<img src=x" not in text
    assert services.runs.failures(run=run)[0].reason in text
    assert 'name="status"' not in text
    assert client.post(address, {"status": "failed"}).status_code == 403
    assert client.get(reverse("admin:vlm_taggingrun_delete", args=[run.pk])).status_code == 403
    assert client.get(reverse("admin:vlm_taggingrun_add")).status_code == 403


def test_actions_on_the_list_steer_many_runs(client: Client, dataset: Dataset) -> None:
    run = execute(dataset)
    page = client.post(
        reverse("admin:vlm_taggingrun_changelist"), {"action": "revert", "_selected_action": run.pk}, follow=True
    )
    assert f"Run {run.pk} is taken back" in page.content.decode()
    assert all_tags(dataset) == set()


def test_a_dead_run_shows_as_interrupted(client: Client, dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    TaggingRun.objects.update(status=Status.RUNNING, heartbeat="2020-01-01T00:00Z")
    assert "interrupted</td>" in client.get(reverse("admin:vlm_taggingrun_changelist")).content.decode()
    page = client.get(reverse("admin:vlm_taggingrun_change", args=[run.pk]))
    assert reverse("admin:vlm_taggingrun_resume", args=[run.pk]) in page.content.decode()


# -- data sets -----------------------------------------------------------------------------------------------------------
def test_adding_a_data_set_imports_it(client: Client, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "new", 3)
    address = reverse("admin:vlm_dataset_add")
    answer = client.post(address, {"path": str(folder), "name": "", "format": "auto"})
    job = ImportJob.objects.get()
    assert answer.headers["Location"] == reverse("admin:vlm_importjob_change", args=[job.pk])
    wait_for(lambda: ImportJob.objects.get().status != ImportJob.Status.RUNNING)
    assert Dataset.objects.values_list("name", "sample_count").get() == ("new", 3)
    assert client.get(answer.headers["Location"]).status_code == 200
    refused = client.post(address, {"path": "/etc", "name": "", "format": "auto"})
    assert "is not below the import roots" in refused.content.decode()
    assert staff("view_dataset", "add_dataset").get(address).status_code == 403


def test_a_json_without_a_name_makes_a_data_set_of_its_folders_name(client: Client, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "photos of may", 2)
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(sorted(folder.iterdir()))]
    (folder / "labels.json").write_text(json.dumps({"images": images}))
    address = reverse("admin:vlm_dataset_add")
    client.post(address, {"path": str(folder / "labels.json"), "name": "", "format": "auto"})
    wait_for(lambda: ImportJob.objects.get().status != ImportJob.Status.RUNNING)
    job = ImportJob.objects.get()
    assert (job.status, job.name, job.error) == ("completed", "photos of may", "")
    assert job.summary == {"new": 2, "known": 0, "changed": 0, "renamed": 0, "back": 0, "gone": 0}
    assert Dataset.objects.get().name == "photos of may"


def test_deleting_a_data_set_removes_its_samples(client: Client, dataset: Dataset, ada: User) -> None:
    execute(dataset)
    SavedView.objects.create(dataset=dataset, user=ada, name="All")
    address = reverse("admin:vlm_dataset_delete", args=[dataset.pk])
    deleter = staff("view_dataset", "delete_dataset")
    assert "Are you sure" in deleter.get(address).content.decode()
    deleter.post(address, {"post": "yes"})
    assert not Dataset.objects.exists()
    assert not TaggingRun.objects.exists()
    with sample_store().read() as cursor:
        for table in ("samples", "sample_tags", "answers", "run_samples"):
            assert cursor.execute(f"select count(*) from {table}").fetchall() == [(0,)], table
    assert (Path(dataset.root) / "000.jpg").is_file()


@pytest.mark.parametrize("by_action", [False, True])
def test_a_data_set_at_work_is_not_deleted(client: Client, dataset: Dataset, by_action: bool) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    if by_action:
        values = {"action": "delete_selected", "_selected_action": dataset.pk, "post": "yes"}
        page = client.post(reverse("admin:vlm_dataset_changelist"), values)
    else:
        page = client.post(reverse("admin:vlm_dataset_delete", args=[dataset.pk]), {"post": "yes"})
    assert f"run {run.pk} of photos, which is active. Wait for its end, or cancel it." in page.content.decode()
    assert Dataset.objects.exists()


def test_a_saved_view_needs_a_filter_that_can_be_read(client: Client, dataset: Dataset, ada: User) -> None:
    values = {"dataset": dataset.pk, "user": ada.pk, "name": "Odd", "query": "state=nonsense"}
    text = client.post(reverse("admin:vlm_savedview_add"), values).content.decode()
    assert "errorlist" in text
    client.post(reverse("admin:vlm_savedview_add"), values | {"query": "all=dark"})
    assert SavedView.objects.get().query == "all=dark"


# -- the vocabulary ------------------------------------------------------------------------------------------------------
def rows(query: str) -> list[tuple[object, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(query).fetchall()


def dimension_form(dimension: Dimension | None, words: list[str], **values: object) -> dict[str, object]:
    """Return the form of a dimension whose words become ``words``, in place where there are some already."""
    old = list(dimension.words.all()) if dimension else []
    form: dict[str, object] = {
        "name": dimension.name if dimension else "new",
        "question": dimension.question if dimension else "Which?",
        "position": dimension.position if dimension else 9,
        "enabled": "on",
        "words-TOTAL_FORMS": max(len(words), len(old)),
        "words-INITIAL_FORMS": len(old),
    }
    for index in range(max(len(words), len(old))):
        form[f"words-{index}-text"] = words[index] if index < len(words) else old[index].text
        form[f"words-{index}-position"] = index
        if index < len(old):
            form[f"words-{index}-id"], form[f"words-{index}-dimension"] = old[index].pk, dimension.pk  # type: ignore[union-attr]
        if index >= len(words):
            form[f"words-{index}-DELETE"] = "on"
    return form | values


def test_the_words_of_a_dimension_are_checked(client: Client) -> None:
    for words, complaint in (
        (["alone"], "needs at least two allowed words"),
        (["one", "one"], "lists a word twice"),
        (["one", "ONE"], "lists a word twice"),
        (["one", "x" * 61], "at most 60 characters"),
        ([], "needs at least two allowed words"),
    ):
        page = client.post(reverse("admin:vlm_dimension_add"), dimension_form(None, words))
        assert page.status_code == 200
        assert complaint in page.content.decode()
    assert not Dimension.objects.filter(name="new").exists()


def test_a_dimension_of_one_s_own_is_asked(client: Client, dataset: Dataset) -> None:
    form = dimension_form(None, [" cafe\u0301 ", "street"], name="place")
    assert client.post(reverse("admin:vlm_dimension_add"), form).status_code == 302
    assert list(Word.objects.filter(dimension__name="place").values_list("text", flat=True)) == ["café", "street"]
    run = execute(dataset, dimensions=("place",))
    assert (run.status, run.tagged) == (Status.COMPLETED, 5)
    assert all_tags(dataset) <= {"café", "street"}


def test_a_vocabulary_that_cannot_be_asked_is_told(client: Client, dataset: Dataset) -> None:
    Dimension.objects.update(enabled=False)
    text = client.get(reverse("admin:vlm_dimension_changelist")).content.decode()
    assert "Nothing can be asked like this: The vocabulary has no dimension" in text
    assert "Choose at least one dimension." in autotag(client, dataset, dimensions=[])


def test_old_tags_follow_changes_of_the_vocabulary(client: Client, dataset: Dataset) -> None:
    """Whoever takes words away says what becomes of their tags, here as on the page."""
    first = execute(dataset)
    old = all_tags(dataset)

    def change(dimension_name: str, words: list[str], **values: object) -> None:
        dimension = Dimension.objects.get(name=dimension_name)
        before = services.vocabulary.entries()
        address = reverse("admin:vlm_dimension_change", args=[dimension.pk])
        answer = client.post(address, dimension_form(dimension, words) | values)
        if "removed" in values:
            assert answer.status_code == 302, answer.content.decode()
        elif answer.status_code != 302:
            assert (answer.status_code, services.vocabulary.entries()) == (409, before)
            assert "Keep the tags as your own" in answer.content.decode()

    def pages_answer() -> None:
        root = reverse("dataset", args=[dataset.pk])
        filtered = f"{root}?{SampleFilter(all_of=(min(old),)).to_query()}"
        own = [reverse(name, args=[first.pk]) for name in ("run", "admin:vlm_taggingrun_change")]
        for address in (root, filtered, *own):
            assert client.get(address).status_code == 200
        assert services.datasets.check_store().is_sound

    change("setting", ["inside", "outside"])
    assert old & {"indoor", "outdoor"}
    assert all_tags(dataset) == old  # nobody said what becomes of them, so nothing was changed
    change("setting", ["inside", "outside"], removed="take")
    old -= {"indoor", "outdoor"}
    change("lighting", ["dark", "bright"], removed="keep")
    change("density", ["crowded", "sparse", "moderate", "empty"])  # swapped words
    change("clarity", ["blurry", "sharp", "noisy"], name="focus")  # a renamed dimension
    assert {row[0] for row in rows("select distinct dimension from answers")} & {"clarity", "focus"} == {"focus"}
    assert all_tags(dataset) == old
    pages_answer()
    dimension = Dimension.objects.get(name="weather")
    address = reverse("admin:vlm_dimension_delete", args=[dimension.pk])
    assert client.post(address, {"post": "yes"}).status_code == 409
    assert Dimension.objects.filter(name="weather").exists()
    assert client.post(address, {"post": "yes", "removed": "keep"}).status_code == 302
    assert not Dimension.objects.filter(name="weather").exists()
    pages_answer()
    assert all_tags(dataset) == old
    assert [change.text.split(";")[0] for change in services.vocabulary.changes()][:2] == [
        "Removed weather",
        "Changed clarity",
    ]
    kept = {"dim", "normal", "sunny", "cloudy", "rainy", "foggy", "snowy", "night", "day"} & old
    second = execute(dataset)
    # Other questions: nothing is answered yet. The picture that cannot be read is left to the scope “failed”.
    assert (second.status, second.processed) == (Status.COMPLETED, 5)
    assert all_tags(dataset) & {"inside", "outside"}
    pages_answer()
    services.runs.revert(run=second)
    assert all_tags(dataset) == old
    services.runs.revert(run=first)
    assert all_tags(dataset) == kept
    assert services.datasets.check_store().is_sound


def test_a_condition_that_the_admin_sets_holds_for_tags_that_are_there(client: Client, dataset: Dataset) -> None:
    execute(dataset)
    dimension = Dimension.objects.get(name="weather")
    words = [word.text for word in dimension.words.all()]
    form = dimension_form(dimension, words, only_dimension="setting", only_words="outdoor")
    assert client.post(reverse("admin:vlm_dimension_change", args=[dimension.pk]), form).status_code == 302
    found = rows("select distinct unnest(tags) from samples where not list_contains(tags, 'outdoor')")
    assert not {row[0] for row in found} & set(words)
    assert services.datasets.check_store().is_sound
    clash = dimension_form(None, ["outdoor", "elsewhere"])
    assert "is a word of “setting”, too" in client.post(reverse("admin:vlm_dimension_add"), clash).content.decode()


# -- every page ----------------------------------------------------------------------------------------------------------
INLINE = re.compile(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\sstyle=\"|\son\w+=\"|<style", re.IGNORECASE)


def fill(dataset: Dataset, user: User, count: int) -> None:
    """Add rows of every kind."""
    for index in range(count):
        extra = Dataset.objects.create(name=f"extra {user.pk} {index}", root=f"/nowhere/{user.pk}/{index}")
        TaggingRun.objects.create(
            dataset=extra, status=Status.COMPLETED, vocabulary_hash="", model="m", started_by=user
        )
        ImportJob.objects.create(path="p", name="n", status="completed", started_by=user, dataset=extra)
        SavedView.objects.create(dataset=extra, user=user, name=f"view {index}")
        dimension = Dimension.objects.create(name=f"own-{user.pk}-{index}", question="Which?")
        for word in ("yes", "no"):
            Word.objects.create(dimension=dimension, text=word)


def test_every_page_answers_under_the_content_security_policy(client: Client, dataset: Dataset, ada: User) -> None:
    fill(dataset, ada, 1)
    request = RequestFactory().get("/")
    request.user = ada
    addresses = [reverse("admin:index"), reverse("admin:vlm_dataset_delete", args=[dataset.pk])]
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        addresses.append(reverse(f"{name}_changelist"))
        if (row := model._default_manager.first()) is not None:
            addresses += [reverse(f"{name}_change", args=[row.pk]), reverse(f"{name}_history", args=[row.pk])]
        if admin.site._registry[model].has_add_permission(request):
            addresses.append(reverse(f"{name}_add"))
    assert len(addresses) > 20
    for address in addresses:
        page = client.get(address)
        assert page.status_code == 200, address
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        assert INLINE.search(page.content.decode()) is None, address


def test_a_longer_list_takes_no_more_queries(client: Client, dataset: Dataset, ada: User) -> None:
    def queries() -> dict[str, int]:
        counts = {}
        for model in ("dataset", "taggingrun", "importjob", "dimension", "savedview"):
            with CaptureQueriesContext(connection) as captured:
                assert client.get(reverse(f"admin:vlm_{model}_changelist")).status_code == 200
            counts[model] = len(captured)
        return counts

    fill(dataset, ada, 2)
    queries()  # fills caches
    few = queries()
    for name in ("bob", "eve", "joe"):
        fill(dataset, User.objects.create(username=name), 3)
    assert queries() == few
    assert max(few.values()) <= 20
