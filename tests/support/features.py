"""Random features and images for distances between distributions."""

from __future__ import annotations

import numpy as np
import torch


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw standard normals, the same each time."""
    return np.random.default_rng(seed).standard_normal(shape)


class MeanColours(torch.nn.Module):
    """An extractor: the mean colours of the four quarters of an image, (N, 12)."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)


def pictures(count: int, seed: int) -> torch.Tensor:
    """(N, 3, 8, 8) uint8, brighter with the seed."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 200 + 20 * seed, (count, 3, 8, 8), dtype=np.uint8))
