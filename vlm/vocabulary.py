"""The controlled vocabulary: what is asked about an image, and which words may come back as tags.

Pure Python: the engine, the store, the run and the page all speak in these terms.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Literal, Self, get_args

from vlm.errors import Refusal

Kind = Literal["one-of", "ordered", "yes-no"]

KINDS: dict[Kind, str] = {
    "one-of": "one of the words",
    "ordered": "one of the words, which stand in an order",
    "yes-no": "yes or no",
}
YES, NO = "yes", "no"

MAX_DIMENSIONS = 40
MAX_WORDS = 100
MAX_WORD = 60  # characters of a word, a spelling, a label or a name
MAX_QUESTION = 1000  # characters
MAX_WORDINGS = 8  # of one question, itself included
MAX_SPELLINGS = 20  # of one word, besides itself

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LINES = dict.fromkeys(map(ord, "\n\r\t"), " ")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))  # zero-width space, word joiner, BOM, soft hyphen


class VocabularyError(Refusal):
    """A vocabulary that cannot be asked; the message says what to change."""

    title = "Nothing can be asked like this"


def is_plain(text: str) -> bool:
    """Tell whether a name can be stored and shown everywhere: it has no control characters, line ends or halves of characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def normalise(word: str) -> str:
    """Return ``word`` as tags are stored: NFC, single spaces, nothing invisible, no white space around it."""
    return " ".join(unicodedata.normalize("NFC", word).translate(_INVISIBLE).split())


@dataclass(frozen=True, slots=True)
class Only:
    """A condition: the tag is made only where an earlier ``dimension`` has one of ``words``."""

    dimension: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"only where {self.dimension} is {' or '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One question, and the words that are allowed as its answer.

    Attributes:
        name: letters, digits, “-” and “_”.
        question: what the model is asked.
        words: the tags that may come of it, in their order. A ``yes-no`` dimension has one, the tag that “yes” gives.
        kind: one of ``KINDS``.
        levels: the words of an ``ordered`` dimension, lowest first; empty where they stand so in ``words``.
        spellings: word → other ways in which the model may write it, beside the usual ones. For ``yes-no`` the keys are
            “yes” and “no”.
        wordings: other wordings of the question; where there are any, the answer is the mean of all.
        only: the condition under which the answer becomes a tag.
        label, labels: how the dimension and its words are called on the page; they change no tag and no answer.

    Raises:
        VocabularyError: it cannot be asked; the message says what to change.
    """

    name: str
    question: str
    words: tuple[str, ...]
    kind: Kind = "one-of"
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    wordings: tuple[str, ...] = ()
    only: Only | None = None
    label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.question.strip():
            raise VocabularyError("A dimension needs a name and a question.")
        if self.kind not in get_args(Kind):
            raise VocabularyError(f"Dimension “{self.name}”: “{self.kind}” is no kind; there are {', '.join(KINDS)}.")
        self._check_words()
        self._check_spellings()
        if self.levels and (self.kind != "ordered" or sorted(self.levels) != sorted(self.words)):
            raise VocabularyError(f"The levels of “{self.name}” are for an ordered dimension, and hold each word once.")
        if len(self.questions) > MAX_WORDINGS:
            raise VocabularyError(f"Dimension “{self.name}” has more than {MAX_WORDINGS} wordings.")
        if any(not wording.strip() for wording in self.wordings):
            raise VocabularyError(f"Dimension “{self.name}” has an empty wording.")
        if len({wording.strip() for wording in self.questions}) != len(self.questions):
            raise VocabularyError(f"Dimension “{self.name}” lists a wording twice.")

    def _check_words(self) -> None:
        if self.kind == "yes-no":
            if len(self.words) != 1:
                raise VocabularyError(f"Dimension “{self.name}” asks yes or no, so it has one word: the tag of a yes.")
        elif len(self.words) < 2:
            raise VocabularyError(f"Dimension “{self.name}” needs at least two allowed words.")
        if len(self.words) > MAX_WORDS:
            raise VocabularyError(f"Dimension “{self.name}” has more than {MAX_WORDS} words.")
        if any(not word or word != unicodedata.normalize("NFC", word).strip() for word in self.words):
            raise VocabularyError(f"Dimension “{self.name}” has an empty word, or one with spaces around it.")
        if long := next((word for word in self.words if len(word) > MAX_WORD), None):
            raise VocabularyError(f"“{long[:20]}…” of “{self.name}” is longer than {MAX_WORD} characters.")
        if len({word.casefold() for word in self.words}) != len(self.words):
            raise VocabularyError(f"Dimension “{self.name}” lists a word twice.")

    def _check_spellings(self) -> None:
        """A spelling belongs to one word, else an answer would count for two."""
        owner = {word.casefold(): word for word in self.answers}
        for word, others in self.spellings.items():
            if word not in self.answers:
                raise VocabularyError(f"“{word}” is no word of “{self.name}”, so it has no spellings.")
            if len(others) > MAX_SPELLINGS:
                raise VocabularyError(f"“{word}” of “{self.name}” has more than {MAX_SPELLINGS} spellings.")
            for other in others:
                if not other or other != normalise(other) or len(other) > MAX_WORD:
                    raise VocabularyError(
                        f"“{word}” of “{self.name}” has a spelling that is empty, untidy or too long."
                    )
                if owner.setdefault(other.casefold(), word) != word:
                    raise VocabularyError(
                        f"“{other}” of “{self.name}” is a spelling of “{word}” and of “{owner[other.casefold()]}”."
                    )

    @property
    def scale(self) -> tuple[str, ...]:
        """The words of an ordered dimension, lowest first; empty for the other kinds."""
        return (self.levels or self.words) if self.kind == "ordered" else ()

    @property
    def questions(self) -> tuple[str, ...]:
        """The question and its other wordings."""
        return (self.question, *self.wordings)

    @property
    def answers(self) -> tuple[str, ...]:
        """What the model may answer: the words, or yes and no."""
        return (YES, NO) if self.kind == "yes-no" else self.words

    def tag_of(self, answer: str) -> str:
        """Return the tag that an answer gives, empty for none (a “no”)."""
        if self.kind == "yes-no":
            return self.words[0] if answer == YES else ""
        return answer

    def answer_of(self, tag: str) -> str:
        """Return the answer that gives ``tag``; the tag itself where it is no word of the dimension."""
        return YES if self.kind == "yes-no" and tag in self.words else tag

    def spelled(self, answer: str) -> tuple[str, ...]:
        """Return the answer with its other spellings."""
        return (answer, *self.spellings.get(answer, ()))

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the answer, as JSON: with the model and the name it is the identity of a question."""
        value: dict[str, Any] = {"question": self.question.strip(), "words": sorted(self.words)}
        if self.kind == "yes-no":  # an order says what neighbours are, and changes no answer
            value["kind"] = self.kind
        if spellings := {word: sorted(others) for word, others in sorted(self.spellings.items()) if others}:
            value["spellings"] = spellings
        if self.wordings:
            value["wordings"] = sorted(wording.strip() for wording in self.wordings)
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the dimension as JSON; what is as usual is left out."""
        value: dict[str, Any] = {"name": self.name, "question": self.question, "words": list(self.words)}
        if self.kind != "one-of":
            value["kind"] = self.kind
        if self.levels:
            value["levels"] = list(self.levels)
        if spellings := {word: list(others) for word, others in self.spellings.items() if others}:
            value["spellings"] = spellings
        if self.wordings:
            value["wordings"] = list(self.wordings)
        if self.only is not None:
            value["only"] = {"dimension": self.only.dimension, "words": list(self.only.words)}
        if self.label:
            value["label"] = self.label
        if labels := {word: label for word, label in self.labels.items() if label}:
            value["labels"] = labels
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote, or somebody's own file.

        Raises:
            VocabularyError: a key that is none, or a value of another type than documented.
        """
        name = value.get("name", "")
        known = {"name", "question", "words", "kind", "levels", "spellings", "wordings", "only", "label", "labels"}
        if unknown := sorted(set(value) - known):
            raise VocabularyError(f"Dimension “{name}” has “{unknown[0]}”; there are {', '.join(sorted(known))}.")
        only = value.get("only")
        if only is not None and not (isinstance(only, Mapping) and set(only) == {"dimension", "words"}):
            raise VocabularyError(f"Dimension “{name}”: “only” needs a dimension and its words.")
        return cls(
            name=_text(value, "name"),
            question=_text(value, "question"),
            words=_texts(value, "words"),
            kind=value.get("kind", "one-of"),
            spellings={word: _texts(value["spellings"], word) for word in _mapping(value, "spellings")},
            wordings=_texts(value, "wordings"),
            only=None if only is None else Only(_text(only, "dimension"), _texts(only, "words")),
            label=_text(value, "label"),
            labels={word: _text(value["labels"], word) for word in _mapping(value, "labels")},
            levels=_texts(value, "levels"),
        )


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key, "")
    if not isinstance(text, str):
        raise VocabularyError(f"“{key}” must be a text, not {text!r}.")
    return text


def _texts(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    texts = value.get(key, ())
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise VocabularyError(f"“{key}” must be a list of texts.")
    return tuple(texts)


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, Mapping):
        raise VocabularyError(f"“{key}” must be a table of words.")
    return found


@dataclass(frozen=True)
class Vocabulary:
    """The dimensions of a run, in the order in which they are asked.

    Raises:
        VocabularyError: no dimension, two of one name, or a condition on a dimension that does not come before.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise VocabularyError("The vocabulary has no dimension: switch at least one on.")
        if len(set(self.names)) != len(self.dimensions):
            raise VocabularyError("Two dimensions have the same name.")

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __getitem__(self, name: str) -> Dimension:
        """Return the dimension called ``name``. Raises ``KeyError``."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Dimension]:
        return {dimension.name: dimension for dimension in self}

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
        return [dimension.to_json() for dimension in self]

    @classmethod
    def from_json(cls, value: Iterable[Mapping[str, Any]]) -> Self:
        return cls(tuple(Dimension.from_json(dimension) for dimension in value))

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON: equal hashes mean that the same things are asked."""
        text = json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check_vocabulary(dimensions: Iterable[Dimension]) -> None:
    """Check what holds between dimensions that are to be saved together, switched off ones included.

    Raises:
        VocabularyError: a name that is no slug, a word of two dimensions, or a condition that cannot hold.
    """
    earlier: dict[str, Dimension] = {}
    owner: dict[str, str] = {}
    for dimension in dimensions:
        if not _NAME.fullmatch(dimension.name) or len(dimension.name) > MAX_WORD:
            raise VocabularyError(
                f"“{dimension.name[:MAX_WORD]}” is no name of a dimension: take at most {MAX_WORD} letters, digits, “-” and “_”."
            )
        if dimension.name.casefold() in {name.casefold() for name in earlier}:
            raise VocabularyError(f"Two dimensions are called “{dimension.name}”.")
        said = (
            *dimension.questions,
            dimension.label,
            *dimension.labels.values(),
            *chain(*dimension.spellings.values()),
        )
        if not all(is_plain(text.translate(_LINES)) for text in said):
            raise VocabularyError(
                f"A text of “{dimension.name}” has control characters, or halves of characters. Take them out."
            )
        for word in dimension.words:
            if word != normalise(word) or not is_plain(word):
                raise VocabularyError(f"“{word}” of “{dimension.name}” has stray spaces or invisible characters.")
            if (other := owner.setdefault(word.casefold(), dimension.name)) != dimension.name:
                raise VocabularyError(
                    f"“{word}” is a word of “{other}” and of “{dimension.name}”: a tag must say which question it answers. "
                    "Change one of them, for example to “" + f"{word} {dimension.name}”."
                )
        if any(len(wording) > MAX_QUESTION for wording in dimension.questions):
            raise VocabularyError(f"A question of “{dimension.name}” is longer than {MAX_QUESTION} characters.")
        if dimension.only is not None:
            before = earlier.get(dimension.only.dimension)
            if before is None:
                raise VocabularyError(
                    f"“{dimension.name}” is asked {dimension.only}, but “{dimension.only.dimension}” does not stand before it."
                )
            if not dimension.only.words or set(dimension.only.words) - set(before.words):
                raise VocabularyError(
                    f"“{dimension.name}” is asked {dimension.only}; the words of “{before.name}” are {', '.join(before.words)}."
                )
            if before.only is not None and earlier[before.only.dimension].only is not None:
                raise VocabularyError(
                    f"“{dimension.name}” hangs on “{before.name}”, which hangs on “{before.only.dimension}”, which has a condition, "
                    "too: two conditions in a row are the most."
                )
        earlier[dimension.name] = dimension
    if len(earlier) > MAX_DIMENSIONS:
        raise VocabularyError(f"A vocabulary has at most {MAX_DIMENSIONS} dimensions.")


def differences(before: Vocabulary, after: Iterable[Dimension]) -> tuple[str, ...]:
    """Say in sentences what has changed from one vocabulary to another, empty where nothing has."""
    now = {dimension.name: dimension for dimension in after}
    told = []
    for old in before:
        new = now.pop(old.name, None)
        if new is None:
            told.append(f"{old.name} is not asked any more.")
            continue
        if new.questions != old.questions:
            told.append(f"{old.name}: the question was “{'” and “'.join(old.questions)}”.")
        if gone := [word for word in old.words if word not in new.words]:
            told.append(f"{old.name}: {', '.join(gone)} went away.")
        if come := [word for word in new.words if word not in old.words]:
            told.append(f"{old.name}: {', '.join(come)} came in.")
        if (new.kind, new.scale) != (old.kind, old.scale):
            told.append(f"{old.name} was {KINDS[old.kind]}.")
        if dict(new.spellings) != dict(old.spellings):
            told.append(f"{old.name}: other spellings count.")
        if new.only != old.only:
            told.append(f"{old.name} had {'no condition' if old.only is None else f'the condition “{old.only}”'}.")
    return (*told, *(f"{name} came in." for name in now))


def orders_of(dimension: Dimension, count: int) -> tuple[str, ...]:
    """Return up to ``count`` wordings of the question in which its words stand in other orders.

    The orders are rotations, then their mirrors, so that each word comes to stand first once. A question that does not
    list all of its words has none.
    """
    question, words = dimension.question, dimension.words
    places = []
    for word in words:
        found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", question)
        if found is None:
            return ()
        places.append(found.span())
    spans = sorted(places)
    if len(words) < 2 or any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
        return ()
    listed = [question[start:end] for start, end in spans]
    turned = [listed[shift:] + listed[:shift] for shift in range(len(listed))]
    wordings = []
    for order in [*turned, *(one[::-1] for one in turned)]:
        text, at = "", 0
        for (start, end), word in zip(spans, order, strict=True):
            text, at = text + question[at:start] + word, end
        wordings.append(text + question[at:])
    return tuple(wording for wording in dict.fromkeys(wordings) if wording != question)[:count]


DEFAULT_VOCABULARY = Vocabulary(
    (
        Dimension(
            "lighting",
            "Describe the lighting: is this image dark, dim, bright, or normal? One word only.",
            ("dark", "dim", "bright", "normal"),
            kind="ordered",
            levels=("dark", "dim", "normal", "bright"),
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
            kind="ordered",
        ),
    )
)
