"""Data sets whose images lie in a bucket, from their import to their end, on a real S3 server."""

import threading
from pathlib import Path

import pytest

from tests.buckets import BucketServer, bucket, bucket_server  # noqa: F401  (fixtures)
from tests.images import make_images
from vlm import services
from vlm.models import Dataset
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

COUNT = 6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", COUNT)


def rows(dataset: Dataset) -> dict[str, object]:
    page = services.samples.page(dataset=dataset, filter=SampleFilter())
    return {row.path: row for row in page.samples}


def tagged(dataset: Dataset) -> dict[str, list[tuple[str, float | None]]]:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    run = services.runs.execute(run_id=run.pk, stop=threading.Event())
    assert (run.status, run.failed, run.error) == ("completed", 0, "")
    return {path: [(tag.tag, tag.probability) for tag in row.tags] for path, row in rows(dataset).items()}  # type: ignore[attr-defined]


def test_a_folder_in_a_bucket_is_tagged_as_on_disk(data_dir: Path, bucket: BucketServer, photos: Path) -> None:  # noqa: F811
    here = services.datasets.import_folder(path=photos, name="here").dataset
    url = bucket.upload(photos, "photos")
    done = services.datasets.import_folder(path=url + "/", name="there")
    there = done.dataset
    assert here is not None
    assert there is not None
    assert (there.root, there.sample_count, done.skips) == (url, COUNT, [])
    assert set(rows(there)) == set(rows(here))
    tags = tagged(here)
    assert tagged(there) == tags
    assert any(tags.values())
