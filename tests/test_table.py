"""The table view: its columns are chosen and kept, each sorts, and its rows are bounded like the cells of the grid."""

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from vlm import services
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import SampleFilter, columns, editing, merging, reading, where

from .page.conftest import PASSWORD, allow, draw_images, sample_ids
from .page.conftest import user as user  # somebody who may do nothing yet
from .samples.conftest import answer, result

JSON = {"Accept": "application/json"}
WORDS = {"lighting": ("dark", "dim", "bright", "normal")}


@pytest.fixture
def dataset(db: None, data_dir: Path, tmp_path: Path) -> Dataset:
    """Seventy pictures, some with tags, a probability, measures and two columns of one's own."""
    dataset = services.datasets.import_folder(path=draw_images(tmp_path / "images", 70), name="seventy").dataset
    assert dataset is not None
    ids = sample_ids(dataset)
    with sample_store().write() as cursor:
        for tag, dimension, of in (
            ("bright", "lighting", ids[:2]),
            ("dark", "lighting", ids[2:3]),
            ("odd", None, ids[1:3]),
        ):
            target = where(dataset.pk, SampleFilter(ids=tuple(of)), WORDS)
            editing.tags_add(cursor, dataset_id=dataset.pk, target=target, tag=tag, dimension=dimension)
        merging.merge_batch(cursor, dataset_id=dataset.pk, run_id=1, results=[result(ids[5], answer(1, "dark", 0.75))])
        columns.column_put(
            cursor,
            dataset_id=dataset.pk,
            name="error: <b>".replace(":", ""),
            kind="number",
            ids=ids[:2],
            values=[0.5, 2],
        )
        columns.column_put(cursor, dataset_id=dataset.pk, name="flag", kind="boolean", ids=ids[:1], values=[True])
    return dataset


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada", password=PASSWORD))
    return client


def table(client: Client, dataset: Dataset, query: str = "") -> str:
    answer = client.get(f"/datasets/{dataset.pk}/?view=table&{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def rows(page: str) -> list[str]:
    return re.findall(r'<tr class="cell".*?</tr>', page, re.DOTALL)


def names(page: str) -> list[str]:
    return re.findall(r'aria-label="Select ([^"]+)"', page)


def test_a_page_has_sixty_rows_and_the_next_ones_follow(dataset: Dataset, admin: Client) -> None:
    page = table(admin, dataset)
    assert names(page) == [f"{place:03}.png" for place in range(60)]
    more = re.search(r'hx-get="([^"]+)" hx-trigger="revealed', page)
    assert more is not None
    assert "view=table" in more[1]
    behind = admin.get(more[1].replace("&amp;", "&")).content.decode()
    assert names(behind) == [f"{place:03}.png" for place in range(60, 70)]
    assert 'class="more"' not in behind
    assert "bright" in rows(page)[0]
    assert "odd" in rows(page)[2]
    assert "200 × 150" in rows(page)[0]


def test_every_heading_sorts_and_turns_round(dataset: Dataset, admin: Client) -> None:
    known = services.tables.known(dataset=dataset)
    answer = admin.post(f"/datasets/{dataset.pk}/table", {"columns": [one.name for one in known]})
    assert answer.status_code == 302
    page = table(admin, dataset)
    headings = re.findall(r'<th scope="col".*?</th>', page, re.DOTALL)
    assert len(headings) == len(known) + 1
    assert 'aria-sort="ascending"' in headings[0]
    for heading in headings:
        found = re.search(r'href="([^"]+)"', heading)
        assert found is not None
        once = admin.get(found[1].replace("&amp;", "&")).content.decode()
        assert len(rows(once)) == 60
        assert once.count("aria-sort=") == 1


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("tag:lighting", ["002.png", "005.png", "000.png", "001.png", "003.png"]),
        ("-tag:lighting", ["000.png", "001.png", "002.png", "005.png", "003.png"]),
        ("own", ["001.png", "002.png", "000.png"]),
        ("-own", ["002.png", "001.png", "069.png"]),
        ("probability:lighting", ["005.png", "000.png"]),
        ("-column:error <b>", ["001.png", "000.png", "002.png"]),
        ("-name", ["069.png", "068.png"]),
    ],
)
def test_what_has_no_value_comes_last(dataset: Dataset, admin: Client, order: str, first: list[str]) -> None:
    told = admin.get(f"/datasets/{dataset.pk}/", {"order": order}, headers=JSON).json()
    assert [one["path"] for one in told["samples"]][: len(first)] == first
    assert (
        names(admin.get(f"/datasets/{dataset.pk}/", {"order": order, "view": "table"}).content.decode())[: len(first)]
        == first
    )


def test_columns_are_chosen_by_each_user(dataset: Dataset, admin: Client, user: User) -> None:
    allow(user, "view_dataset")
    other = Client()
    other.force_login(user)
    address = f"/datasets/{dataset.pk}/table"
    usual = other.get(address, headers=JSON).json()["columns"]
    assert usual[:1] == ["tag:lighting"]
    kept = ["probability:lighting", "column:error <b>", "column:flag"]
    told = admin.post(address, {"columns": kept}, headers=JSON).json()
    assert told["columns"] == kept
    assert {one["name"] for one in told["known"]} > {*kept, "megapixels", "taken", "uncertain", "own"}
    first = rows(table(admin, dataset))[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", first) == ["", "0.5", "yes"]
    assert "75 %" in rows(table(admin, dataset))[5]
    assert "error &lt;b&gt;" in table(admin, dataset)
    assert other.get(address, headers=JSON).json()["columns"] == usual
    services.columns.remove(dataset=dataset, name="flag")
    assert admin.get(address, headers=JSON).json()["columns"] == kept[:2]
    assert admin.post(address, {"columns": ["column:flag"]}, headers=JSON).status_code == 400
    assert admin.post(address, {}, headers=JSON).json()["columns"] == []
    assert len(rows(table(admin, dataset))) == 60


def test_measures_are_columns_once_there_are_any(dataset: Dataset, admin: Client) -> None:
    import threading

    assert not any(one.group == "Pixels" for one in services.tables.known(dataset=dataset))
    job = services.pixels.measure_create(dataset=dataset, user=None)
    services.pixels.measure_execute(job_id=job.pk, stop=threading.Event())
    admin.post(f"/datasets/{dataset.pk}/table", {"columns": ["measure:luminance"]})
    found = re.findall(r"<td[^>]*>(.*?)</td>", rows(table(admin, dataset, "order=-measure:luminance"))[0])
    with sample_store().read() as cursor:
        most = cursor.execute("select max(luminance) from measures").fetchall()[0][0]
    assert float(found[0]) == pytest.approx(most, rel=1e-3)


@pytest.mark.parametrize("query", ["view=list", "view=table&order=tag:nothing", "view=table&order=own:x", "order=tag:"])
def test_what_means_nothing_is_refused(dataset: Dataset, admin: Client, query: str) -> None:
    assert admin.get(f"/datasets/{dataset.pk}/?{query}").status_code == 400


def test_probabilities_are_those_of_the_newest_answers(dataset: Dataset) -> None:
    ids = sample_ids(dataset)
    with sample_store().read() as cursor:
        assert reading.probabilities_of(cursor, ids) == {ids[5]: {"lighting": 0.75}}
        assert reading.probabilities_of(cursor, []) == {}
