"""A vocabulary of one's own, through service, page, JSON and commands, on the real engine and a real store."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.children import wait_for
from tests.images import make_images
from vlm import jobs, services, vocabulary_file
from vlm.models import Dataset, TaggingRun, Trial, VocabularyChange
from vlm.process import sample_store
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter
from vlm.services.vocabulary import TagsAtStake, VocabularyBusy
from vlm.vocabulary import DEFAULT_VOCABULARY, Dimension, Only, VocabularyError
from vlm.vocabulary_file import Entry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

VEHICLE = Dimension("vehicle", "Which vehicle: car, truck, bus or none? One word.", ("car", "truck", "bus", "none"))
COUNT = 6


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    done = services.datasets.import_folder(path=make_images(tmp_path / "photos", COUNT), name="photos")
    assert done.dataset is not None
    return done.dataset


@pytest.fixture
def editor(client: Client) -> Client:
    user = User.objects.create_user("ada", password="x")
    for name in ("view_dataset", "change_vocabulary", "autotag_dataset"):
        user.user_permissions.add(Permission.objects.get(codename=name))
    client.force_login(user)
    return client


def execute(dataset: Dataset, **options: Any) -> TaggingRun:
    run = services.runs.create(dataset=dataset, options=RunOptions(**options), user=None, origin="command")
    return services.runs.execute(run_id=run.pk, stop=threading.Event())


def rows(sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with sample_store().read() as cursor:
        return cursor.execute(sql, list(values)).fetchall()


def tags(dataset: Dataset) -> dict[str, set[str]]:
    page = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=100)
    return {sample.file_name: {tag.tag for tag in sample.tags} for sample in page.samples}


def missing(dataset: Dataset, **options: Any) -> int:
    return services.runs.extent(dataset=dataset, options=RunOptions(**options)).images


# -- what is missing is a dimension ------------------------------------------------------------------------------------------
def test_only_the_new_question_is_asked_and_nothing_else_changes(dataset: Dataset) -> None:
    execute(dataset)
    assert missing(dataset, dimensions=("weather",)) == 0
    before = (tags(dataset), rows("select * from answers order by run_id, sample_id, dimension"))
    services.vocabulary.save(entry=Entry(VEHICLE), user=None)
    assert missing(dataset) == COUNT
    run = execute(dataset)
    assert rows("select dimension, count(*) from answers where run_id = ? group by 1", run.pk) == [("vehicle", COUNT)]
    assert rows("select * from answers where run_id <> ? order by run_id, sample_id, dimension", run.pk) == before[1]
    assert {name: found - set(VEHICLE.words) for name, found in tags(dataset).items()} == before[0]
    assert all(found & set(VEHICLE.words) for found in tags(dataset).values())
    assert missing(dataset) == 0


@pytest.mark.parametrize(
    ("change", "waiting"),
    [
        ({"question": "Is it outdoor or indoor? One word."}, COUNT),
        ({"words": ("indoor", "outdoor", "both")}, COUNT),
        ({"spellings": {"indoor": ("inside",)}}, COUNT),
        ({"label": "Ort", "labels": {"indoor": "drinnen"}}, 0),
        ({"words": ("outdoor", "indoor")}, 0),
    ],
)
def test_what_decides_an_answer_is_asked_again(dataset: Dataset, change: dict[str, Any], waiting: int) -> None:
    execute(dataset, dimensions=("setting",))
    services.vocabulary.save(name="setting", entry=Entry(replace(DEFAULT_VOCABULARY["setting"], **change)), user=None)
    assert missing(dataset, dimensions=("setting",)) == waiting


def test_detail_counts_only_when_the_run_says_so(dataset: Dataset) -> None:
    execute(dataset, detail="low", dimensions=("setting",))
    assert missing(dataset, detail="full", dimensions=("setting",)) == 0
    assert missing(dataset, detail="full", dimensions=("setting",), same_detail=True) == COUNT
    assert missing(dataset, detail="low", dimensions=("setting",), same_detail=True) == 0


# -- editing -----------------------------------------------------------------------------------------------------------------
def test_words_with_tags_do_not_vanish_unasked(dataset: Dataset) -> None:
    execute(dataset)
    word = next(
        iter(tags(dataset)["0.jpg" if "0.jpg" in tags(dataset) else next(iter(tags(dataset)))] & {"indoor", "outdoor"})
    )
    before = tags(dataset)
    with pytest.raises(TagsAtStake, match=word):
        services.vocabulary.remove(name="setting", user=None)
    assert [entry.dimension for entry in services.vocabulary.entries()] == list(DEFAULT_VOCABULARY)
    change = services.vocabulary.remove(name="setting", removed="take", user=None)
    assert change is not None
    assert all(not found & {"indoor", "outdoor"} for found in tags(dataset).values())
    services.vocabulary.undo(change=change, user=None)
    assert tags(dataset) == before
    assert [entry.dimension for entry in services.vocabulary.entries()] == list(DEFAULT_VOCABULARY)
    assert services.datasets.check_store().is_sound


def test_a_renamed_word_needs_no_new_answer_and_goes_back(dataset: Dataset) -> None:
    execute(dataset)
    before = tags(dataset)
    change = services.vocabulary.rename_word(name="setting", old="indoor", new=" inside ", user=None)
    assert missing(dataset) == 0
    assert tags(dataset) == {
        name: {"inside" if tag == "indoor" else tag for tag in found} for name, found in before.items()
    }
    now = services.vocabulary.entry(name="setting")
    assert now is not None
    assert (now.dimension.words, now.dimension.spellings) == (("inside", "outdoor"), {"inside": ("indoor",)})
    services.vocabulary.undo(change=change, user=None)
    assert (tags(dataset), missing(dataset)) == (before, 0)
    with pytest.raises(VocabularyError, match="already"):
        services.vocabulary.undo(change=VocabularyChange.objects.get(pk=change.pk), user=None)


def test_an_edit_is_not_undone_under_later_ones_or_runs(dataset: Dataset) -> None:
    execute(dataset, limit=2)
    first = services.vocabulary.rename_word(name="setting", old="indoor", new="inside", user=None)
    second = services.vocabulary.switch(name="density", enabled=False, user=None)
    assert second is not None
    with pytest.raises(VocabularyError, match="later edits"):
        services.vocabulary.undo(change=first, user=None)
    services.vocabulary.undo(change=second, user=None)
    run = execute(dataset)
    first.refresh_from_db()
    with pytest.raises(VocabularyError, match=f"Run {run.pk}"):
        services.vocabulary.undo(change=first, user=None)


def test_a_renamed_dimension_keeps_answers_and_conditions(dataset: Dataset) -> None:
    weather = replace(DEFAULT_VOCABULARY["weather"], only=Only("setting", ("outdoor",)))
    services.vocabulary.save(name="weather", entry=Entry(weather), user=None)
    execute(dataset)
    before = tags(dataset)
    change = services.vocabulary.save(
        name="setting", entry=Entry(replace(DEFAULT_VOCABULARY["setting"], name="place")), user=None
    )
    assert (missing(dataset), tags(dataset)) == (0, before)
    found = services.vocabulary.entry(name="weather")
    assert found is not None
    assert found.dimension.only == Only("place", ("outdoor",))
    assert change is not None
    services.vocabulary.undo(change=change, user=None)
    assert (missing(dataset), tags(dataset)) == (0, before)


def test_a_condition_holds_for_answers_that_are_there(dataset: Dataset) -> None:
    execute(dataset)
    before = tags(dataset)
    weather = DEFAULT_VOCABULARY["weather"]
    change = services.vocabulary.save(
        name="weather", entry=Entry(replace(weather, only=Only("setting", ("outdoor",)))), user=None
    )
    held = 0
    for sample in services.samples.page(dataset=dataset, filter=SampleFilter(), limit=100).samples:
        detail = services.samples.detail(dataset=dataset, sample_id=sample.id)
        assert detail is not None
        withheld = services.vocabulary.withheld(detail=detail)
        assert withheld == (
            {} if "outdoor" in before[sample.file_name] else {"weather": "only where setting is outdoor"}
        )
        held += len(withheld)
    assert rows("select count(*) from answers where dimension = 'weather' and accepted") == [(COUNT,)]
    for name, found in tags(dataset).items():
        expected = before[name] if "outdoor" in before[name] else before[name] - set(weather.words)
        assert found == expected
    assert missing(dataset) == 0
    assert change is not None
    services.vocabulary.undo(change=change, user=None)
    assert tags(dataset) == before
    assert services.datasets.check_store().is_sound


def test_yes_or_no_tags_the_yes_alone(dataset: Dataset) -> None:
    people = Dimension("people", "Are there people? Yes or no.", ("people",), kind="yes-no")
    services.vocabulary.save(entry=Entry(people), user=None)
    run = execute(dataset, dimensions=("people",))
    said = dict(rows("select word, count(*) from answers where run_id = ? group by 1", run.pk))
    assert set(said) <= {"people", ""}
    assert sum("people" in found for found in tags(dataset).values()) == said.get("people", 0)
    assert run.discarded == 0
    assert services.datasets.check_store().is_sound


def test_nothing_is_edited_under_a_run(dataset: Dataset) -> None:
    execute(dataset, limit=2)
    services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    with pytest.raises(VocabularyBusy, match="is active"):
        services.vocabulary.rename_word(name="setting", old="indoor", new="inside", user=None)
    assert services.vocabulary.entries() == services.vocabulary.default_entries()


def test_what_changed_since_a_run_is_said(dataset: Dataset) -> None:
    run = execute(dataset, dimensions=("setting",))
    assert services.vocabulary.changed_since(run=run) == ()
    services.vocabulary.save(
        name="setting", entry=Entry(replace(DEFAULT_VOCABULARY["setting"], question="Where?")), user=None
    )
    assert "the question was" in services.vocabulary.changed_since(run=run)[0]


# -- commands ----------------------------------------------------------------------------------------------------------------
def test_a_file_goes_out_and_in(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "mine.toml"
    services.vocabulary.save(entry=Entry(VEHICLE, enabled=False), user=None)
    mine = services.vocabulary.entries()
    call_command("vocabulary", "export", str(path), stdout=StringIO())
    assert vocabulary_file.load(path.read_bytes()) == mine
    call_command("vocabulary", "reset", stdout=StringIO())
    assert services.vocabulary.entries() == services.vocabulary.default_entries()
    execute(dataset, vocabulary=None)
    out = StringIO()
    call_command("vocabulary", "import", str(path), stdout=out)
    assert services.vocabulary.entries() == mine
    call_command("vocabulary", "import", str(path), stdout=out)
    assert "as it was" in out.getvalue()
    path.write_text(vocabulary_file.dump([Entry(VEHICLE)]))
    with pytest.raises(CommandError, match="--tags keep"):
        call_command("vocabulary", "import", str(path), stdout=StringIO())
    call_command("vocabulary", "import", str(path), "--tags", "keep", stdout=StringIO())
    assert [entry.dimension.name for entry in services.vocabulary.entries()] == ["vehicle"]
    assert rows("select count(*) from sample_tags where source = 'model' and ended_by is null") == [(0,)]


def test_one_run_asks_another_vocabulary(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "once.toml"
    path.write_text(vocabulary_file.dump([Entry(VEHICLE)]))
    call_command("autotag", "photos", "--vocabulary", str(path), "--no-progress", stdout=StringIO())
    assert rows("select distinct dimension from answers") == [("vehicle",)]
    assert services.vocabulary.entries() == services.vocabulary.default_entries()


def test_a_question_is_tried_from_the_command_line(dataset: Dataset) -> None:
    sample = rows("select id from samples order by hash(id) limit 1")[0][0]
    with sample_store().write() as cursor:
        from vlm.samples import Label, editing

        editing.labels_add(cursor, dataset_id=dataset.pk, labels=[Label(sample, "setting", "indoor")])
    out = StringIO()
    call_command("try_question", "photos", "--dimension", "setting", "--orders", "--limit", "4", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert len(found["images"]) == 4
    assert all(len(image["wordings"]) == 2 for image in found["images"])
    assert found["summary"]["agreement"]["samples"] == 4
    assert found["summary"]["mean"]["labels"] == 1
    assert found["summary"]["mean"]["log_loss"] > 0
    assert rows("select count(*) from answers") == [(0,)]
    text = StringIO()
    asked = ("photos", "--dimension", "setting", "--orders", "--limit", "2")
    with pytest.raises(VocabularyError, match="from 1 to 2"):
        services.trials.chosen(dimension=Dimension.from_json(found["dimension"]), choice="3")
    call_command("try_question", *asked, "--save", "2", stdout=text)
    assert "Agreement of each pair" in text.getvalue()
    saved = services.vocabulary.entry(name="setting")
    assert saved is not None
    assert (saved.dimension.question, saved.dimension.wordings) == (
        "Is this scene outdoor or indoor? One word only.",
        (),
    )
    with pytest.raises(CommandError, match="--dimension"):
        call_command("try_question", "photos", stdout=StringIO())


# -- page and programs ---------------------------------------------------------------------------------------------------------
def form(**changes: str) -> dict[str, str]:
    return {
        "name": "vehicle",
        "question": VEHICLE.question,
        "kind": "one-of",
        "words": "car\ntruck\r\nbus\nnone",
        "enabled": "on",
        "action": "save",
        **changes,
    }


def test_a_dimension_is_added_edited_and_removed_on_the_page(editor: Client, dataset: Dataset) -> None:
    assert editor.post(reverse("dimension_new"), form()).status_code == 302
    assert services.vocabulary.entry(name="vehicle") == Entry(VEHICLE)
    address = reverse("dimension", args=["vehicle"])
    assert "truck" in editor.get(address).content.decode()
    changed = form(
        spellings="car = automobile, cab", only_dimension="setting", only_words="outdoor", labels="car = Auto"
    )
    assert editor.post(address, changed).status_code == 302
    now = services.vocabulary.entry(name="vehicle")
    assert now is not None
    assert now.dimension == replace(
        VEHICLE,
        spellings={"car": ("automobile", "cab")},
        only=Only("setting", ("outdoor",)),
        labels={"car": "Auto"},
    )
    assert editor.post(reverse("dimension_switch", args=["vehicle"]), {"enabled": "0"}).status_code == 302
    assert editor.post(reverse("dimension_move", args=["vehicle"]), {"to": "up"}).status_code == 302
    assert [entry.dimension.name for entry in services.vocabulary.entries()][-2:] == ["vehicle", "density"]
    assert editor.post(reverse("dimension_remove", args=["vehicle"])).status_code == 302
    assert services.vocabulary.entry(name="vehicle") is None
    change = services.vocabulary.changes()[0]
    assert editor.post(reverse("vocabulary_undo", args=[change.pk])).status_code == 302
    assert services.vocabulary.entry(name="vehicle") is not None
    page = editor.get(reverse("vocabulary")).content.decode()
    assert "Took back: Removed vehicle" in page


ODD_WORDS = ("stop sign", "T-Shirt", "l'été", "Fußgängerübergang", "停车场", "car", "cars", "50% & more", "a/b?c#d")
HUNDRED_WORDS = tuple(f"thing {number}" for number in range(1, 101))


@pytest.mark.parametrize("given", [ODD_WORDS, HUNDRED_WORDS], ids=["odd", "hundred"])
def test_words_of_any_kind_are_asked_shown_chosen_and_given_by_hand(
    editor: Client, dataset: Dataset, given: tuple[str, ...]
) -> None:
    editor.force_login(User.objects.create_superuser("root"))
    saved = editor.post(reverse("dimension_new"), form(name="seen", words="\n".join(given)))
    assert saved.status_code == 302, saved.content.decode()
    run = execute(dataset, dimensions=("seen",), min_probability=0.0, min_mass=0.0)
    answered = dict(rows("select sample_id, word from answers where run_id = ? and dimension = 'seen'", run.pk))
    assert len(answered) == COUNT
    assert set(answered.values()) <= set(given)
    first = next(iter(answered))
    here = reverse("dataset", args=[dataset.pk])
    for word in given if len(given) < 20 else given[:: len(given) // 5]:
        gave = editor.post(reverse("edit_tags", args=[dataset.pk]), {"action": "add", "tag": word, "ids": str(first)})
        assert gave.status_code in (200, 302), gave.content.decode()
        # Words of a dimension take each other's place.
        assert [tag for (tag,) in rows("select unnest(tags) from samples where id = ?", first)] == [word]
        shown = editor.get(here)
        assert shown.status_code == 200
        (group,) = (group for group in shown.context["sidebar"].dimensions if group.name == "seen")
        (line,) = (line for line in group.words if line.word == word)
        found = editor.get(line.require)
        assert found.context["facets"].total == line.count
        assert line.count == 1 + sum(answer == word for sample, answer in answered.items() if sample != first)
        assert first in {sample.id for sample in found.context["page"].samples}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"words": "car"}, "at least two"),
        ({"words": "indoor\noutside"}, "is a word of “setting” and of “vehicle”"),
        ({"spellings": "car automobile"}, "has no “=”"),
        ({"only_dimension": "setting"}, "A condition needs"),
        ({"name": "a b"}, "no name of a dimension"),
        ({"question": ""}, "required"),
    ],
)
def test_what_cannot_be_saved_says_why_and_loses_nothing(
    editor: Client, changes: dict[str, str], complaint: str
) -> None:
    answer = editor.post(reverse("dimension_new"), form(**changes))
    assert answer.status_code == 400
    text = answer.content.decode()
    assert complaint in text
    assert changes.get("question", "Which vehicle") in text


def test_the_page_asks_what_becomes_of_tags(editor: Client, dataset: Dataset) -> None:
    execute(dataset)
    answer = editor.post(reverse("dimension_remove", args=["setting"]))
    assert answer.status_code == 409
    assert "What becomes of the tags?" in answer.content.decode()
    assert services.vocabulary.entry(name="setting") is not None
    assert editor.post(reverse("dimension_remove", args=["setting"]), {"removed": "keep"}).status_code == 302
    assert services.vocabulary.entry(name="setting") is None
    look = editor.post(reverse("word_rename", args=["density"]), {"old": "empty", "new": "bare"})
    assert "bare" in look.content.decode()
    done = editor.post(reverse("word_rename", args=["density"]), {"old": "empty", "new": "bare", "action": "confirm"})
    assert done.status_code == 302
    assert editor.post(reverse("vocabulary_reset"), {"removed": "keep"}).status_code == 302
    assert services.vocabulary.entries() == services.vocabulary.default_entries()


def test_a_draft_is_tried_and_nothing_is_saved(editor: Client, dataset: Dataset) -> None:
    answer = editor.post(reverse("dimension_new"), form(action="try", dataset=str(dataset.pk), orders="1"))
    assert answer.status_code == 302
    trial = Trial.objects.get()
    wait_for(lambda: not Trial.objects.get(pk=trial.pk).active)
    page = editor.get(answer.headers["Location"]).content.decode()
    assert "Wordings" in page
    assert "Save this question" in page
    found = editor.get(answer.headers["Location"], headers={"accept": "application/json"}).json()
    assert (found["status"], found["done"], len(found["images"])) == ("completed", COUNT, COUNT)
    assert services.vocabulary.entry(name="vehicle") is None
    assert rows("select count(*) from answers") == [(0,)]
    choose, tried = reverse("trial_choose", args=[trial.pk]), Dimension.from_json(trial.tried_with)
    assert choose in page
    for wrong in ("0", "9", "", "x", "²"):
        assert editor.post(choose, {"wording": wrong}).status_code == 400
    assert services.vocabulary.entry(name="vehicle") is None
    assert editor.post(choose, {"wording": "2"}).status_code == 302
    assert services.vocabulary.entry(name="vehicle") == Entry(replace(VEHICLE, question=tried.questions[1]))


def test_all_wordings_of_a_trial_are_kept_for_their_mean(editor: Client, dataset: Dataset) -> None:
    wording = "Which of car, truck, bus and none do you see?"
    trial = Trial.objects.create(
        dataset=dataset,
        name="vehicle",
        asked=VEHICLE.to_json(),
        tried_with=replace(VEHICLE, wordings=(wording,)).to_json(),
        status=Trial.Status.COMPLETED,
    )
    answer = editor.post(
        reverse("trial_choose", args=[trial.pk]), {"wording": "mean"}, headers={"accept": "application/json"}
    )
    assert answer.json()["dimensions"][-1]["wordings"] == [wording]
    found = services.vocabulary.entry(name="vehicle")
    assert found is not None
    assert found.dimension.wordings == (wording,)


def test_a_trial_whose_process_is_gone_does_not_go_on_for_ever(dataset: Dataset) -> None:
    fields: dict[str, Any] = {"dataset": dataset, "name": "vehicle", "asked": VEHICLE.to_json(), "total": 3}
    gone = Trial.objects.create(**fields, tried_with=VEHICLE.to_json(), heartbeat=timezone.now() - timedelta(hours=1))
    found = services.trials.get(trial_id=gone.pk)
    assert found is not None
    assert (found.active, "Try the question again" in found.error) == (False, True)
    with jobs.claimed(Trial.objects.filter(pk=Trial.objects.create(**fields, tried_with=VEHICLE.to_json()).pk)):
        alive = services.trials.get(trial_id=Trial.objects.latest("pk").pk)
        assert alive is not None
        assert alive.active


def test_programs_read_and_write_the_vocabulary(editor: Client) -> None:
    address = reverse("vocabulary")
    json_headers = {"accept": "application/json"}
    found = editor.get(address, headers=json_headers).json()
    assert [one["name"] for one in found["dimensions"]] == list(DEFAULT_VOCABULARY.names)
    found["dimensions"].append(VEHICLE.to_json())
    answer = editor.post(address, json.dumps(found), content_type="application/json", headers=json_headers)
    assert answer.status_code == 200
    assert answer.json()["dimensions"][-1]["name"] == "vehicle"
    for body in ("", "[]", '{"dimensions": 3}', '{"dimensions": [{"name": "x"}]}', "[" * 100_000):
        answer = editor.post(address, body, content_type="application/json", headers=json_headers)
        assert (answer.status_code, "error" in answer.json()) == (400, True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.post(reverse("dimension_new"), form()),
        lambda client: client.post(reverse("vocabulary_reset")),
        lambda client: client.post(reverse("vocabulary"), "{}", content_type="application/json"),
        lambda client: client.get(reverse("dimension", args=["weather"])),
    ],
)
def test_only_who_may_edits_the_vocabulary(client: Client, ask: Callable[[Client], Any]) -> None:
    user = User.objects.create_user("bob", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    client.force_login(user)
    assert client.get(reverse("vocabulary")).status_code == 200
    assert ask(client).status_code == 403
