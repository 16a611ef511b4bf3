"""Choosing detail and number format by one's own images."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.images import make_images
from vlm import services
from vlm.models import Dataset
from vlm.moondream.errors import ModelUnavailable
from vlm.process import keeper, sample_store
from vlm.runs import choosing
from vlm.runs.choosing import Choice, Way, recommended
from vlm.runs.errors import NothingToChoose
from vlm.runs.options import RunOptions
from vlm.samples import Label, SampleFilter
from vlm.samples.editing import labels_add

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 8


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = make_images(tmp_path / "photos", COUNT, size=(300, 200))  # more than one crop at full detail
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    done = services.datasets.import_folder(path=folder, name="photos")
    assert done.dataset is not None
    return done.dataset


def choose(dataset: Dataset, limit: int = 20) -> Choice:
    return services.runs.choose(dataset=dataset, options=RunOptions(dimensions=("setting", "weather")), limit=limit)


def test_each_way_is_asked_and_nothing_is_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "rounded_formats", lambda device: [])  # some machines have such, and six ways more
    found = choose(dataset)
    assert [(way.detail, way.full_share) for way in found.ways] == [
        ("full", None),
        ("low", None),
        *(("auto", share) for share in choosing.FULL_SHARES),
    ]
    full, low, *autos = found.ways
    assert (found.images, found.failed, found.labelled, found.whole) == (COUNT + 1, 1, 0, COUNT + 1)
    assert (full.same, full.labels) == (1.0, 0)
    assert low.same is not None
    same = [way.same for way in autos]
    assert all(share is not None and 0 <= share <= 1 for share in [low.same, *same])
    assert [way.seconds for way in autos] == pytest.approx(
        [low.seconds + share * full.seconds for share in choosing.FULL_SHARES]
    )
    with sample_store().read() as cursor:
        assert cursor.execute("select count(*) from answers").fetchall() == [(0,)]
    assert services.runs.history(dataset=dataset, limit=1) == []


def test_labels_are_asked_about_and_counted(dataset: Dataset) -> None:
    ids = [sample.id for sample in services.samples.page(dataset=dataset, filter=SampleFilter()).samples]
    with sample_store().write() as cursor:
        labels_add(cursor, dataset_id=dataset.pk, labels=[Label(sample, "setting", "indoor") for sample in ids[:4]])
    found = choose(dataset, limit=6)
    assert found.images == 6
    assert found.labelled in (3, 4)  # half of the images at least; those from all over may have a label, too
    assert {way.labels for way in found.ways} <= {found.labelled - 1, found.labelled}  # one may be the broken one
    assert all(0 <= way.right <= way.labels for way in found.ways)


def test_a_format_that_cannot_be_loaded_is_told(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "rounded_formats", lambda device: ["int8"])

    def unable(self: object, spec: object, *args: object, **options: object) -> object:
        if getattr(spec, "dtype", "") == "int8":
            raise ModelUnavailable("No room for it.")
        return use(spec, *args, **options)  # type: ignore[arg-type]

    use = keeper.use
    monkeypatch.setattr(type(keeper), "use", unable)
    found = choose(dataset)
    assert dict(found.missing) == {"int8": "No room for it."}
    assert {way.dtype for way in found.ways} == {"float32"}


def test_nothing_to_ask_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    for path in Path(dataset.root).glob("*.jpg"):
        path.write_bytes(b"no picture")
    with pytest.raises(NothingToChoose, match="None of the images"):
        choose(dataset)


def way(detail: str, seconds: float, same: float, right: int = 0, labels: int = 0) -> Way:
    return Way("float32", detail, None, seconds, same, right, labels)  # type: ignore[arg-type]


def test_agreement_decides_until_labels_can() -> None:
    full, low = way("full", 4.0, 1.0), way("low", 1.0, 0.94)
    assert recommended([full, low])[0] is full
    assert recommended([full, way("low", 1.0, 0.96)])[0].detail == "low"
    assert recommended([way("full", 1.0, 1.0), way("low", 2.0, 1.0)])[0].detail == "full"
    full, low = way("full", 4.0, 1.0, right=80, labels=100), way("low", 1.0, 0.7, right=78, labels=100)
    assert recommended([full, low])[0] is low
    assert recommended([full, way("low", 1.0, 0.99, right=77, labels=100)])[0] is full


def test_the_command_says_what_to_run(dataset: Dataset) -> None:
    out = StringIO()
    call_command("choose", "photos", "--dimension", "setting", "--no-progress", stdout=out)
    text = out.getvalue()
    # Which way is the fastest, and whether there is int8, is the machine's affair.
    assert re.search(r"Recommended: (DATAVISOR_VLM_DTYPE=int8 )?python manage\.py autotag photos --detail", text)
    assert f"all {COUNT + 1} images" in text
    plain = StringIO()
    call_command("choose", "photos", "--limit", "4", "--no-progress", "--json", stdout=plain)
    found = json.loads(plain.getvalue())
    assert found["images"] == 4
    assert found["recommended"] in found["ways"]
    with pytest.raises(CommandError, match="No data set"):
        call_command("choose", "nothing")
