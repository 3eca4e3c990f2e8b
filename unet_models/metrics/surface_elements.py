"""Surface elements of a mask: small pieces of surface with position and area.

Each 2x2x2 block of voxels (2x2 in a plane) that holds both inside and outside is cut by a small piece of surface, as
in marching cubes (Lorensen & Cline, 1987); the piece sits at the block and weighs its area in mm^2 (its length in mm).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Corner = tuple[int, ...]


def surface_elements(mask: Mask, spacing: NDArray[np.float64]) -> tuple[Points, NDArray[np.float64]]:
    """Compute the surface elements of ``mask``: points ``(N, ndim)`` in mm, areas ``(N,)`` in mm^2.

    In 2-D the second array holds lengths in mm. A point is the centre of its block of voxels, in a frame shifted by
    half a voxel, the same for all masks of one shape.
    """
    codes = _neighbour_codes(mask)
    cells = np.nonzero((codes != 0) & (codes != 2 ** (2**mask.ndim) - 1))
    return np.stack(cells, axis=1) * spacing, element_sizes(spacing)[codes[cells]]


def element_sizes(spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the surface area in mm^2 in each of the 256 blocks of 2x2x2 voxels (16 contour lengths in mm in 2-D).

    The index has one bit per voxel, the block's first corner in the highest bit and the last axis running fastest.
    """
    simplices = _simplices(len(spacing)) * spacing
    sides = simplices[..., 1:, :] - simplices[..., :1, :]
    if len(spacing) == 2:
        return np.linalg.norm(sides[..., 0, :], axis=-1).sum(axis=-1)
    normals = np.cross(sides[..., 0, :], sides[..., 1, :])
    return np.linalg.norm(normals, axis=-1).sum(axis=-1) / 2


def _neighbour_codes(mask: Mask) -> NDArray[np.uint8]:
    """Encode each block of voxels by one bit per voxel; blocks start one voxel before the array."""
    codes = np.pad(mask, 1).astype(np.uint8)
    for doubling, axis in enumerate(reversed(range(mask.ndim))):
        lead = (slice(None),) * axis
        codes = (codes[(*lead, slice(None, -1))] << 2**doubling) | codes[(*lead, slice(1, None))]
    return codes


@cache
def _simplices(ndim: int) -> NDArray[np.float64]:
    """Build the triangles (2-D: segments) of each code in a unit block, ``(codes, elements, ndim, ndim)``, 0-padded."""
    pieces = [
        [element for part in _smaller_side(code, ndim) for element in _cut_ears(_outline(part))]
        for code in range(2 ** (2**ndim))
    ]
    table = np.zeros((len(pieces), max(map(len, pieces)), ndim, ndim))
    for code, elements in enumerate(pieces):
        table[code, : len(elements)] = np.reshape(elements, (-1, ndim, ndim))
    table.flags.writeable = False
    return table


def _smaller_side(code: int, ndim: int) -> list[set[Corner]]:
    """Find the corners on the side with fewer of them, in parts connected along the block's edges.

    A surface bounds both sides alike. Choosing the smaller one settles the ambiguous faces (two corners across a
    diagonal): its corners are kept apart, whichever side they belong to.
    """
    corners = list(product((0, 1), repeat=ndim))
    inside = {corner for bit, corner in enumerate(reversed(corners)) if code >> bit & 1}
    left = min(inside, set(corners) - inside, key=len).copy()
    parts: list[set[Corner]] = []
    while left:
        part: set[Corner] = set()
        fresh = {min(left)}
        while fresh:
            part |= fresh
            fresh = {other for corner in fresh for other in _edge_neighbours(corner)} & left - part
        left -= part
        parts.append(part)
    return parts


def _edge_neighbours(corner: Corner) -> list[Corner]:
    return [(*corner[:axis], 1 - corner[axis], *corner[axis + 1 :]) for axis in range(len(corner))]


def _outline(part: set[Corner]) -> list[Points]:
    """Order the midpoints of the edges that leave ``part`` around it, each joined to the next across a face.

    It starts at a corner with a single leaving edge where there is one (see ``_cut_ears``).
    """
    leaving = [[other for other in _edge_neighbours(corner) if other not in part] for corner in sorted(part)]
    pairs = sorted(zip(leaving, sorted(part), strict=True), key=lambda pair: len(pair[0]))
    midpoints = [np.add(corner, other) / 2 for others, corner in pairs for other in others]
    outline = [midpoints.pop(0)]
    while midpoints:
        step = next(i for i, point in enumerate(midpoints) if _on_one_face(point, outline[-1]))
        outline.append(midpoints.pop(step))
    return outline


def _on_one_face(point: Points, other: Points) -> bool:
    """Check whether two edge midpoints share a coordinate 0 or 1; a 2-D block is itself the one face."""
    return len(point) == 2 or bool(np.any((point == other) & (point != 0.5)))


def _cut_ears(outline: list[Points]) -> list[list[Points]]:
    """Triangulate a polygon: cut off every second corner until nothing is left. A segment stays as it is.

    Only two outlines are not flat, so only there does the cut matter. Three corners in an L: the first ear, at the L's
    middle corner, leaves a flat rest. Four corners in a winding path: three ears leave the middle triangle, and
    starting at either end gives the same area.
    """
    if len(outline) == 2:
        return [outline]
    triangles: list[list[Points]] = []
    while len(outline) > 2:
        ears = range(0, len(outline) - 1, 2)
        triangles += [[outline[i - 1], outline[i], outline[i + 1]] for i in ears]
        outline = [point for i, point in enumerate(outline) if i not in ears]
    return triangles
