"""Whether answers need their picture: a run's questions asked once of a grey image, and the prior of each word over the run.

A grey image is one crop whatever the detail, so its answers are the same at either. Together they take at most 2 % of a run's
time: at low detail the grey image takes as long as any other, at full detail less, and it is asked from 100 images on; the sums are
made when the number of answered images has doubled, and at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from vlm.models import TaggingRun
from vlm.samples import trust
from vlm.samples.cursor import Cursor
from vlm.statistics import priors
from vlm.statistics.priors import Prior

if TYPE_CHECKING:
    from vlm.scoring.engine import Engine

LEAST_IMAGES = 100  # of a run that asks about a grey image as well
GREY_IMAGE = Image.new("RGB", (378, 378), (128, 128, 128))


def grey_answers(run: TaggingRun, engine: Engine) -> dict[str, Any]:
    """Return what a run's model says of a grey image, as the run's row keeps it; nothing where that is not worth its time.

    What was asked before, by this run or by another of the same model, number format and questions, is not asked again.
    """
    if run.mode != TaggingRun.Mode.SCORE:
        return {}
    asked = f"{engine.revision} {engine.dtype} {run.vocabulary_hash}"
    known = TaggingRun.objects.filter(blind__asked=asked).values_list("blind", flat=True).first()
    if known is not None:
        return dict(known)
    if run.total < LEAST_IMAGES:
        return {}
    (scores,) = engine.score([GREY_IMAGE], run.vocabulary, "low")
    return {"asked": asked, "answers": {name: list(score.probabilities) for name, score in scores.items()}}


def run_priors(cursor: Cursor, run: TaggingRun) -> dict[str, Any]:
    """Return dimension → :class:`Prior` as JSON, over what a run has answered so far."""
    if run.mode != TaggingRun.Mode.SCORE:
        return {}
    found = {}
    for dimension in run.vocabulary:
        words = [dimension.tag_of(answer) for answer in dimension.answers]
        blind = run.blind.get("answers", {}).get(dimension.name)
        answers, sums, hardly, divergence = trust.prior_sums(
            cursor, run.pk, dimension.name, len(words), blind, near=priors.HARDLY_DEPENDS, least=priors.SMALLEST
        )
        if answers:
            found[dimension.name] = Prior.of(words, answers, sums, blind, hardly, divergence).to_json()
    return found
