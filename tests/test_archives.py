"""Archives through service and commands: pages say the same after, and what is no archive changes nothing."""

import json
import shutil
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.archives import reading as reader
from vlm.archives import rows, writing
from vlm.archives.manifest import ArchiveFailed, described, look
from vlm.archives.rows import Renumbering
from vlm.models import Dataset, FrozenSlice, SavedView, TaggingRun
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter, StoreFull, reading
from vlm.samples.database import copy_files

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
JSON = {"Accept": "application/json"}
Status = TaggingRun.Status


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", is_superuser=True, is_staff=True)


def bring_in(folder: Path, name: str, count: int = 5) -> Dataset:
    done = services.datasets.import_folder(path=make_images(folder, count), name=name)
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def photos(tmp_path: Path, ada: User) -> Dataset:
    """A data set with a run of every kind of end, edits, a slice, a view that names all of them, and a note."""
    dataset = bring_in(tmp_path / "photos", "photos")
    run = services.runs.create(dataset=dataset, options=RunOptions(min_mass=0), user=ada, origin="command")
    services.runs.execute(run_id=run.pk, stop=threading.Event())
    first, second, *_ = services.samples.page(dataset=dataset, filter=SampleFilter(), order="added").samples
    edited = services.tags.add(dataset=dataset, filter=SampleFilter(ids=(first.id, second.id)), tag="mine", user=ada)
    frozen = services.slices.freeze(dataset=dataset, name="two", filter=SampleFilter(all_of=("mine",)), user=ada)
    query = f"id={first.id}&edit={edited.edit}&slice={frozen.pk}&run={run.pk}"
    services.datasets.save_view(
        dataset=dataset, user=ada, name="first", query=SampleFilter.from_query(query).to_query()
    )
    services.tags.describe(dataset=dataset, tag="mine", text="what is mine")
    waiting = services.runs.create(
        dataset=dataset,
        options=RunOptions(scope="all", filter=SampleFilter(ids=(second.id,))),
        user=None,
        origin="command",
    )
    assert waiting.status == Status.QUEUED
    return dataset


def empty(tmp_path: Path, settings: Any) -> None:
    """Begin anew with no data set, no run and no sample, and with the numbers of the beginning."""
    sample_store().close()
    sample_store.cache_clear()
    Dataset.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("delete from sqlite_sequence where name like 'vlm_%%'")
    folder = tmp_path / "anew"
    folder.mkdir()
    settings.DATA_DIR, settings.DUCKDB_PATH = folder, folder / "samples.duckdb"
    sample_store.cache_clear()
    call_command("bind_store", "--trust", stdout=StringIO())


def told(client: Client) -> dict[str, Any]:
    """Return what pages and JSON say of all data sets."""
    found: dict[str, Any] = {"datasets": client.get("/", headers=JSON).json()}
    for dataset in Dataset.objects.all():
        page = reverse("dataset", args=[dataset.pk])
        for query in ("", "?order=uncertain", "?all=mine", "?state=discarded", "?order=-added&limit=3"):
            found[page + query] = client.get(page + query, headers=JSON).json()
        html = client.get(page)
        assert html.status_code == 200
        for run in dataset.runs.all():
            address = reverse("run", args=[run.pk])
            found[address] = client.get(address, headers=JSON).json()
        for name in ("slices",):
            found[f"{page} {name}"] = client.get(reverse(name, args=[dataset.pk]), headers=JSON).json()
    return found


def state() -> tuple[Any, ...]:
    with sample_store().read() as cursor:
        return (
            reading.samples_held(cursor),
            list(Dataset.objects.values_list("name", flat=True)),
            TaggingRun.objects.count(),
            SavedView.objects.count(),
            [entry.dimension.name for entry in services.vocabulary.entries()],
        )


def test_an_empty_installation_then_says_the_same(
    photos: Dataset, ada: User, client: Client, tmp_path: Path, settings: Any
) -> None:
    client.force_login(ada)
    services.runs.cancel(run=TaggingRun.objects.get(status=Status.QUEUED))
    folder = tmp_path / "archive"
    out = StringIO()
    call_command("export_store", str(folder), "--json", stdout=out)
    done = json.loads(out.getvalue())
    assert (done["datasets"], done["runs"], done["samples"]) == (["photos"], 2, 5)
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".archive")]
    assert folder.stat().st_mode & 0o77 == 0
    before = told(client)
    asked = services.vocabulary.entries()
    empty(tmp_path, settings)
    services.vocabulary.remove(name=asked[-1].dimension.name, user=None)
    out = StringIO()
    call_command("import_store", str(folder), stdout=out)
    assert "photos: 5 samples, images in" in out.getvalue()
    assert "vocabulary is this installation's" in out.getvalue()
    assert services.vocabulary.entries() == asked
    after = told(client)
    assert after.keys() == before.keys()
    for address, said in before.items():
        assert after[address] == said, address
    call_command("check_store", stdout=StringIO())


def test_beside_others_filters_name_the_new_numbers(photos: Dataset, ada: User, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    services.archives.write(folder=folder, datasets=[photos])
    before = state()
    with pytest.raises(ArchiveFailed, match="There is a data set “photos” already"):
        services.archives.read(folder=folder)
    assert state() == before
    done = services.archives.read(folder=folder, rename=True)
    (copy,) = done.datasets
    assert (copy.name, copy.sample_count, copy.created) == ("photos 2", 5, photos.created)
    assert (done.vocabulary, done.views_left_out) == ("the same", 0)
    (waiting,) = copy.runs.filter(status=Status.INTERRUPTED)
    assert (waiting.error, waiting.processed) == ("It was at work when the archive was written.", 0)
    second = services.samples.page(dataset=copy, filter=SampleFilter(), order="added").samples[1]
    assert SampleFilter.from_query(waiting.filter_query).ids == (second.id,)
    call_command("check_store", stdout=StringIO())
    pages = [services.samples.page(dataset=one, filter=SampleFilter()).samples for one in (photos, copy)]
    assert [[tag.tag for tag in sample.tags] for sample in pages[0]] == [
        [tag.tag for tag in sample.tags] for sample in pages[1]
    ]
    assert not {sample.id for sample in pages[0]} & {sample.id for sample in pages[1]}
    (own,), (its,) = (SavedView.objects.filter(dataset=one) for one in (photos, copy))
    assert own.query != its.query
    for view, dataset in ((own, photos), (its, copy)):
        found = services.samples.page(dataset=dataset, filter=SampleFilter.from_query(view.query)).samples
        assert len(found) == 1
    old, new = (FrozenSlice.objects.get(dataset=one) for one in (photos, copy))
    assert new.runs[0]["run"] == TaggingRun.objects.filter(dataset=copy).order_by("pk").first().pk  # type: ignore[union-attr]
    assert (new.samples, new.created, new.user) == (old.samples, old.created, ada)
    assert [name.name for name in services.archives.read(folder=folder, rename=True).datasets] == ["photos 3"]


def test_users_and_vocabulary_that_are_not_here_are_told(photos: Dataset, ada: User, tmp_path: Path) -> None:
    services.archives.write(folder=tmp_path / "archive", datasets=[photos])
    ada.delete()
    out = StringIO()
    call_command("import_store", str(tmp_path / "archive"), "--rename", stdout=out)
    assert "1 saved view left out" in out.getvalue()
    run = TaggingRun.objects.order_by("pk").last()
    assert run is not None
    assert run.started_by is None


def test_a_query_follows_its_numbers() -> None:
    change = Renumbering(samples=100, edits=10, runs={1: 7, 2: 9}, slices={3: 4})
    assert change.query("id=1,2&group=5&all=dark") == "all=dark&group=105&id=101,102".replace(",", "%2C")
    assert change.query("edit=3&slice=3&run=1&failed_in=2") == "edit=13&slice=4&run=7&failed_in=9"
    assert change.query("flip=1,2,weather,a,b") == "flip=7%2C9%2Cweather%2Ca%2Cb"
    assert change.query("run=5") == "run=0"  # one that is not there, as it was not before
    assert change.query("width=nothing") == "width=nothing"


def damaged(folder: Path) -> None:
    path = folder / "1" / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def noted(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the rows, and let the manifest know of it."""

    def do(folder: Path) -> None:
        path = folder / "rows.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))
        file = described(path, 0)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["rows.json"] = {"rows": 0, "bytes": file.bytes, "sha256": file.sha256}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return do


def linked(folder: Path) -> None:
    (folder / "questions.parquet").rename(folder.parent / "elsewhere")
    (folder / "questions.parquet").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damaged, "is damaged: 1/samples.parquet"),
        (linked, "is damaged: questions.parquet"),
        (lambda folder: (folder / "1" / "answers.parquet").unlink(), "is incomplete: 1/answers.parquet"),
        (lambda folder: (folder / "more.txt").write_text("x"), "is damaged: more.txt"),
        (lambda folder: (folder / "manifest.json").unlink(), "is no archive"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "is no archive"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is no archive"),
        (noted(format="a backup"), "is no archive"),
        (noted(version=2), "which is newer"),
        (noted(tables=10_000), "which is newer"),
        (noted(tables="10"), "is no archive"),
        (noted(files={"../evil": {"rows": 1, "bytes": 1, "sha256": ""}}), "no file of an archive"),
        (noted(datasets=[1]), "is no archive"),
        (rewritten(lambda found: found.pop("runs")), "is no table|do not fit|belong to nothing"),
        (rewritten(lambda found: found["datasets"][0].update(wings=2)), "cannot be read"),
        (rewritten(lambda found: found["datasets"][0].update(name="")), "cannot be read"),
        (rewritten(lambda found: found["runs"][0].update(of=99)), "cannot be read"),
        (rewritten(lambda found: found["runs"][0].update(status="asleep")), "cannot be read"),
        (rewritten(lambda found: found["datasets"].clear()), "cannot be read|does not name"),
        (rewritten(lambda found: found.update(vocabulary="[[dimension]]")), "dimension"),
    ],
)
def test_what_is_no_archive_changes_nothing(
    photos: Dataset, tmp_path: Path, settings: Any, change: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "archive"
    services.archives.write(folder=folder, datasets=[photos])
    change(folder)
    before = state()
    with pytest.raises(CommandError, match=reason):
        call_command("import_store", str(folder), "--rename")
    assert state() == before
    assert not list(Path(settings.DATA_DIR).glob("import-*"))


def test_one_that_fails_in_the_store_leaves_no_row_behind(
    photos: Dataset, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    services.archives.write(folder=folder, datasets=[photos])
    empty(tmp_path, settings)
    services.vocabulary.remove(name=services.vocabulary.entries()[-1].dimension.name, user=None)
    before = state()

    def full(*_: Any) -> None:
        raise StoreFull("The disk is full.")

    monkeypatch.setattr(reader, "take_over", full)
    with pytest.raises(StoreFull):
        services.archives.read(folder=folder)
    assert state() == before


def test_what_cannot_be_written_leaves_nothing_behind(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archives" / "first"
    folder.mkdir(parents=True)
    with pytest.raises(ArchiveFailed, match="is there already"):
        services.archives.write(folder=folder, datasets=[photos])
    folder.rmdir()

    def cut_short(files: Any, target: Path) -> None:
        copy_files(files, target)
        with target.open("r+b") as file:
            file.truncate(5000)

    monkeypatch.setattr(writing, "copy_files", cut_short)
    with pytest.raises(ArchiveFailed, match="could not be written"):
        services.archives.write(folder=folder, datasets=[photos])
    assert list((tmp_path / "archives").iterdir()) == []
    Dataset.objects.all().delete()
    with pytest.raises(CommandError, match="There is no data set"):
        call_command("export_store", str(folder))


def test_only_what_was_asked_for_is_written(photos: Dataset, tmp_path: Path) -> None:
    other = bring_in(tmp_path / "cars", "cars", 3)
    out = StringIO()
    call_command("export_store", str(tmp_path / "archive"), "cars", stdout=out)
    assert "1 data set, 0 runs, 3 samples are in" in out.getvalue()
    manifest = look(tmp_path / "archive")
    assert manifest.datasets == ("cars",)
    assert {name.partition("/")[0] for name in manifest.files if "/" in name} == {str(other.pk)}
    assert [row["name"] for row in rows.read((tmp_path / "archive" / "rows.json").read_text()).datasets] == ["cars"]
    shutil.rmtree(tmp_path / "archive")
