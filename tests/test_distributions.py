"""Distributions through service, page, command and JSON, on a store with samples of every kind: every figure is a filter."""

import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from benchmarks.million import add_samples
from vlm import services
from vlm.models import Dataset, Dimension, Word
from vlm.process import sample_store
from vlm.samples import FilterError, Measures, SampleFilter, columns, values
from vlm.samples.editing import tags_add
from vlm.services.distributions import NotCompared
from vlm.services.subjects import NoSuchSubject

pytestmark = [pytest.mark.django_db(transaction=True, serialized_rollback=True), pytest.mark.usefixtures("data_dir")]

COUNT = 600
ROOT = Path(__file__).resolve().parent.parent
MANY = 3_000  # distinct values of a column


def command(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def made(name: str, count: int = COUNT) -> Dataset:
    """Samples in three splits and categories; those of some cameras are dark, and those are outdoor more often."""
    dataset = Dataset.objects.create(name=name, root=f"/nowhere/{name}", format="folder")
    add_samples(sample_store(), dataset.pk, count)
    for word, part in (
        ("dark", "cam1"),
        ("outdoor", "cam1"),
        ("indoor", "cam2"),
        ("night shift", "cam3"),
        ("夜", "cam4"),
    ):
        services.tags.add(dataset=dataset, filter=SampleFilter(text=part), tag=word, user=None)
    with sample_store().write() as cursor:  # two words of a dimension, as an older version let users give them
        target = ("s.dataset_id = ? and contains(s.path, 'cam11')", [dataset.pk])
        tags_add(cursor, dataset_id=dataset.pk, target=target, tag="bright", dimension=None)
    return dataset


@pytest.fixture
def dataset() -> Dataset:
    """With columns of each kind, one of very many words, one of one number alone, and some measures."""
    dataset = made("street")
    chance = np.random.default_rng(4)
    with sample_store().write() as cursor:
        rows = cursor.execute("select id from samples where dataset_id = ? order by id", [dataset.pk]).fetchall()
        ids = [row[0] for row in rows]
        put: dict[str, tuple[str, Any]] = {
            "error": ("number", chance.exponential(size=COUNT - 50)),
            "missed": ("boolean", chance.random(COUNT - 50) < 0.2),
            "camera": ("word", np.array([f"cam {place} (老)" for place in range(COUNT - 50)], dtype=object)),
            "version": ("number", np.full(COUNT - 50, 1.25)),
            "weather": ("boolean", chance.random(COUNT - 50) < 0.5),
        }
        for name, (kind, of) in put.items():
            columns.column_put(cursor, dataset_id=dataset.pk, name=name, kind=kind, ids=ids[50:], values=of)  # type: ignore[arg-type]
        measures = {one: Measures(float(one % 250), 1, 2, 3, 4, 5, 6, 1.5, 0) for one in ids[:400]}
        values.measures_keep(cursor, dataset_id=dataset.pk, measures=measures)
    return dataset


@pytest.fixture
def ada(client: Client) -> Client:
    user = User.objects.create_user("ada", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    client.force_login(user)
    return client


def count(dataset: Dataset, query: str) -> int:
    return services.samples.count(dataset=dataset, filter=SampleFilter.from_text(query))


def links(page: Any) -> Iterator[tuple[str, int]]:
    """Yield the addresses of a page's tables with the number of images that stands beside them."""
    text = page.content.decode()
    yield from (
        (url, int(said.replace(",", "")))
        for url, said in re.findall(r'<td[^>]*>.*?<a href="([^"]+)">([\d,]+)</a>', text)
    )


@pytest.mark.parametrize(
    "query", ["", "all=dark", "split=val&column=error:0.1..0.7", "measure=luminance:20..70", "q=cam1"]
)
def test_every_value_leads_to_its_images(dataset: Dataset, query: str) -> None:
    found = services.distributions.overview(dataset=dataset, filter=SampleFilter.from_text(query))
    assert found.images == count(dataset, query)
    names = {one.subject.key for one in found.shown}
    assert {"dimension:lighting", "column:error", "measure:luminance", "split", "category", "own"} <= names | {"own"}
    for one in found.shown:
        for row in one.rows:
            if row.value.filter is not None:
                assert services.samples.count(dataset=dataset, filter=row.value.filter) == row.images, (
                    one.subject.key,
                    row,
                )
            else:
                assert not row.images or (row.value.what, one.subject.key) == ("others", "column:camera")
        if not one.several:
            assert sum(row.images for row in one.rows) == found.images


def test_one_value_alone_is_one_bar_of_the_sidebar_too(dataset: Dataset, ada: Client) -> None:
    page = ada.get(reverse("dataset", args=[dataset.pk]))
    (bar,) = next(facet.bars for facet in page.context["column_facets"] if facet.name == "version")
    assert bar.count == COUNT - 50
    assert ada.get(bar.url).context["facets"].total == bar.count


def test_what_is_counted_is_kept_until_the_data_set_changes(dataset: Dataset) -> None:
    found = services.distributions.overview(dataset=dataset, by=["lighting"])
    assert services.distributions.overview(dataset=dataset, by=["lighting"]) is found
    services.tags.add(dataset=dataset, filter=SampleFilter(text="cam2"), tag="dim", user=None)
    after = services.distributions.overview(dataset=dataset, by=["lighting"])
    assert {row.value.label: row.images for row in after.shown[0].rows}["dim"] > 0


def test_what_is_bounded_is_counted_together(dataset: Dataset) -> None:
    (camera,) = services.distributions.overview(dataset=dataset, by=["camera"]).shown
    assert [row.value.what for row in camera.rows[-2:]] == ["others", "none"]
    assert len(camera.rows) == 32
    assert [row.images for row in camera.rows[-2:]] == [COUNT - 50 - 30, 50]
    (version,) = services.distributions.overview(dataset=dataset, by=["version"]).shown
    assert [(row.value.label, row.images) for row in version.rows] == [("1.25", COUNT - 50), ("none", 50)]
    (own,) = services.distributions.overview(dataset=dataset, by=["own tags"]).shown
    assert {"night shift", "夜"} <= {row.value.label for row in own.rows}


@pytest.mark.parametrize(
    ("by", "across"),
    [("lighting", "setting"), ("split", "category"), ("error", "lighting"), ("camera", "luminance"), ("own", "missed")],
)
def test_every_cell_leads_to_its_images(dataset: Dataset, by: str, across: str) -> None:
    chosen = SampleFilter.from_text("split=val&split=train&column=error:0.05..3")
    found = services.distributions.crossed(dataset=dataset, by=by, across=across, filter=chosen)
    assert found.table.total == services.samples.count(dataset=dataset, filter=chosen)
    for i, row in enumerate(found.filters):
        for j, filter in enumerate(row):
            if filter is not None:
                assert services.samples.count(dataset=dataset, filter=filter) == found.table.counts[i][j]


def test_what_goes_together_has_a_sign(dataset: Dataset) -> None:
    found = services.distributions.crossed(dataset=dataset, by="lighting", across="setting")
    rows, across = [one.label for one in found.rows], [one.label for one in found.columns]
    assert found.table.sign(rows.index("dark"), across.index("outdoor")) == 1
    assert found.table.sign(rows.index("dark"), across.index("none")) == -1
    assert found.table.cramers_v is None  # some are dark and bright at once
    unrelated = services.distributions.crossed(dataset=dataset, by="split", across="missed")
    assert unrelated.table.cramers_v is not None
    assert unrelated.table.cramers_v < 0.2


def test_two_filters_side_by_side(dataset: Dataset) -> None:
    found = services.distributions.comparison(
        dataset=dataset, filter=SampleFilter(text="cam1"), against=SampleFilter(text="cam2")
    )
    assert found.relation == "apart"
    signs = {one.label: one.difference.sign for one in found.clear if one.values[0].what == "value"}
    assert {"dark": -1, "outdoor": -1, "indoor": 1}.items() <= signs.items()
    assert abs(found.clear[0].difference.difference) == 1
    for _, rows in found.shown:
        for one in rows:
            for value, images in zip(one.values, one.images, strict=True):
                if value.filter is not None:
                    assert services.samples.count(dataset=dataset, filter=value.filter) == images


def test_what_a_filter_asks_for_is_left_out_unless_it_is_named(dataset: Dataset, ada: Client) -> None:
    asked = "all=dark&none=夜&split=val&category=car&category=person&column=error:0..2&measure=noise:1..9"
    found = services.distributions.comparison(dataset=dataset, filter=SampleFilter.from_text(asked))
    keys = ["dimension:lighting", "own", "split", "category", "column:error", "measure:noise"]
    assert [one.key for one in found.asked] == keys
    assert not {subject.key for subject, _ in found.shown} & set(keys)
    named = services.distributions.comparison(dataset=dataset, filter=SampleFilter.from_text(asked), by=["lighting"])
    assert [subject.key for subject, _ in named.shown] == ["dimension:lighting"]
    page = ada.get(reverse("distributions", args=[dataset.pk]), {"all": "dark", "against": "everything"})
    assert "Left out, since a filter asks for it" in page.content.decode()


def test_sets_that_overlap_say_so(dataset: Dataset, ada: Client) -> None:
    whole = services.distributions.comparison(dataset=dataset, filter=SampleFilter(all_of=("dark",)))
    assert (whole.relation, whole.common) == ("first within", whole.first.images)
    over = services.distributions.comparison(
        dataset=dataset, filter=SampleFilter(all_of=("dark",)), against=SampleFilter(splits=("val",))
    )
    assert over.relation == "overlapping"
    assert 0 < over.common < min(over.first.images, over.second.images)
    address = reverse("distributions", args=[dataset.pk])
    assert "made smaller in proportion" in ada.get(address, {"all": "dark", "against": "everything"}).content.decode()
    assert "are in both" in ada.get(address, {"all": "dark", "against": "split=val"}).content.decode()
    for query in ("all=dark", "q=cam1&all=dark"):
        with pytest.raises(NotCompared, match="same images"):
            services.distributions.comparison(
                dataset=dataset, filter=SampleFilter(all_of=("dark",)), against=SampleFilter.from_text(query)
            )


def test_two_data_sets_side_by_side(dataset: Dataset, ada: Client) -> None:
    other = made("lane", 300)
    with sample_store().write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples where dataset_id = ?", [other.pk]).fetchall()]
        columns.column_put(cursor, dataset_id=other.pk, name="error", kind="number", ids=ids, values=np.full(300, 9.0))
        columns.column_put(cursor, dataset_id=other.pk, name="missed", kind="word", ids=ids[:1], values=["so"])
    found = services.distributions.comparison(dataset=dataset, other=other)
    assert (found.relation, found.first.images, found.second.images) == ("apart", COUNT, 300)
    assert {"column:missed", "column:camera", "measure:noise"} <= {one.key for one in found.left_out}
    for _, rows in found.shown:
        for one in rows:
            for its, value, images in zip((dataset, other), one.values, one.images, strict=True):
                if value.filter is not None:
                    assert services.samples.count(dataset=its, filter=value.filter) == images
    error = next(rows for subject, rows in found.shown if subject.key == "column:error")
    assert sum(one.images[1] for one in error) == 300
    page = ada.get(reverse("distributions", args=[dataset.pk]), {"other": str(other.pk), "by": "error"})
    assert f'href="{reverse("dataset", args=[other.pk])}?column=' in page.content.decode()


def test_page_command_and_json_say_the_same(dataset: Dataset, ada: Client) -> None:
    address = reverse("distributions", args=[dataset.pk])
    asked: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}),
        (["--filter", "all=dark", "--by", "setting", "--by", "split"], {"all": "dark", "by": ["setting", "split"]}),
        (["--by", "lighting", "--across", "category"], {"by": "lighting", "across": "category"}),
        (["--by", "own tags", "--across", "measure:noise"], {"by": "own", "across": "noise"}),
        (["--filter", "all=dark", "--against", "everything"], {"all": "dark", "against": "everything"}),
        (["--against", "split=val&q=cam1", "--by", "camera"], {"against": "split=val&q=cam1", "by": "camera"}),
    ]
    for arguments, query in asked:
        told = json.loads(command("distributions", "street", *arguments, "--json"))
        assert ada.get(address, query, headers={"Accept": "application/json"}).json() == told
        table = command("distributions", "street", *arguments)
        assert re.search(r"\d+ images", table)
        page = ada.get(address, query)
        assert page.status_code == 200
        assert " style=" not in page.content.decode()
        told_links = list(links(page))
        assert bool(told_links) == ("across" in query)
        for url, said in told_links:
            assert ada.get(url.replace("&amp;", "&")).context["facets"].total == said


def test_a_hundred_words_are_all_there(dataset: Dataset, ada: Client) -> None:
    dimension = Dimension.objects.create(name="place", question="Where?", position=9)
    Word.objects.bulk_create(Word(dimension=dimension, text=f"word {number}", position=number) for number in range(100))
    for number in (7, 93):
        services.tags.add(
            dataset=dataset, filter=SampleFilter(text=f"cam{number % 5}"), tag=f"word {number}", user=None
        )
    (found,) = services.distributions.overview(dataset=dataset, by=["place"]).shown
    assert len(found.rows) == 101
    crossed = services.distributions.crossed(dataset=dataset, by="place", across="lighting")
    assert [one.label for one in crossed.rows] == ["word 7", "word 93", "none"]
    page = ada.get(reverse("distributions", args=[dataset.pk]), {"by": "place", "across": "category"})
    assert page.status_code == 200


def test_where_nothing_is_nothing_goes_wrong(dataset: Dataset, ada: Client) -> None:
    empty = Dataset.objects.create(name="empty", root="/nowhere/else", format="folder")
    for of, query, said in (
        (empty, {}, "The data set is empty."),
        (empty, {"by": "lighting", "across": "split"}, "The data set is empty."),
        (dataset, {"q": "nowhere"}, "No image matches the filter."),
        (dataset, {"q": "nowhere", "by": "error", "across": "luminance"}, "No image matches the filter."),
    ):
        page = ada.get(reverse("distributions", args=[of.pk]), query)
        assert said in page.content.decode()
    assert "0 images" in command("distributions", "empty")
    for against in ({"against": "q=nowhere"}, {"other": "empty"}):
        assert ada.get(reverse("distributions", args=[dataset.pk]), against).status_code == 409


def test_what_cannot_be_asked_says_why(dataset: Dataset, ada: Client) -> None:
    address = reverse("distributions", args=[dataset.pk])
    for query, status in (
        ({"by": "colour"}, 404),
        ({"by": "weather"}, 404),  # a dimension and a column
        ({"by": "lighting", "across": "colour"}, 404),
        ({"by": "lighting", "across": "dimension:lighting"}, 409),
        ({"across": "lighting"}, 400),
        ({"by": "lighting", "across": "split", "against": "all=dark"}, 400),
        ({"against": "colour=red"}, 400),
        ({"other": "nowhere"}, 404),
        ({"lacking": "colour"}, 400),
    ):
        assert ada.get(address, query).status_code == status, query
    with pytest.raises(NoSuchSubject, match="dimension:weather, column:weather"):
        services.distributions.overview(dataset=dataset, by=["weather"])
    with pytest.raises(FilterError):
        services.distributions.overview(dataset=dataset, filter=SampleFilter(lacking=("colour",)))
    for arguments in (
        ["--across", "split"],
        ["--by", "split", "--across", "category", "--other", "street"],
        ["--by", "x"],
    ):
        with pytest.raises(CommandError):
            command("distributions", "street", *arguments)


def test_those_who_may_not_look_do_not(dataset: Dataset, client: Client) -> None:
    client.force_login(User.objects.create_user("grace", password="x"))
    assert client.get(reverse("distributions", args=[dataset.pk])).status_code == 403
