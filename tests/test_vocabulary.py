"""The terms of the vocabulary: what may be asked, what identifies a question, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm import vocabulary_file
from vlm.samples import Question
from vlm.vocabulary import (
    DEFAULT_VOCABULARY,
    Dimension,
    Only,
    Vocabulary,
    VocabularyError,
    check_vocabulary,
    differences,
    normalise,
    orders_of,
)

SETTING = Dimension("setting", "Is this scene indoor or outdoor?", ("indoor", "outdoor"))
PEOPLE = Dimension(
    "people", "Are there people?", ("people",), kind="yes-no", spellings={"yes": ("ja",), "no": ("nein",)}
)
WEATHER = DEFAULT_VOCABULARY["weather"]

TEXTS = st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), include_characters="\n\r\t")
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12).map(normalise)


def key(dimension: Dimension, **changes: Any) -> str:
    asked = replace(dimension, **changes)
    return Question.of(model="m", revision="r", mode="score", dimension=asked.name, asked=asked.asked).key


def test_the_default_is_what_the_mission_names() -> None:
    assert DEFAULT_VOCABULARY.names == ("lighting", "clarity", "setting", "weather", "density")
    assert [len(dimension.words) for dimension in DEFAULT_VOCABULARY] == [4, 3, 2, 7, 4]
    assert DEFAULT_VOCABULARY["lighting"].scale == ("dark", "dim", "normal", "bright")
    assert DEFAULT_VOCABULARY["density"].scale == ("empty", "sparse", "moderate", "crowded")
    check_vocabulary(DEFAULT_VOCABULARY)


def test_json_goes_back_and_forth_with_everything() -> None:
    full = replace(
        WEATHER,
        kind="ordered",
        levels=WEATHER.words[::-1],
        spellings={"sunny": ("sun shine", "sonnig")},
        wordings=("Which weather?",),
        only=Only("setting", ("outdoor",)),
        label="Wetter",
        labels={"sunny": "sonnig"},
    )
    vocabulary = Vocabulary((SETTING, full, PEOPLE))
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


def test_a_run_of_the_first_release_is_read() -> None:
    stored = [{"name": "weather", "question": "What weather?", "words": ["sunny", "a  b"]}]
    assert Vocabulary.from_json(stored).to_json() == stored


@pytest.mark.parametrize(
    "changes",
    [
        {"only": Only("setting", ("outdoor",))},
        {"label": "Wetter"},
        {"labels": {"sunny": "sonnig"}},
        {"words": WEATHER.words[::-1]},
        {"kind": "ordered"},
        {"question": f" {WEATHER.question} "},
    ],
)
def test_what_changes_no_answer_keeps_the_identity(changes: dict[str, Any]) -> None:
    assert key(WEATHER, **changes) == key(WEATHER)


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "What weather?"},
        {"words": (*WEATHER.words, "windy")},
        {"spellings": {"sunny": ("sun",)}},
        {"wordings": ("Which weather?",)},
    ],
)
def test_what_decides_an_answer_is_the_identity(changes: dict[str, Any]) -> None:
    assert key(WEATHER, **changes) != key(WEATHER)


def test_model_revision_mode_and_name_are_the_identity_too() -> None:
    same = {"model": "m", "revision": "r", "mode": "score", "dimension": "weather"}
    assert Question.of(**same, asked=WEATHER.asked).key == key(WEATHER)
    for name in same:
        assert Question.of(**{**same, name: "other"}, asked=WEATHER.asked).key != key(WEATHER)


def test_yes_and_no() -> None:
    assert PEOPLE.answers == ("yes", "no")
    assert (PEOPLE.tag_of("yes"), PEOPLE.tag_of("no")) == ("people", "")
    assert (PEOPLE.answer_of("people"), PEOPLE.spelled("no")) == ("yes", ("no", "nein"))
    with pytest.raises(VocabularyError, match="one word"):
        replace(PEOPLE, words=("people", "nobody"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"words": ("sunny",)}, "at least two"),
        ({"words": ("sunny", "Sunny")}, "twice"),
        ({"words": ("sunny", " rainy")}, "spaces"),
        ({"words": tuple(map(str, range(101)))}, "more than 100"),
        ({"words": ("sunny", "x" * 61)}, "longer than 60"),
        ({"kind": "many"}, "no kind"),
        ({"wordings": ("a", "a")}, "wording twice"),
        ({"wordings": tuple(map(str, range(8)))}, "more than 8"),
        ({"levels": WEATHER.words}, "ordered"),
        ({"kind": "ordered", "levels": ("sunny",)}, "each word once"),
        ({"spellings": {"windy": ("wind",)}}, "no word"),
        ({"spellings": {"sunny": ("rainy",)}}, "of “sunny” and of “rainy”"),
        ({"spellings": {"sunny": (" x",)}}, "untidy"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(VocabularyError, match=complaint):
        replace(WEATHER, **changes)


@pytest.mark.parametrize(
    ("dimensions", "complaint"),
    [
        ((SETTING, replace(WEATHER, words=("Indoor", "fog"))), "a word of “setting” and of “weather”"),
        ((replace(WEATHER, only=Only("setting", ("outdoor",))), SETTING), "does not stand before"),
        ((SETTING, replace(WEATHER, only=Only("setting", ("rainy",)))), "the words of “setting” are"),
        ((SETTING, replace(WEATHER, only=Only("setting", ()))), "the words of “setting” are"),
        ((replace(SETTING, name="a b"),), "no name"),
        ((replace(SETTING, question="?" * 1001),), "longer than 1000"),
        ((SETTING, replace(WEATHER, name="Setting")), "called"),
        ((replace(SETTING, words=("in\u200bdoor", "outdoor")),), "invisible"),
        ((replace(SETTING, words=("in  door", "outdoor")),), "stray"),
    ],
)
def test_what_does_not_go_together_is_refused(dimensions: tuple[Dimension, ...], complaint: str) -> None:
    with pytest.raises(VocabularyError, match=complaint):
        check_vocabulary(dimensions)


def test_words_of_any_language() -> None:
    odd = Dimension(
        "was", "Was ist zu sehen?", ("stop sign", "T-Shirt", "l'été", "Fußgängerübergang", "停车场", "car", "cars")
    )
    check_vocabulary([odd])
    assert Vocabulary.from_json(Vocabulary((odd,)).to_json())["was"] == odd


@given(st.lists(words.filter(bool), min_size=2, max_size=6, unique_by=str.casefold))
def test_any_words_go_back_and_forth(given_words: list[str]) -> None:
    dimension = Dimension("d", "Which?", tuple(given_words))
    assert Vocabulary.from_json(Vocabulary((dimension,)).to_json()).dimensions == (dimension,)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "d", "question": "?", "words": "ab"},
        {"name": 1, "question": "?", "words": ["a", "b"]},
        {"name": "d", "question": "?", "words": ["a", "b"], "spellings": ["a"]},
        {"name": "d", "question": "?", "words": ["a", "b"], "only": "setting"},
        {"name": "d", "question": "?", "words": ["a", "b"], "wording": []},
    ],
)
def test_a_file_with_a_slip_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(VocabularyError):
        Dimension.from_json(value)


def test_orders_put_each_word_first_and_change_nothing_else() -> None:
    wordings = orders_of(WEATHER, 7)
    assert len(set(wordings)) == 7
    assert WEATHER.question not in wordings
    assert all(sorted(wording) == sorted(WEATHER.question) for wording in wordings)
    assert orders_of(SETTING, 7) == ("Is this scene outdoor or indoor?",)
    assert orders_of(replace(SETTING, question="Where is this?"), 7) == ()


# -- as a file -----------------------------------------------------------------------------------------------------------
FULL = replace(
    WEATHER,
    kind="ordered",
    levels=WEATHER.words[::-1],
    spellings={"sunny": ("sun shine", 'a "quoted" one')},
    wordings=("Which\nweather?",),
    only=Only("setting", ("outdoor",)),
    label="Wetter",
    labels={"sunny": "sonnig"},
)


def test_a_file_goes_back_and_forth_exactly() -> None:
    entries = tuple(vocabulary_file.Entry(d, d is not SETTING) for d in (SETTING, FULL, PEOPLE))
    assert vocabulary_file.load(vocabulary_file.dump(entries)) == entries
    assert vocabulary_file.load(("\ufeff" + vocabulary_file.dump(entries)).encode()) == entries


@given(st.text(TEXTS, max_size=40), st.lists(words.filter(bool), min_size=2, max_size=5, unique_by=str.casefold))
def test_any_file_goes_back_and_forth(question: str, given_words: list[str]) -> None:
    entries = (vocabulary_file.Entry(Dimension("d", f"?{question}", tuple(given_words))),)
    assert vocabulary_file.load(vocabulary_file.dump(entries)) == entries


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no .*table"),
        (b"[[dimension]\n", "no valid TOML.*line 1"),
        ("häh".encode("latin-1"), "UTF-8"),
        (b"dimension = 3", "no .*table"),
        (b"[[dimensions]]\nname='a'", "“dimensions” has no meaning"),
        (b"[[dimension]]\nname='a'\nquestion='b'\nwords=['c','d']\nenabled=1", "true or false"),
        (b"[[dimension]]\nname='a'\nquestion='b'\nwords=['c']", "at least two"),
        (b"[[dimension]]\nname='a'\nquestion='b'\nwords=['c','d']\nanswers=[]", "“answers”"),
        (b"x" * (1 << 20) + b"y", "larger"),
        (b"x = " + b"9" * 5000, "no valid TOML"),  # more digits than Python reads
        (b"a." * 20_000 + b"a = 1", "Line 1 has more than 100 dots"),  # seconds and gigabytes for the parser
        (b"x = " + b"[" * 50_000, "no valid TOML"),
        (b"[[dimension]]\nname='a'\nquestion=\"b\\u001b[31m\"\nwords=['c','d']", "control characters"),
        (b"[[dimension]]\nname='a'\nquestion='b'\nwords=['c',\"d\\u0007\"]", "invisible"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(content: bytes, complaint: str) -> None:
    with pytest.raises(VocabularyError, match=complaint):
        vocabulary_file.load(content)


def test_what_changed_is_said() -> None:
    before = Vocabulary((SETTING, WEATHER))
    assert differences(before, before) == ()
    after = [
        replace(WEATHER, words=(*WEATHER.words[1:], "windy"), question="?", only=Only("density", ("empty",))),
        PEOPLE,
    ]
    told = "\n".join(differences(before, after))
    for part in (
        "setting is not asked",
        "weather: the question was",
        "sunny went",
        "windy came in",
        "no condition",
        "people came in",
    ):
        assert part in told
