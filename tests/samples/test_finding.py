"""Tags that contradict the pixels, and images that are nearly the same: found, counted, filtered, gone when they no longer hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from vlm.demo import DEMO_PHOTOS
from vlm.measures import measure
from vlm.samples import Label, Measures, SampleFilter, SampleStore, where
from vlm.samples.counting import facets
from vlm.samples.cursor import Cursor
from vlm.samples.editing import labels_add, tags_add, tags_remove
from vlm.samples.finding import (
    LEAK,
    NEAR,
    RULES,
    contradictions,
    contradictions_count,
    contradictions_find,
    group_members,
    group_of,
    groups,
    groups_count,
    groups_put,
    hashes,
    leaks,
    looked,
    rules_for,
)
from vlm.samples.ingest import import_rows, staged
from vlm.samples.reading import count, samples_page
from vlm.samples.values import measures_keep
from vlm.statistics.duplicates import duplicate_groups

from .conftest import WORDS, fill, record

CROPS = 12  # of each photograph
HIDDEN = 200


def give(cursor: Cursor, ids: list[int], tag: str) -> None:
    target = where(1, SampleFilter(), WORDS)
    only = ", ".join(map(str, ids))
    tags_add(cursor, dataset_id=1, target=(f"{target[0]} and s.id in ({only})", target[1]), tag=tag, dimension=None)


def flat(luminance: float, phash: int = 1) -> Measures:
    return Measures(luminance, 0, 255, 50, 100, 2, 30, 1.5, phash)


def crops() -> list[Image.Image]:
    """Return different parts of the bundled photographs, each as a small picture."""
    chance, found = np.random.default_rng(3), []
    for path in sorted(Path(DEMO_PHOTOS).glob("*.jpg")):
        with Image.open(path) as opened:
            opened.draft("RGB", (640, 480))
            image = opened.convert("RGB")
        for _ in range(CROPS):
            share = chance.uniform(0.4, 0.9)
            width, height = int(share * image.width), int(share * image.height)
            x, y = (int(chance.integers(0, most)) for most in (image.width - width, image.height - height))
            found.append(image.crop((x, y, x + width, y + height)).resize((160, 120), Image.Resampling.BOX))
    return found


def noisy(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    spoilt = np.asarray(image) + chance.normal(0, 25, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.rint(spoilt), 0, 255).astype(np.uint8))


def test_what_was_spoilt_behind_the_tags_back_stands_first(store: SampleStore) -> None:
    """Photographs are tagged by what they are; then 200 of them are darkened, blurred or made noisy."""
    chance, pictures = np.random.default_rng(4), crops()
    ids = fill(store, len(pictures))
    before = [measure(picture) for picture in pictures]

    def upper_half(name: str) -> list[int]:
        values = np.array([getattr(one, name) for one in before])
        return np.flatnonzero(values >= np.median(values)).tolist()

    bright, sharp = upper_half("luminance"), upper_half("sharpness")
    first = chance.permutation(bright)[: HIDDEN // 3].tolist()
    others = [place for place in chance.permutation(sharp).tolist() if place not in first][: HIDDEN - len(first)]
    spoilt = {place: ImageEnhance.Brightness(pictures[place]).enhance(0.3) for place in first}
    spoilt |= {place: pictures[place].filter(ImageFilter.GaussianBlur(2)) for place in others[::2]}
    spoilt |= {place: noisy(pictures[place], chance) for place in others[1::2]}
    assert len(spoilt) == HIDDEN
    now = {ids[place]: measure(spoilt[place]) if place in spoilt else before[place] for place in range(len(ids))}
    with store.write() as cursor:
        give(cursor, [ids[place] for place in bright], "bright")
        give(cursor, [ids[place] for place in sharp], "sharp")
        measures_keep(cursor, dataset_id=1, measures=now)
        contradictions_find(cursor, dataset_id=1, rules=RULES, beyond=0.7)
        ranked = list(dict.fromkeys(one.sample_id for one in contradictions(cursor, 1, limit=5000)))
        page = samples_page(
            cursor, 1, SampleFilter(marks=("contradiction",)), WORDS, order="contradicting", limit=len(ids)
        )
    found = {ids[place] for place in spoilt} & set(ranked[:250])
    assert len(found) >= 0.9 * HIDDEN
    assert [sample.id for sample in page.samples[:100]] == sorted(
        ranked, key=lambda one: (-max(c.beyond for c in by_sample(store)[one]), one)
    )[:100]


def by_sample(store: SampleStore) -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    with store.read() as cursor:
        for one in contradictions(cursor, 1, limit=5000):
            found.setdefault(one.sample_id, []).append(one)
    return found


def test_a_contradiction_is_measured_by_the_words_own_images(store: SampleStore) -> None:
    ids = fill(store, 120)
    with store.write() as cursor:
        give(cursor, ids[:60], "dark")
        measures_keep(cursor, dataset_id=1, measures={one: flat(20 + place) for place, one in enumerate(ids)})
        assert contradictions_find(cursor, dataset_id=1, rules=RULES) == 1  # of 60, one is beyond 98 %
        (one,) = contradictions(cursor, 1)
        assert (one.sample_id, one.word, one.rule.more) == (ids[59], "dark", "brighter")
        assert one.beyond == pytest.approx(1 - 0.5 / 60)
        assert [(row.word, row.count) for row in contradictions_count(cursor, 1)] == [("dark", 1)]
        assert [(c.value, c.count) for c in facets(cursor, 1, SampleFilter(), WORDS).marks] == [("contradiction", 1)]
        state = looked(cursor, 1, "contradiction")
        assert state is not None
        assert (state.setting, state.samples, state.changed) == (0.98, 120, False)
        # Once the tag is gone, or somebody has decided that it is right, it contradicts nothing.
        chosen, target = SampleFilter(marks=("contradiction:dark",)), where(1, SampleFilter(ids=(ids[59],)), WORDS)
        tags_remove(cursor, dataset_id=1, target=target, tag="dark")
        assert count(cursor, 1, chosen, WORDS) == 0
        give(cursor, ids[59:60], "dark")
        assert count(cursor, 1, chosen, WORDS) == 1
        labels_add(cursor, dataset_id=1, labels=[Label(ids[59], "lighting", "dark")])
        assert count(cursor, 1, chosen, WORDS) == 0
        again = looked(cursor, 1, "contradiction")
        assert again is not None
        assert again.changed


def test_small_and_equal_groups_contradict_nothing(store: SampleStore) -> None:
    ids = fill(store, 60)
    with store.write() as cursor:
        give(cursor, ids[:20], "dark")  # too few to say what is usual
        give(cursor, ids[20:], "night")  # all alike
        measured = {one: flat(10 * place) for place, one in enumerate(ids[:20])} | {one: flat(50) for one in ids[20:]}
        measures_keep(cursor, dataset_id=1, measures=measured)
        assert contradictions_find(cursor, dataset_id=1, rules=RULES) == 0


def test_a_word_is_known_by_its_other_names() -> None:
    assert rules_for([{"dunkel": ("Dark",), "hell": ("bright",), "Katze": ()}]) == {
        "dunkel": RULES["dark"],
        "hell": RULES["bright"],
    }
    assert rules_for([{"normal": (), "abnormal": ()}]) == {}
    assert "normal" in rules_for([{"normal": (), "dark": ()}])


def test_groups_and_leaks(store: SampleStore) -> None:
    records = [record(f"{index}.jpg", split="train" if index % 2 else "val") for index in range(8)]
    with staged(records, store.path.parent) as source:
        import_rows(store, dataset_id=1, source=source)
    with store.write() as cursor:
        ids = [row[0] for row in cursor.execute("select id from samples order by id").fetchall()]
        found = [0b1111, 0b1110, 1 << 40, 1 << 40, 0, 0, 0, 1 << 20 | 1 << 50 | 1 << 5 | 1 << 60 | 1 << 33]
        light = [9, 9, 9, 9, 200, 200, 10, 9]  # the flat ones: two are white, one is black
        splits_differ = {place: flat(light[place], found[place]) for place in range(8)}
        measures_keep(cursor, dataset_id=1, measures={ids[place]: one for place, one in splits_differ.items()})
        known, of = hashes(cursor, 1)
        groups_put(cursor, dataset_id=1, ids=known, groups=duplicate_groups(of, 2), distance=2)
        assert groups_count(cursor, 1) == (3, 6)
        assert [(group.number, group.size) for group in groups(cursor, 1, limit=9)] == [
            (ids[0], 2),
            (ids[2], 2),
            (ids[4], 2),
        ]
        assert group_of(cursor, 1, ids[1]) == (ids[0], 2)
        assert group_of(cursor, 1, ids[6]) is None
        assert group_members(cursor, 1, [ids[2]], each=1) == {ids[2]: [ids[2]]}
        assert groups_count(cursor, 1, kind=LEAK) == (3, 6)
        assert leaks(cursor, 1) == [("train", "val", 3, 6)]
        assert count(cursor, 1, SampleFilter(marks=("near",)), WORDS) == 6
        assert count(cursor, 1, SampleFilter(group=ids[4]), WORDS) == 2
        state = looked(cursor, 1, NEAR)
        assert state is not None
        assert state.setting == 2
        contradictions_find(cursor, dataset_id=1, rules=RULES)  # which leaves the groups up to date
        after = looked(cursor, 1, NEAR)
        assert after is not None
        assert not after.changed
        groups_put(cursor, dataset_id=1, ids=known, groups=np.full(8, -1), distance=0)
        assert groups_count(cursor, 1) == (0, 0)
        assert count(cursor, 1, SampleFilter(marks=("leak",)), WORDS) == 0
