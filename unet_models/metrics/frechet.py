"""Fréchet distance between two sets of images, each modelled as a Gaussian in the feature space of a network.

A set enters by its count, mean and covariance, so features are read once, in any number of pieces
(``FeatureMoments.update``). With Inception features (``inception``) the distance is the FID. It falls with the number
of images (finite samples make the covariances differ): compare figures of the same number only, and print it beside
them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class FeatureMoments:
    """Count, mean and scatter matrix of features ``(N, num_features)``, in float64.

    ``mean (D,)``; ``scatter (D, D)`` is the sum of the outer products of the deviations from the mean. Sums of raw
    squares would lose the digits of a variance that is small against the mean; these do not.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self.mean = np.zeros(num_features)
        self.scatter = np.zeros((num_features, num_features))

    @classmethod
    def weighted(cls, features: NDArray[np.float64], counts: NDArray[np.float64]) -> FeatureMoments:
        """Build the moments of features ``(N, D)`` of which each counts ``counts (N,)`` times, whole numbers."""
        moments = cls(features.shape[1])
        moments.count = round(float(counts.sum()))
        moments.mean = counts @ features / moments.count
        deviations = features - moments.mean
        moments.scatter = (deviations * counts[:, None]).T @ deviations
        return moments

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Unbiased covariance ``(D, D)``: the scatter over ``count - 1``. Raises ValueError below 2 samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)

    def update(self, features: np.ndarray) -> None:
        """Add features ``(N, D)``; ``N`` may be 0.

        Raises ValueError for another shape, and for NaN or infinite values; nothing is added then.
        """
        check_features("features", features)
        self._check_dimension(features.shape[1])
        if len(features):
            deviations = features.astype(np.float64)
            mean = deviations.mean(axis=0)
            deviations -= mean
            self._add(len(features), mean, deviations.T @ deviations)

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        """Merge moments: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm" (1979), eq. 2.1."""
        total = self.count + count
        apart = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(apart, apart) * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def _check_dimension(self, num_features: int) -> None:
        if num_features != len(self.mean):
            raise ValueError(f"moments of {len(self.mean)} features cannot take in {num_features} features")


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Compute the squared Fréchet distance of two Gaussians, ``|m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))``.

    It is 0 or more, in the square of the features' unit (Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500,
    eq. 6). The trace of the root is that of ``(S_a^(1/2) S_b S_a^(1/2))^(1/2)``, whose argument is symmetric:
    eigenvalues in float64 replace a general matrix root, and covariances of too few samples to be invertible need no
    offset.

    Raises ValueError for fewer than 2 samples of a set, and where the number of features differs.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"both sets must have the same features, got {len(a.mean)} and {len(b.mean)} of them")
    if min(a.count, b.count) < 2:
        raise ValueError(f"a Fréchet distance needs at least 2 samples of each set, got {a.count} and {b.count}")
    return FrechetReference(a).distance(b)


class FrechetReference:
    """One side of many Fréchet distances: the root of its covariance is computed once."""

    def __init__(self, moments: FeatureMoments) -> None:
        self.mean, self.covariance = moments.mean, moments.covariance
        self.root = _symmetric_root(self.covariance)

    def distance(self, other: FeatureMoments) -> float:
        """Compute the squared Fréchet distance to another set of the same features."""
        covariance = other.covariance
        inner = self.root @ covariance @ self.root
        # Rounding leaves the product a little asymmetric, and eigenvalues of 0 a little negative.
        eigenvalues = np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)
        spread = np.trace(self.covariance) + np.trace(covariance) - 2 * np.sqrt(eigenvalues).sum()
        return max(float(np.sum((self.mean - other.mean) ** 2) + spread), 0.0)


def check_features(name: str, features: np.ndarray) -> None:
    """Check that ``features`` is a table ``(N, D)`` of finite real numbers; ``N`` may be 0. Raises ValueError."""
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be real numbers in 2 axes (samples, features), got {features.dtype} of shape {features.shape}"
        )
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad.sum()} of {len(bad)} samples, first in sample "
            f"{bad.argmax()}: look at the images and at the network's precision"
        )


def _symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the square root of a symmetric matrix without negative eigenvalues."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(eigenvalues.clip(min=0))) @ vectors.T
