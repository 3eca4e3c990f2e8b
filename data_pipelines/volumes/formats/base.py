"""Arrays with their geometry, and checks of what a header declares, shared by all formats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.files.pillow import UPRIGHT
from data_pipelines.files.reading import unreadable
from data_pipelines.notices import Notice

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF_SUFFIXES)
LabelKind = Literal["values", "colours"]
"""Content of a label picture: values, which are the indices of a palette where there is one, or colours."""
ALL_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *IMAGE_SUFFIXES)
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".png")
"""Suffixes that label maps are written with."""
_WRITTEN_AS = {
    ".nii": ".nii.gz",
    ".nhdr": ".nrrd",
    ".mhd": ".mha",
    ".tiff": ".tif",
    ".jpg": ".png",  # which would change labels
    ".jpeg": ".png",
}


def written_suffix(name: str) -> str:
    """Return the suffix that a label map of a file of this name is written with: its format, in one file."""
    suffix = next((suffix for suffix in ALL_SUFFIXES if name.lower().endswith(suffix)), ".nii.gz")
    return _WRITTEN_AS.get(suffix, suffix)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape, spacing and placement of the voxels along the spatial axes."""

    shape: tuple[int, ...]
    """Voxels per spatial axis, (i, j, k) or (row, column)."""
    spacing: tuple[float, ...]
    """Distance between voxel centres in mm, per spatial axis; 1 for images without one."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4 from voxel indices to mm in RAS+ (x to the right, y to the front, z up); None for images without one."""
    unit_mm: float = 1.0
    """Length in mm of the unit that the file states its geometry in; ``spacing`` and ``affine`` are in mm already."""
    has_spacing: bool = True
    """False where the file states no voxel size and 1 mm stands for it."""

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    def without_slice_axis(self) -> Geometry:
        """Return the geometry of one slice (x, y, 1) as that of a 2-D image (x, y); any other as it is."""
        if self.ndim != 3 or self.shape[2] != 1:
            return self
        return replace(self, shape=self.shape[:2], spacing=self.spacing[:2])

    def affine_array(self) -> np.ndarray:
        """Return the affine as a (4, 4) float64 array; for 2-D one that only scales by the spacing."""
        if self.affine is not None:
            return np.array(self.affine, dtype=np.float64)
        return np.diag([*self.spacing, *[1.0] * (4 - self.ndim)])


@dataclass(frozen=True, slots=True)
class Volume:
    """An array (*spatial) or, for colour images and 4-D NIfTI, (*spatial, channels), with its geometry."""

    array: np.ndarray
    """Integer as stored, or float32."""
    geometry: Geometry
    orientation: int = UPRIGHT
    """EXIF orientation that the file was stored in, 1..8; the array is upright."""
    notices: tuple[Notice, ...] = ()
    """Assumptions and conversions of the reader."""
    is_slice: bool = False
    """True for a 2-D image that the file stores as one slice (x, y, 1)."""


def check_voxels(path: Path, shape: Sequence[int], max_voxels: int) -> None:
    """Raise DataError where ``shape`` holds more than ``max_voxels``."""
    count = math.prod(shape)
    if count > max_voxels:
        sizes = "x".join(map(str, shape))
        message = f"the header declares {sizes} = {count} voxels, more than the limit of {max_voxels}"
        raise unreadable("too-large", path, message, "raise data.max_voxels if the file is meant to be that large")


def check_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Raise DataError where a spacing is not positive and finite."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        message = f"the spacing must be positive millimetres, got {[float(value) for value in spacing]}"
        raise unreadable("bad-spacing", path, message, "correct the voxel size in the header")


def storable(array: np.ndarray) -> np.ndarray:
    """Return an array in a type that files have: bool becomes uint8, 64-bit numbers 32-bit.

    Raises ValueError for integers beyond 32 bits.
    """
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.itemsize == 8:
        narrow = array.astype(np.int32)
        if not np.array_equal(narrow, array):
            raise ValueError("values beyond 32 bits cannot be stored")
        return narrow
    return array


def scaled(stored: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
    """Scale stored voxels to float32; integers with nothing to scale stay. Contiguous, in native byte order."""
    slope, intercept = 1.0 if slope is None else float(slope), float(intercept or 0.0)
    if (slope, intercept) == (1.0, 0.0):
        dtype = np.dtype(np.float32) if stored.dtype.kind == "f" else stored.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):  # becomes infinite, which the checks name
            return np.array(stored, dtype=dtype, order="C")
    working: type[Any] = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(stored.astype(working) * working(slope) + working(intercept), dtype=np.float32, order="C")
