"""Review: samples drawn with a known chance, shown to one person at a time, decided by a key; and labels from elsewhere."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from django.contrib.auth.models import User
from django.utils import timezone

from vlm.errors import Refusal
from vlm.formats.table import TableBroken, match_files, read_table
from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Answer, Cursor, Label, SampleFilter, SampleRow, drawing, editing, reading, trust, where
from vlm.samples.records import Drawn, Edited
from vlm.services import known
from vlm.services.accuracy import batch_order, words_of
from vlm.services.who import edit_by
from vlm.statistics import draws
from vlm.statistics.draws import Design
from vlm.vocabulary import VocabularyError

BATCH = 100  # samples of a draw, where nothing else is asked
MOST = 10_000
AHEAD = 6  # the picture on show, and the next five


class NothingToReview(Refusal):
    """There is nothing to draw from, or the draw is decided."""

    title = "Nothing to review"
    status = 409
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Item:
    """A sample to decide, and the chance with which it was drawn; ``None`` where that was for looking only."""

    sample: SampleRow
    probability: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Where a review stands: the draw at hand, its next samples, and what the model says of the first, which is on show."""

    dimension: str
    words: tuple[str, ...]
    batch: str
    drawn: int
    done: int
    items: tuple[Item, ...]
    answer: Answer | None = None

    @property
    def current(self) -> Item | None:
        return self.items[0] if self.items else None


@dataclass(frozen=True, slots=True)
class LabelsImported:
    """What an import of labels did; ``problems`` are lines that were not used, the first of ``problem_count``."""

    labels: int
    problems: tuple[str, ...]
    problem_count: int
    probability: bool


def draw(
    *,
    dataset: Dataset,
    dimension: str,
    size: int = BATCH,
    design: Design = Design.MIXED,
    filter: SampleFilter | None = None,
    seed: int | None = None,
) -> str:
    """Draw samples to decide, and return the draw's name.

    A draw within a filter is for looking, not for measuring: its labels carry no probability, since what lies outside had none.

    Raises:
        NothingToReview: the model has answered none of the samples, or all are labelled.
        VocabularyError: there is no such dimension.
    """
    words = words_of(dimension)
    narrowed = filter is not None and not filter.is_empty
    within = where(dataset.pk, filter, words_by_dimension()) if filter is not None and narrowed else None
    seed = secrets.randbelow(2**31) if seed is None else seed
    name = draw_name("within" if narrowed else design.value)
    with known.deciding(dataset.pk, dimension) as cursor:
        found = trust.answered(cursor, dataset.pk, dimension, words, within=within)
        eligible = ~found.decided
        if not eligible.any():
            raise NothingToReview(
                f"No image waits for a decision about {dimension}."
                if len(found.ids)
                else f"The model has not answered {dimension} yet, so there is nothing to review. Auto-tag first."
            )
        drawn = draws.draw(
            min(size, MOST),
            words=found.said,
            doubts=draws.doubt(found.probability, found.disagreement, found.contradiction),
            design=design,
            eligible=eligible,
            seed=seed,
        )
        ids = found.ids[drawn.place]
        rows = [
            Drawn(int(sample), place, None if narrowed else float(chance), words[int(said)])
            for place, (sample, chance, said) in enumerate(
                zip(ids, drawn.probability, found.said[drawn.place], strict=True)
            )
        ]
        drawing.draws_put(cursor, dataset_id=dataset.pk, dimension=dimension, batch=name, drawn=rows)
        if not narrowed:
            drawing.draws_count_known(cursor, dataset_id=dataset.pk, dimension=dimension, batch=name)
    return name


def draw_in_turn(
    *, dataset: Dataset, size: int = BATCH, design: Design = Design.MIXED, filter: SampleFilter | None = None
) -> list[str]:
    """Draw samples for every dimension of which any wait for a decision, and return the draws' names.

    Raises:
        NothingToReview: none wait for any.
    """
    names: list[str] = []
    refused: NothingToReview | None = None
    for dimension in words_by_dimension():
        try:
            names.append(draw(dataset=dataset, dimension=dimension, size=size, design=design, filter=filter))
        except NothingToReview as error:
            refused = error
    if not names:
        raise NothingToReview("No image waits for a decision about any dimension. Auto-tag first.") from refused
    return names


def turn(*, dataset: Dataset) -> str:
    """Return the dimension that is reviewed next where all are in turn: the first with an open draw, else with any."""
    names = list(words_by_dimension())
    with sample_store().read() as cursor:
        left = drawing.draws_left(cursor, dataset.pk)
    waiting = {dimension for (dimension, _), (drawn, done) in left.items() if done < drawn}
    chosen = waiting or {dimension for dimension, _ in left}
    return next((name for name in names if name in chosen), names[0] if names else "")


def queue(*, dataset: Dataset, dimension: str, who: str) -> Queue:
    """Return what ``who`` decides next; nobody else gets these samples meanwhile.

    Raises:
        VocabularyError: there is no such dimension.
    """
    words = words_of(dimension)
    with sample_store().write() as cursor:
        at_hand = _open_draw(cursor, dataset.pk, dimension)
        if at_hand is None:
            return Queue(dimension, words, "", 0, 0, ())
        name, drawn, done = at_hand
        rows = drawing.draws_claim(cursor, dataset_id=dataset.pk, dimension=dimension, batch=name, who=who, limit=AHEAD)
        items = tuple(Item(sample, row.probability) for sample, row in _with_samples(cursor, dataset.pk, rows))
        answers = reading.answers_of(cursor, items[0].sample.id) if items else ()
    answer = next((one for one in answers if one.dimension == dimension), None)
    return Queue(dimension, words, name, drawn, done, items, answer)


def decide(*, dataset: Dataset, dimension: str, batch: str, sample_id: int, word: str, user: User | None) -> Edited:
    """Keep somebody's decision about a drawn sample, and make its word a tag; an empty ``word`` is “cannot tell”.

    Raises:
        VocabularyError: ``word`` is none of the dimension's.
        NothingToReview: the sample is not of this draw.
    """
    words = words_of(dimension)
    if word and word not in words:
        raise VocabularyError(f"“{word}” is no word of {dimension}; there are {', '.join(filter_empty(words))}.")
    with known.deciding(dataset.pk, dimension) as cursor:
        drawn = drawing.draws_read(cursor, dataset_id=dataset.pk, dimension=dimension, batch=batch, sample_id=sample_id)
        if not drawn:
            raise NothingToReview("This image is not of the draw any more. Reload the page to go on.")
        label = Label(sample_id, dimension, word, drawn[0].probability, drawn[0].stratum, batch)
        return editing.labels_add(
            cursor, dataset_id=dataset.pk, labels=[label], by=edit_by(user, "review"), give_tags=bool(word)
        )


def skip(*, dataset: Dataset, dimension: str, batch: str, sample_id: int) -> None:
    """Put a sample behind the others of its draw."""
    with known.deciding(dataset.pk) as cursor:
        drawing.draws_skip(cursor, dataset_id=dataset.pk, dimension=dimension, batch=batch, sample_id=sample_id)


def undo(*, dataset: Dataset, dimension: str = "", user: User | None) -> int | None:
    """Take the user's last decision about a dimension, or about any, back; returns the sample, ``None`` where there is none."""
    with known.deciding(dataset.pk, *([dimension] if dimension else words_by_dimension())) as cursor:
        rows = cursor.execute(
            "select e.id, l.sample_id, l.dimension from edits e join labels l on l.edit_id = e.id where e.dataset_id = ? "
            "and e.way = 'review' and e.action = 'label' and ? in (e.dimension, '') and e.user_id is not distinct from ? "
            "and e.undone_by is null order by e.id desc limit 1",
            [dataset.pk, dimension, user.pk if user else None],
        ).fetchall()
        if not rows:
            return None
        edit_id, sample_id, dimension = rows[0]
        editing.undo(cursor, edit_id, edit_by(user, "review"))
        drawing.draws_return(cursor, dataset_id=dataset.pk, dimension=dimension, sample_id=sample_id, who=who(user))
    return int(sample_id)


def who(user: User | None) -> str:
    """Return the name under which a user takes samples."""
    return f"user {user.pk}" if user is not None else "nobody"


def drawn_rows(*, dataset: Dataset, dimension: str, batch: str) -> list[tuple[SampleRow, Drawn]]:
    """Return a draw in its order, as ``review_sample`` writes it down."""
    with sample_store().read() as cursor:
        rows = drawing.draws_read(cursor, dataset_id=dataset.pk, dimension=dimension, batch=batch)
        return _with_samples(cursor, dataset.pk, rows)


def import_labels(
    *, dataset: Dataset, content: bytes, random: bool = False, strict: bool = False, user: User | None
) -> LabelsImported:
    """Bring labels in from a table: ``file`` or ``path``, ``dimension``, ``value``; “cannot tell” is an empty value.

    A column ``probability`` says with which chance each image was drawn, as ``review_sample`` writes it (with ``draw``, the
    name of the draw). All or nothing: lines that cannot be used are listed, and with any of them nothing is kept if ``strict``.

    Args:
        random: the labelled images of each dimension are a uniform random sample of the data set.

    Raises:
        TableBroken: it cannot be read at all, or lacks a column.
    """
    table = read_table(content, key=("dimension",))
    words = words_by_dimension()
    value_column = _column(table.columns, ("value", "word", "label"))
    chance_column = _column(table.columns, ("probability",), needed=False)
    draw_column = _column(table.columns, ("draw",), needed=False)
    stratum_column = _column(table.columns, ("stratum",), needed=False)
    with known.deciding(dataset.pk, *words) as cursor:
        paths = cursor.execute("select id, path from samples where dataset_id = ? order by id", [dataset.pk]).fetchall()
        samples = match_files(table, paths)
        given: list[Label] = []
        for row in table.rows:
            if row.line not in samples:
                continue
            dimension, value = row.values["dimension"].strip(), row.values[value_column].strip()
            if dimension not in words:
                table.complain(row.line, f"“{dimension[:60]}” is no dimension; there are {', '.join(words)}")
                continue
            of = {word.casefold(): word for word in words[dimension]}
            if len(of) == 1:
                of |= {"yes": words[dimension][0], "no": ""}
            if value and value.casefold() not in of:
                table.complain(
                    row.line, f"“{value[:60]}” is no word of {dimension}; there are {', '.join(words[dimension])}"
                )
                continue
            chance = _chance(row.values.get(chance_column, "")) if chance_column else None
            if chance_column and row.values.get(chance_column, "").strip() and chance is None:
                table.complain(row.line, "the probability is no number above 0 and at most 1")
                continue
            given.append(
                Label(
                    samples[row.line],
                    dimension,
                    of.get(value.casefold(), ""),
                    chance,
                    row.values.get(stratum_column, "").strip() if stratum_column else "",
                    row.values.get(draw_column, "").strip() if draw_column and chance is not None else "",
                )
            )
        if (strict and table.problem_count) or not given:
            return LabelsImported(0, tuple(map(str, table.problems)), table.problem_count, random)
        if random:
            given = _uniform(cursor, dataset.pk, given)
        editing.labels_add(cursor, dataset_id=dataset.pk, labels=given, by=edit_by(user, "import"))
    return LabelsImported(
        len(given), tuple(map(str, table.problems)), table.problem_count, random or chance_column is not None
    )


def filter_empty(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word or "no" for word in words)


def draw_name(kind: str) -> str:
    """Return the name of a draw made now; ``accuracy.batch_order`` reads the time back, since draws add up in its order."""
    return f"{kind}-{timezone.now():%Y%m%d%H%M%S%f}"


# -- inside --------------------------------------------------------------------------------------------------------------
def _open_draw(cursor: Cursor, dataset_id: int, dimension: str) -> tuple[str, int, int] | None:
    """Return the newest draw that is not decided (else the newest): its name, how many it holds, how many are decided."""
    left = drawing.draws_left(cursor, dataset_id)
    found = [(batch, *numbers) for (of, batch), numbers in left.items() if of == dimension]
    return max(found, key=lambda one: (one[2] < one[1], batch_order(one[0])), default=None)


def _with_samples(cursor: Cursor, dataset_id: int, rows: Sequence[Drawn]) -> list[tuple[SampleRow, Drawn]]:
    """Return drawn samples with their rows of the store, in their order; those that are gone are left out."""
    samples = {one.id: one for one in reading.samples_by_id(cursor, dataset_id, [row.sample_id for row in rows])}
    return [(samples[row.sample_id], row) for row in rows if row.sample_id in samples]


def _uniform(cursor: Cursor, dataset_id: int, given: list[Label]) -> list[Label]:
    """Give labels the chance of a uniform draw: how many are labelled, of how many the model has answered."""
    chosen = []
    name = draw_name("import")
    for dimension in dict.fromkeys(label.dimension for label in given):
        mine = [label for label in given if label.dimension == dimension]
        total = len(trust.answered(cursor, dataset_id, dimension, words_of(dimension)).ids)
        chance = min(1.0, len(mine) / total) if total else 1.0
        chosen += [replace(label, probability=chance, design=name) for label in mine]
    return chosen


def _column(columns: Sequence[str], wanted: Sequence[str], *, needed: bool = True) -> str:
    found = next((column for column in columns if column.strip().casefold() in wanted), "")
    if needed and not found:
        raise TableBroken(f"The table has no column “{wanted[0]}”. It needs file, dimension and {wanted[0]}.")
    return found


def _chance(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and 0 < value <= 1 else None
