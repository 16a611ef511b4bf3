"""What files say of themselves: read after an import and before measuring, and asked by the page, programs and commands."""

import json
import threading
from datetime import datetime
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from PIL import Image

from vlm import exif, services
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import SampleFilter, SampleRow

from .page.conftest import admin as admin  # a logged-in client

CANON = (800, 600, "Canon", "2024:05:01 12:30:15")
PICTURES = {"a.jpg": CANON, "b.jpg": (60, 40, "", ""), "c.png": (40, 60, "Box 7", "2023:01:02 03:04:05")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cameras"
    folder.mkdir()
    for name, (width, height, camera, when) in PICTURES.items():
        head = Image.Exif()
        if camera:
            head[exif.MODEL] = camera
            head.get_ifd(0x8769)[exif.TAKEN] = when
        Image.new("RGB", (width, height)).save(folder / name, exif=head)
    (folder / "d.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    return folder


@pytest.fixture
def dataset(db: None, data_dir: Path, folder: Path) -> Dataset:
    dataset = services.datasets.import_folder(path=folder, name="cameras").dataset
    assert dataset is not None
    return dataset


def rows(dataset: Dataset) -> dict[str, SampleRow]:
    return {row.path: row for row in services.samples.page(dataset=dataset, filter=SampleFilter()).samples}


def measure(dataset: Dataset) -> None:
    job = services.pixels.measure_create(dataset=dataset, user=None)
    services.pixels.measure_execute(job_id=job.pk, stop=threading.Event())


def forget(dataset: Dataset) -> None:
    """Leave the store as one of before heads were kept."""
    with sample_store().write() as cursor:
        cursor.execute("update samples set width = null, height = null, taken = null, camera = null").fetchall()


def test_an_import_reads_the_heads_of_new_files(dataset: Dataset, folder: Path) -> None:
    found = rows(dataset)
    first = found["a.jpg"]
    assert (first.width, first.height, first.camera) == (800, 600, "Canon")
    assert first.taken == datetime(2024, 5, 1, 12, 30, 15)  # noqa: DTZ001
    assert first.bytes == (folder / "a.jpg").stat().st_size
    assert (found["b.jpg"].width, found["b.jpg"].camera, found["b.jpg"].taken) == (60, "", None)
    assert (found["d.jpg"].width, found["d.jpg"].camera) == (None, "")  # not tried again
    Image.new("RGB", (90, 30)).save(folder / "a.jpg")
    services.datasets.import_folder(path=folder, name="cameras")
    assert (rows(dataset)["a.jpg"].width, rows(dataset)["a.jpg"].camera) == (90, "")
    assert rows(dataset)["c.png"].camera == "Box 7"


@pytest.mark.parametrize("by", ["import", "measure"])
def test_an_older_store_is_filled(dataset: Dataset, folder: Path, by: str) -> None:
    whole = rows(dataset)
    if by == "measure":
        measure(dataset)
    forget(dataset)
    assert rows(dataset)["a.jpg"].width is None
    if by == "import":
        services.datasets.import_folder(path=folder, name="cameras")
    else:
        measure(dataset)
    assert rows(dataset) == whole


def test_who_is_stopped_goes_on_at_the_next_import(dataset: Dataset, folder: Path) -> None:
    from vlm.datasets.importing import import_folder

    whole = rows(dataset)
    forget(dataset)
    import_folder(path=folder, name="cameras", wanted=lambda: False)
    assert rows(dataset)["a.jpg"].camera is None
    seen: list[tuple[int, int | None]] = []
    import_folder(path=folder, name="cameras", looked=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]
    assert rows(dataset) == whole


def test_page_and_programs_ask_for_it(dataset: Dataset, admin: Client) -> None:
    root = f"/datasets/{dataset.pk}/"
    page = admin.get(root).content.decode()
    for said in ("facet-camera", "Box 7", "facet-taken", "2024", "facet-megapixels", "facet-file-size"):
        assert said in page
    told = admin.get(f"{root}?camera=Canon", headers={"Accept": "application/json"}).json()
    assert [(one["path"], one["camera"], one["taken"]) for one in told["samples"]] == [
        ("a.jpg", "Canon", "2024-05-01T12:30:15")
    ]
    assert {one["value"] for one in told["facets"]["cameras"]} == {"Canon", "Box 7"}
    assert (
        admin.get(f"{root}?order=-megapixels", headers={"Accept": "application/json"}).json()["samples"][0]["path"]
        == "a.jpg"
    )
    moved = admin.get(f"{root}?measured=file_sizes&least=&most=1+GB&order=taken&camera=Canon")
    assert moved.headers["Location"] == f"{root}?filesize=..1+GB&camera=Canon&order=taken"
    refused = admin.get(f"{root}?measured=taken&least=soon&most=")
    assert refused.status_code == 400
    assert "write it like taken=2024-05" in refused.content.decode()


def test_commands_and_exports_ask_for_it(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    chosen = "width=..100&taken=2023"
    call_command("export_tags", "cameras", "--filter", chosen, "--format", "jsonl", "--output", str(file))
    assert [json.loads(line)["file_name"] for line in file.read_text().splitlines()] == ["c.png"]
