"""Edits are rows with a beginning and an end: undoing leads, exactly, through the very states before."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.effort import examples
from vlm.samples import Edit, EditError, Label, SampleFilter, SampleStore, editing, ingest, merging, where
from vlm.samples.checking import check_store
from vlm.samples.cursor import Cursor
from vlm.samples.history import events
from vlm.samples.reading import edits

from .conftest import WORDS, answer, fill, result

ADA, BOB = Edit(7, "ada", "bulk"), Edit(8, "bob")


def target(*ids: int) -> tuple[str, list[object]]:
    return where(1, SampleFilter(ids=ids), WORDS)


def tags(cursor: Cursor, sample_id: int) -> list[str]:
    found: list[str] = cursor.execute("select tags from samples where id = ?", [sample_id]).fetchall()[0][0]
    return found


def state(cursor: Cursor) -> dict[str, list[Any]]:
    """All that edits say: what is in force, and what follows from it. Ids that are never given again are left out."""
    return {
        "samples": cursor.execute("select * from samples order by id").fetchall(),
        "tags": cursor.execute(
            "select sample_id, tag, dimension, source, run_id, place, probability from sample_tags where ended_by is null order by all"
        ).fetchall(),
        "rejections": cursor.execute(
            "select sample_id, tag from rejections where ended_by is null order by all"
        ).fetchall(),
        "labels": cursor.execute(
            "select sample_id, dimension, word, probability, user_name from labels where ended_by is null order by all"
        ).fetchall(),
        "answers": cursor.execute("select * exclude (words, probabilities) from answers order by all").fetchall(),
        "totals": cursor.execute("select * from run_totals order by all").fetchall(),
    }


class UndoMachine(RuleBasedStateMachine):
    """Edits in any order, between runs, reverts and thresholds.

    Undoing is a stack: at the top of it, whatever was done since by runs, the state must be that of the same runs without
    the edit. The runs are replayed into a second store that never saw the edits that are undone.
    """

    store: SampleStore
    twin: SampleStore

    @initialize()
    def start(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.next_run = 1
        for each in (self.store, self.twin):
            with each.write() as cursor:
                ingest.dataset_delete(cursor, dataset_id=1)
                cursor.execute("delete from questions").fetchall()
        self.ids = fill(self.store, 3)

    def do(self, what: str, *values: Any) -> None:
        with self.store.write() as cursor:
            self.log.append((what, (*values, perform(cursor, self.ids, what, values))))

    samples = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
    words = st.sampled_from(["dark", "bright", "indoor", "mine"])

    @rule(places=samples, word=words)
    def add(self, places: list[int], word: str) -> None:
        self.do("add", places, word)

    @rule(places=samples, word=words)
    def remove(self, places: list[int], word: str) -> None:
        self.do("remove", places, word)

    @rule(places=samples, word=words)
    def confirm(self, places: list[int], word: str) -> None:
        self.do("confirm", places, word)

    @rule(places=samples, word=st.sampled_from(["dark", "bright", ""]))
    def label(self, places: list[int], word: str) -> None:
        self.do("label", places, word)

    @rule(light=st.sampled_from(["dark", "bright"]), places=samples, sure=st.sampled_from([0.6, 0.9]))
    def run(self, light: str, places: list[int], sure: float) -> None:
        self.do("run", self.next_run, light, places, sure)
        self.next_run += 1

    @rule(place=st.integers(0, 9))
    def revert(self, place: int) -> None:
        if self.next_run > 1:
            self.do("revert", 1 + place % (self.next_run - 1))

    @rule(place=st.integers(0, 9), least=st.sampled_from([0.5, 0.7]))
    def thresholds(self, place: int, least: float) -> None:
        if self.next_run > 1:
            self.do("thresholds", 1 + place % (self.next_run - 1), least)

    @rule()
    def undo_the_last(self) -> None:
        places = [index for index, (what, values) in enumerate(self.log) if what in EDITS and values[-1] is not None]
        if not places:
            return
        index = places[-1]
        with self.store.write() as cursor:
            editing.undo(cursor, self.log[index][1][-1], BOB)
            after = state(cursor)
            assert check_store(cursor, datasets=[1]).is_sound
        del self.log[index]
        with self.twin.write() as cursor:
            ingest.dataset_delete(cursor, dataset_id=1)
        twins = fill(self.twin, 3)
        with self.twin.write() as cursor:
            for what, values in self.log:
                perform(cursor, twins, what, values[:-1])
            expected = state(cursor)
        known = dict(zip(twins, self.ids, strict=True))
        assert plain(after, {own: own for own in self.ids}) == plain(expected, known)

    def teardown(self) -> None:
        with self.store.read() as cursor:
            assert check_store(cursor, datasets=[1]).is_sound


EDITS = ("add", "remove", "confirm", "label")  # edits of the vocabulary: see test_rewording


def perform(cursor: Cursor, ids: list[int], what: str, values: tuple[Any, ...]) -> int | None:
    """Do one step of the machine; returns the edit's id where it is one."""
    if what in ("add", "confirm"):
        function = editing.tags_add if what == "add" else editing.tags_confirm
        dimension = next((name for name, of in WORDS.items() if values[1] in of), None)
        chosen = target(*[ids[place] for place in values[0]])
        return function(cursor, dataset_id=1, target=chosen, tag=values[1], dimension=dimension, by=ADA).id
    if what == "remove":
        chosen = target(*[ids[place] for place in values[0]])
        return editing.tags_remove(cursor, dataset_id=1, target=chosen, tag=values[1], by=ADA).id
    if what == "label":
        given = [Label(ids[place], "lighting", values[1], 0.5) for place in values[0]]
        return editing.labels_add(cursor, dataset_id=1, labels=given, by=ADA, give_tags=True).id
    if what == "run":
        run, light, places, sure = values
        found = [result(ids[place], answer(run, light, sure), answer(run, "indoor")) for place in places]
        merging.merge_batch(cursor, dataset_id=1, run_id=run, results=found)
    elif what == "revert":
        merging.revert_run(cursor, run_id=values[0])
    else:
        merging.apply_thresholds(cursor, run_id=values[0], min_probability=values[1], min_mass=0.5)
    return None


def plain(found: dict[str, list[Any]], ids: dict[int, int]) -> dict[str, list[Any]]:
    """Return a state with the samples' ids of the other store, and the order of tags in place of their numbers."""
    column = {"samples": 0, "tags": 0, "rejections": 0, "labels": 0, "answers": 2}
    made: dict[str, list[Any]] = {}
    for name, rows in found.items():
        place = column.get(name)
        if name == "tags":
            users = sorted(row[5] for row in rows if row[3] == "user")
            rows = [(*row[:5], users.index(row[5]) if row[3] == "user" else row[5], row[6]) for row in rows]
        if place is not None:
            rows = [tuple(ids[value] if index == place else value for index, value in enumerate(row)) for row in rows]
        made[name] = sorted(rows, key=repr)
    return made


@pytest.fixture
def machine(store: SampleStore, tmp_path: Any) -> Any:
    UndoMachine.store = store
    (tmp_path / "twin").mkdir()
    UndoMachine.twin = SampleStore(tmp_path / "twin" / "samples.duckdb", memory_limit="256MB", threads=1, wait=5)
    yield UndoMachine
    UndoMachine.twin.close()


def test_undoing_is_as_if_it_had_never_been(machine: Any) -> None:
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples(5),
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    case("runTest").runTest()


def test_who_when_and_by_which_way(store: SampleStore) -> None:
    a, b, *_ = fill(store, 4)
    with store.write() as cursor:
        done = editing.tags_add(cursor, dataset_id=1, target=target(a, b), tag="mine", dimension=None, by=ADA)
        assert done.samples == 2
        editing.tags_remove(cursor, dataset_id=1, target=target(a), tag="mine", by=BOB)
        assert editing.tags_add(cursor, dataset_id=1, target=target(b), tag="mine", dimension=None, by=BOB).id is None
        assert editing.undo(cursor, done.id or 0, BOB).samples == 2
        assert [(e.action, e.user, e.way, e.word, e.samples, e.undone) for e in events(cursor, 1, a)] == [
            ("undo", "bob", "undo", "mine", 2, False),
            ("remove", "bob", "single", "mine", 1, False),
            ("add", "ada", "bulk", "mine", 2, True),
        ]
        assert [e.action for e in events(cursor, 1, a, limit=1)] == ["undo"]
        assert [(e.tag, e.samples, e.undone_by is not None) for e in edits(cursor, 1, user_id=7)] == [("mine", 2, True)]
        assert [e.action for e in edits(cursor, 1, user_id=8, undoable=True)] == ["remove"]
        for edit_id in (done.id or 0, 999, edits(cursor, 1)[0].id):
            with pytest.raises(EditError):
                editing.undo(cursor, edit_id, BOB)


def test_a_tag_is_renamed_merged_and_deleted_everywhere_and_all_of_it_undone(store: SampleStore) -> None:
    a, b, c, *_ = fill(store, 4)
    with store.write() as cursor:

        def add(tag: str, *ids: int, dimension: str | None = None) -> None:
            editing.tags_add(cursor, dataset_id=1, target=target(*ids), tag=tag, dimension=dimension)

        def rename(old: str, new: str, dimension: str | None = None) -> tuple[int, int, int]:
            done = editing.tag_rename(cursor, dataset_id=1, old=old, new=new, dimension=dimension, by=ADA)
            return done.id or 0, done.samples, done.replaced

        add("car", a, b)
        add("auto", b, c)
        add("dark", a, dimension="lighting")
        before = state(cursor)
        merged, *counts = rename("auto", "car")
        assert counts == [2, 0]
        assert [tags(cursor, i) for i in (a, b, c)] == [["car", "dark"], ["car"], ["car"]]
        word, *counts = rename("car", "bright", "lighting")
        assert counts == [3, 1]
        assert [tags(cursor, i) for i in (a, b, c)] == [["bright"]] * 3
        gone = editing.tag_delete(cursor, dataset_id=1, tag="bright", by=ADA)
        assert [tags(cursor, i) for i in (a, b, c)] == [[]] * 3
        assert editing.tag_delete(cursor, dataset_id=1, tag="bright").id is None
        assert check_store(cursor, datasets=[1]).is_sound
        for edit in (gone.id or 0, word, merged):
            editing.undo(cursor, edit, ADA)
        assert state(cursor) == before


def test_undoing_out_of_order_leaves_what_the_others_did(store: SampleStore) -> None:
    (a,) = fill(store, 1)
    with store.write() as cursor:
        steps = []
        for what in ("add", "remove", "add", "remove", "add"):
            steps.append(perform(cursor, [a], what, ([0], "mine")) or 0)
        editing.undo(cursor, steps[2])
        assert tags(cursor, a) == ["mine"]  # the last one gave it again
        editing.undo(cursor, steps[4])
        assert tags(cursor, a) == []  # the fourth took it away
        editing.undo(cursor, steps[3])
        editing.undo(cursor, steps[1])
        assert tags(cursor, a) == ["mine"]
        editing.undo(cursor, steps[0])
        assert tags(cursor, a) == []
        assert check_store(cursor, datasets=[1]).is_sound


def test_a_bulk_edit_of_many_is_undone_exactly(store: SampleStore) -> None:
    ids = fill(store, 5000)
    with store.write() as cursor:
        editing.tags_add(cursor, dataset_id=1, target=target(*ids[:100]), tag="first", dimension=None)
        before = state(cursor)
        done = editing.tags_add(cursor, dataset_id=1, target=where(1, SampleFilter(), WORDS), tag="all", dimension=None)
        assert done.samples == 5000
        again = editing.tags_remove(cursor, dataset_id=1, target=where(1, SampleFilter(), WORDS), tag="first")
        editing.undo(cursor, again.id or 0)
        editing.undo(cursor, done.id or 0)
        assert state(cursor) == before
