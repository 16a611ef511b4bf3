"""What can go wrong with workers; every message says what to do about it."""

from __future__ import annotations

from vlm.moondream import EngineError, ModelUnavailable


class WorkersUnavailable(ModelUnavailable):
    """The workers that were asked for cannot be had: no Ray, no cluster, nothing free in it."""

    title = "The workers cannot be used"


class WorkerRefused(ModelUnavailable):
    """A worker is not like the others: another version, model or number format, or it does not see the images."""

    title = "A worker does not fit"


class WorkersLost(EngineError):
    """All workers are gone, and none came back."""

    title = "The workers are gone"


class WorkerLost(Exception):
    """A call came to nothing since its worker died, or cannot be reached. Not for users: the crew goes on without it."""
