"""What becomes of tags and answers when the vocabulary is edited: words renamed, merged or gone, dimensions renamed.

Tags are temporal rows, as with every edit (see ``editing``). Answers say what a model said, so what a renamed or merged word
changes in them is kept beside them in ``answer_images``, from where undoing puts it back.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlm.vocabulary import Dimension

from .asking import questions_keep
from .cursor import Cursor
from .deriving import IN_TOUCH, derive, touch
from .deriving import changed as dataset_changed
from .editing import edit_keep
from .editing import undo as undo_edit
from .records import Edit, Question

# A merged word has the probability of both; a generated answer has no probabilities.
MERGED = """
    list_filter(a.words, lambda x: x <> $old) as words,
    case when len(a.probabilities) = 0 then a.probabilities else
        list_transform(list_filter(a.words, lambda x: x <> $old), lambda x: (a.probabilities[list_position(a.words, x)]
            + case when x = $new then a.probabilities[list_position(a.words, $old)] else 0 end)::float)
    end as probabilities
"""
RENAMED = "list_transform(a.words, lambda x: case when x = $old then $new else x end) as words, a.probabilities"


def tag_counts(cursor: Cursor, tags: Sequence[str]) -> dict[str, int]:
    """Return how many samples of all data sets have each of ``tags``; those of none are left out."""
    if not tags:
        return {}
    rows = cursor.execute(
        "select value, sum(number)::bigint from tallies where facet = 'tag' and number > 0 and value in (select unnest(?::varchar[])) "
        "group by 1",
        [list(tags)],
    ).fetchall()
    return dict(rows)


def carry_out(
    cursor: Cursor,
    *,
    steps: Sequence[Mapping[str, Any]],
    conditions: Mapping[str, Sequence[str]],
    by: Mapping[str, Any],
) -> list[int]:
    """Do what an edit of the vocabulary asks for, as JSON says it; returns the edits that it made.

    Args:
        steps: what to ``do``, one after the other, with the arguments of the function that does it.
        conditions: of the vocabulary as it is from now on.
        by: the fields of an ``Edit``.
    """
    edit, edits = Edit(**by), []
    for step in steps:
        match step:
            case {"do": "rename word", "before": before, "after": after, "old": old, "new": new}:
                edits += rename_word(
                    cursor,
                    before=Dimension.from_json(before),
                    after=Dimension.from_json(after),
                    old=old,
                    new=new,
                    by=edit,
                )
            case {"do": "remove words", "words": words, "keep": keep}:
                edits += remove_words(cursor, words=words, keep=keep, by=edit)
            case {"do": "rename dimension", "old": old, "new": new}:
                rename_dimension(cursor, old=old, new=new)
            case {"do": "undo", "edits": undone}:
                undo(cursor, edits=undone, by=edit)
            case _:
                raise ValueError(f"{step} is no step of an edit")
    conditions_keep(cursor, conditions)
    return edits


def rename_word(cursor: Cursor, *, before: Dimension, after: Dimension, old: str, new: str, by: Edit) -> list[int]:
    """Let ``old`` be called ``new`` in all tags, removals, labels and answers; merges them where both are there.

    Answers to the question ``before`` count as answers to ``after``. Returns the edits, one for each data set touched.
    """
    _same_question(cursor, before, after)
    edits = []
    name = before.name
    for dataset_id in _datasets(cursor):
        values = {"dataset": dataset_id, "old": old, "new": new, "dimension": name}
        cursor.execute(
            "create or replace temp table touched as select distinct sample_id as id from ("
            "select sample_id from sample_tags where dataset_id = $dataset and tag = $old and ended_by is null union all "
            "select sample_id from rejections where dataset_id = $dataset and tag = $old and ended_by is null union all "
            "select sample_id from labels where dataset_id = $dataset and dimension = $dimension and word = $old "
            "and ended_by is null union all "
            "select sample_id from answers where dataset_id = $dataset and dimension = $dimension and ("
            "list_contains(words, $old) or word = $old or question_id in (select old_id from moved_questions)))",
            {key: value for key, value in values.items() if key != "new"},
        ).fetchall()
        count = cursor.execute("select count(*) from touched").fetchall()[0][0]
        if not count:
            continue
        edit = edit_keep(
            cursor, dataset_id=dataset_id, by=by, action="rename", tag=old, value=new, dimension=name, samples=count
        )
        edits.append(edit)
        _rename_answers(cursor, dataset_id, name, old, new, edit)
        _rename_users(cursor, dataset_id, name, old, new, edit)
        _follow_answers(cursor, edit)
        derive(cursor)
        dataset_changed(cursor, dataset_id)
    return edits


def remove_words(cursor: Cursor, *, words: Sequence[str], keep: bool, by: Edit) -> list[int]:
    """Take words out of the vocabulary: their tags become users' own, of no dimension, or go away.

    Returns the edits, one for each data set and word touched.
    """
    edits = []
    for dataset_id in _datasets(cursor) if words else ():
        for word in words:
            count = touch(
                cursor,
                (
                    "s.dataset_id = ? and (list_contains(s.tags, ?) or s.id in (select sample_id from sample_tags "
                    "where dataset_id = ? and tag = ? and ended_by is null))",
                    [dataset_id, word, dataset_id, word],
                ),
            )
            if not count:
                continue
            edit = edit_keep(cursor, dataset_id=dataset_id, by=by, action="remove word", tag=word, samples=count)
            edits.append(edit)
            low, high = cursor.execute("select min(id), max(id) from touched").fetchall()[0]
            span = {"word": word, "edit": edit, "low": low, "high": high}
            cursor.execute(
                f"update sample_tags set ended_by = $edit where ended_by is null and tag = $word and {IN_TOUCH}", span
            ).fetchall()
            if keep:
                cursor.execute(
                    "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place, edit_id) "
                    "select s.dataset_id, s.id, $word, null, 'user', coalesce(u.place, nextval('edits')), $edit "
                    "from samples s left join (select sample_id, min(place) as place from sample_tags "
                    "where ended_by = $edit and source = 'user' group by all) u on u.sample_id = s.id "
                    "where s.id between $low and $high and s.id in (select id from touched) "
                    "and list_contains(s.tags, $word) order by s.id",
                    span,
                ).fetchall()
            derive(cursor)
            dataset_changed(cursor, dataset_id)
    return edits


def dimension_is_used(cursor: Cursor, name: str) -> bool:
    """Return whether answers, tags or labels of a dimension called ``name`` are kept."""
    rows = cursor.execute(
        "select exists (select 1 from answers where dimension = $name) or exists (select 1 from labels where dimension = $name) "
        "or exists (select 1 from sample_tags where dimension = $name)",
        {"name": name},
    ).fetchall()
    return bool(rows[0][0])


def rename_dimension(cursor: Cursor, *, old: str, new: str) -> None:
    """Call a dimension otherwise wherever it is named. ``new`` must not be in use; going back is the same again."""
    cursor.execute("delete from questions where dimension = ?", [new]).fetchall()  # asked once, and answered by nobody
    for question_id, model, revision, mode, asked in cursor.execute(
        "select id, model, revision, mode, asked from questions where dimension = ?", [old]
    ).fetchall():
        there = Question.of(model=model, revision=revision, mode=mode, dimension=new, asked=json.loads(asked))
        cursor.execute("update questions set key = ? where id = ?", [there.key, question_id]).fetchall()
    for table in (
        "answers",
        "sample_tags",
        "labels",
        "draws",
        "questions",
        "answer_images",
        "edits",
        "conditions",
        "calibrations",
    ):
        cursor.execute(f"update {table} set dimension = ? where dimension = ?", [new, old]).fetchall()
    for dataset_id in _datasets(cursor):
        dataset_changed(cursor, dataset_id)


def conditions_kept(cursor: Cursor) -> dict[str, tuple[str, ...]]:
    """Return the conditions in force: dimension → words of an earlier one."""
    return {row[0]: tuple(row[1]) for row in cursor.execute("select dimension, only_words from conditions").fetchall()}


def conditions_keep(cursor: Cursor, conditions: Mapping[str, Sequence[str]]) -> int:
    """Let the tags of dimensions stand only where a sample has one of some words; returns how many samples were looked at.

    Args:
        conditions: dimension → words of an earlier one. A dimension that is left out has no condition.
    """
    before = conditions_kept(cursor)
    after = {dimension: tuple(words) for dimension, words in conditions.items()}
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if not changed:
        return 0
    cursor.execute("delete from conditions where dimension in (select unnest(?::varchar[]))", [changed]).fetchall()
    for name in changed:
        if name in after:
            cursor.execute("insert into conditions values (?, ?)", [name, list(after[name])]).fetchall()
    count = touch(
        cursor,
        (
            "s.id in (select sample_id from sample_tags where source = 'model' and ended_by is null "
            "and dimension in (select unnest(?::varchar[])))",
            [changed],
        ),
    )
    derive(cursor)
    for dataset_id in _datasets(cursor):
        dataset_changed(cursor, dataset_id)
    return count


def undo(cursor: Cursor, *, edits: Sequence[int], by: Edit) -> None:
    """Take the edits of :func:`rename_word` or :func:`remove_words` back, exactly."""
    for edit in reversed(edits):
        cursor.execute(
            "update answers a set question_id = i.question_id, words = i.words, probabilities = i.probabilities, "
            "word = i.word, probability = i.probability from answer_images i where i.edit_id = ? and a.run_id = i.run_id "
            "and a.sample_id = i.sample_id and a.dimension = i.dimension",
            [edit],
        ).fetchall()
        undo_edit(cursor, edit, by, vocabulary=True)
        # Samples whose answers changed need no tag that did.
        touch(cursor, ("s.id in (select sample_id from answer_images where edit_id = ?)", [edit]))
        derive(cursor)
        cursor.execute("delete from answer_images where edit_id = ?", [edit]).fetchall()


# -- inside --------------------------------------------------------------------------------------------------------------
def _datasets(cursor: Cursor) -> list[int]:
    return [row[0] for row in cursor.execute("select distinct dataset_id from samples order by 1").fetchall()]


def _same_question(cursor: Cursor, before: Dimension, after: Dimension) -> None:
    """Make ``moved_questions``: for each question that asked ``before``, of whatever model, the one that asks ``after``."""
    rows = cursor.execute(
        "select id, model, revision, mode, key from questions where dimension = ?", [before.name]
    ).fetchall()
    moved = []
    for question_id, model, revision, mode, key in rows:
        whose = {"model": model, "revision": revision, "mode": mode}
        if key == Question.of(**whose, dimension=before.name, asked=before.asked).key:
            there = Question.of(**whose, dimension=after.name, asked=after.asked)
            moved.append((question_id, questions_keep(cursor, [there])[after.name]))
    cursor.execute("create or replace temp table moved_questions (old_id bigint, new_id bigint)").fetchall()
    for pair in moved:
        cursor.execute("insert into moved_questions values (?, ?)", list(pair)).fetchall()


def _rename_answers(cursor: Cursor, dataset_id: int, dimension: str, old: str, new: str, edit: int) -> None:
    cursor.execute(
        "insert into answer_images select $edit, dataset_id, run_id, sample_id, dimension, question_id, words, probabilities, "
        "word, probability from answers where dataset_id = $dataset and dimension = $dimension and ("
        "list_contains(words, $old) or word = $old or question_id in (select old_id from moved_questions))",
        {"edit": edit, "dataset": dataset_id, "dimension": dimension, "old": old},
    ).fetchall()
    values = {"edit": edit, "dataset": dataset_id, "old": old, "new": new}
    for both, changed in ((True, MERGED), (False, RENAMED)):
        cursor.execute(
            "update answers a set words = n.words, probabilities = n.probabilities, "
            "word = case when len(n.probabilities) > 0 then n.words[list_position(n.probabilities, list_max(n.probabilities))] "
            "when a.word = $old then $new else a.word end, "
            "probability = case when len(n.probabilities) > 0 then list_max(n.probabilities) else a.probability end "
            f"from (select a.run_id, a.sample_id, a.dimension, {changed} from answer_images a where a.edit_id = $edit "
            f"and list_contains(a.words, $old) and list_contains(a.words, $new) = {both}) n "
            "where a.dataset_id = $dataset and a.run_id = n.run_id and a.sample_id = n.sample_id and a.dimension = n.dimension",
            values,
        ).fetchall()
    cursor.execute(
        "update answers a set question_id = m.new_id from moved_questions m where a.question_id = m.old_id and a.dataset_id = ?",
        [dataset_id],
    ).fetchall()


def _follow_answers(cursor: Cursor, edit: int) -> None:
    """Let the models' tags say what their answers say now."""
    cursor.execute(
        "update sample_tags t set ended_by = $edit from answer_images i join answers a on a.run_id = i.run_id "
        "and a.sample_id = i.sample_id and a.dimension = i.dimension where i.edit_id = $edit and t.source = 'model' "
        "and t.ended_by is null and t.run_id = i.run_id and t.sample_id = i.sample_id and t.dimension = i.dimension "
        "and t.tag <> a.word",
        {"edit": edit},
    ).fetchall()
    cursor.execute(
        "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, probability, run_id, place, edit_id) "
        "select t.dataset_id, t.sample_id, a.word, t.dimension, 'model', a.probability, t.run_id, t.place, $edit "
        "from sample_tags t join answers a on a.run_id = t.run_id and a.sample_id = t.sample_id and a.dimension = t.dimension "
        "where t.ended_by = $edit and t.source = 'model' and a.word <> ''",
        {"edit": edit},
    ).fetchall()


def _rename_users(cursor: Cursor, dataset_id: int, dimension: str, old: str, new: str, edit: int) -> None:
    """Rename what users gave, took away and decided; who has both words already keeps one."""
    values = {"dataset": dataset_id, "old": old, "edit": edit}
    for table, column, rest in (
        ("sample_tags", "tag", "source = 'user'"),
        ("rejections", "tag", "true"),
        ("labels", "word", "dimension = $dimension"),
    ):
        given = values | ({"dimension": dimension} if "$dimension" in rest else {})
        cursor.execute(
            f"update {table} set ended_by = $edit where dataset_id = $dataset and {column} = $old and ended_by is null and {rest}",
            given,
        ).fetchall()
    both = {"edit": edit, "new": new}
    cursor.execute(
        "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place, edit_id) "
        "select dataset_id, sample_id, $new, max(dimension), 'user', min(place), $edit from sample_tags t "
        "where ended_by = $edit and source = 'user' and not exists (select 1 from sample_tags o where "
        "o.sample_id = t.sample_id and o.tag = $new and o.source = 'user' and o.ended_by is null) group by dataset_id, sample_id",
        both,
    ).fetchall()
    cursor.execute(
        "insert into rejections (dataset_id, sample_id, tag, edit_id) select distinct dataset_id, sample_id, $new, $edit "
        "from rejections t where ended_by = $edit and not exists (select 1 from rejections o where "
        "o.sample_id = t.sample_id and o.tag = $new and o.ended_by is null)",
        both,
    ).fetchall()
    cursor.execute(
        "insert into labels (id, dataset_id, sample_id, dimension, word, probability, stratum, design, user_id, user_name, way, "
        "edit_id, created) select nextval('label_ids'), dataset_id, sample_id, dimension, $new, probability, stratum, design, "
        "user_id, user_name, way, $edit, created from labels where ended_by = $edit",
        both,
    ).fetchall()
