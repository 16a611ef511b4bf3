"""The controlled vocabulary: what is asked about an image, and which words may come back as tags.

Pure Python: the engine, the store, the run and the page all speak in these terms.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self


class VocabularyError(ValueError):
    """A vocabulary that cannot be asked; the message says what to change."""


def normalise(word: str) -> str:
    """Return ``word`` as tags are stored: NFC-normalised and without surrounding white space."""
    return unicodedata.normalize("NFC", word).strip()


@dataclass(frozen=True, slots=True)
class Dimension:
    """One question and the words that are allowed as its answer.

    Raises:
        VocabularyError: no name, no question, fewer than two words, or a word that stands twice.
    """

    name: str
    question: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.question.strip():
            raise VocabularyError("A dimension needs a name and a question.")
        if len(self.words) < 2:
            raise VocabularyError(f"Dimension “{self.name}” needs at least two allowed words.")
        if any(not word or word != normalise(word) for word in self.words):
            raise VocabularyError(f"Dimension “{self.name}” has an empty word, or one with spaces around it.")
        if len({word.casefold() for word in self.words}) != len(self.words):
            raise VocabularyError(f"Dimension “{self.name}” lists a word twice.")


@dataclass(frozen=True)
class Vocabulary:
    """The dimensions of a run, in the order in which they are asked.

    Raises:
        VocabularyError: no dimension, or two of one name.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise VocabularyError("The vocabulary has no dimension: switch at least one on.")
        if len(set(self.names)) != len(self.dimensions):
            raise VocabularyError("Two dimensions have the same name.")

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)

    def only(self, names: tuple[str, ...]) -> Self:
        """Return the vocabulary cut down to ``names``.

        Raises:
            VocabularyError: a name that is not a dimension.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise VocabularyError(f"No dimension “{unknown[0]}”. There are: {', '.join(self.names)}.")
        return type(self)(tuple(dimension for dimension in self if dimension.name in names))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"name": d.name, "question": d.question, "words": list(d.words)} for d in self]

    @classmethod
    def from_json(cls, value: list[dict[str, Any]]) -> Self:
        return cls(tuple(Dimension(d["name"], d["question"], tuple(d["words"])) for d in value))

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON: equal hashes mean that the same things are asked."""
        text = json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


DEFAULT_VOCABULARY = Vocabulary(
    (
        Dimension(
            "lighting",
            "Describe the lighting: is this image dark, dim, bright, or normal? One word only.",
            ("dark", "dim", "bright", "normal"),
        ),
        Dimension(
            "clarity",
            "Is this image blurry, sharp, or noisy? One word only.",
            ("blurry", "sharp", "noisy"),
        ),
        Dimension(
            "setting",
            "Is this scene indoor or outdoor? One word only.",
            ("indoor", "outdoor"),
        ),
        Dimension(
            "weather",
            "What weather or time: sunny, cloudy, rainy, foggy, snowy, night, or day? One word.",
            ("sunny", "cloudy", "rainy", "foggy", "snowy", "night", "day"),
        ),
        Dimension(
            "density",
            "How crowded is this scene: empty, sparse, moderate, or crowded? One word only.",
            ("empty", "sparse", "moderate", "crowded"),
        ),
    )
)
