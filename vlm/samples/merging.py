"""Writing tags. The ledger and the answers say what happened; ``derive`` makes ``samples`` say what follows from them.

What follows: users' tags in the order in which they were given, then per dimension the word of the newest run that has
one, unless a user took that word away or has a tag of that dimension. Nothing of a content that the file no longer has.

What users did is temporal: an edit adds rows that carry its id, and ends rows by writing its id into ``ended_by``.
Undoing it ends the rows that it added and puts those that it ended in force again, so that nothing needs to be remembered
of how things were. Everything here runs inside ``SampleStore.write()``, and every function derives exactly the samples
that it touched.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .database import Cursor
from .errors import EditError, StoreClaimLost, TagError
from .filters import Condition
from .records import Answer, Edit, Edited, Label, Measures, Merged, Question, Reapplied, Result

BELOW_THRESHOLD = "below threshold"
OFF_THE_LIST = "off the list"
REJECTED = "rejected by a user"

COMMAND = Edit()  # nobody who is known

# Tables that belong to a data set, and to its samples; of runs; and those whose rows edits begin and end.
SAMPLE_TABLES = (
    *("annotations", "sample_tags", "rejections", "answers", "run_samples"),
    *("labels", "draws", "column_values", "measures", "marks", "slice_samples", "answer_images"),
)
DATASET_TABLES = (
    *("samples", *SAMPLE_TABLES),
    *("edits", "run_totals", "run_claims", "runs_to_adopt", "columns", "dataset_revisions"),
)
RUN_TABLES = ("sample_tags", "answers", "run_samples", "run_totals", "run_claims", "runs_to_adopt")
EDITED_TABLES = ("sample_tags", "rejections", "labels")

VOCABULARY_ACTIONS = ("rename", "remove word")  # see ``rewording``

MAX_TAG = 200
STEP = 100_000  # samples that are derived together


def clean_tag(text: str) -> str:
    """Return ``text`` as tags are stored: NFC-normalised, trimmed.

    Raises:
        TagError: it is empty, too long, or has control characters.
    """
    tag = unicodedata.normalize("NFC", text).strip()
    if not tag:
        raise TagError("A tag needs at least one character.")
    if len(tag) > MAX_TAG:
        raise TagError(f"A tag has at most {MAX_TAG} characters.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in tag):
        raise TagError("A tag cannot hold line breaks or other control characters.")
    return tag


# -- runs ----------------------------------------------------------------------------------------------------------------
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
        "insert into run_totals values (?, ?, ?, ?, 0, 0, 0, 0) "
        "on conflict do update set detail = excluded.detail, dtype = excluded.dtype",
        [run_id, dataset_id, detail, dtype],
    ).fetchall()
    return questions_keep(cursor, questions)


def questions_keep(cursor: Cursor, questions: Iterable[Question]) -> dict[str, int]:
    """Write down the questions that the store does not know yet; returns dimension → id for all of them."""
    wanted = {question.key: question for question in questions}
    known = _questions_known(cursor, wanted)
    for key in wanted.keys() - known.keys():
        q = wanted[key]
        asked = json.dumps(q.asked, ensure_ascii=False, sort_keys=True)
        cursor.execute(
            "insert into questions values (nextval('question_ids'), ?, ?, ?, ?, ?, ?)",
            [q.key, q.model, q.revision, q.mode, q.dimension, asked],
        ).fetchall()
    known |= _questions_known(cursor, wanted.keys() - known.keys())
    return {question.dimension: known[key] for key, question in wanted.items()}


def run_adopt(cursor: Cursor, *, run_id: int, questions: Iterable[Question]) -> int:
    """Say what was asked in a run of a version 1 store, which did not write it down. Returns how many answers it has."""
    ids = questions_keep(cursor, questions)
    count = 0
    for dimension, question_id in ids.items():
        count += _number(
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
    """Keep what a run found out about some samples. Samples that the run has finished already are left alone.

    Args:
        questions: dimension → id, as :func:`run_begin` returned it; without, the answers count for no scope ``missing``.
        worker: who began the run; empty for nobody in particular.

    Raises:
        StoreClaimLost: the run was reverted, or another worker goes on with it.
    """
    check_claim(cursor, run_id, worker)
    if not results:
        return Merged()
    ids = [result.sample_id for result in results]
    known = _column(
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
    answers = [(result.sample_id, answer) for result in fresh for answer in result.answers]
    accepted = [(sample_id, answer) for sample_id, answer in answers if answer.accepted]
    merged = Merged(
        processed=len(fresh),
        tagged=len({sample_id for sample_id, _ in accepted}),
        discarded=len(answers) - len(accepted),
        failed=sum(bool(result.error) for result in fresh),
    )
    _insert_answers(cursor, dataset_id, run_id, answers, questions or {})
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
        "insert into run_totals values (?, ?, '', '', ?, ?, ?, ?) on conflict do update set "
        "processed = processed + excluded.processed, tagged = tagged + excluded.tagged, "
        "discarded = discarded + excluded.discarded, failed = failed + excluded.failed",
        [run_id, dataset_id, merged.processed, merged.tagged, merged.discarded, merged.failed],
    ).fetchall()
    touch(cursor, ("s.id in (select unnest(?::bigint[]))", [[result.sample_id for result in fresh]]))
    _note_accepted(cursor, run_id)
    derive(cursor, check_current=True)
    digests_keep(cursor, {result.sample_id: result.digest for result in fresh if result.digest})
    measures_keep(
        cursor,
        dataset_id=dataset_id,
        measures={result.sample_id: result.measures for result in fresh if result.measures is not None},
    )
    changed(cursor, dataset_id)
    return merged


def check_claim(cursor: Cursor, run_id: int, worker: str) -> None:
    """Raise ``StoreClaimLost`` unless ``worker`` is the one that may commit for a run; empty for nobody in particular."""
    if worker and _column(cursor, "select worker from run_claims where run_id = ?", [run_id]) != {worker}:
        raise StoreClaimLost(
            f"Run {run_id} is no longer this worker's: it was reverted, or another one goes on with it."
        )


def revert_run(cursor: Cursor, *, run_id: int) -> int:
    """Take back what a run added, and show again what it had replaced. Returns how many samples it had finished.

    Whoever still works on it can commit nothing more.
    """
    datasets = _column(cursor, "select dataset_id from run_totals where run_id = ?", [run_id])
    count = touch(cursor, ("s.id in (select sample_id from run_samples where run_id = ?)", [run_id]))
    for table in RUN_TABLES:
        cursor.execute(f"delete from {table} where run_id = ?", [run_id]).fetchall()
    derive(cursor, check_current=True)
    for dataset_id in datasets:
        changed(cursor, dataset_id)
    return count


def apply_thresholds(
    cursor: Cursor, *, run_id: int, min_probability: float, min_mass: float, dimension: str = ""
) -> Reapplied:
    """Decide a run's answers anew, of one ``dimension`` or of all. Generated answers have no probabilities and stay."""
    cursor.execute(
        f"create or replace temp table decided as {DECIDE}",
        {"run": run_id, "probability": min_probability, "mass": min_mass, "dimension": dimension},
    ).fetchall()
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
    _note_accepted(cursor, run_id)
    derive(cursor)
    cursor.execute(
        "update run_totals set tagged = a.tagged, discarded = a.discarded from (select "
        "count(distinct sample_id) filter (accepted) as tagged, count(*) filter (not accepted) as discarded "
        "from answers where run_id = $run) a where run_id = $run",
        {"run": run_id},
    ).fetchall()
    for dataset_id in _column(cursor, "select dataset_id from run_totals where run_id = ?", [run_id]):
        changed(cursor, dataset_id)
    return _reapplied(cursor, touched)


def preview_thresholds(
    cursor: Cursor, *, run_id: int, min_probability: float, min_mass: float, dimension: str = ""
) -> Reapplied:
    """Tell what :func:`apply_thresholds` would do, without doing it."""
    cursor.execute(
        f"create or replace temp table decided as {DECIDE}",
        {"run": run_id, "probability": min_probability, "mass": min_mass, "dimension": dimension},
    ).fetchall()
    touched = cursor.execute("select count(distinct sample_id) from decided where accepted <> now_accepted").fetchall()
    return _reapplied(cursor, touched[0][0])


# -- edits ---------------------------------------------------------------------------------------------------------------
def tags_add(
    cursor: Cursor, *, dataset_id: int, target: Condition, tag: str, dimension: str | None, by: Edit = COMMAND
) -> Edited:
    """Give a user's tag to all samples of ``target`` that a user has not given it yet; takes a removal back.

    Args:
        target: condition on ``samples s`` (see ``filters.where``).
        dimension: of which ``tag`` is a word, if it is one; the user's word then stands against the model's.
    """
    return _give(cursor, dataset_id, target, tag, dimension, by, "add")


def tags_confirm(
    cursor: Cursor, *, dataset_id: int, target: Condition, tag: str, dimension: str | None, by: Edit = COMMAND
) -> Edited:
    """Make a model's tag the user's own, wherever ``target`` has it."""
    condition, values = target
    having = (f"{condition} and list_contains(s.tags, ?)", [*values, tag])
    return _give(cursor, dataset_id, having, tag, dimension, by, "confirm")


def tags_remove(cursor: Cursor, *, dataset_id: int, target: Condition, tag: str, by: Edit = COMMAND) -> Edited:
    """Take a tag away from all samples of ``target`` that have it, and keep models from giving it again."""
    condition, values = target
    count = touch(cursor, (f"{condition} and list_contains(s.tags, ?)", [*values, tag]))
    if not count:
        return Edited(None, 0)
    edit_id = edit_keep(cursor, dataset_id=dataset_id, by=by, action="remove", tag=tag, samples=count)
    span = _span(cursor) or {}
    cursor.execute(
        f"update sample_tags set ended_by = $edit where ended_by is null and source = 'user' and tag = $tag and {IN_TOUCH}",
        {"edit": edit_id, "tag": tag, **span},
    ).fetchall()
    cursor.execute(
        "insert into rejections (dataset_id, sample_id, tag, edit_id) select ?, id, ?, ? from touched",
        [dataset_id, tag, edit_id],
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count)


def labels_add(
    cursor: Cursor, *, dataset_id: int, labels: Sequence[Label], by: Edit = COMMAND, give_tags: bool = False
) -> Edited:
    """Keep what somebody decided about dimensions of samples, one decision in force for each; unknown samples are left out.

    A new decision about a sample that was drawn by chance keeps the chance, stratum and design of the draw.

    Args:
        give_tags: make the word the user's tag, too, in place of another word that a user gave in that dimension.
    """
    given = {(label.sample_id, label.dimension): label for label in labels}.values()
    cursor.execute(
        "create or replace temp table deciding as select * from (select unnest(?::bigint[]) as sample_id, "
        "unnest(?::varchar[]) as dimension, unnest(?::varchar[]) as word, unnest(?::double[]) as probability, "
        "unnest(?::varchar[]) as stratum, unnest(?::varchar[]) as design) "
        "where sample_id in (select id from samples where dataset_id = ?)",
        [[getattr(label, name) for label in given] for name in Label.__slots__] + [dataset_id],
    ).fetchall()
    count = touch(cursor, ("s.id in (select sample_id from deciding)", []))
    if (span := _span(cursor)) is None:
        return Edited(None, 0)
    words = _column(cursor, "select word from deciding", [])
    dimensions = _column(cursor, "select dimension from deciding", [])
    edit_id = edit_keep(
        cursor,
        dataset_id=dataset_id,
        by=by,
        action="label",
        tag=words.pop() if len(words) == 1 else "",
        dimension=dimensions.pop() if len(dimensions) == 1 else None,
        samples=count,
    )
    span = {"edit": edit_id, **span}
    cursor.execute(
        "update deciding d set probability = l.probability, stratum = l.stratum, design = l.design from labels l "
        f"where l.ended_by is null and {_in_touch('l')} and l.sample_id = d.sample_id and l.dimension = d.dimension "
        "and d.probability is null and l.probability is not null",
        {name: span[name] for name in ("low", "high")},
    ).fetchall()
    cursor.execute(
        f"update labels l set ended_by = $edit from deciding d where l.ended_by is null and {_in_touch('l')} "
        "and l.sample_id = d.sample_id and l.dimension = d.dimension",
        span,
    ).fetchall()
    cursor.execute(
        "insert into labels (id, dataset_id, sample_id, dimension, word, probability, stratum, design, user_id, user_name, "
        "way, edit_id) select nextval('label_ids'), ?, sample_id, dimension, word, probability, stratum, design, ?, ?, ?, ? "
        "from (select * from deciding order by sample_id)",
        [dataset_id, by.user_id, by.user_name, by.way, edit_id],
    ).fetchall()
    cursor.execute(
        "update draws w set done = true from deciding d where w.dataset_id = ? and w.sample_id = d.sample_id "
        "and w.dimension = d.dimension",
        [dataset_id],
    ).fetchall()
    if give_tags:
        cursor.execute(
            f"update sample_tags t set ended_by = $edit from deciding d where t.ended_by is null and t.source = 'user' "
            f"and {_in_touch('t')} and t.sample_id = d.sample_id and d.word <> '' and (t.dimension = d.dimension or t.tag = d.word)",
            span,
        ).fetchall()
        cursor.execute(
            f"update rejections t set ended_by = $edit from deciding d where t.ended_by is null and {_in_touch('t')} "
            "and t.sample_id = d.sample_id and t.tag = d.word",
            span,
        ).fetchall()
        cursor.execute(
            "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place, edit_id) "
            "select ?, sample_id, word, dimension, 'user', nextval('edits'), ? "
            "from (select * from deciding where word <> '' order by sample_id)",
            [dataset_id, edit_id],
        ).fetchall()
        derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count)


def undo(cursor: Cursor, edit_id: int, by: Edit = COMMAND, *, vocabulary: bool = False) -> Edited:
    """Take an edit back, exactly: what it added is no longer in force, and what it ended is again.

    Whatever came after it stays; undoing edits from the last one backwards leads through the very states before them.

    Raises:
        EditError: there is no such edit, it cannot be taken back, or was already.
    """
    rows = cursor.execute(
        "select dataset_id, action, tag, value, dimension, undone_by from edits where id = ?", [edit_id]
    ).fetchall()
    if not rows:
        raise EditError(f"There is no edit {edit_id}.")
    dataset_id, action, tag, value, dimension, undone_by = rows[0]
    if undone_by is not None:
        raise EditError("This edit was taken back already.")
    if action in VOCABULARY_ACTIONS and not vocabulary:
        raise EditError("This came of an edit of the vocabulary: take that back on the vocabulary's page.")
    if action in ("undo", "content"):
        raise EditError(
            "Only edits of tags and labels can be taken back: "
            + ("repeat the edit instead." if action == "undo" else "the file has another content now.")
        )
    parts = [
        f"select sample_id from {table} where dataset_id = $dataset and (edit_id = $edit or ended_by = $edit)"
        for table in EDITED_TABLES
    ]
    cursor.execute(
        f"create or replace temp table touched as select distinct sample_id as id from ({' union all '.join(parts)})",
        {"dataset": dataset_id, "edit": edit_id},
    ).fetchall()
    count = _number(cursor, "select count(*) from touched", [])
    undoing = edit_keep(
        cursor,
        dataset_id=dataset_id,
        by=Edit(by.user_id, by.user_name, "undo"),
        action="undo",
        tag=tag,
        value=value,
        dimension=dimension,
        samples=count,
    )
    cursor.execute("update edits set undone_by = ? where id = ?", [undoing, edit_id]).fetchall()
    both = {"dataset": dataset_id, "edit": edit_id, "undoing": undoing}
    one = {"dataset": dataset_id, "edit": edit_id}
    for table in EDITED_TABLES:
        cursor.execute(
            f"update {table} set ended_by = $undoing where dataset_id = $dataset and edit_id = $edit and ended_by is null",
            both,
        ).fetchall()
        # What it ended is in force again, unless the edit that had added it was taken back meanwhile.
        cursor.execute(
            f"update {table} t set ended_by = e.undone_by from edits e where t.dataset_id = $dataset "
            "and t.ended_by = $edit and e.id = t.edit_id and e.undone_by is not null",
            one,
        ).fetchall()
        cursor.execute(
            f"update {table} set ended_by = null where dataset_id = $dataset and ended_by = $edit", one
        ).fetchall()
    cursor.execute(
        "update draws d set done = exists (select 1 from labels l where l.dataset_id = d.dataset_id and l.ended_by is null "
        "and l.sample_id = d.sample_id and l.dimension = d.dimension) "
        "where d.dataset_id = ? and d.sample_id in (select id from touched)",
        [dataset_id],
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(undoing, count)


def edit_keep(
    cursor: Cursor,
    *,
    dataset_id: int,
    by: Edit,
    action: str,
    tag: str = "",
    value: str = "",
    dimension: str | None = None,
    samples: int,
) -> int:
    """Write down who does what by which way, and return the edit's id."""
    edit_id = _number(cursor, "select nextval('edit_ids')", [])
    cursor.execute(
        "insert into edits (id, dataset_id, user_id, user_name, way, action, tag, value, dimension, samples, questions) "
        "select ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(id), 0) from questions",
        [edit_id, dataset_id, by.user_id, by.user_name, by.way, action, tag, value, dimension, samples],
    ).fetchall()
    return edit_id


def set_aside(cursor: Cursor, *, dataset_id: int, by: Edit = COMMAND) -> None:
    """Let what runs said about the touched samples count no more: their files have another content."""
    if (span := _span(cursor)) is None:
        return
    for table in ("answers", "run_samples"):
        cursor.execute(f"update {table} set stale = true where not stale and {IN_TOUCH}", span).fetchall()
    edit_id = edit_keep(
        cursor,
        dataset_id=dataset_id,
        by=Edit(by.user_id, by.user_name, "import"),
        action="content",
        samples=_number(cursor, "select count(*) from touched", []),
    )
    cursor.execute(
        f"update sample_tags set ended_by = $edit where ended_by is null and source = 'model' and {IN_TOUCH}",
        {"edit": edit_id, **span},
    ).fetchall()
    cursor.execute(f"delete from measures where {IN_TOUCH}", span).fetchall()
    derive(cursor, check_current=True)
    changed(cursor, dataset_id)


# -- the rest ------------------------------------------------------------------------------------------------------------
def digests_keep(cursor: Cursor, digests: Mapping[int, str]) -> None:
    """Remember what the files' contents are: sample id → SHA-256."""
    if digests:
        cursor.execute(
            "update samples s set digest = d.digest from (select unnest(?::bigint[]) as id, unnest(?::varchar[]) as digest) d "
            "where s.id = d.id and s.id between ? and ? and s.digest is distinct from d.digest",
            [list(digests), list(digests.values()), min(digests), max(digests)],
        ).fetchall()


def measures_keep(cursor: Cursor, *, dataset_id: int, measures: Mapping[int, Measures]) -> None:
    """Write what was measured of images, sample id → measures, in place of what was measured before."""
    if not measures:
        return
    cursor.execute(
        "delete from measures where dataset_id = ? and sample_id between ? and ? and sample_id in (select unnest(?::bigint[]))",
        [dataset_id, min(measures), max(measures), list(measures)],
    ).fetchall()
    appender = cursor.appender("measures")
    appender.append_rows(
        (
            dataset_id,
            sample_id,
            m.luminance,
            m.p05,
            m.p95,
            m.contrast,
            m.sharpness,
            m.noise,
            m.colourfulness,
            m.aspect,
            m.phash,
        )
        for sample_id, m in measures.items()
    )
    appender.flush()


def dataset_delete(cursor: Cursor, *, dataset_id: int) -> None:
    """Forget a data set: its samples, annotations, tags, answers and finished work, and whatever else belongs to it."""
    for table in DATASET_TABLES:
        cursor.execute(f"delete from {table} where dataset_id = ?", [dataset_id]).fetchall()


def changed(cursor: Cursor, dataset_id: int) -> None:
    """Count one more change of a data set, so that whoever keeps figures of it knows that they are old."""
    cursor.execute(
        "insert into dataset_revisions values (?, 1) on conflict do update set number = number + 1", [dataset_id]
    ).fetchall()


def touch(cursor: Cursor, target: Condition) -> int:
    """Choose the samples that the next :func:`derive` is about; returns how many."""
    condition, values = target
    cursor.execute(
        f"create or replace temp table touched as select s.id from samples s where {condition}",
        values,
    ).fetchall()
    return int(cursor.execute("select count(*) from touched").fetchall()[0][0])


def derive(cursor: Cursor, *, check_current: bool = False) -> None:
    """Make the touched samples say what the ledger and the answers say, a bounded number at a time.

    The range of ids lets DuckDB skip whole blocks of the big tables.

    Args:
        check_current: whether answers came or went, so that older ones may have become stale or current.
    """
    if (span := _span(cursor)) is None:
        return
    cuts = cursor.execute(
        "select id from (select id, row_number() over (order by id) as place from touched) where place % ? = 0 order by id",
        [STEP],
    ).fetchall()
    low = span["low"]
    for high in [*(row[0] for row in cuts), span["high"]]:
        if low <= high:
            part = {"low": low, "high": high}
            if check_current:
                cursor.execute(CURRENT, part).fetchall()
            cursor.execute(DERIVE, part).fetchall()
        low = high + 1


def _in_touch(alias: str) -> str:
    return f"{alias}.sample_id between $low and $high and {alias}.sample_id in (select id from touched)"


IN_TOUCH = "sample_id between $low and $high and sample_id in (select id from touched)"
OLD_WORD = f"ended_by is null and source = 'user' and dimension = $dimension and tag <> $tag and {IN_TOUCH}"

CURRENT = f"""
update answers a set current = not a.current
from (
    select sample_id, dimension, max(run_id) filter (not stale) as newest from answers where {IN_TOUCH} group by all
) l
where a.sample_id between $low and $high and a.sample_id = l.sample_id and a.dimension = l.dimension
  and a.current <> coalesce(a.run_id = l.newest and not a.stale, false)
"""

# One row per touched sample with the values that its columns should have.
EXPECTED = f"""
with ledger as (
    select sample_id, tag, dimension, source, run_id, place, coalesce(edit_id, 0) as edit_id
    from sample_tags where {IN_TOUCH} and ended_by is null
), refused as (
    select sample_id, tag, max(coalesce(edit_id, 0)) as edit_id
    from rejections where {IN_TOUCH} and ended_by is null group by all
), given as (
    -- After an undo out of order a tag may stand twice, or beside a removal: then the later edit says what holds.
    select l.sample_id, l.tag, max(l.dimension) as dimension, min(l.place) as place
    from ledger l left join refused r on r.sample_id = l.sample_id and r.tag = l.tag
    where l.source = 'user' and (r.tag is null or r.edit_id < l.edit_id) group by l.sample_id, l.tag
), users as (
    select sample_id, list(tag order by place) as tags, list(dimension) as dimensions from given group by all
), newest as (
    select sample_id, dimension, max(run_id) as run_id from ledger where source = 'model' group by all
), models as (
    select l.sample_id, list(struct_pack(tag := l.tag, needs := c.only_words) order by l.run_id, l.place) as said,
        bool_or(c.only_words is not null) as conditional
    from ledger l
    left join conditions c on c.dimension = l.dimension
    join newest n on n.sample_id = l.sample_id and n.dimension = l.dimension and n.run_id = l.run_id
    left join users u on u.sample_id = l.sample_id
    where l.source = 'model'
      and (u.tags is null or not (list_contains(u.tags, l.tag) or list_contains(u.dimensions, l.dimension)))
      and not exists (select 1 from refused r where r.sample_id = l.sample_id and r.tag = l.tag)
    group by l.sample_id
), plain as (
    -- A condition looks at users' words, at words without a condition, and at those whose own condition these meet.
    select m.sample_id, case when not m.conditional then list_transform(m.said, lambda x: x.tag) else
        list_transform(list_filter(m.said, lambda x: x.needs is null or list_has_any(list_concat(
            coalesce(u.tags, []), list_transform(list_filter(m.said, lambda y: y.needs is null or list_has_any(list_concat(
                coalesce(u.tags, []), list_transform(list_filter(m.said, lambda z: z.needs is null), lambda z: z.tag)
            ), y.needs)), lambda y: y.tag)
        ), x.needs)), lambda x: x.tag) end as tags
    from models m left join users u on u.sample_id = m.sample_id
), asked as (
    select sample_id, min(probability) filter (current) as certainty,
        count(*) filter (current and not accepted) as discarded,
        list_sort(list(distinct question_id) filter (question_id is not null)) as answered
    from answers where {IN_TOUCH} and not stale group by all
), finished as (
    select sample_id, arg_max(status, run_id) = 'failed' as failed
    from run_samples where {IN_TOUCH} and not stale group by all
)
select t.id,
    list_concat(coalesce(u.tags, []), list_filter(coalesce(m.tags, []), lambda x, i: list_position(m.tags, x) = i)) as tags,
    coalesce(len(u.tags), 0) as user_count, a.certainty, coalesce(a.discarded, 0) as discarded,
    coalesce(f.failed, false) as failed, coalesce(a.answered, []) as answered
from touched t
left join users u on u.sample_id = t.id
left join plain m on m.sample_id = t.id
left join asked a on a.sample_id = t.id
left join finished f on f.sample_id = t.id
where t.id between $low and $high
"""

DERIVE = f"""
update samples s set tags = e.tags, user_count = e.user_count, certainty = e.certainty, discarded = e.discarded,
    failed = e.failed, answered = e.answered
from ({EXPECTED}) e
where s.id = e.id and s.id between $low and $high
"""

# Answers that were refused because of a user (as version 1 wrote them down) are decided like all others: that the user took
# the word away is said by the rejection, and holds as long as that does.
DECIDE = f"""
select sample_id, dimension, accepted, probability >= $probability and mass >= $mass as now_accepted,
    case when mass < $mass then '{OFF_THE_LIST}' when probability < $probability then '{BELOW_THRESHOLD}'
         else '' end as now_reason
from answers where run_id = $run and mass is not null and ($dimension = '' or dimension = $dimension)
"""


def _give(
    cursor: Cursor, dataset_id: int, target: Condition, tag: str, dimension: str | None, by: Edit, action: str
) -> Edited:
    condition, values = target
    # The users' tags come first in the list.
    lacks = "coalesce(list_position(s.tags, ?), 0) not between 1 and s.user_count"
    count = touch(cursor, (f"{condition} and {lacks}", [*values, tag]))
    if not count:
        return Edited(None, 0)
    edit_id = edit_keep(
        cursor, dataset_id=dataset_id, by=by, action=action, tag=tag, dimension=dimension, samples=count
    )
    # An image has one word of a dimension, so a user's new one takes the place of the old one.
    old = {"dimension": dimension, "tag": tag, **(_span(cursor) or {})}
    ((replaced,),) = cursor.execute(
        f"select count(distinct sample_id) from sample_tags where {OLD_WORD}", old
    ).fetchall()
    if replaced:
        cursor.execute(f"update sample_tags set ended_by = $edit where {OLD_WORD}", old | {"edit": edit_id}).fetchall()
    cursor.execute(
        "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place, edit_id) "
        "select ?, id, ?, ?, 'user', nextval('edits'), ? from (select id from touched order by id)",
        [dataset_id, tag, dimension, edit_id],
    ).fetchall()
    cursor.execute(
        f"update rejections set ended_by = $edit where ended_by is null and tag = $tag and {IN_TOUCH}",
        {"edit": edit_id, "tag": tag, **(_span(cursor) or {})},
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count, replaced)


def _insert_answers(
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
        )
        for sample_id, answer in answers
    )
    appender.flush()


# A word that was taken out of the vocabulary does not come back with an answer to a question that was asked before.
WORD_IS_THERE = """not exists (select 1 from edits e where e.action = 'remove word' and e.undone_by is null
    and e.dataset_id = answers.dataset_id and e.tag = answers.word and coalesce(answers.question_id, 0) <= e.questions)"""


def _note_accepted(cursor: Cursor, run_id: int) -> None:
    """Write the accepted answers that a run gave about the touched samples into the ledger."""
    if (span := _span(cursor)) is not None:
        cursor.execute(
            "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, probability, run_id, place) "
            "select dataset_id, sample_id, word, dimension, 'model', probability, run_id, place from answers "
            f"where run_id = $run and accepted and word <> '' and not stale and {IN_TOUCH} and {WORD_IS_THERE}",
            {"run": run_id, **span},
        ).fetchall()


def _span(cursor: Cursor) -> dict[str, int] | None:
    """Return the lowest and the highest touched id, ``None`` if nothing is touched."""
    low, high = cursor.execute("select min(id), max(id) from touched").fetchall()[0]
    return None if low is None else {"low": low, "high": high}


def _questions_known(cursor: Cursor, keys: Iterable[str]) -> dict[str, int]:
    return dict(
        cursor.execute(
            "select key, id from questions where key in (select unnest(?::varchar[]))", [list(keys)]
        ).fetchall()
    )


def _number(cursor: Cursor, sql: str, values: list[Any]) -> int:
    """Return the one number of a query, or how many rows a statement wrote."""
    return int(cursor.execute(sql, values).fetchall()[0][0])


def _column(cursor: Cursor, sql: str, values: list[Any]) -> set[Any]:
    return {row[0] for row in cursor.execute(sql, values).fetchall()}


def _reapplied(cursor: Cursor, changed: int) -> Reapplied:
    rows = cursor.execute(
        "select count(*) filter (now_accepted), count(*) filter (not now_accepted) from decided"
    ).fetchall()
    return Reapplied(accepted=rows[0][0], discarded=rows[0][1], changed=changed)
