"""Training images nearest to each generated and held-out one, of all there are: searched tile by tile on the actors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines import storage
from flows.stages.attempt import Attempt

NUM_NEIGHBOURS = 3
"""Nearest training images that are kept of each image."""
SEARCHED = ("generated", "val")
"""Sets of images whose neighbours are searched."""

Features = Mapping[str, Mapping[str, np.ndarray]]
"""Set of images to extractor to (N, D)."""
Neighbours = dict[str, "Nearest"]
"""``SET/EXTRACTOR`` to the neighbours of the set's images."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Nearest training images of each image, nearest first."""

    distances: NDArray[np.float64]
    """(N, k)."""
    rows: NDArray[np.int64]
    """(N, k) rows of the index."""

    def merge(self, other: Nearest) -> Nearest:
        """Keep the nearest of both."""
        distances = np.concatenate([self.distances, other.distances], axis=1)
        rows = np.concatenate([self.rows, other.rows], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
        return Nearest(np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1))


def nearest_of(queries: np.ndarray, references: np.ndarray, rows: Sequence[int]) -> Nearest:
    """Find the nearest of ``references (M, D)``, which are the images of ``rows``, to each of ``queries (N, D)``."""
    from unet_models.metrics.manifold import nearest_neighbours

    distances, places = nearest_neighbours(queries, references, min(NUM_NEIGHBOURS, len(references)))
    return Nearest(distances, np.asarray(rows, np.int64)[places])


def find_among(
    queries: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray], rows: Sequence[int]
) -> Neighbours:
    """Find the neighbours of ``SET/EXTRACTOR`` queries among training images of ``rows``, by the same extractor."""
    return {name: nearest_of(found, references[name.split("/")[1]], rows) for name, found in queries.items()}


def merge_all(found: Iterable[Neighbours]) -> Neighbours:
    """Keep the nearest of all searches."""
    merged: Neighbours = {}
    for each in found:
        merged |= {name: merged[name].merge(nearest) if name in merged else nearest for name, nearest in each.items()}
    return merged


def select_queries(features: Features) -> dict[str, np.ndarray]:
    """Return the features of the images whose neighbours are searched, by ``SET/EXTRACTOR``."""
    return {
        f"{name}/{extractor}": np.ascontiguousarray(values)
        for name in SEARCHED
        for extractor, values in features[name].items()
        if len(values)
    }


def write_queries(attempt: Attempt, queries: Mapping[str, np.ndarray]) -> str:
    """Write queries for the actors; return the URI."""
    from safetensors.numpy import save

    uri = attempt.uri("queries.safetensors")
    storage.write_bytes(uri, save(dict(queries)))
    return uri


def read_queries(uri: str) -> dict[str, np.ndarray]:
    """Read what ``write_queries`` wrote."""
    from safetensors.numpy import load_file

    with storage.local_file(uri) as path:
        queries: dict[str, np.ndarray] = load_file(path)
        return queries
