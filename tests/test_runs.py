"""The life of a run on the real engine and a real store: start, watch, cancel, resume, revert, fail."""

import threading
from pathlib import Path

import pytest

from tests.brake import Brake
from tests.children import PATIENCE, wait_for
from tests.images import make_images
from vlm import services
from vlm.models import Dataset, Dimension, TaggingRun
from vlm.moondream import identity
from vlm.process import keeper, sample_store
from vlm.runs.errors import NothingToTag, NotResumable, RunActive
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter
from vlm.vocabulary import VocabularyError

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", 12), name="photos")
    assert done.dataset is not None
    return done.dataset


def execute(dataset: Dataset, stop: threading.Event | None = None, **options: object) -> TaggingRun:
    run = services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")  # type: ignore[arg-type]
    return services.runs.execute(run_id=run.pk, stop=stop or threading.Event())


def all_tags(dataset: Dataset) -> dict[str, list[str]]:
    page = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=1000)
    return {sample.file_name: [tag.tag for tag in sample.tags] for sample in page.samples}


def answered(run: TaggingRun) -> list[tuple[int, int]]:
    with sample_store().read() as cursor:
        return cursor.execute(
            "select sample_id, count(*) from answers where run_id = ? group by 1 order by 1", [run.pk]
        ).fetchall()


def test_a_run_tags_every_sample_in_every_dimension(dataset: Dataset) -> None:
    run = execute(dataset)
    assert (run.status, run.processed, run.total, run.tagged, run.failed) == (Status.COMPLETED, 12, 12, 12, 0)
    assert answered(run) == [(sample_id, 5) for sample_id, _ in answered(run)]
    for tags in all_tags(dataset).values():
        assert len(tags) == 5
    assert (run.device, run.dtype, run.revision) == ("cpu", "float32", identity(run.model))
    assert sum(word.accepted for word in services.runs.words(run=run)) == 60


def test_the_model_is_loaded_on_demand_and_once(dataset: Dataset) -> None:
    keeper.release()
    assert services.runs.model_state() == "not loaded"
    execute(dataset, limit=2)
    first = keeper._tagger
    execute(dataset, limit=2)
    assert services.runs.model_state() == "loaded"
    assert keeper._tagger is first is not None


def test_missing_asks_only_what_has_no_answer(dataset: Dataset) -> None:
    first = execute(dataset, limit=5)
    assert (first.processed, first.total) == (5, 5)
    second = execute(dataset)
    assert second.total == 7
    with pytest.raises(NothingToTag):
        execute(dataset)
    assert execute(dataset, scope="all").total == 12
    with pytest.raises(NothingToTag):  # it was asked together with the others
        execute(dataset, dimensions=("setting",))


def test_scopes_by_filter_and_selection(dataset: Dataset) -> None:
    page = services.samples.page(dataset=dataset, filter=SampleFilter())
    chosen = tuple(sample.id for sample in page.samples[3:6])
    assert execute(dataset, filter=SampleFilter(ids=chosen)).total == 3
    assert execute(dataset, filter=SampleFilter(text="00")).total == 7  # 000 to 009 without those three


def test_a_second_start_is_refused_while_one_is_active(dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    with pytest.raises(RunActive) as refusal:
        services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    assert refusal.value.run == run
    assert services.runs.cancel(run=run)
    assert run.status == Status.CANCELLED  # nobody worked on it yet


def test_cancel_keeps_what_was_done_and_resume_goes_on(dataset: Dataset, brake: Brake) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(batch_size=1), user=None, origin="page")
    brake.allow(3)
    worker = threading.Thread(target=lambda: services.runs.execute(run_id=run.pk, stop=threading.Event()))
    worker.start()
    brake.wait_until_reached()
    assert services.runs.cancel(run=run)
    worker.join(PATIENCE)
    run.refresh_from_db()
    assert (run.status, run.processed) == (Status.CANCELLED, 3)
    brake.release()
    before = answered(run)
    resumed = services.runs.resume(run=run, user=None, origin="page")
    wait_for(lambda: TaggingRun.objects.get(pk=run.pk).status == Status.COMPLETED)
    resumed.refresh_from_db()
    assert (resumed.processed, resumed.total) == (12, 12)
    assert set(before) < set(answered(run))
    with pytest.raises(NotResumable):
        services.runs.resume(run=resumed, user=None, origin="page")


def test_a_stopping_process_interrupts_its_run(dataset: Dataset) -> None:
    stop = threading.Event()
    stop.set()
    run = execute(dataset, stop)
    assert run.status == Status.INTERRUPTED
    assert "Resume" in run.error
    again = services.runs.requeue(run=run, user=None, origin="command")
    assert services.runs.execute(run_id=again.pk, stop=threading.Event()).status == Status.COMPLETED


def test_a_run_goes_on_with_the_device_of_the_machine_at_hand(dataset: Dataset) -> None:
    """It may have begun on a machine with a GPU, or with products of bytes, that this one has not."""
    stop = threading.Event()
    stop.set()
    run = execute(dataset, stop)
    TaggingRun.objects.filter(pk=run.pk).update(device="cuda:7", dtype="int8")
    services.runs.requeue(run=run, user=None, origin="command")
    run = services.runs.execute(run_id=run.pk, stop=threading.Event())
    assert (run.status, run.device, run.dtype) == (Status.COMPLETED, "cpu", "float32")


def test_a_run_resumes_with_its_own_vocabulary(dataset: Dataset) -> None:
    stop = threading.Event()
    stop.set()
    run = execute(dataset, stop)
    Dimension.objects.exclude(name="setting").update(enabled=False)
    services.runs.requeue(run=run, user=None, origin="command")
    run = services.runs.execute(run_id=run.pk, stop=threading.Event())
    assert {count for _, count in answered(run)} == {5}


def test_revert_leaves_users_tags_in_their_order(dataset: Dataset) -> None:
    everything = SampleFilter()
    for tag in ("zebra", "apple"):
        services.tags.add(dataset=dataset, filter=everything, tag=tag, user=None)
    before = all_tags(dataset)
    run = execute(dataset)
    assert all_tags(dataset) != before
    assert services.runs.revert(run=run) == 12
    assert all_tags(dataset) == before == {name: ["zebra", "apple"] for name in before}
    assert services.datasets.check_store().is_sound
    assert execute(dataset).total == 12  # a reverted run's answers count no longer


def test_thresholds_are_applied_again_without_the_model(dataset: Dataset) -> None:
    run = execute(dataset)
    keeper.release()
    preview = services.runs.reapply_preview(run=run, min_probability=0.9, min_mass=0)
    applied = services.runs.reapply(run=run, min_probability=0.9, min_mass=0)
    assert applied == preview
    assert applied.discarded > 0
    run.refresh_from_db()
    assert run.discarded == applied.discarded
    assert services.runs.model_state() == "not loaded"
    with sample_store().read() as cursor:
        assert cursor.execute("select count(*) from answers where accepted and probability < 0.9").fetchall() == [(0,)]
    assert services.datasets.check_store().is_sound


def test_unreadable_images_fail_alone_and_can_be_tried_again(dataset: Dataset) -> None:
    root = Path(dataset.root)
    good = (root / "003.jpg").read_bytes()
    (root / "003.jpg").write_bytes(good[:300])
    (root / "005.jpg").unlink()
    (root / "007.jpg").unlink()
    (root / "007.jpg").symlink_to("/etc/hostname")
    run = execute(dataset)
    assert (run.status, run.processed, run.failed, run.tagged) == (Status.COMPLETED, 12, 3, 9)
    reasons = {failure.file_name: failure.reason for failure in services.runs.failures(run=run)}
    assert set(reasons) == {"003.jpg", "005.jpg", "007.jpg"}
    assert "not there" in reasons["005.jpg"]
    assert "leads out" in reasons["007.jpg"]
    (root / "003.jpg").write_bytes(good)
    again = execute(dataset, scope="failed", failed_of=run.pk)
    assert (again.total, again.tagged, again.failed) == (3, 1, 2)
    assert execute(dataset, scope="failed").total == 2


def test_weights_that_answer_off_the_list_stop_the_run(dataset: Dataset) -> None:
    run = execute(dataset, min_mass=0.5)
    assert run.status == Status.FAILED
    assert "do not belong together" in run.error
    assert answered(run) == []
    assert set(map(len, all_tags(dataset).values())) == {0}


def test_a_model_that_is_not_there_fails_the_run_with_advice(dataset: Dataset, tmp_path: Path) -> None:
    run = execute(dataset, model=str(tmp_path / "nowhere"))
    assert run.status == Status.FAILED
    assert "DATAVISOR_VLM_MODEL" in run.error
    assert services.runs.state(run=run).resumable


def test_generate_mode_matches_texts(dataset: Dataset) -> None:
    run = execute(dataset, mode="generate", limit=2)
    assert run.status == Status.COMPLETED
    assert run.discarded + sum(word.accepted for word in services.runs.words(run=run)) == 10
    with sample_store().read() as cursor:
        assert cursor.execute("select count(*) from answers where mass is not null").fetchall() == [(0,)]


def test_a_dry_run_writes_nothing(dataset: Dataset) -> None:
    told: list[tuple[str, int, int]] = []
    previews = services.runs.preview(
        dataset=dataset, options=RunOptions(), report=lambda *progress: told.append(progress)
    )
    assert len(previews) == 12
    assert [progress for progress in told if progress[0] == "ask"] == [("ask", n, 12) for n in range(12)]
    assert all(len(preview.words) == 5 for preview in previews)
    assert not TaggingRun.objects.exists()
    assert set(map(len, all_tags(dataset).values())) == {0}


def test_a_dead_process_leaves_an_interrupted_run(dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    TaggingRun.objects.filter(pk=run.pk).update(status=Status.RUNNING, heartbeat="2020-01-01T00:00Z")
    assert services.runs.current(dataset=dataset) == run
    run.refresh_from_db()
    assert run.status == Status.INTERRUPTED
    assert services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page").is_active


def test_viewers_are_told(dataset: Dataset) -> None:
    told: list[int] = []
    services.runs.subscribe(told.append)
    execute(dataset)
    assert set(told) == {dataset.pk}
    assert len(told) >= 3  # loading or running, a commit, the end


def test_state_and_changes_for_viewers(dataset: Dataset) -> None:
    run = execute(dataset)
    state = services.runs.state(run=run).to_json()
    assert (state["status"], state["processed"], state["active"], state["eta"]) == ("completed", 12, False, None)
    assert state["rate"] > 0
    ids, last = services.runs.changes(run=run, since=0)
    assert len(ids) == 12
    assert services.runs.changes(run=run, since=last) == ([], last)


def test_nothing_enabled_is_said(dataset: Dataset) -> None:
    Dimension.objects.update(enabled=False)
    with pytest.raises(VocabularyError):
        services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    assert not TaggingRun.objects.exists()


def test_deleting_a_data_set_deletes_its_samples(dataset: Dataset) -> None:
    run = execute(dataset)
    services.datasets.delete(dataset=dataset)
    with sample_store().read() as cursor:
        for table in ("samples", "answers", "sample_tags", "run_samples"):
            assert cursor.execute(f"select count(*) from {table}").fetchall() == [(0,)]
    assert not TaggingRun.objects.filter(pk=run.pk).exists()
    assert services.datasets.check_store().is_sound
