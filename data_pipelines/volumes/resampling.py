"""Resampling of images, label maps and logits to another grid over the same extent."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

SPLINE_ORDER = {"linear": 1, "spline": 3}
"""``image_interpolation`` to the order of the spline."""


def resample(volume: np.ndarray, shape: tuple[int, ...], order: int, coarse_axis: int | None = None) -> np.ndarray:
    """Resample a volume to ``shape`` by a spline of ``order``, voxel edges aligned, borders repeated; float32.

    With ``coarse_axis`` each slice across it is resampled by itself, and along it the nearest slice is taken: between
    slices far apart, interpolation blends structures that have nothing to do with one another.
    """
    volume = volume.astype(np.float32)
    if coarse_axis is None:
        return _zoom(volume, shape, order)
    slices = np.moveaxis(volume, coarse_axis, 0)
    plane = (*shape[:coarse_axis], *shape[coarse_axis + 1 :])
    nearest = ((np.arange(shape[coarse_axis]) + 0.5) * len(slices) / shape[coarse_axis]).astype(int)
    resampled = np.stack([_zoom(each, plane, order) for each in slices])
    return np.moveaxis(resampled[nearest], 0, coarse_axis)


def _zoom(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    if volume.shape == shape:
        return volume
    zoom = [m / n for m, n in zip(shape, volume.shape, strict=True)]
    zoomed = ndimage.zoom(volume, zoom, order=order, mode="nearest", grid_mode=True)
    if order > 1:  # cubic splines overshoot beside edges
        np.clip(zoomed, volume.min(), volume.max(), out=zoomed)
    return zoomed


def resample_labels(
    labels: np.ndarray,
    shape: tuple[int, ...],
    interpolation: Literal["nearest", "onehot"],
    coarse_axis: int | None = None,
) -> np.ndarray:
    """Resample a label map to ``shape``: nearest voxel, or the class whose linearly resampled indicator is largest.

    ``coarse_axis`` as in ``resample``: image and label must be resampled alike.
    """
    if interpolation == "nearest":
        return resample(labels, shape, 0, coarse_axis).astype(labels.dtype)
    best = np.zeros(shape, np.float32)
    result = np.zeros(shape, labels.dtype)
    for value in np.unique(labels):
        share = resample(labels == value, shape, 1, coarse_axis)
        better = share > best
        best[better], result[better] = share[better], value
    return result
