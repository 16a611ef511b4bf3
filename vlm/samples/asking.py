"""What was asked of which model: each question has a number, by which the answers to it are known."""

import json
from collections.abc import Iterable

from .cursor import Cursor
from .records import Question


def questions_keep(cursor: Cursor, questions: Iterable[Question]) -> dict[str, int]:
    """Write down the questions that the store does not know yet; returns dimension → id for all of them."""
    wanted = {question.key: question for question in questions}
    known = _known(cursor, wanted)
    for key in wanted.keys() - known.keys():
        q = wanted[key]
        asked = json.dumps(q.asked, ensure_ascii=False, sort_keys=True)
        cursor.execute(
            "insert into questions values (nextval('question_ids'), ?, ?, ?, ?, ?, ?)",
            [q.key, q.model, q.revision, q.mode, q.dimension, asked],
        ).fetchall()
    known |= _known(cursor, wanted.keys() - known.keys())
    return {question.dimension: known[key] for key, question in wanted.items()}


def question_ids(cursor: Cursor, questions: Iterable[Question]) -> dict[str, int | None]:
    """Return dimension → id of its question, ``None`` where it was never asked."""
    wanted = list(questions)
    known = _known(cursor, [question.key for question in wanted])
    return {question.dimension: known.get(question.key) for question in wanted}


def runs_to_adopt(cursor: Cursor) -> list[int]:
    """Return runs of a version 1 store of whose answers the store does not know yet what was asked (see ``merging.run_adopt``)."""
    return [row[0] for row in cursor.execute("select distinct run_id from runs_to_adopt order by 1").fetchall()]


def _known(cursor: Cursor, keys: Iterable[str]) -> dict[str, int]:
    return dict(
        cursor.execute(
            "select key, id from questions where key in (select unnest(?::varchar[]))", [list(keys)]
        ).fetchall()
    )
