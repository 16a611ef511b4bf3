"""What must hold of tags: users' stay, removed ones stay away, a newer run replaces an older one, a revert restores."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.effort import examples
from vlm.samples import SampleFilter, SampleStore, TagError, editing, ingest, merging, where
from vlm.samples.checking import check_store
from vlm.samples.cursor import Cursor
from vlm.samples.reading import answers_of, samples_by_id

from .conftest import WORDS, answer, fill, result


def tags(cursor: Cursor, sample_id: int) -> list[str]:
    found: list[str] = cursor.execute("select tags from samples where id = ?", [sample_id]).fetchall()[0][0]
    return found


def only(sample_id: int) -> tuple[str, list[object]]:
    return where(1, SampleFilter(ids=(sample_id,)), WORDS)


def merge(store: SampleStore, run: int, *results: object) -> object:
    with store.write() as cursor:
        return merging.merge_batch(cursor, dataset_id=1, run_id=run, results=results)  # type: ignore[arg-type]


def add(store: SampleStore, sample_id: int, tag: str, dimension: str | None = None) -> int:
    with store.write() as cursor:
        return editing.tags_add(cursor, dataset_id=1, target=only(sample_id), tag=tag, dimension=dimension).samples


def remove(store: SampleStore, sample_id: int, tag: str) -> int:
    with store.write() as cursor:
        return editing.tags_remove(cursor, dataset_id=1, target=only(sample_id), tag=tag).samples


def confirm(store: SampleStore, sample_id: int, tag: str, dimension: str) -> int:
    with store.write() as cursor:
        return editing.tags_confirm(cursor, dataset_id=1, target=only(sample_id), tag=tag, dimension=dimension).samples


def revert(store: SampleStore, run: int) -> int:
    with store.write() as cursor:
        return merging.revert_run(cursor, run_id=run)


def read(store: SampleStore, sample_id: int) -> list[str]:
    with store.read() as cursor:
        return tags(cursor, sample_id)


def test_model_words_stand_behind_users_tags(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    add(store, a, "zebra")
    add(store, a, "apple")
    done = merge(
        store, 1, result(a, answer(1, "bright"), answer(1, "outdoor")), result(b, answer(1, "dark", accepted=False))
    )
    assert read(store, a) == ["zebra", "apple", "bright", "outdoor"]
    assert read(store, b) == []
    assert (done.processed, done.tagged, done.discarded, done.failed) == (2, 1, 1, 0)  # type: ignore[attr-defined]


def test_replaying_a_batch_changes_nothing(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    again = merge(store, 1, result(a, answer(1, "dark")))
    assert again.processed == 0  # type: ignore[attr-defined]
    assert read(store, a) == ["bright"]
    with store.read() as cursor:
        assert cursor.execute("select count(*) from answers").fetchall() == [(1,)]


def test_a_removed_tag_stays_away_whichever_run_says_it(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    assert remove(store, a, "bright") == 1
    merge(store, 2, result(a, answer(2, "bright"), answer(2, "indoor")))
    assert read(store, a) == ["indoor"]
    with store.read() as cursor:
        said = [(x.word, x.accepted, x.reason) for x in answers_of(cursor, a)]
    assert said == [("bright", False, "rejected by a user"), ("indoor", True, "")]
    assert add(store, a, "bright", "lighting") == 1  # the user may change their mind
    assert read(store, a) == ["bright", "indoor"]


def test_a_newer_run_replaces_and_its_revert_restores(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    merge(store, 2, result(a, answer(2, "dark")))
    assert read(store, a) == ["dark"]
    assert revert(store, 2) == 1
    assert read(store, a) == ["bright"]
    revert(store, 1)
    assert read(store, a) == []


def test_a_confirmed_word_outlives_newer_runs_and_reverts(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")))
    assert confirm(store, a, "bright", "lighting") == 1
    merge(store, 2, result(a, answer(2, "dark")))
    assert read(store, a) == ["bright"]
    revert(store, 1)
    assert read(store, a) == ["bright"]
    assert confirm(store, a, "outdoor", "setting") == 0  # nothing to confirm


def test_a_revert_leaves_what_another_run_supports(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright"), answer(1, "indoor")))
    merge(store, 2, result(a, answer(2, "bright")))
    revert(store, 1)
    assert read(store, a) == ["bright"]


def test_thresholds_are_applied_without_the_model(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright", 0.6)), result(b, answer(1, "dark", 0.9)))
    with store.write() as cursor:
        preview = merging.preview_thresholds(cursor, run_id=1, min_probability=0.7, min_mass=0.5)
        assert (preview.accepted, preview.discarded, preview.changed) == (1, 1, 1)
        assert tags(cursor, a) == ["bright"]
        assert merging.apply_thresholds(cursor, run_id=1, min_probability=0.7, min_mass=0.5) == preview
    assert (read(store, a), read(store, b)) == ([], ["dark"])
    with store.write() as cursor:
        merging.apply_thresholds(cursor, run_id=1, min_probability=0.5, min_mass=0.5)
    assert (read(store, a), read(store, b)) == (["bright"], ["dark"])


def test_a_failed_sample_is_finished_with_its_reason(store: SampleStore) -> None:
    a, *_ = fill(store)
    done = merge(store, 1, result(a, error="The file is truncated."))
    assert (done.processed, done.failed) == (1, 1)  # type: ignore[attr-defined]
    with store.read() as cursor:
        assert cursor.execute("select failed from samples where id = ?", [a]).fetchall() == [(True,)]
    merge(store, 2, result(a, answer(2, "dark")))
    with store.read() as cursor:
        assert cursor.execute("select failed from samples where id = ?", [a]).fetchall() == [(False,)]


def test_an_unknown_sample_is_left_out(store: SampleStore) -> None:
    (a,) = fill(store, 1)
    done = merge(store, 1, result(a, answer(1, "dark")), result(a + 99, answer(1, "dark")))
    assert done.processed == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", ["", "  ", "x" * 201, "two\nlines"])
def test_tags_that_cannot_be_stored(bad: str) -> None:
    with pytest.raises(TagError):
        editing.clean_tag(bad)


def test_tags_are_normalised() -> None:
    assert editing.clean_tag("  cafe\u0301 ") == "café"


def test_a_tag_knows_who_said_it(store: SampleStore) -> None:
    a, *_ = fill(store)
    merge(store, 7, result(a, answer(7, "bright", 0.8), answer(7, "indoor", 0.7)))
    confirm(store, a, "indoor", "setting")
    with store.read() as cursor:
        (sample,) = samples_by_id(cursor, 1, [a])
    assert [(t.tag, t.source, t.dimension, t.probability, t.run) for t in sample.tags] == [
        ("indoor", "user", "setting", 0.7, 7),
        ("bright", "model", "lighting", 0.8, 7),
    ]


def test_a_broken_column_is_found_and_repaired(store: SampleStore) -> None:
    a, b, *_ = fill(store)
    merge(store, 1, result(a, answer(1, "bright")), result(b, answer(1, "dark")))
    with store.write() as cursor:
        assert check_store(cursor, datasets=[1]).is_sound
        cursor.execute("update samples set tags = ['night'] where id = ?", [b]).fetchall()
        cursor.execute("insert into annotations values (9, 9, 'cat', 0, 0, 1, 1)").fetchall()
    with store.read() as cursor:
        report = check_store(cursor, datasets=[1])
    assert (report.differing, report.examples, report.orphans) == (1, [b], {"annotations": 1})
    with store.write() as cursor:
        check_store(cursor, datasets=[1], repair=True)
        assert check_store(cursor, datasets=[1]).is_sound
    assert read(store, b) == ["dark"]


class TagMachine(RuleBasedStateMachine):
    """Random edits and runs against a plain Python model that says what the list must be, order included."""

    store: SampleStore

    @initialize()
    def start(self) -> None:
        with self.store.write() as cursor:
            ingest.dataset_delete(cursor, dataset_id=1)
        self.ids = fill(self.store, 3)
        self.users: dict[int, dict[str, str | None]] = {i: {} for i in self.ids}
        self.rejected: dict[int, set[str]] = {i: set() for i in self.ids}
        self.runs: dict[int, dict[int, dict[str, str]]] = {}
        self.next_run = 1

    def expected(self, sample_id: int) -> list[str]:
        mine = self.users[sample_id]
        newest: dict[str, tuple[int, int, str]] = {}
        for run, samples in sorted(self.runs.items()):
            for dimension, word in samples.get(sample_id, {}).items():
                newest[dimension] = (run, list(WORDS).index(dimension), word)
        said = [
            word
            for dimension, (_, _, word) in sorted(newest.items(), key=lambda item: item[1])
            if word not in self.rejected[sample_id] and word not in mine and dimension not in mine.values()
        ]
        return [*mine, *said]

    samples = st.integers(0, 2)
    words = st.sampled_from(["dark", "bright", "indoor", "outdoor", "my tag", "other"])

    @rule(
        data=st.lists(
            st.tuples(samples, st.sampled_from(["dark", "bright"]), st.sampled_from(["", "indoor", "outdoor"]))
        )
    )
    def run(self, data: list[tuple[int, str, str]]) -> None:
        run, self.next_run = self.next_run, self.next_run + 1
        kept: dict[int, dict[str, str]] = {}
        results = []
        for place, light, where_ in data:
            sample_id = self.ids[place]
            answers = [answer(run, light)] + ([answer(run, where_)] if where_ else [])
            results.append(result(sample_id, *answers))
            kept[sample_id] = {a.dimension: a.word for a in answers}
        merge(self.store, run, *results)
        merge(self.store, run, *results)
        self.runs[run] = kept

    @rule(place=st.integers(0, 9))
    def revert(self, place: int) -> None:
        if self.runs:
            run = sorted(self.runs)[place % len(self.runs)]
            revert(self.store, run)
            del self.runs[run]

    @rule(place=samples, word=words)
    def add(self, place: int, word: str) -> None:
        sample_id = self.ids[place]
        dimension = next((name for name, of in WORDS.items() if word in of), None)
        add(self.store, sample_id, word, dimension)
        mine = self.users[sample_id]
        if word not in mine:  # a new word of a dimension takes the place of the old one
            for old in [other for other, of in mine.items() if dimension is not None and of == dimension]:
                del mine[old]
            mine[word] = dimension
        self.rejected[sample_id].discard(word)

    @rule(place=samples, word=words)
    def remove(self, place: int, word: str) -> None:
        sample_id = self.ids[place]
        had = word in self.expected(sample_id)
        assert remove(self.store, sample_id, word) == had
        if had:
            self.users[sample_id].pop(word, None)
            self.rejected[sample_id].add(word)

    @invariant()
    def lists_are_as_expected(self) -> None:
        if hasattr(self, "ids"):
            with self.store.read() as cursor:
                for sample_id in self.ids:
                    assert tags(cursor, sample_id) == self.expected(sample_id)

    def teardown(self) -> None:
        with self.store.read() as cursor:
            assert check_store(cursor, datasets=[1]).is_sound


@pytest.fixture
def machine(store: SampleStore) -> type[TagMachine]:
    TagMachine.store = store
    return TagMachine


def test_any_order_of_edits_runs_and_reverts(machine: type[TagMachine]) -> None:
    case = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=examples(6),
        stateful_step_count=14,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    case("runTest").runTest()
