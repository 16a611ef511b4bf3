"""Words and dimensions renamed, merged or taken out: tags and answers follow, and undoing puts everything back exactly."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vlm.samples import (
    Edit,
    EditError,
    Label,
    Question,
    SampleStore,
    asking,
    editing,
    ingest,
    merging,
    progress,
    rewording,
)
from vlm.samples.checking import check_store
from vlm.samples.cursor import Cursor
from vlm.vocabulary import Dimension

from .conftest import WORDS, answer, fill, result
from .test_merging import add, confirm, read, remove

LIGHTING = Dimension("lighting", "Dark or bright?", WORDS["lighting"])
BY = Edit(7, "ada", "vocabulary")
TABLES = ("samples", "sample_tags", "rejections", "answers", "labels")


def question(dimension: Dimension) -> Question:
    return Question.of(model="m", revision="r", mode="score", dimension=dimension.name, asked=dimension.asked)


def merge(store: SampleStore, run: int, *results: Any) -> None:
    with store.write() as cursor:
        ids = merging.run_begin(cursor, dataset_id=1, run_id=run, worker="w", questions=[question(LIGHTING)])
        merging.merge_batch(cursor, dataset_id=1, run_id=run, results=results, questions=ids, worker="w")


def rename(store: SampleStore, old: str, new: str, words: tuple[str, ...]) -> list[int]:
    after = Dimension("lighting", LIGHTING.question, words, spellings={new: (old,)})
    with store.write() as cursor:
        return rewording.rename_word(cursor, before=LIGHTING, after=after, old=old, new=new, by=BY)


def undo(store: SampleStore, edits: list[int]) -> None:
    with store.write() as cursor:
        rewording.undo(cursor, edits=edits, by=BY)


def state(store: SampleStore) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is in force."""
    with store.read() as cursor:
        return {
            "samples": cursor.execute(
                "select id, tags, user_count, certainty, discarded, answered from samples order by id"
            ).fetchall(),
            "tags": cursor.execute(
                "select sample_id, tag, dimension, source, probability, run_id, place from sample_tags where ended_by is null order by all"
            ).fetchall(),
            "rejections": cursor.execute(
                "select sample_id, tag from rejections where ended_by is null order by all"
            ).fetchall(),
            "labels": cursor.execute(
                "select sample_id, dimension, word from labels where ended_by is null order by all"
            ).fetchall(),
            "answers": cursor.execute(
                "select run_id, sample_id, dimension, question_id, words, probabilities, word, probability, accepted, current "
                "from answers order by 1, 2, 3"
            ).fetchall(),
            "images": cursor.execute("select count(*) from answer_images").fetchall(),
        }


def sound(store: SampleStore) -> None:
    with store.write() as cursor:
        assert check_store(cursor, datasets=[1]).is_sound


def test_a_renamed_word_takes_tags_answers_labels_and_removals_along(store: SampleStore) -> None:
    a, b, c, d = fill(store)
    merge(store, 1, result(a, answer(1, "bright")), result(b, answer(1, "bright")), result(c, answer(1, "dark")))
    confirm(store, a, "bright", "lighting")
    remove(store, b, "bright")
    add(store, d, "bright", "lighting")
    with store.write() as cursor:
        editing.labels_add(cursor, dataset_id=1, labels=[Label(c, "lighting", "bright")])
    before = state(store)
    edits = rename(store, "bright", "light", ("dark", "light"))
    assert [read(store, one) for one in (a, b, c, d)] == [["light"], [], ["dark"], ["light"]]
    now = state(store)
    assert {row[5][0] if isinstance(row[5], list) else None for row in now["answers"]}
    assert {tuple(row[4]) for row in now["answers"]} == {("dark", "light")}
    assert now["rejections"] == [(b, "light")]
    assert now["labels"] == [(c, "lighting", "light")]
    sound(store)
    undo(store, edits)
    assert state(store) == before
    sound(store)


def test_answers_to_the_old_question_count_for_the_new_one(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    after = Dimension("lighting", LIGHTING.question, ("dark", "light"), spellings={"light": ("bright",)})
    rename(store, "bright", "light", after.words)
    with store.read() as cursor:
        wanted = progress.Wanted(
            ("s.dataset_id = ?", [1]), asking.question_ids(cursor, [question(after)]), only_missing=True
        )
        assert progress.pending_count(cursor, wanted, run_id=0) == 3


def test_merged_words_have_the_probability_of_both(store: SampleStore) -> None:
    a, *_ = fill(store)
    words = ("dark", "dim", "bright")
    said = merging.Answer(1, "lighting", 0, words, (0.3, 0.3, 0.4), 1.0, "bright", 0.4, True, "")
    merge(store, 1, result(a, said))
    before = state(store)
    assert read(store, a) == ["bright"]
    wide = Dimension("lighting", LIGHTING.question, words)
    narrow = Dimension("lighting", LIGHTING.question, ("dark", "bright"), spellings={"dark": ("dim",)})
    with store.write() as cursor:
        edits = rewording.rename_word(cursor, before=wide, after=narrow, old="dim", new="dark", by=BY)
    assert read(store, a) == ["dark"]
    (row,) = state(store)["answers"]
    assert (row[4], row[6]) == (["dark", "bright"], "dark")
    assert row[5] == pytest.approx([0.6, 0.4])
    assert row[7] == pytest.approx(0.6)
    undo(store, edits)
    assert state(store) == before


def test_a_user_with_both_words_keeps_one(store: SampleStore) -> None:
    a, *_ = fill(store)
    add(store, a, "dark")  # from before it was a word, so that the other did not take its place
    add(store, a, "bright", "lighting")
    edits = rename(store, "bright", "dark", ("dark", "grey"))
    assert read(store, a) == ["dark"]
    undo(store, edits)
    assert read(store, a) == ["dark", "bright"]


@pytest.mark.parametrize("keep", [True, False])
def test_words_that_go_leave_own_tags_or_none(store: SampleStore, keep: bool) -> None:
    a, b, c, _ = fill(store)
    merge(store, 1, result(a, answer(1, "bright"), answer(1, "indoor")), result(b, answer(1, "bright")))
    confirm(store, b, "bright", "lighting")
    remove(store, c, "bright")
    before = state(store)
    with store.write() as cursor:
        edits = rewording.remove_words(cursor, words=["bright"], keep=keep, by=BY)
    assert read(store, a) == (["bright", "indoor"] if keep else ["indoor"])
    assert read(store, b) == (["bright"] if keep else [])
    with store.read() as cursor:
        rows = cursor.execute(
            "select distinct dimension, source from sample_tags where tag = 'bright' and ended_by is null"
        ).fetchall()
    assert rows == ([(None, "user")] if keep else [])
    sound(store)
    undo(store, edits)
    assert state(store) == before


def test_a_renamed_dimension_is_found_everywhere_and_goes_back(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    add(store, b, "dark", "lighting")
    before = state(store)
    with store.write() as cursor:
        assert not rewording.dimension_is_used(cursor, "light")
        rewording.rename_dimension(cursor, old="lighting", new="light")
        assert rewording.dimension_is_used(cursor, "light")
        assert not rewording.dimension_is_used(cursor, "lighting")
    renamed = Dimension("light", LIGHTING.question, LIGHTING.words)
    with store.read() as cursor:
        assert asking.question_ids(cursor, [question(renamed)])["light"] is not None
    with store.write() as cursor:
        rewording.rename_dimension(cursor, old="light", new="lighting")
    assert state(store) == before
    sound(store)


def test_an_edit_of_the_vocabulary_is_not_undone_by_itself(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    (edit,) = rename(store, "bright", "light", ("dark", "light"))
    with store.write() as cursor, pytest.raises(EditError, match="vocabulary"):
        editing.undo(cursor, edit, BY)


# -- conditions ----------------------------------------------------------------------------------------------------------
def conditions(store: SampleStore, **given: tuple[str, ...]) -> None:
    with store.write() as cursor:
        rewording.conditions_keep(cursor, given)


def test_a_condition_holds_back_tags_and_no_answer(store: SampleStore) -> None:
    a, b, c, _ = fill(store)
    conditions(store, lighting=("outdoor",))
    merge(
        store,
        1,
        result(a, answer(1, "bright"), answer(1, "indoor")),
        result(b, answer(1, "bright"), answer(1, "outdoor")),
        result(c, answer(1, "bright"), answer(1, "outdoor", accepted=False)),
    )
    assert [read(store, one) for one in (a, b, c)] == [["indoor"], ["bright", "outdoor"], []]
    assert len(state(store)["answers"]) == 6
    add(store, a, "outdoor", "setting")  # a user's tag counts as the answer, and takes the model's word's place
    assert read(store, a) == ["outdoor", "bright"]
    remove(store, b, "outdoor")
    assert read(store, b) == []
    sound(store)


def test_conditions_come_and_go_with_what_they_held_back(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    merge(
        store,
        1,
        result(a, answer(1, "bright"), answer(1, "indoor")),
        result(b, answer(1, "dark"), answer(1, "outdoor")),
    )
    before = state(store)
    conditions(store, lighting=("outdoor",))
    assert [read(store, one) for one in (a, b)] == [["indoor"], ["dark", "outdoor"]]
    conditions(store)
    assert state(store) == before


def test_a_users_word_of_the_dimension_needs_no_condition(store: SampleStore) -> None:
    a, *_ = fill(store)
    conditions(store, lighting=("outdoor",))
    add(store, a, "bright", "lighting")
    assert read(store, a) == ["bright"]


def test_two_conditions_in_a_row(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    conditions(store, lighting=("outdoor",), setting=("zoo",))
    merge(store, 1, *(result(one, answer(1, "bright"), answer(1, "outdoor")) for one in (a, b)))
    add(store, a, "zoo")
    assert read(store, a) == ["zoo", "bright", "outdoor"]
    assert read(store, b) == []


def test_a_no_is_an_answer_without_a_tag(store: SampleStore) -> None:
    a, *_ = fill(store)
    no = merging.Answer(1, "people", 0, ("people", ""), (0.2, 0.8), 1.0, "", 0.8, True, "")
    merge(store, 1, result(a, no))
    assert read(store, a) == []
    (row,) = state(store)["samples"][:1]
    assert row[4] == 0  # not discarded
    sound(store)


# -- whatever the order of things ------------------------------------------------------------------------------------------
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("merge"), st.integers(1, 3), st.integers(0, 3), st.sampled_from(["dark", "bright"]), st.booleans()
        ),
        st.tuples(st.just("add"), st.integers(0, 3), st.sampled_from(["dark", "bright", "other"])),
        st.tuples(st.just("remove"), st.integers(0, 3), st.sampled_from(["dark", "bright", "other"])),
        st.tuples(st.just("label"), st.integers(0, 3), st.sampled_from(["dark", "bright", ""])),
        st.tuples(st.just("condition"), st.booleans()),
    ),
    max_size=8,
)
EDITS = st.sampled_from(["rename", "merge", "keep", "take", "dimension"])


@given(STEPS, EDITS)
@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_undoing_an_edit_of_words_is_exact(store: SampleStore, steps: list[tuple[Any, ...]], edit: str) -> None:
    with store.write() as cursor:
        ingest.dataset_delete(cursor, dataset_id=1)
        rewording.conditions_keep(cursor, {})
    ids = fill(store)
    for step in steps:
        _do(store, ids, step)
    before = state(store)
    with store.write() as cursor:
        _edit_and_undo(cursor, edit)
    after = state(store)
    assert after == before
    sound(store)


def _do(store: SampleStore, ids: list[int], step: tuple[Any, ...]) -> None:
    match step:
        case ("merge", run, place, word, accepted):
            merge(store, run, result(ids[place], answer(run, word, accepted=accepted)))
        case ("add", place, tag):
            add(store, ids[place], tag, "lighting" if tag != "other" else None)
        case ("remove", place, tag):
            remove(store, ids[place], tag)
        case ("label", place, word):
            with store.write() as cursor:
                editing.labels_add(cursor, dataset_id=1, labels=[Label(ids[place], "lighting", word)], give_tags=True)
        case ("condition", there):
            conditions(store, **({"lighting": ("other",)} if there else {}))


def _edit_and_undo(cursor: Cursor, edit: str) -> None:
    if edit == "dimension":
        rewording.rename_dimension(cursor, old="lighting", new="light")
        rewording.rename_dimension(cursor, old="light", new="lighting")
        return
    if edit in ("keep", "take"):
        edits = rewording.remove_words(cursor, words=["bright", "dark"], keep=edit == "keep", by=BY)
    else:
        new = "light" if edit == "rename" else "dark"
        after = Dimension("lighting", LIGHTING.question, ("dark", new if edit == "rename" else "grey"))
        edits = rewording.rename_word(cursor, before=LIGHTING, after=after, old="bright", new=new, by=BY)
    rewording.undo(cursor, edits=edits, by=BY)


def test_a_word_that_went_does_not_come_back_with_other_thresholds(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright", 0.4, accepted=False)))
    with store.write() as cursor:
        edits = rewording.remove_words(cursor, words=["bright"], keep=False, by=BY)
        assert edits == []  # no image has it
    merge(store, 2, result(a, answer(2, "bright", 0.6)))
    with store.write() as cursor:
        rewording.remove_words(cursor, words=["bright"], keep=False, by=BY)
        merging.apply_thresholds(cursor, run_id=2, min_probability=0.9, min_mass=0)
        merging.apply_thresholds(cursor, run_id=2, min_probability=0.1, min_mass=0)
    assert read(store, a) == []
