"""Planes through an image as PNG: the image in grey, the truth as outline, the prediction as translucent fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flows.report.palette import class_colour
from flows.report.planes import Plane, choose_slices, enlarged, picture_size, shown_channels, to_bytes, to_png, window

FILL_OPACITY = 0.42
HAIRLINE_BRIGHTNESS = 0.35


def overlay_planes(
    image: np.ndarray,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing: Sequence[float],
    longest_side: int = 400,
    *,
    is_canonical: bool = True,
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
        is_canonical: Whether a volume lies in RAS+ axes; the axes of others are numbered, and shown as they run.

    Raises:
        ValueError: Shapes disagree, or the labels are neither 2-D nor 3-D.
    """
    _check(image, truth, prediction, spacing)
    channels = shown_channels(image, truth.ndim)
    levels = window(channels, truth.ndim)
    planes = []
    for chosen in choose_slices([truth > 0, prediction > 0], spacing, longest_side, is_canonical=is_canonical):
        grey = to_bytes(chosen.of(channels), levels)
        png = _draw(grey, chosen.of(truth), chosen.of(prediction), chosen.pixels_per_voxel)
        planes.append(Plane(chosen.name, png))
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


def _draw(
    grey: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    pixels_per_voxel: tuple[float, float],
) -> bytes:
    """PNG of one plane; ``pixels_per_voxel`` down and to the right."""
    size = picture_size(truth.shape, pixels_per_voxel)
    painted = _blend(enlarged(grey, size), _enlarged(prediction, size), FILL_OPACITY)
    return to_png(_draw_outline(painted, _enlarged(truth, size)))


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
