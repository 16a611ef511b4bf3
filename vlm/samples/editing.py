"""What users do: give, confirm and take away tags, decide about dimensions, and undo all that.

It is temporal: an edit adds rows that carry its id, and ends rows by writing its id into ``ended_by``. Undoing it ends the
rows that it added and puts those that it ended in force again, so that nothing needs to be remembered of how things were.
All inside ``SampleStore.write()``; every function derives exactly the samples that it touched.
"""

import unicodedata
from collections.abc import Sequence

from vlm.vocabulary import is_plain

from .conditions import Condition
from .cursor import Cursor
from .database import column, number
from .deriving import IN_TOUCH, changed, derive, in_touch, touch, touched_span
from .errors import EditError, TagError
from .records import COMMAND, Edit, Edited, Label
from .schema import EDITED_TABLES
from .sharing import shares_break

VOCABULARY_ACTIONS = ("rename", "remove word")  # see ``rewording``
MAX_TAG = 200
OLD_WORD = f"ended_by is null and source = 'user' and dimension = $dimension and tag <> $tag and {IN_TOUCH}"

ENDED = (
    f"update sample_tags set ended_by = $edit where ended_by is null and source = 'user' and tag = $tag and {IN_TOUCH}"
)


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
    if not is_plain(tag):
        raise TagError("A tag cannot hold line breaks or other control characters.")
    return tag


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
    span = touched_span(cursor) or {}
    cursor.execute(ENDED, {"edit": edit_id, "tag": tag, **span}).fetchall()
    cursor.execute(
        "insert into rejections (dataset_id, sample_id, tag, edit_id) select ?, id, ?, ? from touched",
        [dataset_id, tag, edit_id],
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count)


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
    old = {"dimension": dimension, "tag": tag, **(touched_span(cursor) or {})}
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
        {"edit": edit_id, "tag": tag, **(touched_span(cursor) or {})},
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count, replaced)


def tag_rename(
    cursor: Cursor, *, dataset_id: int, old: str, new: str, dimension: str | None, by: Edit = COMMAND
) -> Edited:
    """Call a tag that users gave ``new`` wherever it stands in a data set; where both stand, one does from now on.

    Args:
        dimension: of which ``new`` is a word, if it is one; it then takes the place of the users' other words of it.
    """
    count = touch(cursor, _given(dataset_id, old))
    if (span := touched_span(cursor)) is None:
        return Edited(None, 0)
    edit_id = edit_keep(
        cursor,
        dataset_id=dataset_id,
        by=by,
        action="rename tag",
        tag=old,
        value=new,
        dimension=dimension,
        samples=count,
    )
    cursor.execute(ENDED, {"edit": edit_id, "tag": old, **span}).fetchall()
    replaced = 0
    if dimension is not None:
        word = {"dimension": dimension, "tag": new, **span}
        ((replaced,),) = cursor.execute(
            f"select count(distinct sample_id) from sample_tags where {OLD_WORD}", word
        ).fetchall()
        cursor.execute(f"update sample_tags set ended_by = $edit where {OLD_WORD}", word | {"edit": edit_id}).fetchall()
    cursor.execute(
        "insert into sample_tags (dataset_id, sample_id, tag, dimension, source, place, edit_id) "
        "select dataset_id, sample_id, $new, $dimension, 'user', min(place), $edit from sample_tags t "
        "where ended_by = $edit and source = 'user' and tag = $tag and not exists (select 1 from sample_tags o where "
        "o.sample_id = t.sample_id and o.tag = $new and o.source = 'user' and o.ended_by is null) group by dataset_id, sample_id",
        {"new": new, "dimension": dimension, "edit": edit_id, "tag": old},
    ).fetchall()
    cursor.execute(
        f"update rejections set ended_by = $edit where ended_by is null and tag = $tag and {IN_TOUCH}",
        {"edit": edit_id, "tag": new, **span},
    ).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count, replaced)


def tag_delete(cursor: Cursor, *, dataset_id: int, tag: str, by: Edit = COMMAND) -> Edited:
    """Take a tag that users gave from all samples of a data set; unlike a removal, this says nothing about the images."""
    count = touch(cursor, _given(dataset_id, tag))
    if (span := touched_span(cursor)) is None:
        return Edited(None, 0)
    edit_id = edit_keep(cursor, dataset_id=dataset_id, by=by, action="delete tag", tag=tag, samples=count)
    cursor.execute(ENDED, {"edit": edit_id, "tag": tag, **span}).fetchall()
    derive(cursor)
    changed(cursor, dataset_id)
    return Edited(edit_id, count)


def _given(dataset_id: int, tag: str) -> Condition:
    return (
        "s.dataset_id = ? and s.id in (select sample_id from sample_tags where dataset_id = ? and tag = ? "
        "and source = 'user' and ended_by is null)",
        [dataset_id, dataset_id, tag],
    )


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
    if (span := touched_span(cursor)) is None:
        return Edited(None, 0)
    words = column(cursor, "select word from deciding", [])
    dimensions = column(cursor, "select dimension from deciding", [])
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
        f"where l.ended_by is null and {in_touch('l')} and l.sample_id = d.sample_id and l.dimension = d.dimension "
        "and d.probability is null and l.probability is not null",
        {name: span[name] for name in ("low", "high")},
    ).fetchall()
    cursor.execute(
        f"update labels l set ended_by = $edit from deciding d where l.ended_by is null and {in_touch('l')} "
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
            f"and {in_touch('t')} and t.sample_id = d.sample_id and d.word <> '' and (t.dimension = d.dimension or t.tag = d.word)",
            span,
        ).fetchall()
        cursor.execute(
            f"update rejections t set ended_by = $edit from deciding d where t.ended_by is null and {in_touch('t')} "
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
    count = number(cursor, "select count(*) from touched", [])
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
    edit_id = number(cursor, "select nextval('edit_ids')", [])
    cursor.execute(
        "insert into edits (id, dataset_id, user_id, user_name, way, action, tag, value, dimension, samples, questions) "
        "select ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(id), 0) from questions",
        [edit_id, dataset_id, by.user_id, by.user_name, by.way, action, tag, value, dimension, samples],
    ).fetchall()
    return edit_id


def set_aside(cursor: Cursor, *, dataset_id: int, by: Edit = COMMAND) -> None:
    """Let what runs said about the touched samples count no more: their files have another content."""
    if (span := touched_span(cursor)) is None:
        return
    for table in ("answers", "run_samples"):
        cursor.execute(f"update {table} set stale = true where not stale and {IN_TOUCH}", span).fetchall()
    edit_id = edit_keep(
        cursor,
        dataset_id=dataset_id,
        by=Edit(by.user_id, by.user_name, "import"),
        action="content",
        samples=number(cursor, "select count(*) from touched", []),
    )
    cursor.execute(
        f"update sample_tags set ended_by = $edit where ended_by is null and source = 'model' and {IN_TOUCH}",
        {"edit": edit_id, **span},
    ).fetchall()
    for table in ("measures", "marks"):
        cursor.execute(f"delete from {table} where {IN_TOUCH}", span).fetchall()
    shares_break(cursor)
    cursor.execute("update findings set samples = -1 where dataset_id = ?", [dataset_id]).fetchall()
    derive(cursor, check_current=True)
    changed(cursor, dataset_id)
