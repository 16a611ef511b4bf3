"""Calibrated answers: in force by a user's choice, for just the answers that they were fitted for, and taken back exactly."""

import json
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.errors import RunActive
from vlm.runs.options import RunOptions
from vlm.samples import Label, SampleFilter
from vlm.samples.editing import labels_add
from vlm.services.calibrations import NotCalibrated
from vlm.statistics.calibration import Calibration, scaled
from vlm.templatetags.datavisor import percent
from vlm.vocabulary import VocabularyError

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT, SEEN = 40, 36
DIMENSION = "setting"
DUMPS = {
    "answers": "select run_id, sample_id, dimension, words, probabilities, mass, word, probability, accepted, reason, current, raw",
    "sample_tags": "select sample_id, tag, dimension, source, probability, run_id, place, ended_by",
    "samples": "select id, tags, user_count, certainty, discarded, answered",
    "run_totals": "select *",
    "calibrations": "select dataset_id",
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """36 answered images, far too sure of themselves: at 95 % three in five are right."""
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    run = execute(done.dataset, limit=SEEN)
    with sample_store().write() as cursor:
        cursor.execute(
            "update answers set probabilities = list_transform(words, lambda w: case when w = word then 0.95 else 0.05 end)::float[], "
            "probability = 0.95 where run_id = ?",
            [run.pk],
        ).fetchall()
        cursor.execute("update sample_tags set probability = 0.95 where run_id = ?", [run.pk]).fetchall()
        cursor.execute("update samples set certainty = 0.95 where certainty is not null").fetchall()
    return done.dataset


def execute(dataset: Dataset, **options: Any) -> TaggingRun:
    run = services.runs.create(
        dataset=dataset, options=RunOptions(**{"dimensions": (DIMENSION,), **options}), user=None, origin="command"
    )
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def label(dataset: Dataset, *, count: int = SEEN, right: int = 3) -> None:
    """Give labels by chance, of which ``right`` in five agree with the model."""
    rows = dump("answers")[:count]
    other = {"indoor": "outdoor", "outdoor": "indoor"}
    given = [
        Label(row[1], DIMENSION, row[6] if place % 5 < right else other[row[6]], count / COUNT, "", "draw-1")
        for place, row in enumerate(rows)
    ]
    with sample_store().write() as cursor:
        labels_add(cursor, dataset_id=dataset.pk, labels=given)


def dump(table: str) -> list[tuple[Any, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(f"{DUMPS[table]} from {table} order by all").fetchall()


def state() -> tuple[Any, ...]:
    runs = TaggingRun.objects.order_by("pk").values_list("pk", "thresholds", "min_probability", "tagged", "discarded")
    return [dump(table) for table in DUMPS], list(runs)  # type: ignore[return-value]


def test_what_is_previewed_comes_about_and_is_taken_back_exactly(dataset: Dataset) -> None:
    label(dataset)
    run = TaggingRun.objects.get()
    services.runs.reapply(run=run, min_probability=0.7, min_mass=0, dimension=DIMENSION)
    before = state()
    answers = dump("answers")
    fitted, foreseen = services.calibrations.preview(dataset=dataset, dimension=DIMENSION)
    assert state() == before
    applied, done = services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    assert (applied, done) == (fitted, foreseen)
    assert (done.answers, done.accepted_before) == (SEEN, SEEN)
    raw = np.array([row[4] for row in answers], dtype=np.float64)
    expected = scaled(raw, 1 / fitted.temperature, np.array(fitted.bias))
    now = dump("answers")
    assert np.array([row[4] for row in now]) == pytest.approx(expected, abs=1e-6)
    assert [row[7] for row in now] == pytest.approx(expected.max(axis=1))
    assert [row[6] for row in now] == [row[3][place] for row, place in zip(now, expected.argmax(axis=1), strict=True)]
    assert sum(row[8] for row in now) == sum(expected.max(axis=1) >= 0.7) == done.accepted_after < SEEN
    assert [row[11]["probabilities"] for row in now] == [row[4] for row in answers]
    assert services.datasets.check_store().is_sound
    found = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION)
    assert found.applied is not None
    assert found.applied.to_json() == fitted.to_json()
    assert found.quality == found.applied.after
    assert found.calibration == fitted  # it is always fitted to what the model said itself

    # Whatever comes of it goes back with it: a threshold on its scale, and fitting anew.
    services.runs.reapply(run=run, min_probability=0.5, min_mass=0, dimension=DIMENSION)
    again, _ = services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    assert again == fitted
    foreseen = services.calibrations.preview_removal(dataset=dataset, dimension=DIMENSION)
    assert services.calibrations.remove(dataset=dataset, dimension=DIMENSION) == foreseen
    assert state() == before
    assert services.datasets.check_store().is_sound


def test_new_answers_are_calibrated_if_it_is_for_them(dataset: Dataset) -> None:
    label(dataset)
    fitted, _ = services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    later = execute(dataset, limit=2)
    came = [row for row in dump("answers") if row[0] == later.pk]
    assert len(came) == 2
    for row in came:
        assert row[11] is not None
        raw = np.array([row[11]["probabilities"]], dtype=np.float64)
        assert row[4] == pytest.approx(fitted.apply(raw, fitted.key)[0], abs=1e-6)
    other = execute(dataset, detail="full")
    assert [row[11] for row in dump("answers") if row[0] == other.pk] == [None, None]
    assert services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).mixed
    services.runs.revert(run=other)
    services.calibrations.remove(dataset=dataset, dimension=DIMENSION)
    assert all(row[11] is None for row in dump("answers"))
    assert services.datasets.check_store().is_sound


def test_what_is_no_use_is_refused(dataset: Dataset) -> None:
    def refused(match: str) -> None:
        before = state()
        with pytest.raises(NotCalibrated, match=match):
            services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
        assert state() == before

    refused("no label that counts")
    label(dataset, count=20)
    refused("label 10 more")
    with pytest.raises(NotCalibrated, match="not calibrated"):
        services.calibrations.remove(dataset=dataset, dimension=DIMENSION)
    with pytest.raises(VocabularyError):
        services.calibrations.apply(dataset=dataset, dimension="nothing", user=None)
    label(dataset)
    waiting = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    with pytest.raises(RunActive):
        services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    services.runs.cancel(run=waiting)
    execute(dataset, detail="full", limit=1)
    refused("more than one model")


def test_another_word_ends_it(dataset: Dataset) -> None:
    label(dataset)
    run = TaggingRun.objects.get()
    services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    services.runs.reapply(run=run, min_probability=0.99, min_mass=0, dimension=DIMENSION)
    change = services.vocabulary.rename_word(name=DIMENSION, old="indoor", new="inside", user=None)
    run.refresh_from_db()
    assert (services.calibrations.in_force(dataset=dataset), run.thresholds) == ({}, {})
    assert {row[6] for row in dump("answers")} <= {"inside", "outdoor"}
    assert all(row[11] is None and row[7] == pytest.approx(0.95) for row in dump("answers"))
    assert isinstance(services.calibrations.fitted(dataset=dataset, dimension=DIMENSION), Calibration)
    services.calibrations.apply(dataset=dataset, dimension=DIMENSION, user=None)
    services.vocabulary.undo(change=change, user=None)
    assert services.calibrations.in_force(dataset=dataset) == {}
    assert all(row[11] is None and row[7] == pytest.approx(0.95) for row in dump("answers"))
    assert services.datasets.check_store().is_sound


def test_page_and_command_apply_and_remove_it(client: Client, dataset: Dataset) -> None:
    user = User.objects.create_user("ada", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    client.force_login(user)
    address = reverse("calibration", args=[dataset.pk])
    asked, as_json = {"dimension": DIMENSION}, {"accept": "application/json"}
    assert "at least 30 labels" in client.get(address, asked).content.decode()
    label(dataset)
    page = client.get(address, {**asked, "preview": "1"}).content.decode()
    assert "become tags instead of" in page
    assert "Apply the calibration" not in page
    assert client.post(address, {**asked, "action": "apply"}).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="autotag_dataset"))
    client.force_login(User.objects.get(pk=user.pk))
    assert client.post(address, {**asked, "action": "what"}).status_code == 400
    assert client.get(address, {"dimension": "nothing"}).status_code == 400
    assert "Calibrate setting" in client.get(reverse("accuracy", args=[dataset.pk])).content.decode()
    answer = client.post(address, {**asked, "action": "apply"}, follow=True)
    assert "setting is calibrated" in answer.content.decode().lower()
    assert "calibrated</a>" in answer.content.decode()
    first = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=1)
    detail = client.get(reverse("sample", args=[dataset.pk, first.samples[0].id])).content.decode()
    with sample_store().read() as cursor:
        ((word, probability),) = cursor.execute(
            "select raw.word, raw.probability from answers where sample_id = ? and raw is not null",
            [first.samples[0].id],
        ).fetchall()
    assert f"calibrated: the model itself said “{word}” with {percent(probability)}" in detail
    shown = client.get(address, {**asked, "preview": "1"})
    assert "Remove the calibration" in shown.content.decode()
    found = client.get(address, asked, headers=as_json).json()
    assert (found["in_force"], found["calibration"]["labels"]) == (True, SEEN)
    told = client.post(address, {**asked, "action": "remove"}, headers=as_json).json()
    assert told["in_force"] is False
    assert client.post(address, {**asked, "action": "remove"}).status_code == 409

    def command(*options: str) -> str:
        out = StringIO()
        call_command("calibrate", "photos", "--dimension", DIMENSION, *options, stdout=out)
        return out.getvalue()

    assert "Would be" in command("--dry-run")
    assert services.calibrations.in_force(dataset=dataset) == {}
    assert json.loads(command("--json"))["in_force"] is True
    assert "would change" in command("--remove", "--dry-run")
    assert "Now" in command("--remove")
    with pytest.raises(CommandError, match="not calibrated"):
        command("--remove")
