"""What the statistics of trust need of the store: answers as arrays, labels beside what the model said, runs side by side.

A sample counts with its current answer to the dimension, if that carries probabilities and names one of the words asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cursor import Cursor
from .merging import WORDINGS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """The current answers of a dimension, one row a sample.

    Attributes:
        ids: (n,) samples.
        said: (n,) the place of the model's word.
        probability: (n,) that of the word.
        decided: (n,) whether the sample has a label that was drawn with a known probability.
        disagreement: (n,) the share of the other runs that said another word, or of the question's other wordings: the larger.
        contradiction: (n,) how far the pixels contradict the word, from 0 to 1: beyond which share of the word's images.
    """

    ids: Ints
    said: Ints
    probability: Floats
    decided: NDArray[np.bool_]
    disagreement: Floats
    contradiction: Floats


@dataclass(frozen=True)
class Decided:
    """The labels in force of a dimension beside what the model says of the same samples; aligned by rows.

    Attributes:
        ids: (n,) samples.
        said: (n,) place of the model's word.
        truth: (n,) place of the label, -1 where nobody can tell or the word is none of the words.
        probability: (n,) of the sample to be drawn; NaN where it was not drawn by chance.
        top: (n,) the probability of the model's word, and
        scores: (n, words) those of all, which are kept in fewer digits.
        stratum: (n,) place of the word by which it was drawn, -1 for none.
        batch: (n,) name of the draw.
        group: (n,) near-duplicates share a number; -1 for those that are alone.
        source: (n,) the sample that was asked: itself, or the one whose answer it took over.
    """

    ids: Ints
    said: Ints
    truth: Ints
    probability: Floats
    top: Floats
    scores: Floats
    stratum: Ints
    batch: list[str]
    group: Ints
    source: Ints


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
    # Answers of other runs, and marks, are few beside the current answers or none: they are gathered first.
    found = cursor.execute(
        "with others as (select o.sample_id, avg((o.word <> c.word)::integer) as disagreement from answers o "
        "join answers c on c.sample_id = o.sample_id and c.dimension = o.dimension and c.current where o.dataset_id = ? "
        "and c.dataset_id = ? and o.dimension = ? and not o.current and not o.stale and list_contains(?::varchar[], o.word) "
        "group by o.sample_id), worded as (select sample_id, max(value) as disagreement from marks where dataset_id = ? "
        f"and kind = '{WORDINGS}' and word = ? group by sample_id), against as (select sample_id, word, "
        "max(coalesce(value, 0.5)) as contradiction from marks where dataset_id = ? and kind = 'contradiction' group by all) "
        "select a.sample_id, list_position(?::varchar[], a.word) - 1 as said, a.probability, exists (select 1 from labels l "
        "where l.sample_id = a.sample_id and l.dimension = a.dimension and l.ended_by is null and l.probability is not null) "
        "as decided, coalesce(greatest(others.disagreement, worded.disagreement), 0) as disagreement, "
        "coalesce(against.contradiction, 0) as contradiction from answers a join samples s on s.id = a.sample_id "
        "left join others on others.sample_id = a.sample_id left join worded on worded.sample_id = a.sample_id "
        "left join against on against.sample_id = a.sample_id and against.word = a.word "
        "where a.dataset_id = ? and s.dataset_id = ? "
        "and a.current and not s.missing and a.dimension = ? and len(a.probabilities) > 0 "
        f"and list_contains(?::varchar[], a.word) and {condition} order by a.sample_id",
        [
            *(dataset_id, dataset_id, dimension, list(words)),
            *(dataset_id, dimension, dataset_id, list(words)),
            *(dataset_id, dataset_id, dimension, list(words), *values),
        ],
    ).fetchnumpy()
    return Answered(
        ids=np.asarray(found["sample_id"], dtype=np.int64),
        said=np.asarray(found["said"], dtype=np.int64),
        probability=np.asarray(found["probability"], dtype=np.float64),
        decided=np.asarray(found["decided"], dtype=np.bool_),
        disagreement=np.asarray(found["disagreement"], dtype=np.float64),
        contradiction=np.asarray(found["contradiction"], dtype=np.float64),
    )


@dataclass(frozen=True)
class Steps:
    """How the probabilities of the said words are spread: counts of samples by steps of a fiftieth in natural log-odds.

    So there are as many steps from 0.999 to 0.9999 as from 0.9 to 0.99. Aligned by rows:

    Attributes:
        said: the place of the word.
        step: rising with the probability.
        probability: the lowest one in it.
        samples: how many are in it.
    """

    said: Ints
    step: Ints
    probability: Floats
    samples: Ints


def totals(
    cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str], runs: Sequence[int]
) -> tuple[Ints, Floats, Steps]:
    """Count the current answers, which are of these ``runs``, in one pass over them.

    Returns:
        (words,) how many samples have each word; (words, words) the sums of their probabilities, by said word; and how the
        probabilities of the said words are spread.
    """
    listed = _listed(cursor, dataset_id, dimension, runs)
    width = max(map(len, listed.values()), default=0)
    sums = "".join(f", sum(a.probabilities[{place + 1}]) as sum_{place}" for place in range(width))
    # Nothing in here looks into a list of words or joins the samples: either would take as long as all the rest.
    found = cursor.execute(
        "select a.run_id, a.word, min(a.probability) as probability, count(*) as samples, "
        f"floor(50 * ln(greatest(a.probability, 1e-15) / greatest(1 - a.probability, 1e-15)))::integer as step{sums} "
        "from answers a where a.dataset_id = $dataset and a.current and a.dimension = $dimension and len(a.probabilities) > 0 "
        "and a.sample_id not in (select id from samples where dataset_id = $dataset and missing) group by a.run_id, a.word, step",
        {"dataset": dataset_id, "dimension": dimension},
    ).fetchnumpy()
    places = {word: place for place, word in enumerate(words)}
    said = np.array([places.get(word, -1) for word in found["word"]], dtype=np.int64)
    wanted = said >= 0
    said = said[wanted]
    run, step, samples = (np.asarray(found[name], dtype=np.int64)[wanted] for name in ("run_id", "step", "samples"))
    counts, scores = np.zeros(len(words), dtype=np.int64), np.zeros((len(words), len(words)))
    np.add.at(counts, said, samples)
    for run_id, asked in listed.items():
        of = run == run_id
        for place, word in enumerate(asked):
            if word in places:
                added = np.asarray(found[f"sum_{place}"], dtype=np.float64)[wanted][of]
                np.add.at(scores[:, places[word]], said[of], added)
    # Several runs share a step.
    pairs, row = np.unique(np.stack([said, step]), axis=1, return_inverse=True)
    lowest, held = np.ones(pairs.shape[1]), np.zeros(pairs.shape[1], dtype=np.int64)
    np.minimum.at(lowest, row.ravel(), np.asarray(found["probability"], dtype=np.float64)[wanted])
    np.add.at(held, row.ravel(), samples)
    return counts, scores, Steps(pairs[0], pairs[1], lowest, held)


def _listed(cursor: Cursor, dataset_id: int, dimension: str, runs: Sequence[int]) -> Mapping[int, list[str]]:
    """Return run → the words by which its answers' probabilities are ordered: those of all its answers to the dimension."""
    rows = [
        cursor.execute(
            "select run_id, words from answers where dataset_id = ? and run_id = ? and dimension = ? and len(probabilities) > 0 "
            "limit 1",
            [dataset_id, run_id, dimension],
        ).fetchone()
        for run_id in runs
    ]
    return dict(row for row in rows if row is not None)


def decided(cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str]) -> Decided:
    """Return the labels of samples that have a current answer."""
    scores = ", ".join(
        f"coalesce(probabilities[list_position(words, $words[{place + 1}])], 0) as score_{place}"
        for place in range(len(words))
    )
    # The labels are few: their answers are looked up first, and looked into after.
    found = cursor.execute(
        "with l as materialized (select * from labels where dataset_id = $dataset and dimension = $dimension "
        "and ended_by is null), f as materialized (select l.sample_id, l.word as truth, l.probability, l.stratum, l.design, "
        "a.word, a.words, a.probabilities, a.probability as top, a.run_id from l join answers a on a.sample_id = l.sample_id "
        "and a.dimension = $dimension and a.current where a.dataset_id = $dataset), "
        "n as (select sample_id, any_value(member_of) as member_of from marks where dataset_id = $dataset and kind = 'near' "
        "group by sample_id) "
        "select f.sample_id, list_position($words::varchar[], word) - 1 as said, "
        "coalesce(list_position($words::varchar[], truth), 0) - 1 as truth, probability, top, "
        "coalesce(list_position($words::varchar[], stratum), 0) - 1 as stratum, design, "
        f"coalesce(n.member_of, -1) as member_of, coalesce(h.source_id, f.sample_id) as source, {scores} from f "
        "left join n on n.sample_id = f.sample_id left join shares h on h.run_id = f.run_id and h.sample_id = f.sample_id "
        "where len(probabilities) > 0 and list_contains($words::varchar[], word) order by f.sample_id",
        {"dataset": dataset_id, "dimension": dimension, "words": list(words)},
    ).fetchnumpy()

    def numbers(name: str) -> Ints:
        return np.asarray(found[name], dtype=np.int64)

    def floats(name: str) -> Floats:
        return np.ma.filled(np.ma.asarray(found[name], dtype=np.float64), np.nan)

    return Decided(
        ids=numbers("sample_id"),
        said=numbers("said"),
        truth=numbers("truth"),
        probability=floats("probability"),
        top=floats("top"),
        scores=np.stack([floats(f"score_{place}") for place in range(len(words))], axis=1),
        stratum=numbers("stratum"),
        batch=[str(name) for name in found["design"]],
        group=numbers("member_of"),
        source=numbers("source"),
    )


def raw_scores(cursor: Cursor, dataset_id: int, dimension: str, words: Sequence[str], ids: Ints) -> Floats:
    """Return (n, words) what the model said itself of some samples, where the answers of the dimension are calibrated."""
    rows = cursor.execute(
        "select sample_id, words, coalesce(raw.probabilities, probabilities) from answers where dataset_id = ? "
        "and dimension = ? and current and sample_id in (select unnest(?::bigint[]))",
        [dataset_id, dimension, ids.tolist()],
    ).fetchall()
    places, order = {word: place for place, word in enumerate(words)}, {int(one): row for row, one in enumerate(ids)}
    scores = np.zeros((len(ids), len(words)))
    for sample_id, of, probabilities in rows:
        for word, value in zip(of, probabilities, strict=True):
            if word in places:
                scores[order[sample_id], places[word]] = value
    return scores


def answer_keys(cursor: Cursor, dataset_id: int, dimension: str) -> list[AnswerKey]:
    """Return whose answers the current ones are, most frequent first."""
    rows = cursor.execute(
        "select coalesce(q.model, ''), coalesce(q.revision, ''), coalesce(t.dtype, ''), coalesce(t.detail, ''), "
        "coalesce(q.key, ''), sum(a.answers)::bigint from (select question_id, run_id, count(*) as answers from answers "
        "where dataset_id = ? and dimension = ? and current group by all) a left join questions q on q.id = a.question_id "
        "left join run_totals t on t.run_id = a.run_id group by all order by 6 desc",
        [dataset_id, dimension],
    ).fetchall()
    return [AnswerKey(*row) for row in rows]


def runs_of(cursor: Cursor, dataset_id: int, dimension: str) -> list[int]:
    """Return the runs that the current answers are of."""
    rows = cursor.execute(
        "select distinct run_id from answers where dataset_id = ? and dimension = ? and current order by 1",
        [dataset_id, dimension],
    ).fetchall()
    return [row[0] for row in rows]


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
    own = "coalesce(a.raw.probabilities, a.probabilities)"  # not what a calibration makes of it
    columns = ", ".join(f"{own}[{place + 1}]::double as {name}" for place, name in enumerate(names))
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
    places = {run: _places(cursor, run) for run in (first, second)}
    names = [name for name in places[first] if name in places[second]]
    if not names:
        return {}
    # One number for sample and dimension: joining by that takes a fifth of the time that joining by both takes.
    sides = []
    for run in (first, second):
        cases = " ".join(f"when {places[run][name]} then {number}" for number, name in enumerate(names))
        number = f"sample_id * {len(names)} + case place {cases} end"
        sides.append(f"(select {number} as number, word from answers where run_id = {run:d})")
    rows = cursor.execute(
        f"select a.number % {len(names)}, a.word, b.word, count(*) from {sides[0]} a join {sides[1]} b on a.number = b.number "
        "group by all order by 1, 4 desc, 2, 3"
    ).fetchall()
    found: dict[str, list[tuple[str, str, int]]] = {}
    for of, before, after, count in rows:
        found.setdefault(names[of], []).append((before, after, count))
    return found


def _places(cursor: Cursor, run_id: int) -> dict[str, int]:
    """Return dimension → its place in what a run asked, in that order."""
    return dict(
        cursor.execute(
            "select any_value(dimension), place from answers where run_id = ? group by place order by place", [run_id]
        ).fetchall()
    )
