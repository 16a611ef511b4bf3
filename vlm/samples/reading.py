"""Reading samples: pages by keyset, counts, one sample, and what users did. All inside ``SampleStore.read()``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .conditions import Words
from .cursor import Cursor
from .database import number
from .filters import SampleFilter, where
from .history import with_givers
from .ordering import key_of, page_cursor, unpack
from .records import Annotation, Answer, DatasetStats, EditRow, KeptLabel, Page, Raw, SampleDetail, SampleRow, Tag
from .sharing import shared_from

EDIT_COLUMNS = "id, dataset_id, user_id, user_name, way, action, tag, value, dimension, samples, created, undone_by"
REJECTED = "rejected by a user"
COLUMNS = (
    "s.id, s.path, s.file_name, s.split, s.width, s.height, s.missing, s.content_key, s.tags, s.user_count, "
    "s.bytes, s.taken, s.camera"
)
ExportItem = tuple[SampleRow, tuple[str, ...], str, str, tuple[Annotation, ...]]


def samples_page(
    cursor: Cursor,
    dataset_id: int,
    chosen: SampleFilter,
    words: Words,
    *,
    order: str = "name",
    after: str = "",
    limit: int = 60,
    only_present: bool = False,
) -> Page:
    """Return the samples behind the cursor ``after`` in ``order``.

    Args:
        only_present: leave out those whose file was gone when the data set was last imported.

    Raises:
        FilterError: an order that is none, or a cursor of another order.
    """
    key = key_of(cursor, dataset_id, order, words)
    condition, values = where(dataset_id, chosen, words)
    if only_present:
        condition += " and not s.missing"
    if after:
        beyond, at = key.beyond(unpack(after, order, key))
        condition, values = f"{condition} and {beyond}", [*values, *at]
    # Rows are wide and the order sees all of them, so the keys are sorted first and the rows fetched after.
    rows = cursor.execute(
        f"select {key.sql}, s.id from samples s where {condition} order by {key.forward} limit ?",
        [*values, limit + 1],
    ).fetchall()
    following = page_cursor(order, rows[limit - 1]) if len(rows) > limit else ""
    return Page(samples_by_id(cursor, dataset_id, [row[1] for row in rows[:limit]]), following)


def samples_before(
    cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words, *, order: str, before: str, limit: int
) -> Page:
    """Return the samples up to the cursor ``before``, in ``order``; ``Page.next`` is the cursor of those before them."""
    key = key_of(cursor, dataset_id, order, words)
    condition, values = where(dataset_id, chosen, words)
    up_to, at = key.up_to(unpack(before, order, key))
    rows = cursor.execute(
        f"select {key.sql}, s.id from samples s where {condition} and {up_to} order by {key.backward} limit ?",
        [*values, *at, limit + 1],
    ).fetchall()
    earlier = page_cursor(order, rows[limit]) if len(rows) > limit else ""
    return Page(samples_by_id(cursor, dataset_id, [row[1] for row in rows[:limit]][::-1]), earlier)


def cursor_before(cursor: Cursor, dataset_id: int, sample_id: int, order: str, words: Words) -> str:
    """Return the cursor that stands right before a sample, empty if the data set has no such sample."""
    key = key_of(cursor, dataset_id, order, words)
    rows = cursor.execute(
        f"select {key.sql} from samples s where s.id = ? and s.dataset_id = ?", [sample_id, dataset_id]
    ).fetchall()
    return page_cursor(order, (rows[0][0], sample_id + (1 if key.falling else -1))) if rows else ""


def count(cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words) -> int:
    condition, values = where(dataset_id, chosen, words)
    return number(cursor, f"select count(*) from samples s where {condition}", values)


def neighbours(
    cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words, *, order: str, sample_id: int, each: int = 1
) -> tuple[list[int], list[int]]:
    """Return up to ``each`` samples before and behind one in the filter's order, in that order."""
    key = key_of(cursor, dataset_id, order, words)
    at = cursor.execute(f"select {key.sql} from samples s where s.id = ?", [sample_id]).fetchall()
    if not at:
        return [], []
    condition, values = where(dataset_id, chosen, words)

    def beside(sign: str, direction: str) -> list[int]:
        rows = cursor.execute(
            f"select s.id from samples s where {condition} and ({key.sql}, s.id) {sign} (?, ?) "
            f"order by {direction} limit ?",
            [*values, at[0][0], sample_id, each],
        ).fetchall()
        return [row[0] for row in rows]

    before, behind = ("<", ">") if not key.falling else (">", "<")
    return beside(before, key.backward)[::-1], beside(behind, key.forward)


def some_paths(cursor: Cursor, dataset_id: int, limit: int) -> list[str]:
    """Return the paths of ``limit`` samples from all over a data set whose files were there, the same ones every time."""
    rows = cursor.execute(
        "select path from samples where dataset_id = ? and not missing order by hash(id), id limit ?",
        [dataset_id, limit],
    ).fetchall()
    return [row[0] for row in rows]


def spread(cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words, limit: int) -> list[int]:
    """Return the ids of ``limit`` samples from all over a filter whose files are there, the same ones every time."""
    condition, values = where(dataset_id, chosen, words)
    rows = cursor.execute(
        f"select s.id from samples s where {condition} and not s.missing order by hash(s.id), s.id limit ?",
        [*values, limit],
    ).fetchall()
    return [row[0] for row in rows]


def export_page(
    cursor: Cursor, dataset_id: int, chosen: SampleFilter, words: Words, *, after: str, limit: int = 1000
) -> tuple[list[ExportItem], str]:
    """Return samples behind ``after`` by file name, each with categories, external id, its JSON and objects; and the next cursor.

    Files that are gone are among them only where the filter asks for them.
    """
    page = samples_page(
        cursor,
        dataset_id,
        chosen,
        words,
        order="name",
        after=after,
        limit=limit,
        only_present=chosen.state != "missing",
    )
    ids = [sample.id for sample in page.samples]
    rows = cursor.execute(
        "select id, categories, external_id, coalesce(source_file, '') from samples where id in (select unnest(?::bigint[]))",
        [ids],
    ).fetchall()
    more = {row[0]: (tuple(row[1]), row[2], row[3]) for row in rows}
    objects = annotations_of(cursor, ids)
    samples = with_givers(cursor, page.samples)
    return [(sample, *more[sample.id], objects.get(sample.id, ())) for sample in samples], page.next


def users_tags(cursor: Cursor, dataset_id: int) -> dict[str, int]:
    """Return the tags that users gave in a data set, with the number of samples of each."""
    rows = cursor.execute(
        "select tag, count(*) from (select unnest(s.tags[:s.user_count]) as tag from samples s "
        "where s.dataset_id = ? and s.user_count > 0) group by 1 order by 1",
        [dataset_id],
    ).fetchall()
    return dict(rows)


def tag_suggestions(cursor: Cursor, dataset_id: int, prefix: str, limit: int) -> list[str]:
    """Return the data set's most frequent tags that begin like ``prefix``, in any case."""
    rows = cursor.execute(
        "select value from tallies where dataset_id = ? and facet = 'tag' and number > 0 "
        "and starts_with(lower(value), lower(?)) order by number desc, value limit ?",
        [dataset_id, prefix, limit],
    ).fetchall()
    return [row[0] for row in rows]


# -- samples ------------------------------------------------------------------------------------------------------------


def samples_by_id(cursor: Cursor, dataset_id: int, ids: Sequence[int]) -> list[SampleRow]:
    """Return the samples in the order of ``ids``; unknown ones are left out."""
    if not ids:
        return []
    # The range and the list as constants let DuckDB skip the blocks that hold none of them.
    marks = ", ".join(str(int(sample_id)) for sample_id in ids)
    rows = cursor.execute(
        f"select {COLUMNS} from samples s where s.dataset_id = ? and s.id between ? and ? and s.id in ({marks})",
        [dataset_id, min(ids), max(ids)],
    ).fetchall()
    tagged = [row[0] for row in rows if row[8]]
    ledger, shared = _ledger(cursor, tagged), shared_from(cursor, tagged)
    samples = {row[0]: _sample(row, ledger, shared) for row in rows}
    return [samples[sample_id] for sample_id in ids if sample_id in samples]


def _ledger(cursor: Cursor, ids: Sequence[int]) -> dict[tuple[int, str], list[tuple[Any, ...]]]:
    if not ids:
        return {}
    marks = ", ".join(map(str, ids))
    rows = cursor.execute(
        "select sample_id, tag, dimension, source, probability, run_id from sample_tags "
        f"where sample_id between ? and ? and sample_id in ({marks}) and ended_by is null order by run_id",
        [min(ids), max(ids)],
    ).fetchall()
    found: dict[tuple[int, str], list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault((row[0], row[1]), []).append(row[2:])
    return found


def _sample(
    row: tuple[Any, ...],
    ledger: Mapping[tuple[int, str], list[tuple[Any, ...]]],
    shared: Mapping[tuple[int, int], int],
) -> SampleRow:
    tags = []
    for place, text in enumerate(row[8]):
        source = "user" if place < row[9] else "model"
        # The newest row of the source that speaks; a confirmed tag keeps what the model thought of it.
        said = ledger.get((row[0], text), [])
        dimension = next((entry[0] for entry in reversed(said) if entry[1] == source), None)
        model = next((entry for entry in reversed(said) if entry[1] == "model"), None)
        tag = Tag(text, dimension, source, model[2] if model else None, model[3] if model else None)  # type: ignore[arg-type]
        tags.append(replace(tag, shared_from=shared.get((tag.run, row[0]))) if tag.run is not None else tag)
    sample_id, path, file_name, split, width, height, missing, content_key = row[:8]
    return SampleRow(sample_id, path, file_name, split, width, height, missing, content_key, tuple(tags), *row[10:])


def sample_detail(cursor: Cursor, dataset_id: int, sample_id: int) -> SampleDetail | None:
    """Return one sample with its objects, the newest answer of each dimension, and the tags that users took away."""
    found = samples_by_id(cursor, dataset_id, [sample_id])
    if not found:
        return None
    categories = cursor.execute("select categories from samples where id = ?", [sample_id]).fetchall()[0][0]
    return SampleDetail(
        sample=found[0],
        categories=tuple(categories),
        annotations=annotations_of(cursor, [sample_id]).get(sample_id, ()),
        answers=answers_of(cursor, sample_id),
        rejected=tuple(_rejected(cursor, sample_id)),
    )


def annotations_of(cursor: Cursor, ids: Sequence[int]) -> dict[int, tuple[Annotation, ...]]:
    if not ids:
        return {}
    rows = cursor.execute(
        "select sample_id, category, x, y, width, height from annotations where sample_id between ? and ? "
        "and sample_id in (select unnest(?::bigint[]))",
        [min(ids), max(ids), list(ids)],
    ).fetchall()
    found: dict[int, list[Annotation]] = {}
    for sample_id, category, x, y, width, height in rows:
        box = None if x is None else (x, y, width, height)
        found.setdefault(sample_id, []).append(Annotation(category, box))
    return {sample_id: tuple(annotations) for sample_id, annotations in found.items()}


def answers_of(cursor: Cursor, sample_id: int) -> tuple[Answer, ...]:
    """Return the newest answer of each dimension about the present content; a word that a user took away is not accepted."""
    rejected = set(_rejected(cursor, sample_id))
    rows = cursor.execute(
        "select run_id, dimension, place, words, probabilities, mass, word, probability, accepted, reason, text, raw "
        "from answers where sample_id = ? and current order by run_id, place",
        [sample_id],
    ).fetchall()
    shared = shared_from(cursor, [sample_id])
    answers = []
    for run, dimension, place, words, probabilities, mass, word, probability, accepted, reason, text, raw in rows:
        distribution = (tuple(words), tuple(probabilities))
        itself = Raw(**raw | {"probabilities": tuple(raw["probabilities"])}) if raw else None
        if accepted and word in rejected:
            accepted, reason = False, REJECTED
        said = (*distribution, mass, word, probability, accepted, reason, text)
        answers.append(Answer(run, dimension, place, *said, raw=itself, shared_from=shared.get((run, sample_id))))
    return tuple(answers)


def probabilities_of(cursor: Cursor, ids: Sequence[int]) -> dict[int, dict[str, float]]:
    """Return sample id → dimension → the probability of the word that the newest answer about the present content says."""
    if not ids:
        return {}
    rows = cursor.execute(
        "select sample_id, dimension, probability from answers where sample_id between ? and ? "
        "and sample_id in (select unnest(?::bigint[])) and current and probability is not null",
        [min(ids), max(ids), list(ids)],
    ).fetchall()
    found: dict[int, dict[str, float]] = {}
    for sample_id, dimension, probability in rows:
        found.setdefault(sample_id, {})[dimension] = probability
    return found


def _rejected(cursor: Cursor, sample_id: int) -> list[str]:
    rows = cursor.execute(
        "select distinct tag from rejections where sample_id = ? and ended_by is null order by 1", [sample_id]
    ).fetchall()
    return [row[0] for row in rows]


# -- what users did -----------------------------------------------------------------------------------------------------


def edits(
    cursor: Cursor, dataset_id: int, *, user_id: int | None = None, undoable: bool = False, limit: int = 50
) -> list[EditRow]:
    """Return the newest edits of a data set, of one user if ``user_id`` is given, the last one first.

    Args:
        undoable: only those that can be taken back.
    """
    condition, values = "dataset_id = ?", [dataset_id]
    if user_id is not None:
        condition += " and user_id = ?"
        values.append(user_id)
    if undoable:
        condition += " and undone_by is null and action not in ('undo', 'content')"
    rows = cursor.execute(
        f"select {EDIT_COLUMNS} from edits where {condition} order by id desc limit ?", [*values, limit]
    ).fetchall()
    return [EditRow(*row) for row in rows]


def edits_by_id(cursor: Cursor, ids: Sequence[int]) -> list[EditRow]:
    rows = cursor.execute(
        f"select {EDIT_COLUMNS} from edits where id in (select unnest(?::bigint[]))", [list(ids)]
    ).fetchall()
    return [EditRow(*row) for row in rows]


def labels(cursor: Cursor, dataset_id: int, *, dimension: str = "") -> list[KeptLabel]:
    """Return the labels in force, of one dimension or of all, in the order in which they were given."""
    condition, values = "dataset_id = ? and ended_by is null", [dataset_id]
    if dimension:
        condition += " and dimension = ?"
        values.append(dimension)  # type: ignore[arg-type]
    rows = cursor.execute(
        "select id, sample_id, dimension, word, probability, stratum, design, user_id, user_name, way, edit_id, created "
        f"from labels where {condition} order by id",
        values,
    ).fetchall()
    return [KeptLabel(*row) for row in rows]


# -- the store ----------------------------------------------------------------------------------------------------------


def revision(cursor: Cursor, dataset_id: int | None = None) -> int:
    """Return a number that grows with every change of the store, or of one data set, in whatever process."""
    if dataset_id is None:
        return int(cursor.execute("select number from revision").fetchall()[0][0])
    rows = cursor.execute("select number from dataset_revisions where dataset_id = ?", [dataset_id]).fetchall()
    return int(rows[0][0]) if rows else 0


def dataset_totals(cursor: Cursor, dataset_id: int) -> tuple[int, int]:
    """Return how many samples a data set has, and of how many the file was gone when it was last imported."""
    rows = cursor.execute(
        "select count(*), count(*) filter (missing) from samples where dataset_id = ?", [dataset_id]
    ).fetchall()
    return rows[0][0], rows[0][1]


def datasets_held(cursor: Cursor) -> list[int]:
    """Return the numbers of the data sets that the store has samples of."""
    return [row[0] for row in cursor.execute("select distinct dataset_id from samples order by 1").fetchall()]


def store_id(cursor: Cursor) -> str:
    """Return what tells this store from every other one."""
    return str(cursor.execute("select store_id from meta").fetchall()[0][0])


def samples_held(cursor: Cursor) -> int:
    """Return how many samples the store has, of all data sets."""
    return number(cursor, "select count(*) from samples", [])


def dataset_stats(cursor: Cursor, dataset_ids: Sequence[int]) -> dict[int, DatasetStats]:
    rows = cursor.execute(
        "select dataset_id, coalesce(max(number) filter (facet = 'all'), 0), "
        "coalesce(max(number) filter (value = 'untagged'), 0), coalesce(max(number) filter (value = 'missing'), 0) from tallies "
        "where dataset_id in (select unnest(?::bigint[])) and facet in ('all', 'state') group by 1",
        [list(dataset_ids)],
    ).fetchall()
    found = {row[0]: DatasetStats(row[1], row[1] - row[2], row[3]) for row in rows}
    return {dataset_id: found.get(dataset_id, DatasetStats(0, 0, 0)) for dataset_id in dataset_ids}
