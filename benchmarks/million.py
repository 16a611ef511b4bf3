"""Fills a store with a data set that a run has answered, in SQL: a million samples in a minute."""

from vlm.samples import Question, SampleStore
from vlm.samples.checking import wrong_totals
from vlm.samples.deriving import derive, touch
from vlm.samples.merging import run_begin
from vlm.samples.tallying import tally
from vlm.vocabulary import DEFAULT_VOCABULARY

WORDS = {dimension.name: dimension.words for dimension in DEFAULT_VOCABULARY}
STEP = 100_000


def add_samples(store: SampleStore, dataset_id: int, count: int) -> None:
    """Add ``count`` samples named like a camera's, in three splits, taken by twenty cameras, one a minute."""
    with store.write() as cursor:
        cursor.execute(
            """
            insert into samples (id, dataset_id, path, file_name, split, width, height, content_key, external_id, categories,
                missing, tags, user_count, certainty, discarded, failed, search, sort, bytes, taken, camera)
            select nextval('sample_ids'), ?, name, name, ['train', 'val', 'test'][1 + i % 3], 640, 480, '1-' || i, '',
                [['car', 'person', 'dog'][1 + i % 3]], false, [], 0, null, 0, false, name,
                format('cam{}{}/7{:07d}.jpg', length(folder::varchar), folder, i),
                20000 + hash(i, 1) % 4000000, timestamp '2022-01-01' + to_minutes(i), 'Camera ' || folder
            from (select i, folder, format('cam{}/{:07d}.jpg', folder, i) as name
                  from (select i, hash(i) % 20 as folder from range(?) r(i)))
            """,
            [dataset_id, count],
        ).fetchall()
        tally(cursor, dataset_id)


def questions() -> list[Question]:
    """Return what the pretended runs asked."""
    return [
        Question.of(model="pretended", revision="1", mode="score", dimension=d.name, asked={"question": d.question})
        for d in DEFAULT_VOCABULARY
    ]


def answer_samples(store: SampleStore, dataset_id: int, run_id: int, share: float) -> int:
    """Write what a run would have said about the first ``share`` of a data set's samples; returns how many."""
    with store.read() as cursor:
        ids = [
            row[0]
            for row in cursor.execute(
                "select id from samples where dataset_id = ? order by id", [dataset_id]
            ).fetchall()
        ]
    ids = ids[: round(len(ids) * share)]
    with store.write() as cursor:
        question_ids = run_begin(cursor, dataset_id=dataset_id, run_id=run_id, worker="", questions=questions())
    for start in range(0, len(ids), STEP):
        low, high = ids[start], ids[min(start + STEP, len(ids)) - 1]
        span = {"dataset": dataset_id, "run": run_id, "low": low, "high": high}
        with store.write() as cursor:
            for place, (name, words) in enumerate(WORDS.items()):
                listed = ", ".join(f"'{word}'" for word in words)
                cursor.execute(
                    f"""
                    insert into answers (dataset_id, run_id, sample_id, dimension, place, words, probabilities, mass, word,
                        probability, accepted, reason, text, current, question_id, stale)
                    select dataset_id, $run, id, '{name}', {place}, [{listed}],
                        list_transform([{listed}], lambda w: case when w = word then p else (1 - p) / {len(words) - 1} end)::float[],
                        0.99, word, p, p >= 0.5, case when p >= 0.5 then '' else 'below threshold' end, '', true,
                        {question_ids[name]}, false
                    from (select dataset_id, id, [{listed}][1 + (hash(id, {place}) % {len(words)})::int] as word,
                                 0.4 + 0.6 * (hash(id, {place + 10}) % 1000) / 1000 as p
                          from samples where dataset_id = $dataset and id between $low and $high)
                    """,
                    span,
                ).fetchall()
            cursor.execute(
                "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, probability, run_id, place) "
                "select dataset_id, sample_id, word, dimension, 'model', probability, run_id, place from answers "
                "where run_id = $run and dataset_id = $dataset and sample_id between $low and $high and accepted",
                span,
            ).fetchall()
            cursor.execute(
                "insert into run_samples (run_id, sample_id, dataset_id, status, error, change) "
                "select $run, id, dataset_id, 'done', '', nextval('changes') from samples "
                "where dataset_id = $dataset and id between $low and $high",
                span,
            ).fetchall()
            touch(cursor, ("s.dataset_id = ? and s.id between ? and ?", [dataset_id, low, high]))
            derive(cursor)
    with store.write() as cursor:
        wrong_totals(cursor, repair=True)
    return len(ids)
