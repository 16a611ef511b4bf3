"""Store and database refuse each other when one of them was replaced, and say how to mend it."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.models import Dataset, StoreBinding
from vlm.process import sample_store
from vlm.samples import SampleFilter, StoreForeign

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]


def imported(tmp_path: Path, name: str, count: int) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / name, count), name=name)
    assert done.dataset is not None
    return done.dataset


def count(dataset: Dataset) -> int:
    return len(services.samples.page(dataset=dataset, filter=SampleFilter(), limit=100).samples)


def count_anew(cursor: CursorWrapper) -> None:
    """Have the next data set get number 1, as in a new database."""
    for statement in connection.ops.sequence_reset_by_name_sql(no_style(), [{"table": "vlm_dataset", "column": "id"}]):
        cursor.execute(statement)


def test_a_new_database_does_not_adopt_the_samples_of_an_old_one(tmp_path: Path, admin_client: Client) -> None:
    imported(tmp_path, "old", 4)
    sample_store().close()
    # As a database that was made anew: nothing of the old one is in it, and its next data set has the same number.
    with connection.cursor() as cursor:
        for table in ("vlm_importjob", "vlm_dataset", "vlm_storebinding"):
            cursor.execute(f"delete from {table}")
        count_anew(cursor)
    with pytest.raises(StoreForeign, match="bind_store"):
        imported(tmp_path, "new", 2)
    Dataset.objects.create(name="any", root=str(tmp_path), format="folder")
    answer = admin_client.get(reverse("datasets"), headers={"accept": "application/json"})
    assert (answer.status_code, "bind_store" in answer.json()["error"]) == (503, True)
    Dataset.objects.filter(name="any")._raw_delete("default")
    with connection.cursor() as cursor:
        count_anew(cursor)
    out = StringIO()
    call_command("bind_store", "--forget", stdout=out)
    assert "4 images were forgotten" in out.getvalue()
    new = imported(tmp_path, "new", 2)
    assert count(new) == 2


def test_a_store_that_was_replaced_is_refused_until_somebody_says_so(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "photos", 3)
    store = sample_store()
    store.close()
    kept = store.path.read_bytes()
    store.path.unlink()
    with pytest.raises(StoreForeign, match="Restore both"):
        count(dataset)
    store.path.unlink()
    store.path.write_bytes(kept)
    assert count(dataset) == 3  # both are of one moment again
    store.close()
    StoreBinding.objects.update(store_id="another")
    with pytest.raises(StoreForeign):
        count(dataset)
    call_command("bind_store", "--trust", stdout=StringIO())
    assert count(dataset) == 3


def test_a_database_of_the_last_release_takes_its_store_along(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "photos", 3)
    sample_store().close()
    StoreBinding.objects.all().delete()
    assert count(dataset) == 3
    assert StoreBinding.objects.count() == 1
