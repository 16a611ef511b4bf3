"""What can go wrong with the engine; every message says what to do about it."""

from vlm.errors import Refusal


class EngineError(Refusal):
    """Any failure of the engine that is not a mistake in the calling code."""

    title = "The model cannot be used"
    status = 503


class ModelUnavailable(EngineError):
    """The model cannot be loaded: no network and no cache, no room, no such device, or not the weights we know."""

    exit_code = 3


class DeviceLost(EngineError):
    """The device stopped working in the middle of it; the model on it is gone."""
