"""Proof that ``samples`` says what the ledger and the answers say, and that nothing belongs to nobody."""

from collections.abc import Collection
from dataclasses import dataclass, field

from .database import Cursor
from .merging import CURRENT, DERIVE, EXPECTED, dataset_delete, touch

STEP = 50_000  # samples that are checked together
TABLES = ("samples", "annotations", "sample_tags", "rejections", "answers", "run_samples")


@dataclass(slots=True)
class Report:
    """What a check found; ids of at most a hundred samples that differ."""

    samples: int = 0
    differing: int = 0
    examples: list[int] = field(default_factory=list)
    orphans: dict[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        return not self.differing and not self.orphans


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
    orphans: dict[int, None] = {}
    for table in TABLES:
        rows = cursor.execute(
            f"select dataset_id, count(*) from {table} where dataset_id not in (select unnest(?::bigint[])) group by 1",
            [list(datasets)],
        ).fetchall()
        if rows:
            report.orphans[table] = sum(row[1] for row in rows)
            orphans |= dict.fromkeys(row[0] for row in rows)
        if table != "samples":
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


def _check_range(cursor: Cursor, low: int, high: int, report: Report, repair: bool) -> None:
    touch(cursor, ("s.id between ? and ?", [low, high]))
    span = {"low": low, "high": high}
    if repair:
        cursor.execute(CURRENT, span).fetchall()
    rows = cursor.execute(
        "select s.id from samples s join expected_rows e on e.id = s.id where s.tags <> e.tags "
        "or s.user_count <> e.user_count or s.certainty is distinct from e.certainty or s.discarded <> e.discarded "
        "or s.failed <> e.failed or s.tags is null".replace("expected_rows", f"({EXPECTED})"),
        span,
    ).fetchall()
    report.differing += len(rows)
    report.examples += sorted(row[0] for row in rows)[: 100 - len(report.examples)]
    if repair and rows:
        cursor.execute(DERIVE, span).fetchall()
