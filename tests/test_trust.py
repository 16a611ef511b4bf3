"""Review, labels, accuracy and runs side by side, through service, page and commands, on a real store."""

import csv
import io
import json
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.models import Dataset, TaggingRun
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import Mark, SampleFilter, trust, values
from vlm.services.accuracy import NotComparable
from vlm.services.review import NothingToReview
from vlm.vocabulary import VocabularyError

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

COUNT = 24
DIMENSION = "setting"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    execute(done.dataset)
    return done.dataset


@pytest.fixture
def ada(client: Client) -> Client:
    client.force_login(reviewer("ada"))
    return client


def reviewer(name: str) -> User:
    user = User.objects.create_user(name, password="x")
    for right in ("view_dataset", "edit_tags", "autotag_dataset"):
        user.user_permissions.add(Permission.objects.get(codename=right))
    return user


def execute(dataset: Dataset, **options: Any) -> TaggingRun:
    run = services.runs.create(
        dataset=dataset, options=RunOptions(**{"dimensions": (DIMENSION,), **options}), user=None, origin="command"
    )
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def rows(sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(sql, list(values)).fetchall()


def said() -> dict[int, str]:
    return dict(rows("select sample_id, word from answers where current and dimension = ?", DIMENSION))


def decide_all(dataset: Dataset, truth: dict[int, str], user: User | None = None) -> int:
    """Decide a draw to its end; returns how many decisions that took."""
    count = 0
    while (queue := services.review.queue(dataset=dataset, dimension=DIMENSION, who="x")).current is not None:
        sample = queue.current.sample.id
        services.review.decide(
            dataset=dataset, dimension=DIMENSION, batch=queue.batch, sample_id=sample, word=truth[sample], user=user
        )
        count += 1
    return count


def wrong(word: str) -> str:
    return "outdoor" if word == "indoor" else "indoor"


# -- review --------------------------------------------------------------------------------------------------------------
def test_decisions_become_tags_and_figures(dataset: Dataset) -> None:
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=16, seed=1)
    truth = {sample: (wrong(word) if place % 4 == 0 else word) for place, (sample, word) in enumerate(said().items())}
    assert decide_all(dataset, truth) == 16
    found = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION)
    assert (found.samples, found.labels, found.random_labels) == (COUNT, 16, 16)
    assert found.evaluation is not None
    accuracy = found.evaluation.accuracy
    assert accuracy is not None
    assert 0 < accuracy.low < accuracy.value < accuracy.high < 1
    assert sum(map(sum, found.evaluation.confusion)) == 16
    labelled = dict(rows("select sample_id, word from labels where ended_by is null"))
    tags = dict(rows("select id, tags from samples"))
    assert all(tags[sample] == [word] for sample, word in labelled.items())
    assert services.datasets.check_store().is_sound


def test_all_of_a_small_data_set_is_exactly_what_it_is(dataset: Dataset) -> None:
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=COUNT)
    truth = {sample: (wrong(word) if place < 6 else word) for place, (sample, word) in enumerate(said().items())}
    decide_all(dataset, truth)
    found = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).evaluation
    assert found is not None
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(0.75)


def test_labels_without_a_chance_never_make_a_figure(dataset: Dataset) -> None:
    services.review.draw(
        dataset=dataset, dimension=DIMENSION, size=20, filter=SampleFilter(any_of=("indoor", "outdoor"))
    )
    decide_all(dataset, said())
    found = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION)
    assert (found.labels, found.random_labels, found.evaluation) == (20, 0, None)
    assert found.to_json()["accuracy"] is None
    # A later draw of everything gives them their chance, and they count then.
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=COUNT)
    decide_all(dataset, said())
    assert services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).random_labels == COUNT


def test_nobody_gets_what_another_has_at_hand(dataset: Dataset) -> None:
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=12)
    first = services.review.queue(dataset=dataset, dimension=DIMENSION, who="ada")
    second = services.review.queue(dataset=dataset, dimension=DIMENSION, who="bob")
    mine, theirs = ({item.sample.id for item in queue.items} for queue in (first, second))
    assert (len(mine), len(theirs), mine & theirs) == (6, 6, set())
    again = services.review.queue(dataset=dataset, dimension=DIMENSION, who="ada")
    assert {item.sample.id for item in again.items} == mine


def test_an_undone_decision_leaves_nothing_and_comes_back_first(dataset: Dataset) -> None:
    user = reviewer("ada")
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=5)
    who = services.review.who(user)
    before = rows("select id, tags, user_count from samples order by id")
    queue = services.review.queue(dataset=dataset, dimension=DIMENSION, who=who)
    assert queue.current is not None
    sample = queue.current.sample.id
    services.review.decide(
        dataset=dataset, dimension=DIMENSION, batch=queue.batch, sample_id=sample, word=wrong(said()[sample]), user=user
    )
    assert rows("select id, tags, user_count from samples order by id") != before
    assert services.review.undo(dataset=dataset, dimension=DIMENSION, user=user) == sample
    assert rows("select id, tags, user_count from samples order by id") == before
    now = services.review.queue(dataset=dataset, dimension=DIMENSION, who=who)
    assert now.current is not None
    assert (now.current.sample.id, now.done) == (sample, 0)
    assert services.review.undo(dataset=dataset, dimension=DIMENSION, user=user) is None


def test_what_cannot_be_reviewed_is_told(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(NothingToReview, match="Auto-tag first"):
        services.review.draw(dataset=dataset, dimension="weather")
    with pytest.raises(VocabularyError, match="no dimension"):
        services.review.draw(dataset=dataset, dimension="nothing")
    batch = services.review.draw(dataset=dataset, dimension=DIMENSION, size=COUNT)
    sample = next(iter(said()))
    with pytest.raises(VocabularyError, match="no word"):
        services.review.decide(
            dataset=dataset, dimension=DIMENSION, batch=batch, sample_id=sample, word="zebra", user=None
        )
    with pytest.raises(NothingToReview, match="not of the draw"):
        services.review.decide(
            dataset=dataset, dimension=DIMENSION, batch="other", sample_id=sample, word="indoor", user=None
        )
    decide_all(dataset, said())
    with pytest.raises(NothingToReview, match="No image waits"):
        services.review.draw(dataset=dataset, dimension=DIMENSION)


# -- the page --------------------------------------------------------------------------------------------------------------
def test_the_page_shows_decides_and_measures(ada: Client, dataset: Dataset) -> None:
    address = f"{reverse('review', args=[dataset.pk])}?dimension={DIMENSION}"
    assert "Draw and begin" in ada.get(address).content.decode()
    answer = ada.post(reverse("review_draw", args=[dataset.pk]), {"dimension": DIMENSION, "size": "11"})
    assert answer.status_code == 302
    json_headers = {"accept": "application/json"}
    while (state := ada.get(address, headers=json_headers).json())["next"]:
        sample = state["next"][0]["sample"]
        posted = {"dimension": DIMENSION, "batch": state["batch"], "sample": sample, "word": said()[sample]}
        found = ada.post(reverse("review_decide", args=[dataset.pk]), posted, headers={"hx-request": "true"})
        assert found.status_code == 200
    assert state["done"] == state["drawn"] == 11
    page = ada.get(reverse("accuracy", args=[dataset.pk])).content.decode()
    assert "11 of 11 labels count" in page
    assert "<svg" in page or "Too few" in page
    found = ada.get(reverse("accuracy", args=[dataset.pk]), headers=json_headers).json()
    one = next(one for one in found["dimensions"] if one["dimension"] == DIMENSION)
    assert (one["accuracy"], one["random_labels"]) == (1.0, 11)
    table = list(
        csv.reader(io.StringIO(ada.get(reverse("accuracy_csv", args=[dataset.pk])).content.decode("utf-8-sig")))
    )
    assert table[1][:3] == [DIMENSION, "", "accuracy"]
    figures = {row[2] for row in table[1:]}
    assert {"share", "labels said > right", "log loss", "right", "tagged", "more labels for 0.95"} <= figures
    assert all(len(row) == len(table[0]) for row in table)


def test_all_dimensions_are_reviewed_in_turn(ada: Client, dataset: Dataset) -> None:
    execute(dataset, dimensions=("weather",))
    drawn = ada.post(reverse("review_draw", args=[dataset.pk]), {"turn": "1", "size": "2"})
    assert drawn["location"].endswith("?turn=1")
    address, seen = reverse("review", args=[dataset.pk]) + "?turn=1", []
    while (state := ada.get(address, headers={"accept": "application/json"}).json())["next"]:
        seen.append(state["dimension"])
        posted = {"turn": "1", "dimension": state["dimension"], "batch": state["batch"], "action": "unknown"}
        posted["sample"] = state["next"][0]["sample"]
        assert ada.post(reverse("review_decide", args=[dataset.pk]), posted)["location"].endswith("?turn=1")
    order = [name for name in services.vocabulary.words() if name in ("weather", DIMENSION)]
    assert seen == [name for name in order for _ in range(2)]
    assert "of every dimension" in ada.get(address).content.decode()
    ada.post(reverse("review_decide", args=[dataset.pk]), {"turn": "1", "dimension": order[0], "action": "undo"})
    assert ada.get(address, headers={"accept": "application/json"}).json()["dimension"] == order[-1]
    with pytest.raises(NothingToReview, match="any dimension"):
        services.review.draw_in_turn(dataset=dataset, filter=SampleFilter(text="no such file"))


def test_near_duplicates_count_as_one(dataset: Dataset) -> None:
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=16, seed=1)
    truth = {
        sample: wrong(word) if place // 4 % 3 == 0 else word for place, (sample, word) in enumerate(said().items())
    }
    decide_all(dataset, truth)  # of a group all are right or all are wrong
    alone = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).evaluation
    alike = [Mark(sample, member_of=place // 4) for place, sample in enumerate(said())]
    with sample_store().write() as cursor:
        values.marks_put(cursor, dataset_id=dataset.pk, kind="near", marks=alike)
    grouped = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).evaluation
    assert alone is not None
    assert grouped is not None
    assert alone.accuracy is not None
    assert grouped.accuracy is not None
    assert grouped.accuracy.effective < 0.6 * alone.accuracy.effective
    assert grouped.accuracy.high - grouped.accuracy.low > alone.accuracy.high - alone.accuracy.low


@pytest.mark.parametrize(
    ("address", "data", "status"),
    [
        ("review_draw", {"size": "0"}, 400),
        ("review_draw", {"size": "9" * 5000}, 400),
        ("review_draw", {"size": "5", "dimension": "none"}, 400),
        ("review_decide", {"sample": "x"}, 400),
        ("review_decide", {"sample": "1" * 400, "word": "indoor"}, 400),
        ("review_decide", {"sample": "1"}, 400),
        ("review_decide", {"sample": "1", "word": "indoor", "batch": "none"}, 409),
        ("labels_import", {}, 400),
    ],
)
def test_nonsense_is_refused(ada: Client, dataset: Dataset, address: str, data: dict[str, str], status: int) -> None:
    answer = ada.post(reverse(address, args=[dataset.pk]), {"dimension": DIMENSION, **data})
    assert answer.status_code == status


def test_what_disagrees_or_contradicts_the_pixels_is_doubtful(dataset: Dataset) -> None:
    first, second, third, *_ = (row[0] for row in rows("select id from samples order by id"))
    later = execute(dataset, scope="all")
    execute(dataset, scope="all")
    with sample_store().write() as cursor:
        cursor.execute(
            "update answers set word = case when word = 'indoor' then 'outdoor' else 'indoor' end where run_id = ? "
            "and sample_id = ?",
            [later.pk, first],
        ).fetchall()
        values.marks_put(
            cursor, dataset_id=dataset.pk, kind="wordings", marks=[Mark(second, value=0.25, word=DIMENSION)]
        )
        against = [Mark(third, value=0.99, word=said()[third]), Mark(second, value=0.99, word="another")]
        values.marks_put(cursor, dataset_id=dataset.pk, kind="contradiction", marks=against)
        found = trust.answered(cursor, dataset.pk, DIMENSION, ("indoor", "outdoor"))
    assert found.disagreement[:3].tolist() == [0.5, 0.25, 0]
    assert found.contradiction[:3].tolist() == [0, 0, 0.99]
    assert not found.disagreement[3:].any()
    assert not found.contradiction[3:].any()
    # Of equally sure answers these are the likelier ones to be drawn, and nobody is left out.
    batch = services.review.draw(dataset=dataset, dimension=DIMENSION, size=8)
    with sample_store().write() as cursor:
        cursor.execute("update answers set probability = 0.99").fetchall()
    batch = services.review.draw(dataset=dataset, dimension=DIMENSION, size=COUNT - 1)
    chances = dict(rows("select sample_id, probability from draws where batch = ?", batch))
    assert len(chances) == COUNT - 1
    rest = [chance for sample, chance in chances.items() if sample not in (first, second, third)]
    assert min(chances.get(first, 1), chances.get(third, 1)) > min(rest) > 0


def test_who_did_what_when_and_how_is_exported_and_shown(ada: Client, dataset: Dataset) -> None:
    user = User.objects.get(username="ada")
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=1)
    before = datetime.now(UTC) - timedelta(seconds=2)
    decide_all(dataset, {sample: wrong(word) for sample, word in said().items()}, user)
    ((sample, word),) = rows("select sample_id, word from labels")
    with services.exports.make(dataset=dataset, filter=SampleFilter(ids=(sample,)), format="jsonl") as made:
        (tag,) = json.loads(made.file.read())["tags"]
    assert (tag["tag"], tag["source"], tag["user"], tag["way"]) == (word, "user", "ada", "review")
    assert before <= datetime.fromisoformat(tag["time"]) <= datetime.now(UTC)
    assert services.review.undo(dataset=dataset, dimension=DIMENSION, user=user) == sample
    with services.exports.make(dataset=dataset, filter=SampleFilter(ids=(sample,)), format="jsonl") as made:
        (tag,) = json.loads(made.file.read())["tags"]
    assert (tag["source"], tag["user"], tag["way"]) == ("model", "", "run")
    found = services.samples.history(dataset=dataset, sample_id=sample)
    assert [(event.action, event.user, event.undone) for event in found] == [
        ("undo", "ada", False),
        ("label", "ada", True),
        ("said", "", False),
    ]
    page = ada.get(reverse("sample", args=[dataset.pk, sample])).content.decode()
    assert "undid an edit of" in page
    assert f"run {TaggingRun.objects.get().pk}</a>" in page


# -- labels from elsewhere -----------------------------------------------------------------------------------------------------
def test_a_draw_goes_out_as_a_table_and_comes_back(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "draw.csv"
    call_command(
        "review_sample", "photos", "--dimension", DIMENSION, "--size", "12", "--seed", "3", "--output", str(path)
    )
    with path.open(encoding="utf-8-sig", newline="") as file:
        drawn = list(csv.DictReader(file))
    assert len(drawn) == 12
    assert all(0 < float(row["probability"]) <= 1 for row in drawn)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, drawn[0].keys())
        writer.writeheader()
        writer.writerows(row | {"value": row["said"]} for row in drawn)
    out = StringIO()
    call_command("import_labels", "photos", str(path), stdout=out)
    assert "12 labels came in" in out.getvalue()
    found = StringIO()
    call_command("evaluate", "photos", "--dimension", DIMENSION, "--json", stdout=found)
    (one,) = json.loads(found.getvalue())
    assert (one["labels"], one["random_labels"], one["accuracy"]) == (12, 12, 1.0)
    assert {"low", "high", "words", "log_loss", "ece", "calibration", "threshold_for"} <= set(one)
    text = StringIO()
    call_command("evaluate", "photos", stdout=text)
    assert "12 of 12 labels count" in text.getvalue()


def test_nothing_is_half_imported(tmp_path: Path, dataset: Dataset) -> None:
    names = [row[0] for row in rows("select path from samples order by path limit 12")]
    path = tmp_path / "labels.csv"
    lines = [
        "file,dimension,value",
        *(f"{name},{DIMENSION},indoor" for name in names),
        f"gone.jpg,{DIMENSION},indoor",
        f"{names[0]},colour,red",
    ]
    path.write_text("\n".join([*lines, f"{names[1]},{DIMENSION},zebra"]))
    err = StringIO()
    with pytest.raises(CommandError, match="no label came in"):
        call_command("import_labels", "photos", str(path), "--random", stdout=StringIO(), stderr=err)
    assert rows("select count(*) from labels") == [(0,)]
    assert "gone.jpg" in err.getvalue()
    assert "colour" in err.getvalue()
    call_command("import_labels", "photos", str(path), "--random", "--partly", stdout=StringIO(), stderr=StringIO())
    assert rows("select count(*), min(probability) from labels where ended_by is null") == [(12, 0.5)]
    assert services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION).random_labels == 12


# -- runs side by side ---------------------------------------------------------------------------------------------------------
def test_two_runs_are_compared_and_each_flip_is_a_filter(ada: Client, dataset: Dataset) -> None:
    first = TaggingRun.objects.get()
    second = execute(dataset, scope="all")
    with sample_store().write() as cursor:
        changed = cursor.execute(
            "update answers set word = case when word = 'indoor' then 'outdoor' else 'indoor' end where run_id = ? "
            "and sample_id in (select sample_id from answers where run_id = ? order by sample_id limit 5)",
            [second.pk, second.pk],
        ).fetchall()[0][0]
    found = services.accuracy.compare(first=first, second=second)
    _, agreed = found.dimensions[DIMENSION]
    assert (changed, agreed.samples, sum(flip.samples for flip in agreed.flips)) == (5, COUNT, 5)
    for flip in agreed.flips:
        chosen = services.accuracy.flips_filter(found, DIMENSION, flip.before, flip.after)
        page = services.samples.page(dataset=dataset, filter=chosen, limit=50)
        assert len(page.samples) == flip.samples
    assert "kappa" in ada.get(reverse("runs_compared", args=[first.pk, second.pk])).content.decode()
    out = StringIO()
    call_command("compare_runs", str(first.pk), str(second.pk), "--json", stdout=out)
    assert json.loads(out.getvalue())["dimensions"][DIMENSION]["samples"] == COUNT
    text = StringIO()
    call_command("compare_runs", str(first.pk), str(second.pk), stdout=text)
    assert DIMENSION in text.getvalue()


def test_runs_with_nothing_in_common_are_refused(dataset: Dataset) -> None:
    other = execute(dataset, dimensions=("weather",))
    with pytest.raises(NotComparable, match="no answer about the same"):
        services.accuracy.compare(first=TaggingRun.objects.exclude(pk=other.pk).get(), second=other)


def test_a_threshold_of_one_dimension_leaves_the_others_alone(ada: Client, dataset: Dataset) -> None:
    run = execute(dataset, scope="all", dimensions=("setting", "density"))
    counts = "select dimension, count(*) filter (accepted) from answers where run_id = ? group by 1 order by 1"
    assert rows(counts, run.pk) == [("density", COUNT), ("setting", COUNT)]
    address = reverse("run_thresholds", args=[run.pk])
    looked = ada.post(address, {"min_probability": "1", "dimension": "setting"})
    assert looked.status_code == 200
    assert rows(counts, run.pk) == [("density", COUNT), ("setting", COUNT)]
    assert ada.post(address, {"min_probability": "1", "dimension": "setting", "action": "apply"}).status_code == 302
    assert rows(counts, run.pk) == [("density", COUNT), ("setting", 0)]
    run.refresh_from_db()
    assert (run.thresholds, run.min_probability) == ({"setting": 1.0}, 0.0)
    services.runs.reapply(run=run, min_probability=0, min_mass=0)
    assert rows(counts, run.pk) == [("density", COUNT), ("setting", COUNT)]
    run.refresh_from_db()
    assert run.thresholds == {}


# -- promises --------------------------------------------------------------------------------------------------------------
def surely_right(dataset: Dataset, word: str = "indoor") -> None:
    """Have the model say ``word`` at 0.9 of three quarters of the images, rightly, and the other one at 0.6, wrongly."""
    with sample_store().write() as cursor:
        cursor.execute(
            "update answers set word = case when n % 4 < 3 then ? else ? end, probability = case when n % 4 < 3 then 0.9 "
            "else 0.6 end, probabilities = case when (words[1] = ?) = (n % 4 < 3) then case when n % 4 < 3 then [0.9, 0.1] "
            "else [0.6, 0.4] end else case when n % 4 < 3 then [0.1, 0.9] else [0.4, 0.6] end end from (select sample_id as id, "
            "row_number() over (order by sample_id) as n from answers where dimension = ? and current) p "
            "where p.id = answers.sample_id and dimension = ? and current",
            [word, wrong(word), word, DIMENSION, DIMENSION],
        ).fetchall()
    services.review.draw(dataset=dataset, dimension=DIMENSION, size=COUNT)
    decide_all(dataset, dict.fromkeys(said(), word))


def accepted(*, word: str) -> int:
    return int(rows("select count(*) from answers where current and accepted and word = ?", word)[0][0])


def test_a_promise_is_looked_at_and_kept_by_one_click(ada: Client, dataset: Dataset) -> None:
    surely_right(dataset)
    asked = {"dimension": DIMENSION, "target": "0.8"}
    address = reverse("promise", args=[dataset.pk])
    looked = ada.post(address, {**asked, "action": "preview"})
    assert looked.status_code == 200
    assert "Nothing has been changed yet" in looked.content.decode()
    assert (accepted(word="indoor"), accepted(word="outdoor")) == (18, 6)
    assert ada.post(address, {**asked, "action": "apply"}).status_code == 302
    assert (accepted(word="indoor"), accepted(word="outdoor")) == (18, 0)
    run = TaggingRun.objects.get()
    assert run.thresholds[DIMENSION] == pytest.approx(0.9)
    assert services.datasets.check_store().is_sound


def test_a_promise_word_by_word_by_page_and_command(ada: Client, dataset: Dataset) -> None:
    surely_right(dataset)
    found = services.accuracy.evaluate(dataset=dataset, dimension=DIMENSION, target=0.8)
    words = {word["word"]: word["threshold_for"]["reachable"] for word in found.to_json()["words"]}
    assert words == {"indoor": True, "outdoor": False}
    out = StringIO()
    command = ("promise", "photos", "--dimension", DIMENSION, "--target", "0.8", "--by-word")
    call_command(*command, "--drop", "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert told["thresholds"]["words"] == {"indoor": pytest.approx(0.9), "outdoor": None}
    assert (told["applied"], told["changed"]) == (False, 6)
    assert accepted(word="outdoor") == 6
    call_command(*command, "--apply", stdout=StringIO())  # what cannot keep it stays as it is
    assert accepted(word="outdoor") == 6
    page = ada.get(f"{reverse('accuracy', args=[dataset.pk])}?target=0.8").content.decode()
    assert "Word by word" in page
    form = {"dimension": DIMENSION, "target": "0.8", "by_word": "1", "drop": "1", "action": "apply"}
    assert ada.post(reverse("promise", args=[dataset.pk]), form).status_code == 302
    assert (accepted(word="indoor"), accepted(word="outdoor")) == (18, 0)
    run = TaggingRun.objects.get()
    assert set(run.thresholds) == {f"{DIMENSION}:indoor", f"{DIMENSION}:outdoor"}
    assert "never" in ada.get(reverse("run", args=[run.pk])).content.decode()
    assert services.datasets.check_store().is_sound
    TaggingRun.objects.update(thresholds={f"{DIMENSION}:indoor": 0.95})
    assert services.datasets.check_store().between == {"runs with other thresholds": 1}
    services.datasets.check_store(repair=True)
    assert (accepted(word="indoor"), accepted(word="outdoor")) == (0, 6)
    # A threshold of the whole dimension takes the place of its words'.
    services.runs.reapply(run=run, min_probability=0.5, min_mass=0, dimension=DIMENSION)
    assert TaggingRun.objects.get().thresholds == {DIMENSION: 0.5}
    assert accepted(word="outdoor") == 6


def test_a_promise_holds_for_all_runs_whose_answers_are_current(dataset: Dataset) -> None:
    surely_right(dataset)
    half = [row[0] for row in rows("select id from samples order by id limit 12")]
    later = execute(dataset, scope="all", filter=SampleFilter(ids=tuple(half)))
    with sample_store().write() as cursor:
        cursor.execute("update answers set word = 'outdoor', probability = 0.6 where run_id = ?", [later.pk]).fetchall()
    assert len(services.promises.runs(dataset=dataset, dimension=DIMENSION)) == 2
    thresholds = services.promises.Thresholds(DIMENSION, least=0.7)
    seen = services.promises.preview(dataset=dataset, thresholds=thresholds)
    done = services.promises.apply(dataset=dataset, thresholds=thresholds)
    assert seen == done
    assert accepted(word="outdoor") == 0


def test_what_cannot_be_promised_is_told(ada: Client, dataset: Dataset) -> None:
    address = reverse("promise", args=[dataset.pk])
    for form in ({"dimension": DIMENSION}, {"dimension": DIMENSION, "by_word": "1"}, {"dimension": "weather"}):
        assert ada.post(address, {**form, "action": "apply"}).status_code == 409
    with pytest.raises(CommandError, match="cannot promise that"):
        call_command("promise", "photos", "--dimension", DIMENSION, "--apply", stdout=StringIO())
    ada.logout()
    assert ada.post(address, {"dimension": DIMENSION}).status_code in (302, 401, 403)
