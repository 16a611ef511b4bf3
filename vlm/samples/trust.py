"""What the statistics of trust need of the store: answers as arrays, labels beside what the model said, runs side by side.

A sample counts with its current answer to the dimension, if that carries probabilities and names one of the words asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .database import Cursor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CURRENT = (
    "answers a join samples s on s.id = a.sample_id where a.dataset_id = $dataset and s.dataset_id = $dataset and a.current "
    "and not s.missing and a.dimension = $dimension and len(a.probabilities) > 0 and list_contains($words::varchar[], a.word)"
)


@dataclass(frozen=True)
class Answered:
    """The current answers of a dimension, one row a sample.

    Attributes:
        ids: (n,) samples.
        said: (n,) the place of the model's word.
        probability: (n,) that of the word.
        decided: (n,) whether the sample has a label that was drawn with a known probability.
    """

    ids: Ints
    said: Ints
    probability: Floats
    decided: NDArray[np.bool_]


@dataclass(frozen=True)
class Decided:
    """The labels in force of a dimension beside what the model says of the same samples; aligned by rows.

    Attributes:
        ids: (n,) samples.
        said: (n,) place of the model's word.
        truth: (n,) place of the label, -1 where nobody can tell or the word is none of the words.
        probability: (n,) of the sample to be drawn; NaN where it was not drawn by chance.
        scores: (n, words) the model's probabilities.
        stratum: (n,) place of the word by which it was drawn, -1 for none.
        batch: (n,) name of the draw.
        group: (n,) near-duplicates share a number; -1 for those that are alone.
    """

    ids: Ints
    said: Ints
    truth: Ints
    probability: Floats
    scores: Floats
    stratum: Ints
    batch: list[str]
    group: Ints


@dataclass(frozen=True)
class AnswerKey:
    """Whose answers the current ones are, and how many."""

    model: str
    revision: str
    dtype: str
    detail: str
    question: str
    answers: int


def answered(
    cursor: Cursor,
    dataset_id: int,
    dimension: str,
    words: Sequence[str],
    *,
    within: tuple[str, list[object]] | None = None,
) -> Answered:
    """Return the current answers, of the samples that a condition on ``samples s`` takes (all without one)."""
    condition, values = within or ("true", [])
    found = cursor.execute(
        "select a.sample_id, list_position(?::varchar[], a.word) - 1 as said, a.probability, exists (select 1 from labels l "
        "where l.sample_id = a.sample_id and l.dimension = a.dimension and l.ended_by is null and l.probability is not null) "
        "as decided from answers a join samples s on s.id = a.sample_id where a.dataset_id = ? and s.dataset_id = ? "
        "and a.current and not s.missing and a.dimension = ? and len(a.probabilities) > 0 "
        f"and list_contains(?::varchar[], a.word) and {condition} order by a.sample_id",
        [list(words), dataset_id, dataset_id, dimension, list(words), *values],
    ).fetchnumpy()
    return Answered(
        ids=np.asarray(found["sample_id"], dtype=np.int64),
        said=np.asarray(found["said"], dtype=np.int64),
        probability=np.asarray(found["probability"], dtype=np.float64),
        decided=np.asarray(found["decided"], dtype=np.bool_),
    )


def population(cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str]) -> tuple[Ints, Floats]:
    """Return (words,) how many samples have each word, and (words, words) the sums of their probabilities, by said word."""
    sums = ", ".join(
        f"sum(coalesce(a.probabilities[list_position(a.words, $words[{place + 1}])], 0))" for place in range(len(words))
    )
    rows = cursor.execute(
        f"select list_position($words::varchar[], a.word) - 1, count(*), {sums} from {_CURRENT} group by 1",
        {"dataset": dataset_id, "dimension": dimension, "words": list(words)},
    ).fetchall()
    counts, scores = np.zeros(len(words), dtype=np.int64), np.zeros((len(words), len(words)))
    for said, count, *of in rows:
        counts[said], scores[said] = count, of
    return counts, scores


def spread(
    cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str], *, cuts: int
) -> tuple[Floats, Floats]:
    """Return rising thresholds that cut the samples into ``cuts`` equal parts, and the share at or above each."""
    values = {"dataset": dataset_id, "dimension": dimension, "words": list(words)}
    at = [place / cuts for place in range(cuts)]
    found = cursor.execute(f"select quantile_disc(a.probability, {at}), count(*) from {_CURRENT}", values).fetchall()[0]
    edges = np.unique(np.array(found[0] or [], dtype=np.float64))
    if not len(edges):
        return edges, edges
    rows = cursor.execute(
        f"select {', '.join(f'count(*) filter (a.probability >= {edge!r})' for edge in edges.tolist())} from {_CURRENT}",
        values,
    ).fetchall()
    return edges, np.array(rows[0], dtype=np.float64) / max(1, found[1])


def decided(cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str]) -> Decided:
    """Return the labels of samples that have a current answer."""
    rows = cursor.execute(
        "select l.sample_id, a.word, l.word, l.probability, l.stratum, l.design, a.words, a.probabilities, m.member_of "
        "from labels l join answers a on a.sample_id = l.sample_id and a.dimension = l.dimension and a.current "
        "left join marks m on m.sample_id = l.sample_id and m.kind = 'near' "
        "where l.dataset_id = $dataset and a.dataset_id = $dataset and l.dimension = $dimension and l.ended_by is null "
        "and len(a.probabilities) > 0 and list_contains($words::varchar[], a.word) order by l.sample_id",
        {"dataset": dataset_id, "dimension": dimension, "words": list(words)},
    ).fetchall()
    places = {word: place for place, word in enumerate(words)}
    scores = np.zeros((len(rows), len(words)))
    for row, (*_, of, probabilities, _) in enumerate(rows):
        for word, value in zip(of, probabilities, strict=True):
            if word in places:
                scores[row, places[word]] = value

    def numbers(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    return Decided(
        ids=numbers([row[0] for row in rows]),
        said=numbers([places[row[1]] for row in rows]),
        truth=numbers([places.get(row[2], -1) for row in rows]),
        probability=np.array([np.nan if row[3] is None else row[3] for row in rows], dtype=np.float64),
        scores=scores,
        stratum=numbers([places.get(row[4], -1) for row in rows]),
        batch=[row[5] for row in rows],
        group=numbers([-1 if row[8] is None else row[8] for row in rows]),
    )


def answer_keys(cursor: Cursor, dataset_id: int, dimension: str) -> list[AnswerKey]:
    """Return whose answers the current ones are, most frequent first."""
    rows = cursor.execute(
        "select coalesce(q.model, ''), coalesce(q.revision, ''), coalesce(t.dtype, ''), coalesce(t.detail, ''), "
        "coalesce(q.key, ''), count(*) from answers a left join questions q on q.id = a.question_id "
        "left join run_totals t on t.run_id = a.run_id where a.dataset_id = ? and a.dimension = ? and a.current "
        "group by all order by 6 desc",
        [dataset_id, dimension],
    ).fetchall()
    return [AnswerKey(*row) for row in rows]


def only_run(cursor: Cursor, dataset_id: int, dimension: str) -> int | None:
    """Return the run that all current answers are of; ``None`` where they are of several, or there is none."""
    rows = cursor.execute(
        "select distinct run_id from answers where dataset_id = ? and dimension = ? and current limit 2",
        [dataset_id, dimension],
    ).fetchall()
    return rows[0][0] if len(rows) == 1 else None


def prior_sums(
    cursor: Cursor,
    run_id: int,
    dimension: str,
    words: int,
    blind: Sequence[float] | None = None,
    *,
    near: float,
    least: float,
) -> tuple[int, list[float], int, float]:
    """Return the number of a run's answers, the sums of each word's probability, and two sums against a grey image's answer.

    These are how many answers are nearer to it than ``near``, and the divergences from it (Kullback & Leibler 1951), in nats.

    Args:
        words: how many there are.
        blind: the probabilities of the answer to a grey image, in the order of the words.
        least: what counts as the smallest probability whose logarithm is taken.
    """
    names = [f"p{place}" for place in range(words)]
    columns = ", ".join(f"a.probabilities[{place + 1}]::double as {name}" for place, name in enumerate(names))
    terms = [
        f"greatest({name}, {least}) * ln(greatest({name}, {least}) / {max(grey, least)!r})"
        for name, grey in zip(names, blind or (), strict=False)
    ]
    divergence = f"greatest(0, {' + '.join(terms)})" if terms else "null::double"
    ((answers, hardly, total, *sums),) = cursor.execute(
        "select count(*), count(*) filter (divergence < $near), coalesce(sum(divergence), 0), "
        f"{', '.join(f'coalesce(sum({name}), 0)' for name in names)} "
        f"from (select *, {divergence} as divergence from (select {columns} from answers a "
        "where a.run_id = $run and a.dimension = $dimension and len(a.probabilities) = $words))",
        {"run": run_id, "dimension": dimension, "words": words, "near": near},
    ).fetchall()
    return answers, sums, hardly, total


def flips(cursor: Cursor, first: int, second: int) -> Mapping[str, list[tuple[str, str, int]]]:
    """Return, per dimension that both runs asked, (first's word, second's word, samples that both answered)."""
    rows = cursor.execute(
        "select a.dimension, a.word, b.word, count(*) from answers a join answers b on b.sample_id = a.sample_id "
        "and b.dimension = a.dimension where a.run_id = ? and b.run_id = ? group by all order by min(a.place), 4 desc",
        [first, second],
    ).fetchall()
    found: dict[str, list[tuple[str, str, int]]] = {}
    for dimension, before, after, count in rows:
        found.setdefault(dimension, []).append((before, after, count))
    return found
