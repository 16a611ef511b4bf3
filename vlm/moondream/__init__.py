"""A native, batched Moondream2: every question about an image answered in one pass, with probabilities.

It knows no Django and runs no code from a hub. The names below are imported when they are first used: PyTorch and
transformers take seconds, which no command that does not infer should wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import EngineError, ModelUnavailable

if TYPE_CHECKING:
    from .crops import PreparedImage
    from .hub import LoadProgress, identity, to_fetch
    from .loading import load_tagger
    from .scores import DimensionScore
    from .tagger import Tagger

__all__ = [
    "DimensionScore",
    "EngineError",
    "LoadProgress",
    "ModelUnavailable",
    "PreparedImage",
    "Tagger",
    "identity",
    "load_tagger",
    "to_fetch",
]

_HOMES = {
    "DimensionScore": "scores",
    "LoadProgress": "hub",
    "PreparedImage": "crops",
    "Tagger": "tagger",
    "identity": "hub",
    "load_tagger": "loading",
    "to_fetch": "hub",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
