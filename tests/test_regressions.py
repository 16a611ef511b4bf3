"""What went wrong once, or could have: busy stores, lost touch, things that happen at the same time."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from tests.brake import Brake
from tests.children import PATIENCE, end, environment, python, wait_for
from tests.images import make_images
from tests.queueing import wait_for_a_second_turn
from vlm import jobs, services
from vlm.datasets import importing
from vlm.datasets.importing import ImportDone
from vlm.formats import ImportFailed
from vlm.models import Dataset, Dimension, ImportJob, TaggingRun
from vlm.process import keeper, sample_store
from vlm.runs import loop, worker
from vlm.runs.errors import NotResumable, RunError
from vlm.runs.options import RunOptions
from vlm.samples import Merged, SampleFilter, StoreBusy, StoreReadOnly
from vlm.samples.ingest import import_rows, staged
from vlm.scoring.decoding import decode_threads
from vlm.scoring.engine import batches_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
DAY = timedelta(days=1)

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1]); lock.acquire(); print("held", flush=True); sys.stdin.read()
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", 12), name="photos")
    assert done.dataset is not None
    return done.dataset


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    return services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")


def execute(run: TaggingRun, waited: Callable[[str, float], None] = lambda _, __: None) -> TaggingRun:
    return services.runs.execute(run_id=run.pk, stop=threading.Event(), waited=waited)


def interrupted(dataset: Dataset) -> TaggingRun:
    stop = threading.Event()
    stop.set()
    return services.runs.execute(run_id=create(dataset).pk, stop=stop)


def presume_dead(run: TaggingRun) -> None:
    """Do as another machine does that has not heard of the run for a day."""
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(jobs, "_machine", lambda: "elsewhere")
        for _ in range(1000):  # its heart may beat in between
            TaggingRun.objects.filter(pk=run.pk).update(heartbeat=timezone.now() - DAY)
            if services.runs.fail_stale():
                return
    raise AssertionError("The run could not be taken for dead.")


def once(what: str, act: Callable[[], object]) -> Callable[[str, float], None]:
    """Return a ``waited`` that calls ``act`` the first time that the run has spent time on ``what``."""
    calls: list[str] = []

    def waited(kind: str, seconds: float) -> None:
        if kind == what and not calls:
            calls.append(kind)
            act()

    return waited


@contextmanager
def held_by_another_process() -> Iterator[None]:
    """Keep the store's lock in a process that does not look whether anybody queues."""
    store = sample_store()
    patience, store.wait = store.wait, 0.1
    store.close()
    holder = python("-c", HOLD, f"{store.path}.lock", env=environment(store.path.parent), stdin=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        end(holder)
        store.wait = patience


# -- runs ----------------------------------------------------------------------------------------------------------------
def test_a_run_waits_for_a_busy_store(dataset: Dataset) -> None:
    run = create(dataset)
    worker = threading.Thread(target=execute, args=(run,))
    with held_by_another_process():
        worker.start()
        wait_for(lambda: keeper.state == "loaded")
        wait_for_a_second_turn(sample_store().path)
        assert TaggingRun.objects.get(pk=run.pk).is_active
    worker.join(PATIENCE)
    run.refresh_from_db()
    assert (run.status, run.processed) == (Status.COMPLETED, 12), run.error


def test_a_run_that_waits_for_a_busy_store_can_be_cancelled(dataset: Dataset) -> None:
    run = create(dataset)
    worker = threading.Thread(target=execute, args=(run,))
    with held_by_another_process():
        worker.start()
        wait_for(lambda: TaggingRun.objects.get(pk=run.pk).status != Status.QUEUED)
        assert services.runs.cancel(run=run)
        worker.join(PATIENCE)
    run.refresh_from_db()
    assert run.status == Status.CANCELLED


@contextmanager
def at_work(run: TaggingRun, brake: Brake) -> Iterator[list[TaggingRun]]:
    """Have a run wait after its first image while the block does something to it; then wait until it notices.

    Yields a list in which the run stands as it was when it ended.
    """
    ended: list[TaggingRun] = []
    brake.allow(1)
    thread = threading.Thread(target=lambda: ended.append(execute(run)))
    thread.start()
    try:
        brake.wait_until_reached()
        yield ended
    finally:
        thread.join(PATIENCE)  # the brake holds until the run is to stop
        assert not thread.is_alive()


def test_a_run_taken_for_dead_leaves_its_successor_alone(dataset: Dataset, brake: Brake) -> None:
    """A machine that slept: another process marked the run as interrupted, and somebody resumed it."""
    run = create(dataset, batch_size=1)
    with at_work(run, brake):
        presume_dead(run)
        services.runs.requeue(run=TaggingRun.objects.get(pk=run.pk), user=None, origin="page")
    brake.release()
    run.refresh_from_db()
    assert (run.status, run.worker) == (Status.QUEUED, "")
    done = execute(run)
    assert (done.status, done.processed, done.tagged) == (Status.COMPLETED, 12, 12)


def test_a_run_taken_for_dead_is_interrupted_not_cancelled(dataset: Dataset, brake: Brake) -> None:
    run = create(dataset, batch_size=1)
    with at_work(run, brake) as ended:
        presume_dead(run)
    (done,) = ended
    assert done.status == Status.INTERRUPTED
    assert "Resume" in done.error


def test_figures_that_could_not_be_written_are_made_good(dataset: Dataset) -> None:
    """Each report says the whole, so that one that was lost is made good by the next."""
    run = create(dataset)
    TaggingRun.objects.filter(pk=run.pk).update(worker="here")
    run.refresh_from_db()
    run.total = 12
    meter = worker._Meter(run)
    meter.count(Merged(processed=4, tagged=3, discarded=2, failed=1))
    TaggingRun.objects.filter(pk=run.pk).update(processed=0, tagged=0)
    meter.count(Merged(processed=9, tagged=9))
    run.refresh_from_db()
    assert (run.processed, run.tagged, run.discarded, run.failed, run.total) == (13, 12, 2, 1, 13)


def test_a_run_resumes_though_every_dimension_is_switched_off(dataset: Dataset) -> None:
    run = interrupted(dataset)
    Dimension.objects.update(enabled=False)
    services.runs.requeue(run=run, user=None, origin="command")
    assert execute(run).status == Status.COMPLETED


def test_a_filter_may_name_a_dimension_that_is_switched_off(dataset: Dataset) -> None:
    Dimension.objects.filter(name="weather").update(enabled=False)
    assert create(dataset, filter=SampleFilter(lacking=("weather",))).total == 12


def test_unreadable_images_are_committed_as_the_run_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0.0)
    folder = make_images(tmp_path / "gone", 100)
    dataset = services.datasets.import_folder(path=folder, name="gone").dataset
    assert dataset is not None
    for image in folder.iterdir():
        image.unlink()
    commits: list[str] = []
    run = execute(
        create(dataset, min_mass=0.5, batch_size=10),
        lambda kind, _: commits.append(kind) if kind == "store" else None,
    )
    assert (run.status, run.failed) == (Status.COMPLETED, 100)
    assert len(commits) > 1


def test_a_batch_size_is_that_of_its_run_only(dataset: Dataset) -> None:
    execute(create(dataset, limit=1))
    assert keeper._tagger is not None
    before = keeper._tagger.batch_size
    execute(create(dataset, batch_size=before + 3))
    assert keeper._tagger.batch_size == before


def test_a_batch_size_that_was_halved_stays(dataset: Dataset) -> None:
    execute(create(dataset, limit=1))
    tagger = keeper._tagger
    assert tagger is not None
    before = tagger.batch_size
    with batches_of(before + 3, tagger):
        tagger.batch_size = 1  # as when memory is full
    assert tagger.batch_size == min(before, 1)
    tagger.batch_size = before
    with batches_of(0, tagger):
        tagger.batch_size = 1
    assert tagger.batch_size == 1
    tagger.batch_size = before


def test_a_gpu_has_more_threads_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.scoring.decoding.os.cpu_count", lambda: 8)
    assert [decode_threads(device) for device in ("cpu", "mps", "cuda:1")] == [2, 8, 8]
    monkeypatch.setattr("vlm.scoring.decoding.os.cpu_count", lambda: 96)
    assert decode_threads("cuda") == 16


def test_nobody_resumes_a_run_that_is_being_reverted(dataset: Dataset) -> None:
    run = interrupted(dataset)
    reverting = threading.Thread(target=services.runs.revert, kwargs={"run": TaggingRun.objects.get(pk=run.pk)})
    with sample_store().write():  # keeps the revert waiting
        reverting.start()
        wait_for(lambda: TaggingRun.objects.get(pk=run.pk).reverted is not None)
        with pytest.raises(NotResumable, match="reverted"):
            services.runs.requeue(run=run, user=None, origin="page")
    reverting.join(PATIENCE)
    assert TaggingRun.objects.get(pk=run.pk).reverted


def test_a_revert_that_fails_has_not_happened(dataset: Dataset) -> None:
    run = execute(create(dataset))
    with held_by_another_process(), pytest.raises(StoreBusy):
        services.runs.revert(run=run)
    run.refresh_from_db()
    assert run.reverted is None
    assert services.runs.revert(run=run) == 12


def test_thresholds_that_fail_to_be_applied_are_not_written_down(dataset: Dataset) -> None:
    run = execute(create(dataset))
    with held_by_another_process(), pytest.raises(StoreBusy):
        services.runs.reapply(run=run, min_probability=0.9, min_mass=0.1)
    run.refresh_from_db()
    assert (run.min_probability, run.min_mass) == (0, 0)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_a_threshold_is_a_probability(dataset: Dataset, value: float) -> None:
    with pytest.raises(RunError, match="between 0 and 1"):
        RunOptions(min_probability=value)
    run = execute(create(dataset, limit=1))
    with pytest.raises(RunError, match="between 0 and 1"):
        services.runs.reapply(run=run, min_probability=0.5, min_mass=value)


def test_thresholds_of_a_run_that_goes_on_stay(dataset: Dataset) -> None:
    run = interrupted(dataset)
    services.runs.requeue(run=TaggingRun.objects.get(pk=run.pk), user=None, origin="page")
    with pytest.raises(RunError, match="active"):
        services.runs.reapply(run=run, min_probability=0.9, min_mass=0)


def test_a_data_set_that_is_deleted_under_its_run(dataset: Dataset) -> None:
    run = create(dataset, batch_size=1)
    execute(run, once("model", lambda: Dataset.objects.filter(pk=dataset.pk).delete()))
    assert not TaggingRun.objects.exists()
    assert services.datasets.check_store().is_sound


# -- imports -------------------------------------------------------------------------------------------------------------
def test_a_data_set_that_is_deleted_under_its_import(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def import_and_delete(*args: Any, **kwargs: Any) -> Any:
        Dataset.objects.all().delete()
        return import_rows(*args, **kwargs)

    monkeypatch.setattr(importing, "import_rows", import_and_delete)
    with pytest.raises(ImportFailed, match="deleted during the import"):
        services.datasets.import_folder(path=tmp_path / "photos", name="photos")
    assert services.datasets.check_store().is_sound


def test_an_import_waits_for_a_busy_store(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "photos", 2)
    sample_store()
    done: list[ImportDone] = []
    worker = threading.Thread(target=lambda: done.append(services.datasets.import_folder(path=folder, name="photos")))
    with held_by_another_process():
        worker.start()
        wait_for(lambda: Dataset.objects.exists())
        wait_for_a_second_turn(sample_store().path)
    worker.join(PATIENCE)
    assert done[0].total == 2


def test_imports_at_the_same_time(tmp_path: Path) -> None:
    folders = [make_images(tmp_path / f"photos-{index}", 3) for index in range(4)]

    def work(folder: Path) -> None:
        try:
            for _ in range(5):
                services.datasets.import_folder(path=folder, name=folder.name)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, folders))
    assert [dataset.sample_count for dataset in Dataset.objects.all()] == [3, 3, 3, 3]


def test_an_import_that_dies_while_reading_leaves_no_data_set(tmp_path: Path) -> None:
    seen: list[int] = []

    def report(done: int, total: int | None) -> None:
        seen.append(Dataset.objects.count())

    services.datasets.import_folder(path=make_images(tmp_path / "photos", 2), name="photos", report=report)
    assert seen == [0]


def test_a_silent_import_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BEAT_SECONDS", 0.02)
    job = ImportJob.objects.create(path="/", name="slow", heartbeat=timezone.now() - DAY)
    with jobs.beating(lambda: ImportJob.objects.filter(pk=job.pk), stop=threading.Event()):
        wait_for(lambda: ImportJob.objects.filter(heartbeat__gt=timezone.now() - DAY / 2).exists())
        services.datasets.fail_stale_imports()
    job.refresh_from_db()
    assert job.status == ImportJob.Status.RUNNING


def test_a_folder_that_takes_no_import_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly, match="nowhere"), staged([], tmp_path / "nowhere"):
        pass


def test_names_that_are_no_unicode_do_not_stop_an_import(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "coco", 1)
    name = next(folder.iterdir()).name
    content = {
        "images": [{"id": "\ud83d", "file_name": name, "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": "\ud83d", "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 1, "name": "half \ud83d"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    done = services.datasets.import_folder(path=folder, name="coco")
    assert done.dataset is not None
    (sample,) = services.samples.page(dataset=done.dataset, filter=SampleFilter()).samples
    detail = services.samples.detail(dataset=done.dataset, sample_id=sample.id)
    assert detail is not None
    assert detail.categories == ("half \\ud83d",)


# -- filters -------------------------------------------------------------------------------------------------------------
def test_text_is_found_in_any_case_of_any_script(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "greek", 1)
    next(folder.iterdir()).rename(folder / "οδοσ.jpg")
    dataset = services.datasets.import_folder(path=folder, name="greek").dataset
    assert dataset is not None
    assert services.samples.count(dataset=dataset, filter=SampleFilter(text="ΟΔΟΣ")) == 1


def test_a_probability_survives_the_address() -> None:
    for value in (0.0, 0.5, 1.0, 0.99999999):
        chosen = SampleFilter(min_probability=value)
        assert SampleFilter.from_query(chosen.to_query()) == chosen
    assert SampleFilter(min_probability=1.0).to_query() == "pmin=1"
