"""Names are found however they were typed, and stand in the order in which people count."""

import unicodedata
from typing import Literal

import pytest

from vlm.samples import SampleFilter, SampleStore
from vlm.samples.ingest import import_rows, staged
from vlm.samples.names import search_key, sort_key
from vlm.samples.reading import samples_page

from .conftest import WORDS, record


def names(store: SampleStore, chosen: SampleFilter) -> list[str]:
    found, after = [], ""
    with store.read() as cursor:
        while True:
            page = samples_page(cursor, 1, chosen, WORDS, after=after, limit=2)
            found += [sample.file_name for sample in page.samples]
            if not (after := page.next):
                return found


@pytest.fixture
def named(store: SampleStore) -> SampleStore:
    listed = ["image (1).jpg", "image (10).jpg", "image (2).jpg", "Küste.jpg", "KÜSTE 2.jpg", "straße.jpg"]
    records = [record(unicodedata.normalize("NFD", name)) for name in listed]
    with staged(records, store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    return store


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_found_in_either_form(named: SampleStore, form: Literal["NFC", "NFD"]) -> None:
    chosen = SampleFilter(text=unicodedata.normalize(form, "küste"))
    assert [unicodedata.normalize("NFC", name) for name in names(named, chosen)] == ["KÜSTE 2.jpg", "Küste.jpg"]
    assert len(names(named, SampleFilter(text="STRASSE"))) == 1


def test_two_comes_before_ten(named: SampleStore) -> None:
    assert names(named, SampleFilter(text="image")) == ["image (1).jpg", "image (2).jpg", "image (10).jpg"]


def test_long_numbers_sort_by_their_value() -> None:
    numbers = [0, 7, 42, 10**8, 10**9 - 1, 10**9, 10**17, 10**18 - 1, 10**18, 10**30]
    keys = [sort_key(f"a{number}b") for number in numbers]
    assert keys == sorted(keys)
    assert sort_key("a007") == sort_key("a7")


def test_a_search_key_is_its_own_key() -> None:
    for text in ("Straße", "İstanbul", "e\u0301", "ﬀ", "日本"):
        assert search_key(search_key(text)) == search_key(text)
