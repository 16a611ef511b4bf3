"""Frozen slices: the samples of a filter as they were, with what decided them, whatever becomes of their tags."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from vlm.errors import Refusal
from vlm.models import Dataset, FrozenSlice, TaggingRun, current_vocabulary, words_by_dimension
from vlm.process import sample_store
from vlm.samples import SampleFilter, values, where
from vlm.services.exports import Export, slugs, written
from vlm.vocabulary import VocabularyError, is_plain

MOST_SLICES = 200  # of a data set
STEP = 20_000  # samples that are read together


class SliceRefused(Refusal):
    """A slice cannot be frozen like this; the message says why."""

    title = "This cannot be frozen"
    status = 409


def listed(*, dataset: Dataset) -> list[FrozenSlice]:
    """Return the frozen slices of a data set by name."""
    return list(FrozenSlice.objects.filter(dataset=dataset).select_related("user"))


def get(*, dataset: Dataset, slice_id: int) -> FrozenSlice | None:
    return FrozenSlice.objects.filter(dataset=dataset, pk=slice_id).select_related("user", "dataset").first()


def find(*, dataset: Dataset, text: str) -> FrozenSlice | None:
    """Return the slice of that name, or of that number."""
    rows = FrozenSlice.objects.filter(dataset=dataset)
    found = rows.filter(name=text).first()
    if found is None and text.isascii() and text.isdecimal() and len(text) < 19:
        found = rows.filter(pk=int(text)).first()
    return found


def freeze(*, dataset: Dataset, name: str, filter: SampleFilter, user: User | None) -> FrozenSlice:
    """Keep which samples a filter has now, with the vocabulary and the runs that made their tags.

    Raises:
        SliceRefused: the filter has no sample, or the name is taken, empty or too long.
        FilterError: an unknown dimension.
    """
    name = " ".join(name.split())
    if not name or len(name) > 100 or not is_plain(name):
        raise SliceRefused("Give the slice a name of 1 to 100 characters, none of them a control character.")
    if FrozenSlice.objects.filter(dataset=dataset).count() >= MOST_SLICES:
        raise SliceRefused(f"This data set has {MOST_SLICES} frozen slices. Remove one first.")
    taken = SliceRefused(f"There is a frozen slice “{name}” already. Give another name, or remove that one.")
    try:
        with ExitStack() as both:
            # Waited for before Django's transaction begins, which lets nobody else write.
            cursor = both.enter_context(sample_store().write())
            with transaction.atomic():
                frozen = FrozenSlice.objects.create(
                    dataset=dataset,
                    user=user,
                    name=name,
                    query=filter.to_query(),
                    vocabulary_json=_vocabulary(),
                    runs=_runs(dataset),
                )
                target = where(dataset.pk, filter, words_by_dimension())
                frozen.samples = values.slice_freeze(cursor, dataset_id=dataset.pk, slice_id=frozen.pk, target=target)
                if not frozen.samples:
                    raise SliceRefused("No image matches this filter, so there is nothing to freeze.")
                frozen.save(update_fields=["samples"])
                both.close()  # the store commits first: ids without a row are nobody's, a row without ids would tell a lie
    except IntegrityError:
        raise taken from None
    return frozen


def remove(*, frozen: FrozenSlice) -> None:
    """Forget a slice; its images and their tags stay."""
    number, dataset_id = frozen.pk, frozen.dataset_id
    frozen.delete()
    with sample_store().write() as cursor:
        values.slice_forget(cursor, dataset_id=dataset_id, slice_id=number)


def as_json(*, frozen: FrozenSlice) -> dict[str, Any]:
    """Return what is kept of a slice beside its samples."""
    return {
        "slice": frozen.pk,
        "name": frozen.name,
        "dataset_id": frozen.dataset_id,
        "created": frozen.created.isoformat(),
        "created_by": frozen.user.get_username() if frozen.user else "",
        "filter": frozen.query,
        "samples": frozen.samples,
        "vocabulary": frozen.vocabulary_json,
        "runs": frozen.runs,
    }


def manifest(*, frozen: FrozenSlice) -> Export:
    """Write a slice as a JSON that other tools can read: what it is, and each sample's path and content."""
    name = slugs(frozen.dataset.name, frozen.name, "manifest") + ".json"
    return written(_pieces(frozen), name=name, mime="application/json")


def _pieces(frozen: FrozenSlice) -> Iterator[bytes]:
    dataset = frozen.dataset
    told = {"manifest": 1, "dataset": dataset.name, "root": dataset.root} | as_json(frozen=frozen)
    yield b'{"datavisor": ' + _bytes(told) + b',\n"samples": ['
    opening, after = b"\n", -1
    while True:
        # The store is let go between the pages, so that a long manifest holds up nobody.
        with sample_store().read() as cursor:
            rows = values.slice_page(cursor, dataset.pk, frozen.pk, after=after, limit=STEP)
        for row in rows:
            yield opening + _bytes(asdict(row))
            opening = b",\n"
        if len(rows) < STEP:
            break
        after = rows[-1].id
    yield b"\n]}\n"


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _vocabulary() -> list[Any]:
    try:
        return current_vocabulary().to_json()
    except VocabularyError:  # nothing can be asked; tags may be there all the same
        return []


def _runs(dataset: Dataset) -> list[dict[str, Any]]:
    runs = TaggingRun.objects.filter(dataset=dataset, reverted=None).exclude(processed=0).order_by("pk")
    return [
        {
            "run": run.pk,
            "status": run.status,
            "model": run.model,
            "revision": run.revision,
            "dtype": run.dtype,
            "detail": run.detail,
            "mode": run.mode,
            "min_probability": run.min_probability,
            "min_mass": run.min_mass,
            "thresholds": run.thresholds,
            "vocabulary_hash": run.vocabulary_hash,
            "filter": run.filter_query,
            "processed": run.processed,
            "finished": run.finished.isoformat() if run.finished else None,
        }
        for run in runs
    ]
