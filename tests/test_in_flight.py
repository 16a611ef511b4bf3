"""Two batches in flight, as beside a GPU: nothing is lost or done twice, whatever ends the run."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.brake import Brake
from tests.children import PATIENCE
from tests.images import make_images
from vlm import services
from vlm.demo import DEMO_CHECKPOINT
from vlm.imaging import file_digest
from vlm.models import Dataset, TaggingRun
from vlm.moondream import EngineError, Tagger, identity
from vlm.process import sample_store
from vlm.runs.options import RunOptions

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", 10), name="photos")
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the loop asks of the tagger, in its order."""
    seen: list[str] = []
    submit, result = Tagger.submit, Tagger.result

    def submitting(self: Tagger, *args: Any) -> Any:
        seen.append("submit")
        return submit(self, *args)

    def resulting(self: Tagger, submitted: Any) -> Any:
        seen.append("result")
        return result(self, submitted)

    monkeypatch.setattr(Tagger, "in_flight", 2)
    monkeypatch.setattr(Tagger, "submit", submitting)
    monkeypatch.setattr(Tagger, "result", resulting)
    return seen


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    return services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")


def execute(run: TaggingRun, stop: threading.Event | None = None) -> TaggingRun:
    return services.runs.execute(run_id=run.pk, stop=stop or threading.Event())


def answered(run: TaggingRun) -> dict[int, int]:
    with sample_store().read() as cursor:
        rows = cursor.execute(
            "select sample_id, count(*) from answers where run_id = ? group by 1", [run.pk]
        ).fetchall()
    return dict(rows)


def test_the_next_batch_is_submitted_before_a_result_is_waited_for(dataset: Dataset, order: list[str]) -> None:
    run = execute(create(dataset, batch_size=3))
    assert (run.status, run.processed, run.tagged) == (Status.COMPLETED, 10, 10)
    assert order == ["submit", "submit", "result", "submit", "result", "submit", "result", "result"]
    assert set(answered(run).values()) == {5}


def test_a_cancelled_run_keeps_what_was_in_flight_and_resumes(dataset: Dataset, order: list[str], brake: Brake) -> None:
    run = create(dataset, batch_size=1)
    brake.allow(2)
    worker = threading.Thread(target=lambda: execute(run))
    worker.start()
    brake.wait_until_reached()
    assert services.runs.cancel(run=run)
    worker.join(PATIENCE)  # the brake lets go of a run that is to stop
    brake.release()
    run.refresh_from_db()
    assert run.status == Status.CANCELLED
    assert 2 <= run.processed <= 5
    assert order.count("submit") == order.count("result") == run.processed
    before = answered(run)
    services.runs.requeue(run=run, user=None, origin="command")
    run = execute(run)
    assert (run.status, run.processed, len(answered(run))) == (Status.COMPLETED, 10, 10)
    assert set(before) < set(answered(run))
    assert set(answered(run).values()) == {5}


def test_what_was_answered_before_the_gpu_was_lost_is_kept(
    dataset: Dataset, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Tagger.result

    def failing(self: Tagger, submitted: Any) -> Any:
        if order.count("result") == 3:
            raise EngineError("The GPU stopped working. Restart DataVisor, and resume the run.")
        return result(self, submitted)

    with monkeypatch.context() as patched:
        patched.setattr(Tagger, "result", failing)
        run = execute(create(dataset, batch_size=2))
    assert (run.status, run.processed) == (Status.FAILED, 6)
    assert "resume the run" in run.error
    services.runs.requeue(run=run, user=None, origin="command")
    run = execute(run)
    assert (run.status, run.processed) == (Status.COMPLETED, 10)
    assert set(answered(run).values()) == {5}


def test_a_run_keeps_digests_and_measures_of_what_it_read(dataset: Dataset) -> None:
    execute(create(dataset))
    with sample_store().read() as cursor:
        rows = cursor.execute(
            "select s.path, s.digest, m.luminance, m.phash from samples s join measures m on m.sample_id = s.id"
        ).fetchall()
    assert len(rows) == 10
    for path, digest, luminance, phash in rows:
        assert digest == file_digest(Path(dataset.root) / path)
        assert 0 < luminance < 255
        assert phash >= 0


def test_a_checkpoint_that_changed_meanwhile_is_said_and_answers_for_itself(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(DEMO_CHECKPOINT, folder)
    first = execute(create(dataset, limit=4, model=str(folder)))
    assert first.revision == identity(str(folder))
    execute(create(dataset, limit=1, model=str(folder)))
    assert create_total(dataset, folder) == 5  # what was answered by it needs no answer
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    os.utime(config, ns=(1, 1))
    assert create_total(dataset, folder) == 10
    TaggingRun.objects.filter(pk=first.pk).update(status=Status.INTERRUPTED)
    services.runs.requeue(run=first, user=None, origin="command")
    again = execute(first)
    assert again.status == Status.FAILED
    assert "is not the one that is meant" in again.error


def create_total(dataset: Dataset, folder: Path) -> int:
    return services.runs.extent(dataset=dataset, options=RunOptions(model=str(folder))).images
