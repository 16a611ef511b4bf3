"""What runs found out: their answers, and the tags that these make, come into the store, are decided anew, and go.

All inside ``SampleStore.write()``; every function derives exactly the samples that it touched (see ``deriving``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from .asking import questions_keep
from .cursor import Cursor
from .database import column, number
from .deriving import IN_TOUCH, changed, derive, touch, touched_span
from .errors import StoreClaimLost
from .heads import heads_keep
from .outcomes import Merged, Reapplied, WordReapplied
from .records import Answer, Question, Result
from .schema import RUN_TABLES
from .sharing import taken_over
from .values import measures_keep

BELOW_THRESHOLD = "below threshold"
OFF_THE_LIST = "off the list"

# Kind of the marks of samples about which a question's wordings disagree; their word is the dimension.
WORDINGS = "wordings"

NO_WORDS: Mapping[str, float] = MappingProxyType({})

# Answers that were refused because of a user (as version 1 wrote them down) are decided like all others: that the user took
# the word away is said by the rejection, and holds as long as that does.
DECIDE = f"""
select sample_id, dimension, word, accepted, probability >= least and mass >= $mass as now_accepted,
    case when mass < $mass then '{OFF_THE_LIST}' when probability < least then '{BELOW_THRESHOLD}' else '' end as now_reason
from (
    select a.*, coalesce(w.least, $probability) as least
    from answers a left join (select unnest($words::varchar[]) as word, unnest($leasts::double[]) as least) w on w.word = a.word
    where a.run_id = $run and a.mass is not null and ($dimension = '' or a.dimension = $dimension)
      and (len($words::varchar[]) = 0 or w.word is not null)
)
"""

# A word that was taken out of the vocabulary does not come back with an answer to a question that was asked before.
WORD_IS_THERE = """not exists (select 1 from edits e where e.action = 'remove word' and e.undone_by is null
    and e.dataset_id = answers.dataset_id and e.tag = answers.word and coalesce(answers.question_id, 0) <= e.questions)"""


def run_begin(
    cursor: Cursor,
    *,
    dataset_id: int,
    run_id: int,
    worker: str,
    questions: Iterable[Question],
    detail: str = "",
    dtype: str = "",
) -> dict[str, int]:
    """Let ``worker`` alone commit for a run from now on, and return dimension → id of its question."""
    cursor.execute(
        "insert into run_claims values (?, ?, ?) on conflict do update set worker = excluded.worker",
        [run_id, dataset_id, worker],
    ).fetchall()
    cursor.execute(
        "insert into run_totals values (?, ?, ?, ?, 0, 0, 0, 0, 0) "
        "on conflict do update set detail = excluded.detail, dtype = excluded.dtype",
        [run_id, dataset_id, detail, dtype],
    ).fetchall()
    return questions_keep(cursor, questions)


def run_adopt(cursor: Cursor, *, run_id: int, questions: Iterable[Question]) -> int:
    """Say what was asked in a run of a version 1 store, which did not write it down. Returns how many answers it has."""
    ids = questions_keep(cursor, questions)
    count = 0
    for dimension, question_id in ids.items():
        count += number(
            cursor,
            "update answers set question_id = ? where run_id = ? and dimension = ? and question_id is null",
            [question_id, run_id, dimension],
        )
    touch(cursor, ("s.id in (select sample_id from answers where run_id = ?)", [run_id]))
    derive(cursor)
    cursor.execute("delete from runs_to_adopt where run_id = ?", [run_id]).fetchall()
    return count


def merge_batch(
    cursor: Cursor,
    *,
    dataset_id: int,
    run_id: int,
    results: Sequence[Result],
    questions: Mapping[str, int] | None = None,
    worker: str = "",
) -> Merged:
    """Keep what a run found out about some samples, and give it to those that take it over (see ``sharing``).

    Samples that the run has finished already are left alone.

    Args:
        questions: dimension → id, as :func:`run_begin` returned it; without, the answers count for no scope ``missing``.
        worker: who began the run; empty for nobody in particular.

    Raises:
        StoreClaimLost: the run was reverted, or another worker goes on with it.
    """
    check_claim(cursor, run_id, worker)
    if not results:
        return Merged()
    takers = taken_over(cursor, run_id=run_id, results=results)
    results = [*results, *takers]
    ids = [result.sample_id for result in results]
    known = column(
        cursor,
        "select s.id from samples s where s.dataset_id = ? and s.id between ? and ? and s.id in (select unnest(?)) "
        "and s.id not in (select sample_id from run_samples where run_id = ? and sample_id between ? and ?)",
        [dataset_id, min(ids), max(ids), ids, run_id, min(ids), max(ids)],
    )
    fresh = [
        result for result in {result.sample_id: result for result in results}.values() if result.sample_id in known
    ]
    if not fresh:
        return Merged()
    sharing = {result.sample_id for result in takers}
    answers = [(result.sample_id, answer) for result in fresh for answer in result.answers]
    accepted = [(sample_id, answer) for sample_id, answer in answers if answer.accepted]
    merged = Merged(
        processed=len(fresh),
        tagged=len({sample_id for sample_id, _ in accepted}),
        discarded=len(answers) - len(accepted),
        failed=sum(bool(result.error) for result in fresh),
        shared=sum(result.sample_id in sharing for result in fresh),
    )
    answers_keep(cursor, dataset_id, run_id, answers, questions or {})
    cursor.execute(
        "insert into run_samples (run_id, sample_id, dataset_id, status, error, change) "
        "select ?, sample_id, ?, status, error, nextval('changes') from (select "
        "unnest(?::bigint[]) sample_id, unnest(?::varchar[]) status, unnest(?::varchar[]) error)",
        [
            run_id,
            dataset_id,
            [result.sample_id for result in fresh],
            ["failed" if result.error else "done" for result in fresh],
            [result.error for result in fresh],
        ],
    ).fetchall()
    cursor.execute(
        "insert into run_totals values (?, ?, '', '', ?, ?, ?, ?, ?) on conflict do update set "
        "processed = processed + excluded.processed, tagged = tagged + excluded.tagged, discarded = discarded + "
        "excluded.discarded, failed = failed + excluded.failed, shared = shared + excluded.shared",
        [run_id, dataset_id, merged.processed, merged.tagged, merged.discarded, merged.failed, merged.shared],
    ).fetchall()
    touch(cursor, ("s.id in (select unnest(?::bigint[]))", [[result.sample_id for result in fresh]]))
    accepted_keep(cursor, run_id)
    derive(cursor, check_current=True)
    digests_keep(cursor, {result.sample_id: result.digest for result in fresh if result.digest})
    measures_keep(
        cursor,
        dataset_id=dataset_id,
        measures={result.sample_id: result.measures for result in fresh if result.measures is not None},
    )
    heads_keep(
        cursor,
        dataset_id=dataset_id,
        heads={result.sample_id: result.head for result in fresh if result.head is not None},
    )
    changed(cursor, dataset_id)
    return merged


def check_claim(cursor: Cursor, run_id: int, worker: str) -> None:
    """Raise ``StoreClaimLost`` unless ``worker`` is the one that may commit for a run; empty for nobody in particular."""
    if worker and column(cursor, "select worker from run_claims where run_id = ?", [run_id]) != {worker}:
        raise StoreClaimLost(
            f"Run {run_id} is no longer this worker's: it was reverted, or another one goes on with it."
        )


def revert_run(cursor: Cursor, *, run_id: int) -> int:
    """Take back what a run added, and show again what it had replaced. Returns how many samples it had finished.

    Whoever still works on it can commit nothing more.
    """
    datasets = column(cursor, "select dataset_id from run_totals where run_id = ?", [run_id])
    count = touch(cursor, ("s.id in (select sample_id from run_samples where run_id = ?)", [run_id]))
    for table in RUN_TABLES:
        cursor.execute(f"delete from {table} where run_id = ?", [run_id]).fetchall()
    derive(cursor, check_current=True)
    for dataset_id in datasets:
        changed(cursor, dataset_id)
    return count


def apply_thresholds(
    cursor: Cursor,
    *,
    run_id: int,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Decide a run's answers anew. Generated answers have no probabilities and stay.

    Args:
        dimension: of this one alone; empty for all.
        words: of these words of ``dimension`` alone, each from its own least probability on.
    """
    _decide(cursor, run_id, min_probability, min_mass, dimension, words)
    touched = touch(cursor, ("s.id in (select sample_id from decided where accepted <> now_accepted)", []))
    cursor.execute(
        "update answers a set accepted = d.now_accepted, reason = d.now_reason from decided d where a.run_id = ? "
        "and a.sample_id = d.sample_id and a.dimension = d.dimension "
        "and (a.accepted <> d.now_accepted or a.reason <> d.now_reason)",
        [run_id],
    ).fetchall()
    cursor.execute(
        "delete from sample_tags where run_id = ? and sample_id in (select id from touched)", [run_id]
    ).fetchall()
    accepted_keep(cursor, run_id)
    derive(cursor)
    totals_keep(cursor, run_id)
    for dataset_id in column(cursor, "select dataset_id from run_totals where run_id = ?", [run_id]):
        changed(cursor, dataset_id)
    return _reapplied(cursor, touched)


def preview_thresholds(
    cursor: Cursor,
    *,
    run_id: int,
    min_probability: float,
    min_mass: float,
    dimension: str = "",
    words: Mapping[str, float] = NO_WORDS,
) -> Reapplied:
    """Tell what :func:`apply_thresholds` would do, without doing it."""
    _decide(cursor, run_id, min_probability, min_mass, dimension, words)
    touched = cursor.execute("select count(distinct sample_id) from decided where accepted <> now_accepted").fetchall()
    return _reapplied(cursor, touched[0][0])


def answers_keep(
    cursor: Cursor,
    dataset_id: int,
    run_id: int,
    answers: Sequence[tuple[int, Answer]],
    questions: Mapping[str, int],
) -> None:
    """Append the answers; an appender takes nested lists twice as fast as parameters do. Columns as in the schema."""
    appender = cursor.appender("answers")
    appender.append_rows(
        (
            dataset_id,
            run_id,
            sample_id,
            answer.dimension,
            answer.place,
            answer.words,
            answer.probabilities,
            answer.mass,
            answer.word,
            answer.probability,
            answer.accepted,
            answer.reason,
            answer.text,
            True,
            questions.get(answer.dimension),
            False,
            None if answer.raw is None else asdict(answer.raw),
        )
        for sample_id, answer in answers
    )
    appender.flush()
    _wordings_keep(cursor, dataset_id, answers)


def totals_keep(cursor: Cursor, run_id: int) -> None:
    """Count a run's tagged samples and discarded answers anew."""
    cursor.execute(
        "update run_totals set tagged = a.tagged, discarded = a.discarded from (select "
        "count(distinct sample_id) filter (accepted) as tagged, count(*) filter (not accepted) as discarded "
        "from answers where run_id = $run) a where run_id = $run",
        {"run": run_id},
    ).fetchall()


def accepted_keep(cursor: Cursor, run_id: int, dimension: str = "") -> None:
    """Write the accepted answers that a run gave about the touched samples into the ledger, of one ``dimension`` or of all."""
    if (span := touched_span(cursor)) is not None:
        cursor.execute(
            "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, probability, run_id, place) "
            "select dataset_id, sample_id, word, dimension, 'model', probability, run_id, place from answers "
            f"where run_id = $run and accepted and word <> '' and not stale and {IN_TOUCH} and {WORD_IS_THERE} "
            "and ($dimension = '' or dimension = $dimension)",
            {"run": run_id, "dimension": dimension, **span},
        ).fetchall()


def digests_keep(cursor: Cursor, digests: Mapping[int, str]) -> None:
    """Remember what the files' contents are: sample id → SHA-256."""
    if digests:
        cursor.execute(
            "update samples s set digest = d.digest from (select unnest(?::bigint[]) as id, unnest(?::varchar[]) as digest) d "
            "where s.id = d.id and s.id between ? and ? and s.digest is distinct from d.digest",
            [list(digests), list(digests.values()), min(digests), max(digests)],
        ).fetchall()


def _wordings_keep(cursor: Cursor, dataset_id: int, answers: Sequence[tuple[int, Answer]]) -> None:
    """Mark the samples about which the wordings of a question disagree, in place of what was marked before."""
    worded = [(sample_id, answer) for sample_id, answer in answers if answer.disagreement is not None]
    if not worded:
        return
    ids = [sample_id for sample_id, _ in worded]
    cursor.execute(
        "delete from marks where dataset_id = ? and kind = ? and sample_id in (select unnest(?::bigint[])) "
        "and word in (select unnest(?::varchar[]))",
        [dataset_id, WORDINGS, ids, list({answer.dimension for _, answer in worded})],
    ).fetchall()
    split = [(sample_id, answer.disagreement, answer.dimension) for sample_id, answer in worded if answer.disagreement]
    cursor.execute(
        "insert into marks (dataset_id, kind, sample_id, value, word) select ?, ?, unnest(?::bigint[]), "
        "unnest(?::double[]), unnest(?::varchar[])",
        [dataset_id, WORDINGS, *([row[place] for row in split] for place in range(3))],
    ).fetchall()


def _decide(
    cursor: Cursor,
    run_id: int,
    min_probability: float,
    min_mass: float,
    dimension: str,
    words: Mapping[str, float],
) -> None:
    """Decide a run's answers by thresholds into the table ``decided``, beside how they were decided before."""
    cursor.execute(
        f"create or replace temp table decided as {DECIDE}",
        {
            "run": run_id,
            "probability": min_probability,
            "mass": min_mass,
            "dimension": dimension,
            "words": list(words),
            "leasts": list(words.values()),
        },
    ).fetchall()


def _reapplied(cursor: Cursor, changed: int) -> Reapplied:
    rows = cursor.execute(
        "select dimension, word, count(*) filter (accepted), count(*) filter (now_accepted), count(*) from decided "
        "group by 1, 2 order by 1, 5 desc, 2"
    ).fetchall()
    accepted, total = (sum(row[place] for row in rows) for place in (3, 4))
    words = tuple(WordReapplied(*row[:4]) for row in rows)
    return Reapplied(accepted=accepted, discarded=total - accepted, changed=changed, words=words)
