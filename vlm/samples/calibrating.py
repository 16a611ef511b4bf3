"""Calibrated answers: a dimension's probabilities scaled so that they mean what they say, beside what the model said itself.

A calibration in force belongs to the answers of one question, number format and detail. Their ``probabilities``, word and
decision are the scaled ones, so that whatever reads answers goes by them; ``answers.raw`` holds what they were, from where taking
the calibration back puts them in force again, exactly. All writing is inside ``SampleStore.write()``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from .cursor import Cursor
from .database import number
from .deriving import changed, derive, touch
from .merging import BELOW_THRESHOLD, OFF_THE_LIST, accepted_keep, totals_keep
from .records import Edit

Decisions = Mapping[int, tuple[Mapping[str, float], float]]  # run → each word's least probability, and the least mass


@dataclass(frozen=True, slots=True)
class Scaling:
    """A calibration as it is written down: probabilities p become softmax(slope · log p + bias).

    Attributes:
        question: key of the question, of which model and revision are a part; they stand beside it.
        least: what counts as the smallest probability whose logarithm is taken.
        record: whatever else is to be known of it.
        before: run → its own thresholds of the dimension as they were without it.
    """

    dimension: str
    question: str
    model: str
    revision: str
    dtype: str
    detail: str
    slope: float
    bias: tuple[float, ...]
    least: float
    record: Mapping[str, Any]
    before: Mapping[int, Mapping[str, float]]
    user_name: str = ""
    created: datetime | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        before = {int(run): thresholds for run, thresholds in value["before"].items()}
        return cls(**{**value, "bias": tuple(value["bias"]), "before": before})


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What a calibration, or its end, changes: answers in all, accepted ones before and after, samples whose tag changes.

    ``flips`` are the answers whose word changes: (before, after, how many), the most frequent first.
    """

    answers: int
    accepted_before: int
    accepted_after: int
    changed: int
    flips: tuple[tuple[str, str, int], ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return it from what ``asdict`` made."""
        return cls(**{**value, "flips": tuple((before, after, count) for before, after, count in value["flips"])})

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "accepted_before": self.accepted_before,
            "accepted_after": self.accepted_after,
            "changed": self.changed,
            "flips": [{"before": before, "after": after, "samples": count} for before, after, count in self.flips],
        }


def in_force(cursor: Cursor, dataset_id: int) -> dict[str, Scaling]:
    """Return dimension → the calibration in force."""
    rows = cursor.execute(
        "select c.dimension, q.key, q.model, q.revision, c.dtype, c.detail, c.slope, c.bias, c.least, c.record, c.before, "
        "c.user_name, c.created from calibrations c join questions q on q.id = c.question_id where c.dataset_id = ?",
        [dataset_id],
    ).fetchall()
    return {row[0]: _scaling(row) for row in rows}


def datasets_calibrated(cursor: Cursor, dimensions: Sequence[str]) -> list[tuple[int, str]]:
    """Return which of some dimensions are calibrated in which data sets."""
    return cursor.execute(
        "select dataset_id, dimension from calibrations where dimension in (select unnest(?::varchar[])) order by all",
        [list(dimensions)],
    ).fetchall()


def runs_scaled(cursor: Cursor, dataset_id: int, scaling: Scaling) -> list[int]:
    """Return the runs that have answers which a calibration is about."""
    rows = cursor.execute(
        f"select distinct a.run_id from answers a where {OF_THE_KEY} order by 1", _key(dataset_id, scaling)
    ).fetchall()
    return [row[0] for row in rows]


def runs_calibrated(cursor: Cursor, dataset_id: int, dimension: str) -> list[int]:
    """Return the runs that have calibrated answers of a dimension."""
    rows = cursor.execute(
        "select distinct run_id from answers where dataset_id = ? and dimension = ? and raw is not null order by 1",
        [dataset_id, dimension],
    ).fetchall()
    return [row[0] for row in rows]


def preview(cursor: Cursor, dataset_id: int, scaling: Scaling, decisions: Decisions) -> Rescaled:
    """Tell what :func:`apply` would do, without doing it."""
    _rescale(cursor, dataset_id, scaling, decisions)
    return _told(cursor, dataset_id, scaling.dimension)


def preview_end(cursor: Cursor, dataset_id: int, dimension: str) -> Rescaled:
    """Tell what :func:`end` would do, without doing it."""
    _restore(cursor, dataset_id, dimension)
    return _told(cursor, dataset_id, dimension)


def apply(cursor: Cursor, dataset_id: int, scaling: Scaling, decisions: Decisions, by: Edit) -> Rescaled:
    """Let a calibration be in force, in place of the dimension's present one, and decide its answers anew.

    Where one is in force already, what runs' thresholds were before that one is kept as what they were.
    """
    dimension = scaling.dimension
    known = in_force(cursor, dataset_id).get(dimension)
    before = scaling.before if known is None else {**scaling.before, **known.before}
    if known is not None:
        end(cursor, dataset_id, dimension)
    _rescale(cursor, dataset_id, scaling, decisions)
    done = _told(cursor, dataset_id, dimension)
    _put(
        cursor,
        dataset_id,
        dimension,
        "struct_pack(probabilities := a.probabilities, word := a.word, "
        "probability := a.probability, accepted := a.accepted, reason := a.reason)",
    )
    cursor.execute(
        "insert into calibrations (dataset_id, dimension, question_id, dtype, detail, slope, bias, least, record, before, user_id, "
        "user_name) select ?, ?, id, ?, ?, ?, ?, ?, ?, ?, ?, ? from questions where key = ?",
        [
            *(dataset_id, dimension, scaling.dtype, scaling.detail, scaling.slope, list(scaling.bias), scaling.least),
            *(json.dumps(scaling.record), json.dumps(before), by.user_id, by.user_name, scaling.question),
        ],
    ).fetchall()
    return done


def end(cursor: Cursor, dataset_id: int, dimension: str) -> Rescaled:
    """Put what the model said itself in force again: words, probabilities and decisions as they were."""
    _restore(cursor, dataset_id, dimension)
    done = _told(cursor, dataset_id, dimension)
    _put(cursor, dataset_id, dimension, "null")
    cursor.execute(
        "delete from calibrations where dataset_id = ? and dimension = ?", [dataset_id, dimension]
    ).fetchall()
    return done


# -- inside --------------------------------------------------------------------------------------------------------------
OF_THE_KEY = """a.dataset_id = $dataset and a.dimension = $dimension and len(a.probabilities) = $words
    and a.question_id = (select id from questions where key = $question)
    and a.run_id in (select run_id from run_totals where dataset_id = $dataset and dtype = $dtype and detail = $detail)"""


def _key(dataset_id: int, scaling: Scaling) -> dict[str, Any]:
    return {
        "dataset": dataset_id,
        "dimension": scaling.dimension,
        "words": len(scaling.bias),
        "question": scaling.question,
        "dtype": scaling.dtype,
        "detail": scaling.detail,
    }


def _rescale(cursor: Cursor, dataset_id: int, scaling: Scaling, decisions: Decisions) -> None:
    """Make ``rescaled``: what the answers of a calibration's key become, of the runs that ``decisions`` names."""
    places = range(len(scaling.bias))
    logits = ", ".join(
        f"{scaling.slope!r} * ln(greatest(p[{place + 1}]::double, {scaling.least!r})) + {scaling.bias[place]!r} as l{place}"
        for place in places
    )
    names = [f"l{place}" for place in places]
    shares = [f"exp({name} - most) / total" for name in names]
    best = " ".join(f"when {name} = most then words[{place + 1}]" for place, name in enumerate(names))
    least = [(run, word, one, mass) for run, (words, mass) in decisions.items() for word, one in words.items()]
    cursor.execute(
        "create or replace temp table least_of as select unnest(?::bigint[]) as run_id, unnest(?::varchar[]) as word, "
        "unnest(?::double[]) as least, unnest(?::double[]) as mass",
        [[row[place] for row in least] for place in range(4)],
    ).fetchall()
    cursor.execute(
        f"""
        create or replace temp table rescaled as
        select r.run_id, r.sample_id, [{", ".join(shares)}]::float[] as probabilities, r.word, 1 / total as probability,
            1 / total >= t.least and r.mass >= t.mass as accepted,
            case when r.mass < t.mass then '{OFF_THE_LIST}' when 1 / total < t.least then '{BELOW_THRESHOLD}' else '' end as reason
        from (
            select *, case {best} end as word, {" + ".join(f"exp({name} - most)" for name in names)} as total
            from (select *, greatest({", ".join(names)}) as most from (
                select run_id, sample_id, words, mass, {logits} from (
                    select a.run_id, a.sample_id, a.words, a.mass, coalesce(a.raw.probabilities, a.probabilities) as p
                    from answers a where {OF_THE_KEY})))
        ) r join least_of t on t.run_id = r.run_id and t.word = r.word
        """,
        _key(dataset_id, scaling),
    ).fetchall()


def _restore(cursor: Cursor, dataset_id: int, dimension: str) -> None:
    """Make ``rescaled`` of what the model said itself."""
    cursor.execute(
        "create or replace temp table rescaled as select run_id, sample_id, raw.probabilities as probabilities, "
        "raw.word as word, raw.probability as probability, raw.accepted as accepted, raw.reason as reason "
        "from answers where dataset_id = ? and dimension = ? and raw is not null",
        [dataset_id, dimension],
    ).fetchall()


def _told(cursor: Cursor, dataset_id: int, dimension: str) -> Rescaled:
    joined = (
        "from rescaled r join answers a on a.run_id = r.run_id and a.sample_id = r.sample_id "
        "where a.dataset_id = $dataset and a.dimension = $dimension"
    )
    of = {"dataset": dataset_id, "dimension": dimension}
    ((answers, before, after, touched),) = cursor.execute(
        "select count(*), count(*) filter (a.accepted), count(*) filter (r.accepted), count(distinct r.sample_id) filter "
        f"(a.current and (a.accepted <> r.accepted or (a.accepted and a.word <> r.word))) {joined}",
        of,
    ).fetchall()
    flips = cursor.execute(
        f"select a.word, r.word, count(*) {joined} and a.word <> r.word group by all order by 3 desc, 1, 2", of
    ).fetchall()
    return Rescaled(answers, before, after, touched, tuple(flips))


def _put(cursor: Cursor, dataset_id: int, dimension: str, raw: str) -> None:
    """Write ``rescaled`` into the answers, with ``raw`` beside them, and let tags and totals follow."""
    cursor.execute(
        f"update answers a set raw = {raw}, probabilities = r.probabilities, word = r.word, probability = r.probability, "
        "accepted = r.accepted, reason = r.reason from rescaled r where a.dataset_id = ? and a.dimension = ? "
        "and a.run_id = r.run_id and a.sample_id = r.sample_id",
        [dataset_id, dimension],
    ).fetchall()
    if not touch(cursor, ("s.id in (select sample_id from rescaled)", [])):
        return
    for (run_id,) in cursor.execute("select distinct run_id from rescaled order by 1").fetchall():
        number(
            cursor,
            "delete from sample_tags where run_id = ? and dimension = ? and sample_id in (select id from touched)",
            [run_id, dimension],
        )
        accepted_keep(cursor, run_id, dimension)
        totals_keep(cursor, run_id)
    derive(cursor)
    changed(cursor, dataset_id)


def _scaling(row: tuple[Any, ...]) -> Scaling:
    dimension, question, model, revision, dtype, detail, slope, bias, least, record, before, user_name, created = row
    whose = (dimension, question, model, revision, dtype, detail)
    own = {int(run): thresholds for run, thresholds in json.loads(before).items()}
    return Scaling(*whose, slope, tuple(bias), least, json.loads(record), own, user_name, created)
