"""Polygons to masks."""

from __future__ import annotations

import numpy as np


def fill_polygon(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (i, j) of a grid of ``shape`` whose centres lie within a polygon.

    ``points`` (N, 2) are its corners in units of pixels, centres having whole coordinates. Inside is what a line from
    there leaves through an odd number of edges (even-odd rule). Of two polygons that share an edge, a centre on it
    belongs to one.
    """
    (i0, j0), (i1, j1) = points.T, np.roll(points, -1, axis=0).T
    low, high = np.clip(np.ceil([j0.min(), j0.max() + 1]), 0, shape[1]).astype(int)
    lines = np.arange(low, high)[:, None]  # each line of pixels is cut by some of the edges
    cut, edge = np.nonzero((j0 <= lines) != (j1 <= lines))
    share = (lines[cut, 0] - j0[edge]) / (j1[edge] - j0[edge])
    crossing = np.ceil(i0[edge] + share * (i1[edge] - i0[edge])).clip(0, shape[0]).astype(int)
    changes = np.zeros((shape[0] + 1, shape[1]), np.int32)
    np.add.at(changes, (crossing, low + cut), 1)
    filled: np.ndarray = changes[:-1].cumsum(axis=0) % 2 == 1
    return filled
