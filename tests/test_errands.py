"""Changes of both databases: a kill between them is made good by whoever looks next, and every difference is seen."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from tests.children import wait_for
from tests.images import make_images
from vlm import errands, jobs, services
from vlm.models import Dataset, Dimension, Errand, TaggingRun, VocabularyChange
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import StoreBusy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

IMAGES = 4
TABLES = {
    "samples": "select id, tags, user_count, certainty, discarded, answered from samples order by id",
    "tags": "select sample_id, tag, dimension, source from sample_tags where ended_by is null order by all",
    "answers": "select run_id, sample_id, dimension, word, accepted, probability from answers order by all",
}


@pytest.fixture
def run(tmp_path: Path) -> TaggingRun:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", IMAGES), name="photos")
    assert done.dataset is not None
    made = services.runs.create(dataset=done.dataset, options=RunOptions(), user=None, origin="command")
    return services.runs.execute(run_id=made.pk, stop=threading.Event())


def state() -> dict[str, Any]:
    """Return what both databases say."""
    with sample_store().read() as cursor:
        found: dict[str, Any] = {name: cursor.execute(query).fetchall() for name, query in TABLES.items()}
    runs = TaggingRun.objects.values_list("min_probability", "tagged", "discarded")
    return found | {"runs": list(runs), "vocabulary": services.vocabulary.entries()}


def killed(change: Callable[[], object], moment: str) -> None:
    """Make a change in a process that is killed: between the two databases, or behind both."""
    sample_store().close()
    connections.close_all()
    child = os.fork()
    if child == 0:
        sample_store.cache_clear()  # a store of its own
        dying: Any = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        setattr(errands, {"between": "_act", "behind": "_conclude"}[moment], dying)
        try:
            change()
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert Errand.objects.count() == 1


def reapply(run: TaggingRun) -> None:
    services.runs.reapply(run=TaggingRun.objects.get(pk=run.pk), min_probability=0.6, min_mass=0)


def revert(run: TaggingRun) -> None:
    services.runs.revert(run=TaggingRun.objects.get(pk=run.pk))


def rename_word(run: TaggingRun) -> None:
    services.vocabulary.rename_word(name="setting", old="indoor", new="inside", user=None)


def rename_and_undo(run: TaggingRun) -> None:
    change = VocabularyChange.objects.first()
    assert change is not None
    services.vocabulary.undo(change=change, user=None)


def remove_words(run: TaggingRun) -> None:
    services.vocabulary.remove(name="weather", removed="take", user=None)


def delete(run: TaggingRun) -> None:
    Dataset.objects.get(pk=run.dataset_id).delete()


@pytest.mark.processes
@pytest.mark.parametrize("moment", ["between", "behind"])
@pytest.mark.parametrize("change", [reapply, revert, rename_word, rename_and_undo, remove_words, delete])
def test_a_change_that_is_killed_half_way_is_finished_by_whoever_opens_the_store(
    run: TaggingRun, change: Callable[[TaggingRun], None], moment: str
) -> None:
    if change is rename_and_undo:
        rename_word(run)
    before = state()
    killed(lambda: change(run), moment)
    after = state()
    assert not Errand.objects.exists()
    assert services.datasets.check_store().is_sound
    assert after != before
    words = {word for _, word, _, _ in after["tags"]}
    match change.__name__:
        case "reapply":
            assert {row[4] == (row[5] >= 0.6) for row in after["answers"]} == {True}
            assert after["runs"][0][0] == 0.6
        case "revert":
            assert (after["tags"], after["answers"]) == ([], [])
        case "rename_word":
            assert "indoor" not in words
            rename_and_undo(run)  # what was changed is known, so it goes back
            assert state() == before
        case "rename_and_undo":
            assert "inside" not in words
        case "remove_words":
            assert not words & {"sunny", "cloudy", "rainy", "foggy", "snowy", "night", "day"}
            rename_and_undo(run)
            assert state() == before
        case "delete":
            assert (after["samples"], after["runs"]) == ([], [])


def test_what_is_left_is_finished_by_a_process_that_has_the_store_open(run: TaggingRun) -> None:
    """As a server has it while a command dies."""
    before = state()
    values = {"run": run.pk}
    errand = errands._note("revert", f"run {run.pk}", "host:1:2:3:4", values)
    assert services.datasets.check_store().between == {"changes that were left undone": 1}
    Errand.objects.filter(pk=errand.pk).update(
        worker=f"host:{os.getpid()}:{jobs._started(os.getpid())}:{jobs._machine()}:dead"
    )
    TaggingRun.objects.filter(pk=run.pk).update(reverted=timezone.now())
    assert state() == before
    services.runs.fail_stale()
    wait_for(lambda: not Errand.objects.exists(), "The end of what was left")
    assert state()["tags"] == []
    assert services.datasets.check_store().is_sound


def test_of_two_changes_of_one_thing_the_second_is_refused(run: TaggingRun) -> None:
    with jobs.at_work() as worker:
        errands._note("vocabulary", errands.VOCABULARY, worker)
        with pytest.raises(errands.ChangeUnderWay, match="changing this"):
            rename_word(run)
        with pytest.raises(errands.ChangeUnderWay, match="vocabulary is being edited"):
            services.runs.create(
                dataset=Dataset.objects.get(), options=RunOptions(scope="all"), user=None, origin="command"
            )
        Errand.objects.all().delete()
    assert not TaggingRun.objects.exclude(pk=run.pk).exists()


def test_an_edit_of_words_that_the_store_refuses_has_not_happened(
    run: TaggingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state()

    def busy(*args: object) -> None:
        raise StoreBusy("The store is in use.")

    with monkeypatch.context() as patch:
        patch.setattr(errands, "_act", busy)
        for change in (rename_word, remove_words, reapply, revert):
            with pytest.raises(StoreBusy):
                change(run)
    assert state() == before
    assert not Errand.objects.exists()
    assert not VocabularyChange.objects.exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"reverted": timezone.now()}, "runs that are taken back"),
        ({"min_probability": 0.999}, "runs with other thresholds"),
        ({"thresholds": {"setting": 0.999}}, "runs with other thresholds"),
        ({"tagged": 3}, "runs with other counts"),
    ],
)
def test_a_row_that_says_other_than_the_store_is_seen_and_followed(
    run: TaggingRun, changes: dict[str, Any], what: str
) -> None:
    assert services.datasets.check_store().is_sound
    TaggingRun.objects.filter(pk=run.pk).update(**changes)
    report = services.datasets.check_store()
    assert (report.is_sound, report.between) == (False, {what: 1})
    services.datasets.check_store(repair=True)
    assert services.datasets.check_store().is_sound
    found = state()
    if "reverted" in changes:
        assert (found["tags"], found["answers"]) == ([], [])
    if "min_probability" in changes:
        assert {row[4] == (row[5] >= 0.999) for row in found["answers"]} == {True}
    if "thresholds" in changes:
        assert {row[2] for row in found["answers"] if not row[4]} == {"setting"}
    if "tagged" in changes:
        assert found["runs"][0][1] == IMAGES


def test_numbers_and_conditions_of_one_database_alone_are_seen(run: TaggingRun) -> None:
    Dataset.objects.update(sample_count=99)
    Dimension.objects.filter(name="weather").update(only_dimension="setting", only_words=["outdoor"])
    found = {"data sets with other numbers of samples": 1, "conditions of the vocabulary": 1}
    assert services.datasets.check_store().between == found
    services.datasets.check_store(repair=True)
    assert services.datasets.check_store().is_sound
    assert Dataset.objects.get().sample_count == IMAGES
