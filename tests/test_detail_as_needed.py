"""Detail as needed: low for all, full for the least certain, as one run that can stop and go on anywhere."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.images import make_images
from tests.stops import stopped_in
from vlm import services
from vlm.forms import AutoTagForm
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs import ahead, loop
from vlm.runs.errors import RunError
from vlm.runs.options import RunOptions
from vlm.samples.refining import uncertain

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
COUNT = 10


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    return done.dataset


def create(dataset: Dataset, **options: Any) -> TaggingRun:
    return services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")


def execute(run: TaggingRun) -> TaggingRun:
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def rows(query: str, *values: object) -> list[tuple[Any, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(query, list(values)).fetchall()


def passes(run: TaggingRun) -> dict[int, str]:
    return dict(rows("select sample_id, detail from run_samples where run_id = ?", run.pk))


def answers(run: TaggingRun) -> dict[tuple[int, str], tuple[Any, ...]]:
    found = rows("select sample_id, dimension, probabilities, mass from answers where run_id = ?", run.pk)
    return {(sample, dimension): tuple(rest) for sample, dimension, *rest in found}


def sound(run: TaggingRun) -> None:
    """Tags, ledger and totals agree, and every sample has each answer once."""
    run.refresh_from_db()
    assert set(rows("select count(*) from answers where run_id = ? group by sample_id", run.pk)) == {(5,)}
    accepted, tagged, discarded = rows(
        "select count(*) filter (accepted), count(distinct sample_id) filter (accepted), count(*) filter (not accepted) "
        "from answers where run_id = ?",
        run.pk,
    )[0]
    assert rows("select count(*) from sample_tags where run_id = ?", run.pk) == [(accepted,)]
    assert (run.processed, run.tagged, run.discarded) == (COUNT, tagged, discarded)


def test_the_least_certain_share_is_answered_at_full_detail(dataset: Dataset) -> None:
    low, full = (execute(create(dataset, scope="all", detail=detail)) for detail in ("low", "full"))
    run = execute(create(dataset, scope="all", detail="auto", full_share=0.3))
    assert (run.status, run.processed, run.total, run.full_share) == (Status.COMPLETED, COUNT, COUNT, 0.3)
    doubtful = rows(
        "select sample_id from answers where run_id = ? group by sample_id order by sum(ln(probability)), sample_id limit 3",
        low.pk,
    )
    again = {sample for sample, detail in passes(run).items() if detail == "full"}
    assert again == {row[0] for row in doubtful}
    of_low, of_full, seen = answers(low), answers(full), answers(run)
    for (sample, dimension), (probabilities, mass) in seen.items():
        expected = (of_full if sample in again else of_low)[sample, dimension]
        assert probabilities == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
        assert mass == pytest.approx(expected[1], rel=1e-3, abs=1e-5)
    assert rows("select detail from run_totals where run_id = ?", run.pk) == [("auto",)]
    sound(run)


def test_a_run_that_was_stopped_in_its_second_pass_goes_on_there(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(create(dataset, scope="all", detail="auto", full_share=0.5))
    run = create(dataset, scope="all", detail="auto", full_share=0.5, batch_size=1)
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0)
    with stopped_in("refine_batch") as stop:
        run = services.runs.execute(run_id=run.pk, stop=stop)
    assert (run.status, run.processed) == (Status.INTERRUPTED, COUNT)
    assert 1 <= list(passes(run).values()).count("full") < COUNT // 2
    services.runs.requeue(run=run, user=None, origin="command")
    run = execute(run)
    assert run.status == Status.COMPLETED
    assert passes(run) == passes(whole)
    sound(run)


def test_an_image_that_is_gone_by_the_second_pass_keeps_its_first_answers(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[Any] = []
    run = create(dataset, scope="all", detail="auto", full_share=0.5)

    def gone(*args: Any, **options: Any) -> Any:
        for path in Path(dataset.root).rglob("*.*"):
            path.unlink()
        before.append(answers(run))
        return uncertain(*args, **options)

    monkeypatch.setattr(ahead, "uncertain", gone)
    run = execute(run)
    assert run.status == Status.COMPLETED
    assert list(passes(run).values()).count("kept") == 5
    assert answers(run) == before[0]
    with sample_store().read() as cursor:
        assert uncertain(cursor, run_id=run.pk, share=0.5).tolist() == []
    sound(run)


def test_taking_the_run_back_takes_both_passes_back(dataset: Dataset) -> None:
    run = execute(create(dataset, detail="auto"))
    services.runs.revert(run=run)
    assert rows("select count(*) from sample_tags where run_id = ?", run.pk) == [(0,)]
    assert rows("select count(*) from run_samples where run_id = ?", run.pk) == [(0,)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"detail": "auto", "mode": "generate"}, "choose “score”"), ({"full_share": 1.5}, "between 0 and 1")],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        RunOptions(**options)


def test_the_form_offers_it_and_it_is_never_the_default() -> None:
    assert RunOptions().detail != "auto"
    form = AutoTagForm({"detail": "auto", "full_share": "0.2"})
    assert form.is_valid(), form.errors
    assert (form.options().detail, form.options().full_share) == ("auto", 0.2)
    plain = AutoTagForm({})
    assert plain.is_valid()
    assert (plain.options().detail, plain.options().full_share) == (RunOptions().detail, 0.3)
