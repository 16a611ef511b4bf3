"""The prior of each word over a run, and the blind check: in the row, on the page, in the commands."""

import json
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from tests.brake import Brake
from tests.children import PATIENCE
from tests.images import make_images
from vlm import services
from vlm.models import Dataset, TaggingRun
from vlm.moondream import Tagger
from vlm.process import sample_store
from vlm.runs import blind
from vlm.runs.options import RunOptions
from vlm.statistics.priors import HARDLY_DEPENDS, divergence_from

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 12
DIMENSIONS = ("lighting", "setting")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(blind, "LEAST_IMAGES", COUNT)
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def greys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what is asked about images that were not submitted by the loop."""
    asked: list[int] = []
    score = Tagger.score

    def counted(self: Tagger, images: Any, *args: Any) -> Any:
        asked.append(len(images))
        return score(self, images, *args)

    monkeypatch.setattr(Tagger, "score", counted)
    return asked


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    given = RunOptions(**{"scope": "all", "dimensions": DIMENSIONS, **options})
    return services.runs.create(dataset=dataset, options=given, user=None, origin="command")


def execute(dataset: Dataset, **options: Any) -> TaggingRun:
    return services.runs.execute(run_id=create(dataset, **options).pk, stop=threading.Event())


def probabilities(run: TaggingRun, dimension: str) -> np.ndarray[Any, Any]:
    with sample_store().read() as cursor:
        rows = cursor.execute(
            "select probabilities from answers where run_id = ? and dimension = ?", [run.pk, dimension]
        ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.float64)


@pytest.mark.parametrize("detail", ["low", "full", "auto"])
def test_a_run_knows_its_priors_and_what_needed_no_picture(dataset: Dataset, greys: list[int], detail: Any) -> None:
    run = execute(dataset, detail=detail)
    assert greys == [1]  # one image more, whatever the detail
    found = services.runs.priors(run=run)
    assert set(found) == set(DIMENSIONS)
    for name, prior in found.items():
        answers = probabilities(run, name)
        assert prior.answers == COUNT == len(answers)
        assert prior.prior == pytest.approx(answers.mean(axis=0), abs=1e-5)
        assert prior.blind is not None
        assert sum(prior.blind) == pytest.approx(1, abs=1e-5)
        divergences = divergence_from(answers, np.array(run.blind["answers"][name]))
        assert prior.mean_divergence == pytest.approx(divergences.mean(), abs=1e-5)
        assert prior.hardly_depending == pytest.approx((divergences < HARDLY_DEPENDS).mean(), abs=1e-5)


def test_what_was_asked_of_a_grey_image_is_not_asked_again(dataset: Dataset, greys: list[int]) -> None:
    first = execute(dataset)
    few = execute(dataset, limit=3)  # too few to ask, but it is known
    assert greys == [1]
    assert few.blind == first.blind
    assert services.runs.priors(run=few)["setting"].answers == 3
    other = execute(dataset, dimensions=("setting",))
    assert greys == [1, 1]
    assert other.blind["answers"]["setting"] == pytest.approx(first.blind["answers"]["setting"], rel=1e-4)


def test_a_few_images_are_not_worth_a_grey_one(dataset: Dataset, greys: list[int]) -> None:
    run = execute(dataset, limit=COUNT - 1)
    assert (greys, run.blind) == ([], {})
    assert services.runs.priors(run=run)["setting"].blind is None
    assert execute(dataset, mode="generate").priors == {}


def test_a_run_that_was_stopped_goes_on_with_both(dataset: Dataset, greys: list[int], brake: Brake) -> None:
    run = create(dataset, batch_size=1)
    stop = threading.Event()
    brake.allow(5)
    worker = threading.Thread(target=lambda: services.runs.execute(run_id=run.pk, stop=stop))
    worker.start()
    brake.wait_until_reached()
    stop.set()
    worker.join(PATIENCE)
    run.refresh_from_db()
    assert services.runs.priors(run=run)["setting"].answers == 5
    brake.release()
    services.runs.requeue(run=run, user=None, origin="command")
    run = services.runs.execute(run_id=run.pk, stop=threading.Event())
    assert greys == [1]
    prior = services.runs.priors(run=run)["setting"]
    assert prior.answers == COUNT
    assert prior.prior == pytest.approx(probabilities(run, "setting").mean(axis=0), abs=1e-5)


def test_a_long_run_tells_on_the_way(dataset: Dataset, brake: Brake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.runs.worker.LEAST_IMAGES", 2)
    run = create(dataset, batch_size=1)
    stop = threading.Event()
    brake.allow(5)
    worker = threading.Thread(target=lambda: services.runs.execute(run_id=run.pk, stop=stop))
    worker.start()
    brake.wait_until_reached()
    run.refresh_from_db()
    seen = run.is_active, services.runs.priors(run=run)["setting"].answers
    stop.set()
    worker.join(PATIENCE)
    assert seen == (True, 4)  # at 2 and at 4 images; next at 8


def test_page_and_commands_tell_and_warn(client: Client, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User.objects.create_user("ada", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    client.force_login(user)
    monkeypatch.setattr("vlm.statistics.priors.MUCH", 0.0)  # of random weights all is too much
    out = StringIO()
    call_command("autotag", "photos", "--dimension", "setting", "--no-progress", stdout=out)
    run = TaggingRun.objects.get()
    assert "hardly depend on their picture: setting" in out.getvalue()
    assert "nearly those to a grey image" in out.getvalue()
    page = client.get(reverse("run", args=[run.pk])).content.decode()
    assert "Without looking" in page
    assert "try other words" in page
    found = client.get(reverse("run", args=[run.pk]), headers={"accept": "application/json"}).json()
    assert found["priors"]["setting"]["answers"] == COUNT
    shown = StringIO()
    call_command("runs", "--run", str(run.pk), "--json", stdout=shown)
    assert json.loads(shown.getvalue())["priors"] == found["priors"]
    plain, text = StringIO(), StringIO()
    call_command(
        "autotag", "photos", "--scope", "all", "--dimension", "setting", "--no-progress", "--json", stdout=plain
    )
    assert set(json.loads(plain.getvalue())["priors"]) == {"setting"}
    call_command("runs", "--run", str(run.pk), stdout=text)
    assert "hardly depend" in text.getvalue()
