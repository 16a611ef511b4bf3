"""What is found by comparing samples: tags that contradict the pixels, and images that are nearly the same.

Findings are marks. They hold for the tags and measures as they were when somebody looked, which ``findings`` remembers; a
contradiction shows only while the sample still has the tag and nobody decided that it is right.

All inside ``SampleStore.write()``, the reading functions inside ``read()``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .conditions import STANDING
from .cursor import Cursor
from .deriving import changed

Side = Literal["high", "low"]

CONTRADICTION, NEAR, LEAK = "contradiction", "near", "leak"
BEYOND = 0.98  # share of a word's own images that a contradicting one is beyond


@dataclass(frozen=True, slots=True)
class Rule:
    """A word that speaks of a measure: an image with it that has strangely much (``high``) or little of it contradicts it.

    ``more`` says what such an image is more than the word's others.
    """

    measure: str
    side: Side
    more: str


_DARKER, _BRIGHTER = Rule("luminance", "low", "darker"), Rule("luminance", "high", "brighter")
_BLURRED, _SHARPER = Rule("sharpness", "low", "more blurred"), Rule("sharpness", "high", "sharper")
_NOISIER, _CLEANER = Rule("noise", "high", "noisier"), Rule("noise", "low", "less noisy")
_CLEARER, _DULLER = Rule("contrast", "high", "richer in contrast"), Rule("contrast", "low", "poorer in contrast")
_COLOURED, _GRAYER = Rule("colourfulness", "high", "more colourful"), Rule("colourfulness", "low", "less colourful")

RULES: dict[str, tuple[Rule, ...]] = {
    "dark": (_BRIGHTER,),
    "dim": (_BRIGHTER,),
    "bright": (_DARKER,),
    "normal": (_DARKER, _BRIGHTER),
    "overexposed": (_DARKER,),
    "underexposed": (_BRIGHTER,),
    "night": (_BRIGHTER,),
    "day": (_DARKER,),
    "sunny": (_DARKER,),
    "blurry": (_SHARPER,),
    "blurred": (_SHARPER,),
    "sharp": (_BLURRED, _NOISIER),
    "noisy": (_CLEANER,),
    "grainy": (_CLEANER,),
    "foggy": (_CLEARER,),
    "hazy": (_CLEARER,),
    "colourful": (_GRAYER,),
    "colorful": (_GRAYER,),
    "monochrome": (_COLOURED,),
    "black and white": (_COLOURED,),
    "low contrast": (_CLEARER,),
    "high contrast": (_DULLER,),
}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A tag that the pixels speak against: the image is ``rule.more`` than a share ``beyond`` of those with the word."""

    sample_id: int
    word: str
    rule: Rule
    beyond: float


@dataclass(frozen=True, slots=True)
class Looked:
    """When somebody looked for findings of a kind, with which setting, at how many measured samples.

    ``changed`` says whether the data set has changed since.
    """

    at: datetime
    setting: float
    changed: bool
    samples: int


@dataclass(frozen=True, slots=True)
class WordContradictions:
    """How many of a word's images contradict it by one rule."""

    word: str
    rule: Rule
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are nearly the same; ``number`` is the lowest of them."""

    number: int
    size: int
    splits: tuple[str, ...]


Named = Mapping[str, Sequence[str]]  # word of a dimension → what else it is called


def rules_for(dimensions: Iterable[Named]) -> dict[str, tuple[Rule, ...]]:
    """Return word → its rules. “Normal” speaks of light only among words that do."""
    found: dict[str, tuple[Rule, ...]] = {}
    for words in dimensions:
        known = {word: [name.casefold() for name in (word, *others)] for word, others in words.items()}
        every = {name for names in known.values() for name in names}
        for word, names in known.items():
            for name in names:
                if name in RULES and (name != "normal" or every & {"dark", "bright"}):
                    found.setdefault(word, RULES[name])
    return found


# -- contradictions --------------------------------------------------------------------------------------------------------
def contradictions_find(
    cursor: Cursor, *, dataset_id: int, rules: Mapping[str, Sequence[Rule]], beyond: float = BEYOND
) -> int:
    """Look which samples contradict a tag of theirs, in place of what was found before; returns how many pairs that are.

    A sample is beyond those of the word's images that have less of the measure (or more, by the rule's side); of those alike
    half count, itself included. So none of a group of equal images contradicts, nor one of fewer than half of
    ``1 / (1 - beyond)`` images: such a small group says nothing about what is usual for its word.
    """
    cursor.execute("delete from marks where dataset_id = ? and kind = ?", [dataset_id, CONTRADICTION]).fetchall()
    count = 0
    for word, of in rules.items():
        for rule in of:
            sign = "" if rule.side == "high" else "-"
            rows = cursor.execute(
                "insert into marks (dataset_id, kind, sample_id, member_of, value, word, measure) "
                "with own as (select s.id, "
                f"{sign}m.{rule.measure} as x from samples s join measures m on m.sample_id = s.id "
                "where s.dataset_id = $dataset and m.dataset_id = $dataset and list_contains(s.tags, $word)), "
                "alike as (select x, count(*) as many from own group by x), "
                "placed as (select x, (sum(many) over (order by x) - many / 2.0) / sum(many) over () as place from alike) "
                "select $dataset, $kind, o.id, null, p.place, $word, $measure from own o join placed p on p.x = o.x "
                "where p.place > $beyond order by p.place desc, o.id",
                {
                    "dataset": dataset_id,
                    "word": word,
                    "kind": CONTRADICTION,
                    "measure": f"{rule.measure} {rule.side}",
                    "beyond": beyond,
                },
            ).fetchall()
            count += int(rows[0][0])
    _looked(cursor, dataset_id, CONTRADICTION, beyond)
    return count


def contradictions_count(cursor: Cursor, dataset_id: int) -> list[WordContradictions]:
    """Return how many samples contradict which word, and by which rule, the most frequent first."""
    rows = cursor.execute(
        f"select m.word, m.measure, count(*) from marks m join samples s on s.id = m.sample_id where m.dataset_id = ? "
        f"and s.dataset_id = ? and m.kind = ? and {STANDING} group by all order by 3 desc, 1, 2",
        [dataset_id, dataset_id, CONTRADICTION],
    ).fetchall()
    return [WordContradictions(word, _rule(measure), count) for word, measure, count in rows]


def contradictions(
    cursor: Cursor, dataset_id: int, *, ids: Sequence[int] | None = None, limit: int = 1000
) -> list[Contradiction]:
    """Return the strongest contradictions first, of all samples or of those named."""
    only, given = ("", []) if ids is None else (" and m.sample_id in (select unnest(?::bigint[]))", [list(ids)])
    rows = cursor.execute(
        "select m.sample_id, m.word, m.measure, m.value from marks m join samples s on s.id = m.sample_id "
        f"where m.dataset_id = ? and s.dataset_id = ? and m.kind = ? and {STANDING}{only} "
        "order by m.value desc, m.sample_id, m.word limit ?",
        [dataset_id, dataset_id, CONTRADICTION, *given, limit],
    ).fetchall()
    return [Contradiction(sample_id, word, _rule(measure), value) for sample_id, word, measure, value in rows]


def _rule(text: str) -> Rule:
    measure, _, side = text.partition(" ")
    every = (rule for of in RULES.values() for rule in of)
    return next(rule for rule in every if (rule.measure, rule.side) == (measure, side))


# -- nearly the same -------------------------------------------------------------------------------------------------------
def hashes(cursor: Cursor, dataset_id: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return (n,) ids of the measured samples whose files are there, rising, and (n,) their hashes.

    A flat image has no structure that a hash could tell: its hash is made of its luma and colourfulness, to whole levels.
    """
    found = cursor.execute(
        "select m.sample_id, case when m.phash = 0 then hash(round(m.luminance), round(m.colourfulness)) else m.phash end as h "
        "from measures m join samples s on s.id = m.sample_id where m.dataset_id = ? and s.dataset_id = ? and not s.missing "
        "order by 1",
        [dataset_id, dataset_id],
    ).fetchnumpy()
    return np.asarray(found["sample_id"], dtype=np.int64), np.asarray(found["h"], dtype=np.uint64)


def groups_put(
    cursor: Cursor, *, dataset_id: int, ids: NDArray[np.int64], groups: NDArray[np.int64], distance: int
) -> None:
    """Write which samples are nearly the same, in place of what was found before, and which groups leak between splits.

    Args:
        ids: (n,) samples.
        groups: (n,) the place of the lowest sample in its group, -1 for one that is alone.
        distance: bits in which two hashes were allowed to differ.
    """
    cursor.execute("delete from marks where dataset_id = ? and kind in (?, ?)", [dataset_id, NEAR, LEAK]).fetchall()
    of = groups >= 0
    cursor.execute(
        "insert into marks (dataset_id, kind, sample_id, member_of, word, measure) "
        "select ?, ?, g.id, g.number, '', '' from (select unnest(?::bigint[]) as id, unnest(?::bigint[]) as number) g "
        "join samples s on s.id = g.id where s.dataset_id = ? order by g.id",
        [dataset_id, NEAR, ids[of].tolist(), ids[groups[of]].tolist(), dataset_id],
    ).fetchall()
    cursor.execute(
        "insert into marks (dataset_id, kind, sample_id, member_of, word, measure) "
        "select dataset_id, ?, sample_id, member_of, '', '' from marks where dataset_id = ? and kind = ? and member_of in ("
        "select m.member_of from marks m join samples s on s.id = m.sample_id where m.dataset_id = ? and s.dataset_id = ? "
        "and m.kind = ? and s.split <> '' group by 1 having count(distinct s.split) > 1) order by sample_id",
        [LEAK, dataset_id, NEAR, dataset_id, dataset_id, NEAR],
    ).fetchall()
    _looked(cursor, dataset_id, NEAR, distance)


def groups_count(cursor: Cursor, dataset_id: int, *, kind: str = NEAR) -> tuple[int, int]:
    """Return how many groups there are (of ``LEAK``: that leak between splits), and how many samples they hold."""
    rows = cursor.execute(
        "select count(distinct member_of), count(*) from marks where dataset_id = ? and kind = ?", [dataset_id, kind]
    ).fetchall()
    return int(rows[0][0]), int(rows[0][1])


def groups(cursor: Cursor, dataset_id: int, *, kind: str = NEAR, limit: int) -> list[Group]:
    """Return the largest groups first."""
    rows = cursor.execute(
        "select m.member_of, count(*), list_sort(list(distinct s.split) filter (s.split <> '')) from marks m "
        "join samples s on s.id = m.sample_id where m.dataset_id = ? and s.dataset_id = ? and m.kind = ? "
        "group by 1 order by 2 desc, 1 limit ?",
        [dataset_id, dataset_id, kind, limit],
    ).fetchall()
    return [Group(number, size, tuple(splits or ())) for number, size, splits in rows]


def group_members(cursor: Cursor, dataset_id: int, numbers: Sequence[int], *, each: int) -> dict[int, list[int]]:
    """Return group → the first ``each`` of its samples."""
    rows = cursor.execute(
        "select member_of, list(sample_id order by sample_id)[1:?] from marks where dataset_id = ? and kind = ? "
        "and member_of in (select unnest(?::bigint[])) group by 1",
        [each, dataset_id, NEAR, list(numbers)],
    ).fetchall()
    return dict(rows)


def group_of(cursor: Cursor, dataset_id: int, sample_id: int) -> tuple[int, int] | None:
    """Return the number of a sample's group and how many it holds; ``None`` for a sample that is alone."""
    rows = cursor.execute(
        "select member_of, count(*) from marks where dataset_id = $dataset and kind = $kind and member_of = (select "
        "any_value(member_of) from marks where dataset_id = $dataset and kind = $kind and sample_id = $sample) group by 1",
        {"dataset": dataset_id, "kind": NEAR, "sample": sample_id},
    ).fetchall()
    return rows[0] if rows else None


def leaks(cursor: Cursor, dataset_id: int) -> list[tuple[str, str, int, int]]:
    """Return, for every two splits that share a group, (split, other split, groups, samples of both)."""
    rows = cursor.execute(
        "with parts as (select m.member_of as g, s.split, count(*) as many from marks m join samples s on s.id = m.sample_id "
        "where m.dataset_id = ? and s.dataset_id = ? and m.kind = ? and s.split <> '' group by all) "
        "select a.split, b.split, count(*), sum(a.many + b.many)::bigint from parts a join parts b on b.g = a.g "
        "and a.split < b.split group by 1, 2 order by 3 desc, 1, 2",
        [dataset_id, dataset_id, LEAK],
    ).fetchall()
    return rows


def measured(cursor: Cursor, dataset_id: int) -> int:
    """Return how many samples are measured."""
    return int(cursor.execute("select count(*) from measures where dataset_id = ?", [dataset_id]).fetchall()[0][0])


# -- when somebody looked ----------------------------------------------------------------------------------------------------
def looked(cursor: Cursor, dataset_id: int, kind: str) -> Looked | None:
    """Return when somebody looked for findings of a kind; ``None`` where nobody has."""
    rows = cursor.execute(
        "select f.created, f.setting, f.revision < coalesce(r.number, 0), f.samples from findings f left join dataset_revisions r "
        "on r.dataset_id = f.dataset_id where f.dataset_id = ? and f.kind = ?",
        [dataset_id, kind],
    ).fetchall()
    return Looked(*rows[0]) if rows else None


def _looked(cursor: Cursor, dataset_id: int, kind: str, setting: float) -> None:
    """Write down that somebody looked; what was up to date stays so, since what was found changes nothing that is looked at."""
    number = "(select number from dataset_revisions where dataset_id = $dataset)"
    cursor.execute(
        "delete from findings where dataset_id = $dataset and kind = $kind", {"dataset": dataset_id, "kind": kind}
    ).fetchall()
    fresh = [
        row[0]
        for row in cursor.execute(
            f"select kind from findings where dataset_id = $dataset and revision = {number}", {"dataset": dataset_id}
        ).fetchall()
    ]
    changed(cursor, dataset_id)
    cursor.execute(
        f"update findings set revision = {number} where dataset_id = $dataset and list_contains($fresh::varchar[], kind)",
        {"dataset": dataset_id, "fresh": fresh},
    ).fetchall()
    cursor.execute(
        "insert into findings (dataset_id, kind, setting, samples, revision) select $dataset, $kind, $setting, "
        f"(select count(*) from measures where dataset_id = $dataset), {number}",
        {"dataset": dataset_id, "kind": kind, "setting": setting},
    ).fetchall()
