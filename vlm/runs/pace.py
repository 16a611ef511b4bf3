"""How long a run will take, by what the last ones like it took."""

from __future__ import annotations

from django.db.models import F

from vlm.models import Dataset, TaggingRun
from vlm.runs import scope
from vlm.runs.options import RunOptions

LEAST_IMAGES = 5  # of a run that tells anything: the first images are slow
LOOKED_AT = 50


def expected_seconds(*, dataset: Dataset, options: RunOptions, count: int) -> float | None:
    """Return how long asking about ``count`` images will take, ``None`` while no run of this model tells.

    The newest run that asked as many questions says it, on any data set; without one, the newest that asked others.
    """
    run = scope.draft(dataset, options)
    past = TaggingRun.objects.filter(
        model=run.model, detail=run.detail, mode=run.mode, processed__gte=LEAST_IMAGES + F("shared"), seconds__gt=0
    )[:LOOKED_AT]
    alike = sorted(past, key=lambda other: (abs(len(other.vocabulary_json) - len(run.vocabulary_json)), -other.pk))
    return count * alike[0].seconds / (alike[0].processed - alike[0].shared) if alike else None
