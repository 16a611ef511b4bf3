"""What the heads of files say: kept, filtered by, counted, sorted by, and forgotten with the content."""

from datetime import datetime

import pytest

from vlm.samples import Head, SampleFilter, SampleStore, editing, where
from vlm.samples.counting import facets
from vlm.samples.cursor import Cursor
from vlm.samples.heads import heads_keep, heads_unread, heads_unread_count
from vlm.samples.ingest import import_rows, staged
from vlm.samples.reading import count, cursor_before, neighbours, samples_before, samples_by_id, samples_page

from .conftest import WORDS, Record, answer, record, result

HEADS = (
    Head((4000, 3000), datetime(2024, 5, 1, 12, 30), "Canon EOS R6"),  # noqa: DTZ001
    Head((640, 480), datetime(2024, 6, 2), "Canon EOS R6"),  # noqa: DTZ001
    Head((480, 640), datetime(2023, 12, 31, 23, 59, 59), "Nikon D5"),  # noqa: DTZ001
    Head((64, 64)),
    Head(),  # no readable picture
)
SIZES = (9_000_000, 120_000, 80_000, 500, 0)


def records() -> list[Record]:
    return [
        record(f"{place}.jpg", width=None, height=None, content_key=f"{size}-1") for place, size in enumerate(SIZES)
    ]


def imported(store: SampleStore, given: list[Record]) -> list[int]:
    with staged(given, store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    with store.read() as cursor:
        return [row[0] for row in cursor.execute("select id from samples where dataset_id = 1 order by id").fetchall()]


@pytest.fixture
def ids(store: SampleStore) -> list[int]:
    found = imported(store, records())
    with store.write() as cursor:
        assert heads_unread_count(cursor, 1) == 5
        assert heads_unread(cursor, 1, after=found[0], limit=2) == [(found[1], "1.jpg"), (found[2], "2.jpg")]
        heads_keep(cursor, dataset_id=1, heads=dict(zip(found, HEADS, strict=True)))
        assert heads_unread(cursor, 1, limit=9) == []
    return found


def names(cursor: Cursor, query: str, order: str = "name") -> str:
    """Return which samples a filter finds, as their digits, a page of two at a time."""
    chosen, found, after = SampleFilter.from_query(query), "", ""
    while True:
        page = samples_page(cursor, 1, chosen, WORDS, order=order, after=after, limit=2)
        found += "".join(sample.path[0] for sample in page.samples)
        if not (after := page.next):
            assert count(cursor, 1, chosen, WORDS) == len(found)
            return found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("width=640..", "01"),
        ("width=..<640", "23"),
        ("width=640..640&width=64..64", "13"),
        ("height=480..640", "12"),
        ("megapixels=0.3..1", "12"),
        ("megapixels=12..12", "0"),
        ("filesize=80kB..1MB", "12"),
        ("filesize=..<80kB", "34"),
        ("taken=2024", "01"),
        ("taken=2024-05-01..", "01"),
        ("taken=..2024-05-01", "02"),
        ("taken=2023-12-31T23:59", "2"),
        ("camera=Nikon+D5&camera=Canon+EOS+R6", "012"),
        ("camera=Nikon+D5&width=640..", ""),
    ],
)
def test_filters(store: SampleStore, ids: list[int], query: str, found: str) -> None:
    with store.read() as cursor:
        assert names(cursor, query) == found


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("megapixels", "31204"),
        ("-megapixels", "01234"),
        ("width", "32104"),
        ("-height", "02134"),
        ("filesize", "43210"),
        ("-filesize", "01234"),
        ("taken", "20134"),
        ("-taken", "10234"),
        ("camera", "01234"),
        ("-camera", "21043"),
        ("-name", "43210"),
        ("-added", "43210"),
    ],
)
def test_orders(store: SampleStore, ids: list[int], order: str, found: str) -> None:
    """Every order is walked in pages, from any place to either side; what has no value comes last."""
    by_digit = dict(zip("01234", ids, strict=True))
    expected = [by_digit[digit] for digit in found]
    with store.read() as cursor:
        assert names(cursor, "", order) == found
        for place, sample in enumerate(expected):
            beside = neighbours(cursor, 1, SampleFilter(), WORDS, order=order, sample_id=sample, each=2)
            assert beside == (expected[max(0, place - 2) : place], expected[place + 1 : place + 3])
            at = cursor_before(cursor, 1, sample, order, WORDS)
            page = samples_page(cursor, 1, SampleFilter(), WORDS, order=order, after=at, limit=9)
            assert [one.id for one in page.samples] == expected[place:]
            front = samples_before(cursor, 1, SampleFilter(), WORDS, order=order, before=at, limit=2)
            assert [one.id for one in front.samples] == expected[max(0, place - 2) : place]
            assert bool(front.next) == (place > 2)


def test_orders_by_tags_go_by_the_vocabulary(store: SampleStore, ids: list[int]) -> None:
    words = {"lighting": ("bright", "dark"), "it's": ("o'clock",)}
    with store.write() as cursor:
        for place, tag in ((0, "dark"), (1, "bright"), (2, "zebra"), (3, "ant"), (4, "o'clock")):
            editing.tags_add(
                cursor, dataset_id=1, target=where(1, SampleFilter(ids=(ids[place],)), words), tag=tag, dimension=None
            )

        def listed(order: str) -> str:
            return "".join(s.path[0] for s in samples_page(cursor, 1, SampleFilter(), words, order=order).samples)

        assert listed("tag:lighting") == "10234"
        assert listed("-tag:lighting") == "01234"
        assert listed("tag:it's")[0] == "4"
        assert listed("own") == "32014"
        assert listed("-own") == "23410"


def test_an_order_by_probability(store: SampleStore, ids: list[int]) -> None:
    from vlm.samples import merging

    with store.write() as cursor:
        results = [result(ids[0], answer(1, "dark", 0.6)), result(ids[3], answer(1, "bright", 0.9))]
        merging.merge_batch(cursor, dataset_id=1, run_id=1, results=results)
        for order, first in (("probability:lighting", "03"), ("-probability:lighting", "30")):
            found = [s.path[0] for s in samples_page(cursor, 1, SampleFilter(), WORDS, order=order).samples]
            assert "".join(found[:2]) == first


def test_facets(store: SampleStore, ids: list[int]) -> None:
    def counted(query: str, name: str) -> list[tuple[str, int]]:
        with store.read() as cursor:
            found = facets(cursor, 1, SampleFilter.from_query(query), WORDS)
        return [(count.value, count.count) for count in getattr(found, name)]

    assert counted("", "cameras") == [("Canon EOS R6", 2), ("Nikon D5", 1)]
    assert counted("", "taken") == [("2023", 1), ("2024", 2)]
    assert counted("taken=2024", "taken") == [("2024-05", 1), ("2024-06", 1)]
    assert counted("taken=2024-05", "taken") == [("2024-05-01", 1)]
    assert counted("taken=2024-05-01", "taken") == [("2024-05-01", 1)]
    assert counted("", "megapixels") == [("..<0.5", 3), ("8..<24", 1)]
    assert counted("", "file_sizes") == [("..<100kB", 3), ("100kB..<1MB", 1), ("5MB..<20MB", 1)]
    # What is asked of a facet itself is left out of its counts, and what others ask is not; width is asked of all.
    assert counted("camera=Nikon D5&taken=2024", "cameras") == [("Canon EOS R6", 2)]
    assert counted("megapixels=8..<24", "megapixels") == [("..<0.5", 3), ("8..<24", 1)]
    assert counted("width=..500", "file_sizes") == [("..<100kB", 2)]


def test_each_count_leads_to_as_many(store: SampleStore, ids: list[int]) -> None:
    with store.read() as cursor:
        found = facets(cursor, 1, SampleFilter(), WORDS)
        for name in ("cameras", "taken", "megapixels", "file_sizes"):
            for one in getattr(found, name):
                assert count(cursor, 1, SampleFilter(**{name: (one.value,)}), WORDS) == one.count  # type: ignore[arg-type]


def test_another_content_is_read_anew(store: SampleStore, ids: list[int]) -> None:
    changed = records()
    changed[0] = record("0.jpg", width=None, height=None, content_key="9000001-2")
    imported(store, changed)
    with store.read() as cursor:
        (first, second) = samples_by_id(cursor, 1, ids[:2])
        assert (first.width, first.taken, first.camera, first.bytes) == (None, None, None, 9_000_001)
        assert (second.width, second.camera, second.bytes) == (640, "Canon EOS R6", 120_000)
        assert heads_unread(cursor, 1, limit=9) == [(ids[0], "0.jpg")]


def test_a_size_that_the_data_set_gave_stays(store: SampleStore) -> None:
    (only,) = imported(store, [record("a.jpg", width=320, height=240)])
    with store.write() as cursor:
        heads_keep(cursor, dataset_id=1, heads={only: HEADS[0]})
        (row,) = samples_by_id(cursor, 1, [only])
    assert (row.width, row.height, row.camera) == (320, 240, "Canon EOS R6")
