"""A native, batched Moondream2: every question about an image answered in one pass, with probabilities.

It knows no Django and runs no code from a hub.
"""

from .crops import PreparedImage
from .errors import EngineError, ModelUnavailable
from .hub import LoadProgress
from .loading import load_tagger
from .tagger import DimensionScore, Tagger

__all__ = [
    "DimensionScore",
    "EngineError",
    "LoadProgress",
    "ModelUnavailable",
    "PreparedImage",
    "Tagger",
    "load_tagger",
]
