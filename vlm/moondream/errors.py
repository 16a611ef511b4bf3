"""What can go wrong with the engine; every message says what to do about it."""


class EngineError(Exception):
    """Any failure of the engine that is not a mistake in the calling code."""


class ModelUnavailable(EngineError):
    """The model cannot be loaded: no network and no cache, no room, no such device, or not the weights we know."""
