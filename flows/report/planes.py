"""Slices through an image as people look at them: which slice, in what orientation, in which grey levels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PLANE_NAMES = ("sagittal", "coronal", "axial")
"""The plane across each axis of a volume whose axes run right, anterior, superior (RAS+)."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One picture: ``name`` says which plane it is and where."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a volume, or a whole 2-D image."""

    axis: int | None
    """Axis across the slice; None: the whole 2-D image."""
    index: int
    name: str
    pixels_per_voxel: tuple[float, float]
    """Down and to the right."""
    is_canonical: bool = True
    """True where the axes of the volume run right, anterior, superior; of others none is reversed."""

    def of(self, array: np.ndarray) -> np.ndarray:
        """Cut it from an array, rows from the top, columns from the left."""
        if self.axis is None:
            return array
        return as_seen(array, self.index, self.axis) if self.is_canonical else np.take(array, self.index, self.axis).T


def choose_slices(
    weights: Sequence[np.ndarray], spacing: Sequence[float], longest_side: int, *, is_canonical: bool = True
) -> list[Slice]:
    """Choose the axial, coronal and sagittal slice with most weight, or the one slice of a 2-D image.

    ``weights`` are arrays (*spatial) of numbers above 0 in what matters; the first one that has any decides, the middle
    slice where none has. ``spacing`` is in mm; the longest side of the image becomes ``longest_side`` pixels, and all
    slices have one scale. Axes that are not ``is_canonical`` have numbers instead of names.
    """
    shape = weights[0].shape
    scale = longest_side / max(size * mm for size, mm in zip(shape, spacing, strict=True))
    if len(shape) == 2:
        return [Slice(None, 0, "image", (spacing[0] * scale, spacing[1] * scale))]
    slices = []
    for axis in (2, 1, 0):
        index = _fullest_slice(weights, axis)
        across, up = (mm * scale for other, mm in enumerate(spacing) if other != axis)
        plane = PLANE_NAMES[axis] if is_canonical else f"across axis {axis}"
        name = f"{plane}, slice {index + 1} of {shape[axis]}"
        slices.append(Slice(axis, index, name, (up, across), is_canonical))
    return slices


def shown_channels(image: np.ndarray, ndim: int) -> np.ndarray:
    """``(*spatial)`` of the first channel, or ``(H, W, 3)`` of a 2-D colour image."""
    if image.ndim == ndim:
        return image
    return np.moveaxis(image, 0, -1) if ndim == 2 and len(image) == 3 else image[0]


def window(channels: np.ndarray, ndim: int) -> tuple[float, float]:
    """Values shown as black and as white: percentiles of about a million voxels, or 0 and 255 of an 8-bit picture."""
    if channels.dtype == np.uint8 and ndim == 2:
        return 0.0, 255.0
    stride = max(1, round((channels.size / 1e6) ** (1 / ndim)))
    sample = channels[(slice(None, None, stride),) * ndim].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(level) for level in np.percentile(sample, (0.5, 99.5)))
    if high <= low:  # nearly everything is one value: show what differs from it
        low, high = float(sample.min()), float(sample.max())
    return low, high if high > low else low + 1.0


def to_bytes(plane: np.ndarray, levels: tuple[float, float]) -> NDArray[np.uint8]:
    """Grey levels 0-255; NaN is black."""
    low, high = levels
    shares = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    return np.round(np.nan_to_num(shares) * 255).astype(np.uint8)


def as_seen(volume: np.ndarray, index: int, axis: int) -> np.ndarray:
    """One slice, rows from the top, columns from the left: the second remaining axis runs up, the first to the left."""
    return np.take(volume, index, axis=axis).T[::-1, ::-1]


def picture_size(shape: Sequence[int], pixels_per_voxel: tuple[float, float]) -> tuple[int, int]:
    """Width and height in pixels of a slice of ``shape`` (rows, columns)."""
    rows, columns = shape[:2]
    return max(1, round(columns * pixels_per_voxel[1])), max(1, round(rows * pixels_per_voxel[0]))


def enlarged(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize grey levels or RGB to ``(height, width, 3)`` values 0-255."""
    picture = Image.fromarray(np.ascontiguousarray(grey)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture).astype(np.float32)


def to_png(picture: np.ndarray) -> bytes:
    """Encode ``(height, width, 3)`` values 0-255."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(picture).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def _fullest_slice(weights: Sequence[np.ndarray], axis: int) -> int:
    """Index of the slice across ``axis`` with most weight; the middle one of several that have equally much."""
    for array in weights:
        sums = array.sum(axis=tuple(other for other in range(array.ndim) if other != axis))
        if sums.max() > 0:
            candidates = np.flatnonzero(sums == sums.max())
            return int(candidates[len(candidates) // 2])
    return weights[0].shape[axis] // 2
