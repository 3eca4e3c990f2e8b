"""Planes through an image as PNG: the image in grey, the truth as outline, the prediction as translucent fill."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.report.palette import class_colour

FILL_OPACITY = 0.42
HAIRLINE_BRIGHTNESS = 0.35
PLANE_NAMES = ("sagittal", "coronal", "axial")
"""The plane across each axis of a volume whose axes run right, anterior, superior (RAS+)."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One picture: ``name`` says which plane it is and where."""

    name: str
    png: bytes


def overlay_planes(
    image: np.ndarray,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing: Sequence[float],
    longest_side: int = 400,
) -> list[Plane]:
    """Draw the axial, coronal and sagittal plane of a volume, or the one plane of a 2-D image.

    Each plane goes through the slice with most foreground of the truth (of the prediction where the truth is empty,
    through the middle where both are). All planes of a case have one scale, so millimetres compare across them and
    none is stretched. Volumes lie in RAS+ axes and are shown as radiologists see them: the patient's right on the
    left, anterior up (axial), superior up (coronal; sagittal, with anterior on the left). 2-D images are shown as
    stored: first axis down, second to the right.

    Args:
        image: ``(*spatial)`` or ``(C, *spatial)``; the first channel is shown, all three of a 2-D image with three.
            Grey levels run from the 0.5th to the 99.5th percentile of the volume.
        truth, prediction: ``(*spatial)`` label values, 0 background.
        spacing: Millimetres per voxel along each spatial axis.
        longest_side: Pixels of the case's longest side.

    Raises:
        ValueError: Shapes disagree, or the labels are neither 2-D nor 3-D.
    """
    _check(image, truth, prediction, spacing)
    channels = _shown_channels(image, truth.ndim)
    window = _window(channels, truth.ndim)
    scale = longest_side / max(size * mm for size, mm in zip(truth.shape, spacing, strict=True))
    if truth.ndim == 2:
        pixels_per_voxel = spacing[0] * scale, spacing[1] * scale
        return [Plane("image", _draw(_to_bytes(channels, window), truth, prediction, pixels_per_voxel))]
    planes = []
    for axis in (2, 1, 0):
        index = _fullest_slice(truth, prediction, axis)
        image_plane, truth_plane, prediction_plane = (
            _as_seen(volume, index, axis) for volume in (channels, truth, prediction)
        )
        across, up = (mm * scale for other, mm in enumerate(spacing) if other != axis)
        name = f"{PLANE_NAMES[axis]}, slice {index + 1} of {truth.shape[axis]}"
        png = _draw(_to_bytes(image_plane, window), truth_plane, prediction_plane, (up, across))
        planes.append(Plane(name, png))
    return planes


def _check(
    image: np.ndarray,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing: Sequence[float],
) -> None:
    if truth.ndim not in (2, 3):
        raise ValueError(f"labels must be 2-D or 3-D, got shape {truth.shape}")
    if prediction.shape != truth.shape or image.shape[-truth.ndim :] != truth.shape or image.ndim > truth.ndim + 1:
        raise ValueError(
            "image, truth and prediction must have the same spatial shape, "
            f"got {image.shape}, {truth.shape} and {prediction.shape}"
        )
    if len(spacing) != truth.ndim or min(spacing) <= 0:
        raise ValueError(f"spacing must be {truth.ndim} positive numbers of millimetres, got {list(spacing)}")


def _shown_channels(image: np.ndarray, ndim: int) -> np.ndarray:
    """``(*spatial)`` of the first channel, or ``(H, W, 3)`` of a 2-D colour image."""
    if image.ndim == ndim:
        return image
    return np.moveaxis(image, 0, -1) if ndim == 2 and len(image) == 3 else image[0]


def _window(channels: np.ndarray, ndim: int) -> tuple[float, float]:
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


def _to_bytes(plane: np.ndarray, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Grey levels 0-255; NaN is black."""
    low, high = window
    levels = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    return np.round(np.nan_to_num(levels) * 255).astype(np.uint8)


def _fullest_slice(truth: NDArray[np.integer], prediction: NDArray[np.integer], axis: int) -> int:
    """Index of the slice across ``axis`` with most foreground; the middle one of several that have equally much."""
    for labels in (truth, prediction):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        counts = (labels > 0).sum(axis=others)
        if counts.max() > 0:
            candidates = np.flatnonzero(counts == counts.max())
            return int(candidates[len(candidates) // 2])
    return truth.shape[axis] // 2


def _as_seen(volume: np.ndarray, index: int, axis: int) -> np.ndarray:
    """One slice, rows from the top, columns from the left: the second remaining axis runs up, the first to the left."""
    return np.take(volume, index, axis=axis).T[::-1, ::-1]


def _draw(
    grey: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    pixels_per_voxel: tuple[float, float],
) -> bytes:
    """PNG of one plane; ``pixels_per_voxel`` down and to the right."""
    rows, columns = truth.shape
    size = max(1, round(columns * pixels_per_voxel[1])), max(1, round(rows * pixels_per_voxel[0]))
    picture = np.asarray(
        Image.fromarray(np.ascontiguousarray(grey)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    )
    painted = _blend(picture.astype(np.float32), _enlarged(prediction, size), FILL_OPACITY)
    outlined = _draw_outline(painted, _enlarged(truth, size))
    buffer = io.BytesIO()
    Image.fromarray(np.round(outlined).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def _enlarged(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest voxel of each pixel: labels have no values in between."""
    rows = (np.arange(size[1]) + 0.5) * labels.shape[0] // size[1]
    columns = (np.arange(size[0]) + 0.5) * labels.shape[1] // size[0]
    return labels[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]


def _draw_outline(picture: NDArray[np.float32], labels: np.ndarray) -> NDArray[np.float32]:
    """Two pixels of the class's colour along the inside of each region, with a dark hairline that sets them off."""
    border, hairline = _border(labels, 2), _border(labels, 3)
    picture = np.where(hairline[..., None], picture * HAIRLINE_BRIGHTNESS, picture)
    return _blend(picture, np.where(border, labels, 0), 1.0)


def _border(labels: np.ndarray, width: int) -> NDArray[np.bool_]:
    """Labelled pixels with another label at most ``width`` pixels away, diagonals included."""
    padded = np.pad(labels, width, mode="edge")
    rows, columns = labels.shape
    border = np.zeros(labels.shape, dtype=bool)
    for down in range(-width, width + 1):
        for right in range(-width, width + 1):
            border |= padded[width + down :, width + right :][:rows, :columns] != labels
    return border & (labels > 0)


def _blend(picture: NDArray[np.float32], labels: np.ndarray, opacity: float) -> NDArray[np.float32]:
    """Paint each labelled pixel with its class's colour."""
    blended = picture.copy()
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        blended[inside] = (1 - opacity) * picture[inside] + opacity * np.array(class_colour(int(label)), np.float32)
    return blended
