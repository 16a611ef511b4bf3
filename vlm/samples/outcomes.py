"""What comes of runs: what they did, how words fared, and what other thresholds would make of them."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Self


@dataclass(slots=True)
class Merged:
    """What merging a batch did; replayed samples count nowhere. ``shared``: how many of the processed took another's answer."""

    processed: int = 0
    tagged: int = 0
    discarded: int = 0
    failed: int = 0
    shared: int = 0

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class WordCount:
    dimension: str
    word: str
    accepted: int
    discarded: int


@dataclass(frozen=True, slots=True)
class Failure:
    sample_id: int
    file_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    sample_id: int
    file_name: str
    dimension: str
    word: str
    probability: float | None
    mass: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class WordReapplied:
    """How many answers with a word are accepted before and after."""

    dimension: str
    word: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Reapplied:
    """What other thresholds make of a run: accepted and discarded answers, samples whose tags change, and word by word."""

    accepted: int
    discarded: int
    changed: int
    words: tuple[WordReapplied, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**{**value, "words": tuple(WordReapplied(**word) for word in value["words"])})

    def __add__(self, other: "Reapplied") -> "Reapplied":
        """Add what the same thresholds make of another run."""
        words = {(one.dimension, one.word): one for one in self.words}
        for one in other.words:
            known = words.get((one.dimension, one.word), WordReapplied(one.dimension, one.word, 0, 0))
            words[one.dimension, one.word] = replace(
                known, before=known.before + one.before, after=known.after + one.after
            )
        return Reapplied(
            self.accepted + other.accepted,
            self.discarded + other.discarded,
            self.changed + other.changed,
            tuple(words.values()),
        )
