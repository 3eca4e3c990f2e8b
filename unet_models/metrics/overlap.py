"""Overlap metrics of two label maps, computed from their confusion matrix.

Every metric is a function of the confusion matrix, so a case is read once however many classes it has. A class that
neither map contains gives NaN (nothing was measured, and the case is left out of that class's mean); a class that only
one of them contains gives Dice and IoU of 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Targets = Sequence[Sequence[int]]
"""Sets of classes; they may overlap."""
_BLOCK_VOXELS = 1 << 20
"""Voxels counted at a time: the 64-bit codes of a block stay at 8 MB however large the volume is."""


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> NDArray[np.int64]:
    """Count voxels by true label (row) and predicted label (column): ``(num_classes, num_classes)``.

    ``prediction`` and ``truth`` are integer label maps of one shape, ``(H, W)`` or ``(D, H, W)``, with values in
    ``0 .. num_classes - 1``.

    Raises ValueError where the shapes differ, the number of axes is not 2 or 3, the values are not integers, or a
    label lies outside that range.
    """
    if prediction.shape != truth.shape or truth.ndim not in (2, 3):
        raise ValueError(
            f"prediction and truth must have one shape of 2 or 3 axes, got {prediction.shape} and {truth.shape}"
        )
    check_labels("prediction", prediction, num_classes)
    check_labels("truth", truth, num_classes)
    counts = np.zeros(num_classes * num_classes, dtype=np.int64)
    flat_prediction, flat_truth = prediction.reshape(-1), truth.reshape(-1)
    for start in range(0, flat_truth.size, _BLOCK_VOXELS):
        block = slice(start, start + _BLOCK_VOXELS)
        codes = flat_truth[block].astype(np.int64) * num_classes
        codes += flat_prediction[block].astype(np.int64)
        counts += np.bincount(codes, minlength=counts.size)
    return counts.reshape(num_classes, num_classes)


def without_ignored(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Make voxels that are ignored, of ``num_classes`` or above in the truth, background in both label maps.

    They are no part of any class then, neither true nor predicted: surfaces end where the annotation does.
    """
    ignored = truth >= num_classes
    if not ignored.any():
        return prediction, truth
    return np.where(ignored, prediction.dtype.type(0), prediction), np.where(ignored, truth.dtype.type(0), truth)


def target_dice(prediction: np.ndarray, truth: np.ndarray, targets: Targets, num_classes: int) -> NDArray[np.float64]:
    """Compute the Dice of each target of two label maps (``confusion_matrix``), ignored voxels left out."""
    return dice(confusion_matrix(*without_ignored(prediction, truth, num_classes), num_classes), targets)


def dice(confusion: NDArray[np.int64], targets: Targets | None = None) -> NDArray[np.float64]:
    """Compute the Dice coefficient ``2 |P and T| / (|P| + |T|)`` of each target, ``(targets,)`` (Dice 1945).

    Here as below ``targets`` are sets of classes, each counted as one; None: every class by itself.
    """
    both, predicted, true = _counts(confusion, targets)
    return _ratio(2 * both, predicted + true)


def iou(confusion: NDArray[np.int64], targets: Targets | None = None) -> NDArray[np.float64]:
    """Compute intersection over union (Jaccard index) ``|P and T| / |P or T|`` of each target, ``(targets,)``."""
    both, predicted, true = _counts(confusion, targets)
    return _ratio(both, predicted + true - both)


def volume_error_percent(confusion: NDArray[np.int64], targets: Targets | None = None) -> NDArray[np.float64]:
    """Compute predicted minus true volume in % of the true one, ``(targets,)``; negative means too small.

    NaN for a target that the truth lacks: there is no volume to relate to (``volume_error_ml`` still counts it).
    """
    _, predicted, true = _counts(confusion, targets)
    return 100 * _ratio(predicted - true, true)


def volume_error_ml(
    confusion: NDArray[np.int64], voxel_ml: float, targets: Targets | None = None
) -> NDArray[np.float64]:
    """Compute the absolute volume difference in mL, ``(targets,)``; NaN where both volumes are empty."""
    _, predicted, true = _counts(confusion, targets)
    return np.where(predicted + true > 0, np.abs(predicted - true) * voxel_ml, np.nan)


def _counts(confusion: NDArray[np.int64], targets: Targets | None) -> tuple[NDArray[np.int64], ...]:
    """Count the voxels of each target that are both true and predicted, those predicted, and those true."""
    if targets is None:
        return confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    members = np.zeros((len(targets), len(confusion)), np.int64)
    for row, classes in zip(members, targets, strict=True):
        row[list(classes)] = 1
    both = ((members @ confusion) * members).sum(axis=1)
    return both, members @ confusion.sum(axis=0), members @ confusion.sum(axis=1)


def spacing_array(spacing_mm: Sequence[float], ndim: int) -> NDArray[np.float64]:
    """Convert the voxel size in mm to an array ``(ndim,)``.

    Raises ValueError unless there is one finite, positive number per axis.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (ndim,) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise ValueError(f"spacing_mm must be {ndim} positive numbers, one per axis, got {spacing_mm}")
    return spacing


def voxel_volume_ml(spacing_mm: Sequence[float]) -> float:
    """Compute the volume of a voxel in mL (1 mL = 1000 mm^3); a 2-D pixel counts as 1 mm thick."""
    return float(np.prod(spacing_mm)) / 1000


def check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise ValueError unless ``labels`` are integers from 0 to ``num_classes - 1``; ``name`` says which they are."""
    if labels.dtype.kind not in "bui":
        raise ValueError(f"{name} must hold integer labels, got {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{name} must hold labels 0 to {num_classes - 1}, got values from {labels.min()} to {labels.max()}"
        )


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
