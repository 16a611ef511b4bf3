"""Tags: what users add, take away and confirm, on a sample or on a whole filter."""

from django.contrib.auth.models import User

from vlm.models import Dataset, words_by_dimension
from vlm.process import sample_store
from vlm.samples import Edit, SampleFilter, Way, merging, reading, where


def add(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Give a tag to all samples of a filter; returns how many did not have it from a user. Raises ``TagError``."""
    words, tag = words_by_dimension(), merging.clean_tag(tag)
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        return merging.tags_add(
            cursor,
            dataset_id=dataset.pk,
            target=target,
            tag=tag,
            dimension=_dimension_of(tag, words),
            by=_by(user, filter),
        ).samples


def remove(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Take a tag away from all samples of a filter, for good; returns how many had it."""
    words = words_by_dimension()
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        tag = merging.clean_tag(tag)
        return merging.tags_remove(cursor, dataset_id=dataset.pk, target=target, tag=tag, by=_by(user, filter)).samples


def confirm(*, dataset: Dataset, filter: SampleFilter, tag: str, user: User | None) -> int:
    """Make a model's tag the user's own wherever it stands in a filter; returns where it was not yet."""
    words, tag = words_by_dimension(), merging.clean_tag(tag)
    with sample_store().write() as cursor:
        target = where(dataset.pk, filter, words)
        return merging.tags_confirm(
            cursor,
            dataset_id=dataset.pk,
            target=target,
            tag=tag,
            dimension=_dimension_of(tag, words),
            by=_by(user, filter),
        ).samples


def suggestions(*, dataset: Dataset, prefix: str, limit: int = 20) -> list[str]:
    with sample_store().read() as cursor:
        return reading.tag_suggestions(cursor, dataset.pk, prefix, limit)


def _by(user: User | None, filter: SampleFilter) -> Edit:
    way: Way = "single" if len(filter.ids) == 1 else "bulk"
    return Edit(user.pk, user.get_username(), way) if user is not None else Edit(way=way)


def _dimension_of(tag: str, words: dict[str, tuple[str, ...]]) -> str | None:
    return next((name for name, of in words.items() if tag in of), None)
