"""Looking through a data set for tags that contradict the pixels, and for images that are nearly the same."""

import logging

from vlm import nudges
from vlm.errors import Refusal
from vlm.models import Dimension
from vlm.process import sample_store
from vlm.samples import finding
from vlm.samples.finding import BEYOND, CONTRADICTION, NEAR, Rule, rules_for
from vlm.statistics.duplicates import FARTHEST, duplicate_groups

logger = logging.getLogger(__name__)

DISTANCE = 4  # bits in which the hashes of images that are nearly the same may differ


class FindingRefused(Refusal):
    """A setting that means nothing."""


def find(*, dataset_id: int, distance: int | None = None, beyond: float | None = None) -> None:
    """Look for both, with the settings of the last time where none is given.

    The grouping holds no transaction: whatever is imported or tagged meanwhile is seen the next time.

    Raises:
        FindingRefused: a setting that means nothing.
    """
    find_contradictions(dataset_id=dataset_id, beyond=beyond)
    find_groups(dataset_id=dataset_id, distance=distance)


def find_contradictions(*, dataset_id: int, beyond: float | None = None) -> None:
    if beyond is not None and not 0.5 <= beyond < 1:
        raise FindingRefused(
            "Say beyond which share of a word's images one contradicts it: 0.5 to below 1, such as 0.98."
        )
    with sample_store().write() as cursor:
        last = finding.looked(cursor, dataset_id, CONTRADICTION)
        setting = beyond or (last.setting if last else BEYOND)
        finding.contradictions_find(cursor, dataset_id=dataset_id, rules=rules(), beyond=setting)
    nudges.count_change(dataset_id)


def find_groups(*, dataset_id: int, distance: int | None = None) -> None:
    if distance is not None and not 0 <= distance <= FARTHEST:
        raise FindingRefused(f"The hashes of images that are nearly the same differ in 0 to {FARTHEST} of 64 bits.")
    with sample_store().read() as cursor:
        last = finding.looked(cursor, dataset_id, NEAR)
        ids, hashes = finding.hashes(cursor, dataset_id)
    setting = distance if distance is not None else int(last.setting) if last else DISTANCE
    groups = duplicate_groups(hashes, setting)
    with sample_store().write() as cursor:
        finding.groups_put(cursor, dataset_id=dataset_id, ids=ids, groups=groups, distance=setting)
    nudges.count_change(dataset_id)


def look_again(*, dataset_id: int) -> None:
    """Bring the findings up to date after a run: groups only where images were measured that nobody has compared.

    What goes wrong is logged: the run itself is done.
    """
    try:
        find_contradictions(dataset_id=dataset_id)
        with sample_store().read() as cursor:
            last = finding.looked(cursor, dataset_id, NEAR)
            measured = finding.measured(cursor, dataset_id)
        if last is None or last.samples != measured:
            find_groups(dataset_id=dataset_id)
    except Exception:
        logger.exception("Data set %s could not be looked through", dataset_id)


def rules() -> dict[str, tuple[Rule, ...]]:
    """Return word of the vocabulary → what its images are compared by; a word is also known by its spellings."""
    dimensions = Dimension.objects.prefetch_related("words")
    return rules_for(
        {word.text: dimension.spellings.get(word.text, ()) for word in dimension.words.all()}
        for dimension in dimensions
    )
