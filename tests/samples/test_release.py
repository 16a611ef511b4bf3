"""A store and a database of the first release open with everything in them."""

import gzip
from pathlib import Path

import duckdb
import pytest

from vlm.samples import Question, SampleFilter, SampleStore, editing, merging, where
from vlm.samples.asking import question_ids, runs_to_adopt
from vlm.samples.checking import check_store
from vlm.samples.progress import Wanted, pending, pending_count, run_counts
from vlm.samples.reading import answers_of, export_page, samples_page, store_id

RELEASE = Path(__file__).parent.parent / "data" / "release-1"
WORDS = {"lighting": ("dark", "dim", "bright", "normal"), "weather": ("sunny", "rainy")}
PHOTOS, CARS = 1, 2


@pytest.fixture
def released(tmp_path: Path) -> SampleStore:
    """The store of the first release, with two data sets, five runs (one of them reverted) and users' edits."""
    path = tmp_path / "samples.duckdb"
    path.write_bytes(gzip.decompress((RELEASE / "samples.duckdb.gz").read_bytes()))
    return SampleStore(path, memory_limit="256MB", threads=1, wait=5)


def test_tags_answers_and_counts_are_what_they_were(released: SampleStore) -> None:
    path = released.path
    columns = "id, path, tags, user_count, certainty, discarded, failed, missing"
    with duckdb.connect(str(path), read_only=True) as connection:
        before = connection.execute(f"select {columns} from samples order by id").fetchall()
        ledger = connection.execute("select * from sample_tags order by all").fetchall()
        answers = connection.execute("select * from answers order by all").fetchall()
    with released.read() as cursor:
        assert cursor.execute(f"select {columns} from samples order by id").fetchall() == before
        assert (
            cursor.execute("select columns(* exclude (edit_id, ended_by)) from sample_tags order by all").fetchall()
            == ledger
        )
        assert (
            cursor.execute("select columns(* exclude (question_id, stale, raw)) from answers order by all").fetchall()
            == answers
        )
        assert check_store(cursor, datasets=[PHOTOS, CARS]).is_sound
        assert [run_counts(cursor, run) for run in (1, 2, 3, 4, 5)] == [
            (0, 0, 0, 0),
            (4, 3, 4, 1),
            (3, 3, 1, 0),
            (9, 2, 6, 1),
            (3, 3, 0, 0),
        ]
        assert cursor.execute("select distinct shared from run_totals").fetchall() == [(0,)]
        assert cursor.execute("select count(*) from shares").fetchall() == [(0,)]
        assert len(store_id(cursor)) == 36
        found = samples_page(cursor, PHOTOS, SampleFilter(text="CAT-"), WORDS).samples
        assert [(sample.path, [tag.tag for tag in sample.tags]) for sample in found] == [("cat-face.jpg", ["pet"])]
        rows, _ = export_page(cursor, PHOTOS, SampleFilter(), WORDS, after="")
        assert "dune-grass.jpg" not in [row[0].path for row in rows]  # its file is gone
    released.close()
    assert path.with_name("samples.v1.duckdb").exists()


def test_what_its_runs_had_asked_is_found_again(released: SampleStore) -> None:
    """Their rows in Django's database know it; once the store was told, their answers count."""
    asked = [
        Question.of(model="m", revision="local", mode="score", dimension=name, asked={"words": words})
        for name, words in WORDS.items()
    ]
    scope = where(PHOTOS, SampleFilter(), WORDS)
    with released.write() as cursor:
        assert runs_to_adopt(cursor) == [2, 3, 4, 5]
        assert merging.run_adopt(cursor, run_id=2, questions=asked) == 6
        assert runs_to_adopt(cursor) == [3, 4, 5]
        wanted = Wanted(scope, question_ids(cursor, asked), only_missing=True)
        assert pending_count(cursor, wanted, run_id=0) == 4  # of nine: three answered, one unreadable, one gone
        assert merging.run_adopt(cursor, run_id=4, questions=asked[:1]) == 8
        left = pending(cursor, wanted, run_id=0, after=-1, limit=10)
        assert {sample.lacking for sample in left} == {("weather",)}
        assert len(left) == 4
        assert check_store(cursor, datasets=[PHOTOS, CARS]).is_sound


def test_its_edits_can_be_followed_by_new_ones(released: SampleStore) -> None:
    with released.write() as cursor:
        ((cat,),) = cursor.execute("select id from samples where path = 'cat-face.jpg'").fetchall()
        assert [(answer.word, answer.reason) for answer in answers_of(cursor, cat)] == [
            ("normal", "rejected by a user")
        ]
        target = where(PHOTOS, SampleFilter(ids=(cat,)), WORDS)
        gone = editing.tags_remove(cursor, dataset_id=PHOTOS, target=target, tag="pet")
        assert gone.id is not None
        assert cursor.execute("select tags from samples where id = ?", [cat]).fetchall() == [([],)]
        editing.undo(cursor, gone.id)
        assert cursor.execute("select tags from samples where id = ?", [cat]).fetchall() == [(["pet"],)]
        assert check_store(cursor, datasets=[PHOTOS, CARS]).is_sound
