"""Polygons to masks, and the masks of one structure to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_HOLE_SHARE = 0.95
"""Share of a contour that lies within others where it is a hole in them: borders may touch."""


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


def join_contours(contours: Sequence[np.ndarray], *, exclusive: bool = False) -> tuple[np.ndarray, int]:
    """Join the filled contours (i, j) of one structure in one plane; return how many were united with others, too.

    One that lies within others leaves a hole, and one within that hole is filled again, in whatever order they come.
    Programs also write a contour twice, or strokes that overlap in part: those are united. ``exclusive`` contours mean
    exactly what an odd number of them holds.
    """
    if exclusive:
        odd: np.ndarray = np.logical_xor.reduce(list(contours))
        return odd, 0
    visible = [contour for contour in contours if contour.any()]
    distinct = list({contour.tobytes(): contour for contour in visible}.values())
    united = len(visible) - len(distinct)
    filled = np.zeros_like(contours[0])
    for contour in sorted(distinct, key=lambda contour: -int(contour.sum())):
        size, inside = int(contour.sum()), int((contour & filled).sum())
        if inside and inside >= _HOLE_SHARE * size:
            filled &= ~contour
        else:
            united += inside > 0
            filled |= contour
    return filled, united
