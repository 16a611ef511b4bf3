"""Proof that ``samples`` says what the ledger and the answers say, that nothing belongs to nobody, and that runs are as told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from .cursor import Cursor
from .deriving import CURRENT, DERIVE, EXPECTED, touch
from .ingest import dataset_delete
from .merging import apply_thresholds, revert_run
from .reading import REJECTED
from .schema import DATASET_TABLES, SAMPLE_TABLES
from .tallying import wrong_tallies

STEP = 50_000  # samples that are checked together


@dataclass(slots=True)
class Report:
    """What a check found; ids of at most a hundred samples that differ.

    Attributes:
        totals: runs whose kept totals are not what their rows say.
        tallies: data sets whose kept counts are not what their samples say.
        between: how many of what are not as the other database says.
    """

    samples: int = 0
    differing: int = 0
    examples: list[int] = field(default_factory=list)
    orphans: dict[str, int] = field(default_factory=dict)
    totals: list[int] = field(default_factory=list)
    tallies: list[int] = field(default_factory=list)
    between: dict[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        return not (self.differing or self.orphans or self.totals or self.tallies or self.between)


@dataclass(frozen=True, slots=True)
class Told:
    """What the other database says of a run: whether it is taken back, and by which thresholds it decided.

    ``own`` are dimensions, or ``dimension:word``, with a least probability of their own.
    """

    run_id: int
    reverted: bool
    min_probability: float
    min_mass: float
    own: Mapping[str, float]


def check_store(cursor: Cursor, *, datasets: Collection[int], repair: bool = False) -> Report:
    """Compare every sample's derived columns with the ledger, and look for rows of data sets that are gone.

    With ``repair`` (and a cursor that writes) the samples are derived anew and the orphans removed.
    """
    report = Report()
    report.samples = cursor.execute("select count(*) from samples").fetchall()[0][0]
    low = -1
    while True:
        cut = cursor.execute(
            "select id from samples where id > ? order by id limit 1 offset ?", [low, STEP - 1]
        ).fetchall()
        high = cut[0][0] if cut else cursor.execute("select coalesce(max(id), -1) from samples").fetchall()[0][0]
        if high <= low:
            break
        _check_range(cursor, low + 1, high, report, repair)
        low = high
    report.totals = wrong_totals(cursor, repair)
    report.tallies = wrong_tallies(cursor, repair=repair)
    orphans: dict[int, None] = {}
    for table in DATASET_TABLES:
        rows = cursor.execute(
            f"select dataset_id, count(*) from {table} where dataset_id not in (select unnest(?::bigint[])) group by 1",
            [list(datasets)],
        ).fetchall()
        if rows:
            report.orphans[table] = sum(row[1] for row in rows)
            orphans |= dict.fromkeys(row[0] for row in rows)
        if table in SAMPLE_TABLES:
            lost = cursor.execute(
                f"select count(*) from {table} t where t.dataset_id in (select unnest(?::bigint[])) "
                "and not exists (select 1 from samples s where s.id = t.sample_id)",
                [list(datasets)],
            ).fetchall()[0][0]
            if lost:
                report.orphans[table] = report.orphans.get(table, 0) + lost
                if repair:
                    cursor.execute(f"delete from {table} where sample_id not in (select id from samples)").fetchall()
    if repair:
        for dataset_id in orphans:
            dataset_delete(cursor, dataset_id=dataset_id)
    return report


def check_runs(cursor: Cursor, told: Sequence[Told], *, repair: bool = False) -> dict[str, int]:
    """Compare what is told of runs that nobody works on with what the store holds of them; returns what differs, counted.

    With ``repair`` the store is made to say what is told.
    """
    held = {row[0] for row in cursor.execute("select run_id from run_totals").fetchall()}
    taken_back = [run.run_id for run in told if run.reverted and run.run_id in held]
    decided = [run for run in told if not run.reverted and run.run_id in held]
    otherwise = _decided_otherwise(cursor, decided)
    if repair:
        for run_id in taken_back:
            revert_run(cursor, run_id=run_id)
        for run in decided:
            if run.run_id in otherwise:
                _decide(cursor, run)
    found = {"runs that are taken back": len(taken_back), "runs with other thresholds": len(otherwise)}
    return {what: count for what, count in found.items() if count}


# Answers whose words were edited since are as they were decided, and a user's removal is no threshold's (version 1).
OTHERWISE = f"""
select distinct a.run_id from answers a join told t on t.run_id = a.run_id and t.dimension = ''
left join told o on o.run_id = a.run_id and o.dimension = a.dimension
left join told w on w.run_id = a.run_id and w.dimension = a.dimension || ':' || a.word
where a.mass is not null and a.probability is not null and a.reason <> '{REJECTED}'
  and a.accepted <> (a.probability >= coalesce(w.probability, o.probability, t.probability) and a.mass >= t.mass)
  and not exists (select 1 from answer_images i where i.run_id = a.run_id and i.sample_id = a.sample_id
    and i.dimension = a.dimension)
"""


def _decided_otherwise(cursor: Cursor, told: Sequence[Told]) -> set[int]:
    """Return the runs with an answer that their thresholds would not have decided like this."""
    rows = [
        (run.run_id, dimension, least, run.min_mass)
        for run in told
        for dimension, least in {"": run.min_probability, **run.own}.items()
    ]
    cursor.execute(
        "create or replace temp table told as select unnest(?::bigint[]) as run_id, unnest(?::varchar[]) as dimension, "
        "unnest(?::double[]) as probability, unnest(?::double[]) as mass",
        [[row[place] for row in rows] for place in range(4)],
    ).fetchall()
    return {row[0] for row in cursor.execute(OTHERWISE).fetchall()}


def _decide(cursor: Cursor, run: Told) -> None:
    own = sorted(run.own.items(), key=lambda one: ":" in one[0])  # those of words come last
    for key, least in [("", run.min_probability), *own]:
        dimension, colon, word = key.partition(":")
        words = {word: least} if colon else {}
        apply_thresholds(
            cursor,
            run_id=run.run_id,
            min_probability=least,
            min_mass=run.min_mass,
            dimension=dimension,
            words=words,
        )


TOTALS = """
select r.run_id, any_value(r.dataset_id) as dataset_id, count(*) as processed, coalesce(any_value(a.tagged), 0) as tagged,
    coalesce(any_value(a.discarded), 0) as discarded, count(*) filter (r.status = 'failed') as failed,
    count(h.sample_id) as shared
from run_samples r left join shares h on h.run_id = r.run_id and h.sample_id = r.sample_id left join (
    select run_id, count(distinct sample_id) filter (accepted) as tagged, count(*) filter (not accepted) as discarded
    from answers group by all
) a on a.run_id = r.run_id group by r.run_id
"""


def wrong_totals(cursor: Cursor, repair: bool) -> list[int]:
    """Return the runs whose kept totals are not what their rows say; with ``repair`` they are counted anew."""
    rows = cursor.execute(
        f"select coalesce(t.run_id, c.run_id) as run, c.dataset_id, c.processed, c.tagged, c.discarded, c.failed, c.shared "
        f"from run_totals t full join ({TOTALS}) c on c.run_id = t.run_id "
        "where (coalesce(t.processed, 0), coalesce(t.tagged, 0), coalesce(t.discarded, 0), coalesce(t.failed, 0), "
        "coalesce(t.shared, 0)) <> (coalesce(c.processed, 0), coalesce(c.tagged, 0), coalesce(c.discarded, 0), "
        "coalesce(c.failed, 0), coalesce(c.shared, 0)) order by 1"
    ).fetchall()
    if repair:
        for run, dataset_id, *figures in rows:
            counted = [figure or 0 for figure in figures]
            cursor.execute(
                "insert into run_totals values (?, ?, '', '', ?, ?, ?, ?, ?) on conflict do update set processed = "
                "excluded.processed, tagged = excluded.tagged, discarded = excluded.discarded, failed = excluded.failed, "
                "shared = excluded.shared",
                [run, dataset_id or 0, *counted],
            ).fetchall()
    return [row[0] for row in rows]


def _check_range(cursor: Cursor, low: int, high: int, report: Report, repair: bool) -> None:
    touch(cursor, ("s.id between ? and ?", [low, high]))
    span = {"low": low, "high": high}
    if repair:
        cursor.execute(CURRENT, span).fetchall()
    rows = cursor.execute(
        "select s.id from samples s join expected_rows e on e.id = s.id where s.tags <> e.tags "
        "or s.user_count <> e.user_count or s.certainty is distinct from e.certainty or s.discarded <> e.discarded "
        "or s.failed <> e.failed or s.answered is distinct from e.answered or s.tags is null".replace(
            "expected_rows", f"({EXPECTED})"
        ),
        span,
    ).fetchall()
    report.differing += len(rows)
    report.examples += sorted(row[0] for row in rows)[: 100 - len(report.examples)]
    if repair and rows:
        cursor.execute(DERIVE, span).fetchall()
