"""What a run can be refused for; each message says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.errors import Refusal

if TYPE_CHECKING:
    from vlm.models import TaggingRun


class RunError(Refusal):
    """A run cannot be started or changed as asked; the message says why."""


class RunActive(RunError):
    """Another run of the data set is active: ``run``, if it still is."""

    title = "A run is active"
    status = 409

    def __init__(self, run: TaggingRun | None) -> None:
        self.run = run
        number = f"Run {run.pk}" if run else "A run"
        super().__init__(f"{number} of this data set is active. Wait for its end, or cancel it.")


class NothingToTag(RunError):
    """The scope holds no sample."""

    title = "Nothing to tag"


class NotGrouped(RunError):
    """A run is to ask one image of each group, and nobody has looked which images are nearly the same."""

    title = "No groups are known"

    def __init__(self) -> None:
        super().__init__(
            "Nobody has looked yet which images are nearly the same. Measure the data set first: on its page “Pixels”, "
            "or with the command measure."
        )


class NothingToChoose(RunError):
    """There is no image to ask one way and another."""

    title = "Nothing to ask"


class NotResumable(RunError):
    """The run is complete, reverted, or still active."""

    title = "This run does not go on"
    status = 409


class Unchangeable(RunError):
    """The run is active or reverted, so what it decided stays as it is."""

    title = "This run stays as it is"
    status = 409


class ModelMismatch(Refusal):
    """Nearly no answer lies on the list: weights and tokenizer do not belong together."""

    title = "The model does not fit"
