"""Stores at random: two data sets with a bit of everything, and changes of every kind, the same ones for the same seed."""

import random
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from vlm.samples import (
    Annotation,
    Edit,
    Head,
    Label,
    Mark,
    Measures,
    Question,
    Result,
    SampleFilter,
    SampleStore,
    columns,
    editing,
    finding,
    merging,
    refining,
    sharing,
    values,
    where,
)
from vlm.samples.asking import question_ids
from vlm.samples.cursor import Cursor
from vlm.samples.ingest import import_rows, staged
from vlm.samples.progress import Wanted

from .conftest import WORDS, answer, record

ASKED = [
    Question.of(model="m", revision="r", mode="score", dimension=name, asked={"words": words})
    for name, words in WORDS.items()
]
NEW = Question.of(model="m", revision="r", mode="score", dimension="weather", asked={})
USERS_TAGS = ("mine", "dark", "indoor", "私の", "it's")
ADA = Edit(7, "ada", "bulk")

# Of every part of a filter at least one; ``slice`` is number 1 in both data sets.
FILTERS = (
    *("", "q=1", "split=train&split=val", "category=car", "shows=car&shows=dog", "all=dark", "any=dark&any=mine"),
    *("none=dark", "lacking=lighting", "without=measure", "without=own+tag", "without=split", "state=untagged"),
    *("state=discarded", "state=failed", "source=user", "source=model", "pmin=0.6", "dimension=lighting&pmax=0.7"),
    *("column=error:0.2..0.8", "column=flag:yes", "hasvalue=error", "novalue=error", "measure=luminance:5..30"),
    *("width=640..700&height=..480", "megapixels=0..<0.5", "filesize=..20", "taken=2024", "camera=Camera+1", "labelled=lighting"),
    *("labelled=lighting:dark", "unlabelled=setting", "edited_by=ada", "mark=near", "mark=contradiction:dark"),
    *("slice=1", "run=1", "failed_in=1", "discarded_in=1", "shared_in=3", "flip=1,2,lighting", "all=mine&camera=Camera+2"),
)  # fmt: skip


@dataclass
class World:
    """A store that changes at random. Every run, edit and sample that there is or was stands here."""

    store: SampleStore
    chance: random.Random
    ids: dict[int, list[int]] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)
    edits: list[int] = field(default_factory=list)
    imported: int = 0

    def change(self) -> str:
        """Do something; returns what it was."""
        deeds = (
            self.merge,
            self.merge,
            self.edit,
            self.edit,
            self.undo,
            self.revert,
            self.reapply,
            self.bring_in,
            self.label,
        )
        deed = self.chance.choice(deeds)
        deed()
        return deed.__name__

    def some(self, dataset_id: int, share: float = 0.4) -> list[int]:
        return [one for one in self.ids[dataset_id] if self.chance.random() < share]

    def bring_in(self, dataset_id: int = 0) -> None:
        """Import a data set again: files come, go, move to other splits and get other contents."""
        dataset_id = dataset_id or self.chance.choice((1, 2))
        self.imported += 1
        shows: list[tuple[str, ...]] = [(), ("car",), ("car", "dog"), ("dog", "tree")]
        records = []
        for number in range(14 + 8 * self.imported):
            if self.chance.random() < 0.9:
                seed = random.Random(f"{dataset_id} {number} {self.chance.random() < 0.2}")
                categories = seed.choice(shows)
                records.append(
                    record(
                        f"{number:03}.jpg",
                        split=seed.choice(("", "train", "val")),
                        width=seed.choice((640, 800, None)),
                        categories=categories,
                        annotations=tuple(Annotation(name, (1.0, 2.0, 3.0, 4.0)) for name in categories),
                        content_key=f"{seed.randrange(10, 30)}-{number}",
                    )
                )
        with staged(records, self.store.path.parent) as source:
            import_rows(self.store, dataset_id=dataset_id, source=source, by=ADA)
        with self.store.read() as cursor:
            rows = cursor.execute("select id from samples where dataset_id = ? order by id", [dataset_id]).fetchall()
        self.ids[dataset_id] = [row[0] for row in rows]

    def merge(self, dataset_id: int = 0, share: float = 0.4) -> None:
        """Let a new run answer about some samples: one or both questions, at low or full detail, a few not readable."""
        dataset_id, run = dataset_id or self.chance.choice((1, 2)), len(self.runs) + 1
        self.runs.append(run)
        asked = self.chance.choice((ASKED, ASKED, ASKED[:1]))
        with self.store.write() as cursor:
            questions = merging.run_begin(
                cursor,
                dataset_id=dataset_id,
                run_id=run,
                worker="",
                questions=asked,
                detail=self.chance.choice(("low", "full")),
                dtype="float32",
            )
            # Those that are to take another's answer over are not asked.
            takers = held(cursor, ("s.id in (select sample_id from shares where run_id = ?)", [run]))
            ids = [one for one in self.some(dataset_id, share) if one not in takers]
            found = [self._result(one, run, asked) for one in ids]
            merging.merge_batch(cursor, dataset_id=dataset_id, run_id=run, results=found, questions=questions)
            if found and self.chance.random() < 0.3:
                again = [self._result(one.sample_id, run, asked) for one in found[:4]]
                refining.refine_batch(
                    cursor, dataset_id=dataset_id, run_id=run, results=again, questions=questions, worker=""
                )

    def _result(self, sample_id: int, run: int, asked: list[Question]) -> Result:
        if self.chance.random() < 0.1:
            return Result(sample_id, error="truncated")
        answers = []
        for question in asked:
            sure = 0.4 + 0.6 * self.chance.random()
            word = self.chance.choice(WORDS[question.dimension])
            answers.append(answer(run, word, sure, accepted=sure >= 0.6))
        when = datetime(2023 + self.chance.randrange(2), 5, 1)  # noqa: DTZ001 - by a camera's clock
        head = Head((640, 480), when, f"Camera {self.chance.randrange(3)}")
        measures = Measures(float(self.chance.randrange(40)), 0, 0, 0, 0, 0, 0, 1.5, 0)
        return Result(sample_id, tuple(answers), digest=f"{sample_id}", measures=measures, head=head)

    def edit(self) -> None:
        """Give, confirm or take away a tag of some samples."""
        dataset_id, tag = self.chance.choice((1, 2)), self.chance.choice(USERS_TAGS)
        dimension = next((name for name, of in WORDS.items() if tag in of), None)
        target = where(dataset_id, SampleFilter(ids=tuple(self.some(dataset_id, 0.3)) or (0,)), WORDS)
        deed = self.chance.choice((editing.tags_add, editing.tags_confirm, editing.tags_remove))
        also = {} if deed is editing.tags_remove else {"dimension": dimension}
        with self.store.write() as cursor:
            done = deed(cursor, dataset_id=dataset_id, target=target, tag=tag, by=ADA, **also)  # type: ignore[operator]
        if done.id is not None:
            self.edits.append(done.id)

    def label(self) -> None:
        """Decide about a dimension of some samples."""
        dataset_id = self.chance.choice((1, 2))
        given = [
            Label(one, "lighting", self.chance.choice(("dark", "bright", ""))) for one in self.some(dataset_id, 0.2)
        ]
        with self.store.write() as cursor:
            done = editing.labels_add(
                cursor, dataset_id=dataset_id, labels=given, by=ADA, give_tags=self.chance.random() < 0.5
            )
        if done.id is not None:
            self.edits.append(done.id)

    def undo(self) -> None:
        if self.edits:
            edit = self.edits.pop(self.chance.randrange(len(self.edits)))
            with self.store.write() as cursor:
                editing.undo(cursor, edit, ADA)

    def revert(self) -> None:
        if len(self.runs) > 3:  # those that the filters name stay
            with self.store.write() as cursor:
                merging.revert_run(cursor, run_id=self.chance.choice(self.runs[3:]))

    def reapply(self) -> None:
        if self.runs:
            with self.store.write() as cursor:
                merging.apply_thresholds(
                    cursor,
                    run_id=self.chance.choice(self.runs),
                    min_probability=self.chance.choice((0.5, 0.7, 0.9)),
                    min_mass=0.5,
                )

    def bring_along(self, dataset_id: int) -> None:
        """Write columns, groups that are nearly the same, contradictions, a slice, and planned shares of run 3."""
        ids = self.ids[dataset_id]
        some = self.some(dataset_id, 0.6)
        with self.store.write() as cursor:
            for name, kind, made in (
                ("error", "number", [self.chance.random() for _ in some]),
                ("flag", "boolean", [self.chance.random() < 0.3 for _ in some]),
                ("place", "word", [self.chance.choice(("here", "there")) for _ in some]),
            ):
                columns.column_put(cursor, dataset_id=dataset_id, name=name, kind=kind, ids=some, values=made)  # type: ignore[arg-type]
            groups = np.array([3 * (place // 3) if place % 9 < 3 else -1 for place in range(len(ids))], dtype=np.int64)
            finding.groups_put(
                cursor, dataset_id=dataset_id, ids=np.array(ids, dtype=np.int64), groups=groups, distance=4
            )
            found = [Mark(one, None, 2.5, self.chance.choice(("dark", "bright"))) for one in self.some(dataset_id, 0.3)]
            values.marks_put(cursor, dataset_id=dataset_id, kind="contradiction", marks=found)
            target = where(dataset_id, SampleFilter(splits=("train",)), WORDS)
            values.slice_freeze(cursor, dataset_id=dataset_id, slice_id=1, target=target)
            everything = Wanted(where(dataset_id, SampleFilter(), WORDS), question_ids(cursor, ASKED))
            if dataset_id == 1:
                sharing.shares_plan(cursor, everything, dataset_id=1, run_id=3)


def world(store: SampleStore, seed: int) -> World:
    """Return a store with two data sets, whose ids lie among each other, three runs and a bit of everything."""
    made = World(store, random.Random(seed))
    for dataset_id in (1, 2, 1, 2):
        made.bring_in(dataset_id)
    made.merge(1, 0.5)
    made.merge(1, 0.4)
    for dataset_id in (1, 2):
        made.bring_along(dataset_id)
    made.merge(1, 0.2)
    for deed in (made.edit, made.label, made.edit):
        deed()
    return made


def held(cursor: Cursor, condition: tuple[str, list[object]]) -> list[int]:
    """Return the ids of the samples that meet a condition, in order."""
    return [
        row[0]
        for row in cursor.execute(
            f"select s.id from samples s where {condition[0]} order by 1", condition[1]
        ).fetchall()
    ]
