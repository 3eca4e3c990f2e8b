"""Kernel distance between two sets of images: an alternative to the Fréchet distance, unbiased for few images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unet_models.metrics.frechet import check_features


def kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Estimate the squared maximum mean discrepancy of features ``(N, D)`` and ``(M, D)``.

    With Inception features it is the KID (Binkowski et al. 2018, arXiv:1801.01401, sec. 4): kernel
    ``(x . y / D + 1)^3``, estimated on ``subsets`` pairs of subsets of ``subset_size`` samples, drawn without
    replacement. Returns mean and standard deviation over the subsets. The estimate is unbiased, so two samples of one
    distribution give values around 0, also below it.

    A set of fewer samples than ``subset_size`` is used whole; where both are, there is one pair of subsets and the
    standard deviation is NaN.

    Raises ValueError for fewer than 2 samples of a set, a differing number of features, values that are not finite,
    ``subsets`` below 1 and ``subset_size`` below 2.
    """
    check_features("x", x)
    check_features("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets must have the same features, got {x.shape[1]} and {y.shape[1]} of them")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance needs at least 2 samples of each set, got {len(x)} and {len(y)}")
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets must be at least 1 and subset_size at least 2, got {subsets} and {subset_size}")
    if max(len(x), len(y)) <= subset_size:
        return _squared_mmd(x, y), float("nan")
    generator = np.random.default_rng(seed)
    estimates = [
        _squared_mmd(_draw(x, subset_size, generator), _draw(y, subset_size, generator)) for _ in range(subsets)
    ]
    return float(np.mean(estimates)), float(np.std(estimates))


def _draw(features: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    return features[generator.choice(len(features), min(size, len(features)), replace=False)]


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Estimate without bias: no sample is compared with itself (Gretton et al., JMLR 2012, eq. 3)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mean_of_pairs(_kernel(x, x)) + _mean_of_pairs(_kernel(y, y)) - 2 * float(_kernel(x, y).mean())


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # a tenth of the time of a power


def _mean_of_pairs(kernel: NDArray[np.float64]) -> float:
    """Average over the pairs of two different samples."""
    size = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (size * (size - 1)))
