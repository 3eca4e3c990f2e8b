"""Grids of the files of one case: are they the same, and an array reordered to the axes of another grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_pipelines.errors import broken_rule
from data_pipelines.files.pillow import UPRIGHT, is_sideways
from data_pipelines.volumes.formats.base import Geometry, Volume
from data_pipelines.volumes.specs import GRID_TOLERANCE

_SPACING_TOLERANCE = 1e-3
"""Relative difference from which a message says that the spacing differs, not the position."""
_TILT_TOLERANCE = 0.1
"""Degrees."""


def check_same_grid(
    path: str, ours: Geometry, other_path: str, theirs: Geometry, tolerance: float = GRID_TOLERANCE
) -> None:
    """Raise DataError where two files of one case do not lie on the same grid.

    The two positions of a corner of the grid may differ by ``tolerance``, a share of the smallest spacing.
    """
    name = Path(path).name
    if ours.shape != theirs.shape:
        message = f"shape {list(theirs.shape)} differs from {list(ours.shape)} of {name}"
    elif (ours.affine is None) != (theirs.affine is None):
        message = f"one of this file and {name} states where its voxels lie, the other does not: axes may be swapped"
    elif not is_same_grid(ours, theirs, tolerance):
        message = _difference(ours, theirs, name)
    else:
        return
    remedy = "resample the label onto the image's grid, or correct the header that is wrong"
    raise broken_rule("geometry-mismatch", other_path, message, remedy)


def is_same_grid(ours: Geometry, theirs: Geometry, tolerance: float) -> bool:
    """Tell whether every corner of the two grids lies at the same place, within a share of the smallest spacing."""
    if ours.shape != theirs.shape or (ours.affine is None) != (theirs.affine is None):
        return False
    if ours.affine is None and not (ours.has_spacing and theirs.has_spacing):
        return True  # nothing but the shape is known
    return _corner_distance(ours, theirs) <= tolerance * min(ours.spacing)


def check_same_side_up(path: str, ours: Volume, other_path: str, theirs: Volume) -> None:
    """Raise DataError where EXIF turns one of two images and not the other, and their shapes do not show it right."""
    if ours.orientation == theirs.orientation:
        return
    shape = ours.geometry.shape
    is_evident = is_sideways(ours.orientation) != is_sideways(theirs.orientation) and len(set(shape)) > 1
    if is_evident and shape == theirs.geometry.shape:
        return  # unturned, the two shapes would differ: the other was drawn on the upright image
    turned, other = (path, theirs) if ours.orientation != UPRIGHT else (other_path, ours)
    kept = Path(other_path if turned == path else path).name
    orientation = ours.orientation if turned == path else theirs.orientation
    message = (
        f"its EXIF orientation is {orientation}, that of {kept} is {other.orientation}: it cannot be told whether the "
        "two show the same pixels"
    )
    remedy = "turn the pixels upright and remove the EXIF orientation, so that image and mask agree"
    raise broken_rule("exif-orientation", turned, message, remedy)


def oriented_like(volume: Volume, target: Geometry) -> Volume:
    """Reorder the spatial axes of a volume to run along those of ``target``; the same volume where they do already."""
    ours = volume.geometry
    if ours.affine is None or target.affine is None or not ours.ndim == target.ndim == 3:
        return volume
    turn = np.linalg.solve(_directions(target), _directions(ours))  # (target axis, own axis)
    axes = np.abs(turn).argmax(axis=1)  # own axis that runs along each axis of the target
    flips = turn[range(3), axes] < 0
    if sorted(axes) != [0, 1, 2] or (axes.tolist() == [0, 1, 2] and not flips.any()):
        return volume
    index = np.zeros((4, 4))  # new voxel index -> own voxel index
    index[axes, range(3)] = np.where(flips, -1, 1)
    index[axes, 3] = np.where(flips, np.array(ours.shape)[axes] - 1, 0)
    index[3, 3] = 1
    array = volume.array.transpose(*axes, *range(3, volume.array.ndim))
    geometry = replace(
        ours,
        shape=tuple(ours.shape[axis] for axis in axes),
        spacing=tuple(ours.spacing[axis] for axis in axes),
        affine=tuple(map(tuple, (ours.affine_array() @ index).tolist())),
    )
    return replace(volume, array=np.flip(array, tuple(np.flatnonzero(flips).tolist())), geometry=geometry)


def _directions(geometry: Geometry) -> np.ndarray:
    """Return the unit vectors of the axes as columns (3, 3)."""
    matrix = geometry.affine_array()[:3, :3]
    return matrix / np.linalg.norm(matrix, axis=0)


def _corner_distance(ours: Geometry, theirs: Geometry) -> float:
    """Compute the largest distance in mm between the same corner of the grid as the two headers place it."""
    sides = [(0, size - 1) for size in ours.shape] + [(0, 0)] * (3 - ours.ndim)
    corners = np.array(list(itertools.product(*sides, (1,))), dtype=np.float64)
    apart = corners @ (ours.affine_array() - theirs.affine_array()).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _difference(ours: Geometry, theirs: Geometry, name: str) -> str:
    """Say in which way two grids of one shape differ."""
    from nibabel.orientations import aff2axcodes

    distance = _corner_distance(ours, theirs)
    here, there = _tilt(ours), _tilt(theirs)
    if abs(here - there) > _TILT_TOLERANCE:
        return (
            f"slices are tilted by {there:.1f} degrees against the direction they are stacked in, those of {name} by "
            f"{here:.1f} (gantry tilt); corners lie {distance:.2f} mm apart"
        )
    if not np.allclose(ours.spacing, theirs.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        return f"spacing {_rounded(theirs.spacing)} mm differs from {_rounded(ours.spacing)} mm of {name}"
    axes_here, axes_there = ("".join(aff2axcodes(g.affine_array())) for g in (ours, theirs))
    if axes_here != axes_there:
        return f"orientation {axes_there} differs from {axes_here} of {name}; corners lie {distance:.2f} mm apart"
    return f"position or rotation differs from {name}: corners of the grid lie {distance:.2f} mm apart"


def _tilt(geometry: Geometry) -> float:
    """Compute the angle in degrees between the third axis and the normal of the other two."""
    if geometry.affine is None or geometry.ndim < 3:
        return 0.0
    directions = _directions(geometry)
    normal = np.cross(directions[:, 0], directions[:, 1])
    cosine = abs(normal @ directions[:, 2]) / np.linalg.norm(normal)
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def _rounded(spacing: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in spacing]
