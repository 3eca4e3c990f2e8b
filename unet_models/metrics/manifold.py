"""Neighbourhoods of features: precision and recall of generated images, and memorisation of training images.

Distances are Euclidean, in float64. They are computed tile by tile, so memory does not grow with the product of the
two numbers of samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unet_models.metrics.frechet import check_features

_BLOCK_ROWS = 1024
"""Samples compared at a time: a tile of distances takes 8 MB, two blocks of 2048 features take 32 MB."""

_ROUNDING = 1e-12
"""Rounding tolerance of squared distances, relative to the largest squared norm: a copy lies within a radius of 0."""


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Compute improved precision and recall of features ``(N, D)`` and ``(M, D)``, both 0 to 1.

    Around each sample of a set lies a ball that reaches to its ``k``-th nearest neighbour in the set. Precision is the
    share of generated samples inside a ball of a real one (are they plausible?), recall the share of real samples
    inside a ball of a generated one (is the variety covered?). Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2.

    Raises ValueError unless each set has more than ``k`` samples and ``k`` is at least 1, for a differing number of
    features, and for values that are not finite.
    """
    _check_pair("real", real, "generated", generated)
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(
            f"k must be at least 1 and below the number of samples, got {k} for {len(real)} and {len(generated)}"
        )
    precision = _share_covered(generated, real, _radii(real, k))
    recall = _share_covered(real, generated, _radii(generated, k))
    return precision, recall


def nearest_neighbours(
    queries: np.ndarray, references: np.ndarray, k: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the ``k`` nearest of ``references (M, D)`` to each of ``queries (N, D)``, nearest first.

    Returns distances ``(N, k)`` and row numbers in ``references`` ``(N, k)``. The distance of a copy is exactly 0.
    The order of equally far references is not defined.

    Raises ValueError for ``k`` below 1 or above the number of references, a differing number of features, and values
    that are not finite.
    """
    _check_pair("queries", queries, "references", references)
    if not 1 <= k <= len(references):
        raise ValueError(f"k must be 1 to {len(references)}, the number of references, got {k}")
    centre = references.mean(axis=0, dtype=np.float64)
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), dtype=np.int64)
    for rows in _blocks(len(queries)):
        block = queries[rows].astype(np.float64)
        found = _nearest_indices(block - centre, references, centre, k)
        # Squared norms cancel badly for near copies: distances to the neighbours found are computed again.
        exact = np.stack([np.linalg.norm(block - references[column], axis=1) for column in found.T], axis=1)
        order = np.argsort(exact, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(exact, order, axis=1)
        indices[rows] = np.take_along_axis(found, order, axis=1)
    return distances, indices


def memorisation(generated: NDArray[np.float64], held_out: NDArray[np.float64]) -> dict[str, float]:
    """Measure memorisation: compare the distances of generated and of unseen real samples to the training samples.

    Both are distances ``(N,)`` to the nearest of all training samples (the idea of Meehan et al. 2020,
    arXiv:2004.05675, without its test statistic). Of a part of them copies of the others would go unseen.

    - ``generated_median``, ``held_out_median``: the median distance, in the features' unit.
    - ``median_ratio``: the first over the second. About 1: as far as unseen images; well below 1: copies. NaN or
      infinite where ``held_out_median`` is 0.
    - ``closer_than_held_out_p5``: fraction of generated samples strictly nearer than the 5th percentile of the held-out
      distances, 0 to 1. A model that does not copy gives about 0.05.

    Raises ValueError for an empty set.
    """
    for name, distances in (("generated", generated), ("held_out", held_out)):
        if len(distances) == 0:
            raise ValueError(f"{name} must hold at least one sample, got none")
    medians = np.median(generated), np.median(held_out)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(*medians)
    closer = generated < np.percentile(held_out, 5)
    return {
        "generated_median": float(medians[0]),
        "held_out_median": float(medians[1]),
        "median_ratio": float(ratio),
        "closer_than_held_out_p5": float(closer.mean()),
    }


def _radii(features: np.ndarray, k: int) -> NDArray[np.float64]:
    """Compute each sample's distance to its ``k``-th nearest neighbour; the first of ``k + 1`` is the sample itself."""
    return nearest_neighbours(features, features, k + 1)[0][:, -1]


def _share_covered(points: np.ndarray, centres: np.ndarray, radii: NDArray[np.float64]) -> float:
    """Compute the fraction of ``points (N, D)`` within the radius of at least one of ``centres (M, D)``."""
    origin = centres.mean(axis=0, dtype=np.float64)
    covered = np.zeros(len(points), dtype=bool)
    for rows in _blocks(len(points)):
        block = points[rows] - origin
        for columns in _blocks(len(centres)):
            others = centres[columns] - origin
            largest = max(float(np.einsum("nd,nd->n", x, x).max()) for x in (block, others))
            reach = radii[columns] ** 2 + _ROUNDING * largest
            covered[rows] |= (_squared_distances(block, others) <= reach).any(axis=1)
    return float(covered.mean())


def _nearest_indices(
    block: NDArray[np.float64], references: np.ndarray, centre: NDArray[np.float64], k: int
) -> NDArray[np.int64]:
    """Find the rows ``(n, k)`` of the nearest references to a block of centred queries ``(n, D)``, in no order."""
    squared = np.empty((len(block), 0))
    indices = np.empty((len(block), 0), dtype=np.int64)
    for columns in _blocks(len(references)):
        numbers = np.arange(columns.start, columns.stop)
        squared = np.concatenate([squared, _squared_distances(block, references[columns] - centre)], axis=1)
        indices = np.concatenate([indices, np.broadcast_to(numbers, (len(block), len(numbers)))], axis=1)
        nearest = np.argpartition(squared, min(k, squared.shape[1]) - 1, axis=1)[:, :k]
        squared = np.take_along_axis(squared, nearest, axis=1)
        indices = np.take_along_axis(indices, nearest, axis=1)
    return indices


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute ``|x|^2 - 2 x.y + |y|^2``, ``(n, m)``; centred features keep the rounding error small."""
    squared = x @ y.T
    squared *= -2
    squared += np.einsum("nd,nd->n", x, x)[:, None]
    squared += np.einsum("nd,nd->n", y, y)
    return squared


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, size))


def _check_pair(name_x: str, x: np.ndarray, name_y: str, y: np.ndarray) -> None:
    check_features(name_x, x)
    check_features(name_y, y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{name_x} and {name_y} must have the same features, got {x.shape[1]} and {y.shape[1]} of them"
        )
