"""Counts that are kept are those that counting gives, whatever was done, undone, imported or reverted."""

import duckdb
import pytest

from tests.effort import examples
from vlm.samples import SampleFilter, SampleStore
from vlm.samples.checking import check_store
from vlm.samples.counting import facets
from vlm.samples.cursor import Cursor
from vlm.samples.heads import heads_keep
from vlm.samples.ingest import dataset_delete
from vlm.samples.reading import dataset_stats, tag_suggestions
from vlm.samples.records import Head
from vlm.samples.rewording import tag_counts
from vlm.samples.schema import MIGRATIONS, build, migrate
from vlm.samples.tallying import tallies, wrong_tallies

from .conftest import WORDS, fill
from .worlds import world

ALL = SampleFilter(none_of=("no tag of this name",))  # takes every sample, and is counted


def same(cursor: Cursor, dataset_id: int) -> None:
    """Look whether what is kept is what counting gives."""
    counted = facets(cursor, dataset_id, ALL, WORDS)
    assert facets(cursor, dataset_id, SampleFilter(), WORDS) == counted
    tags = {tag.value: tag.count for tag in counted.user_tags}
    tags |= {word.value: word.count for facet in counted.dimensions for word in facet.words if word.count}
    assert tallies(cursor, dataset_id, "tag")["tag"] == tags
    assert tag_suggestions(cursor, dataset_id, "", 100) == sorted(tags, key=lambda tag: (-tags[tag], tag))
    stats = dataset_stats(cursor, [dataset_id])[dataset_id]
    rows = (
        "select count(*), count(*) filter (len(tags) > 0), count(*) filter (missing) from samples where dataset_id = ?"
    )
    assert cursor.execute(rows, [dataset_id]).fetchall() == [(stats.samples, stats.tagged, stats.missing)]


@pytest.mark.parametrize("seed", range(examples(2)))
def test_whatever_is_done_what_is_kept_is_what_is_there(store: SampleStore, seed: int) -> None:
    made = world(store, seed)
    done = set()
    for _ in range(12):
        done.add(made.change())
        with store.read() as cursor:
            for dataset_id in (1, 2, 3):
                same(cursor, dataset_id)
            assert wrong_tallies(cursor) == []
    assert len(done) > 4
    with store.write() as cursor:
        kept = [tallies(cursor, one, "tag")["tag"] for one in (1, 2)]
        assert tag_counts(cursor, ["dark", "mine", "nothing"]) == {
            tag: sum(tags.get(tag, 0) for tags in kept) for tag in ("dark", "mine") if any(tag in tags for tags in kept)
        }
        dataset_delete(cursor, dataset_id=1)
        same(cursor, 1)
        assert check_store(cursor, datasets=[2]).is_sound


def test_what_fails_in_between_changes_nothing(store: SampleStore) -> None:
    made = world(store, 9)
    heads = {one: Head((9, 9), None, "Another") for one in made.ids[1]}

    def fail() -> None:
        with store.write() as cursor:
            heads_keep(cursor, dataset_id=1, heads=heads)
            assert facets(cursor, 1, SampleFilter(), WORDS) != before
            cursor.execute("select error('the disk is full')").fetchall()

    with store.read() as cursor:
        before = facets(cursor, 1, SampleFilter(), WORDS)
    with pytest.raises(duckdb.Error):
        fail()
    with store.read() as cursor:
        assert facets(cursor, 1, SampleFilter(), WORDS) == before
        same(cursor, 1)


def test_heads_are_counted_as_they_are_read(store: SampleStore) -> None:
    ids = fill(store, 4)
    with store.write() as cursor:
        heads_keep(cursor, dataset_id=1, heads={ids[0]: Head((10, 10), None, ""), ids[1]: Head(None, None, "Camera")})
        heads_keep(cursor, dataset_id=1, heads={ids[1]: Head(None, None, "Other"), ids[2]: Head(None, None, "Other")})
        assert tallies(cursor, 1, "camera")["camera"] == {"Other": 2}
        same(cursor, 1)


def test_what_is_wrong_is_found_and_mended(store: SampleStore) -> None:
    world(store, 3)
    for wrong in (
        "update tallies set number = number + 1 where dataset_id = 1 and facet = 'all'",
        "delete from tallies where dataset_id = 2 and facet = 'state'",
        "insert into tallies values (1, 'tag', 'nobody has it', 3)",
    ):
        with store.write() as cursor:
            cursor.execute(wrong).fetchall()
            report = check_store(cursor, datasets=[1, 2])
            assert (report.is_sound, len(report.tallies)) == (False, 1)
            check_store(cursor, datasets=[1, 2], repair=True)
            assert check_store(cursor, datasets=[1, 2]).is_sound
            same(cursor, report.tallies[0])


def test_a_store_of_the_version_before_is_counted_as_it_is_opened(store: SampleStore) -> None:
    path = store.path.with_name("before.duckdb")
    with duckdb.connect(str(path)) as connection:
        cursor = Cursor(connection)
        build(cursor, 10)
        cursor.execute(
            "insert into samples (id, dataset_id, path, file_name, split, content_key, external_id, categories, missing, tags, "
            "user_count, discarded, failed) select range, 1 + range % 2, 'a', 'a', 'train', '1-1', '', ['car'], false, "
            "['dark'], 1, 0, false from range(10)"
        )
        migrate(cursor, path)
        assert len(MIGRATIONS) > 10
        assert wrong_tallies(cursor) == []
        assert tallies(cursor, 2, "all", "tag") == {"all": {"": 5}, "tag": {"dark": 5}}
