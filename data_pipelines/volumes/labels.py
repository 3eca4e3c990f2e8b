"""Rules of a label map: one whole number per voxel, among the declared classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.formats.base import Volume

_ROUNDING = 1e-3
"""Distance from a whole number up to which a stored float is that number: scales and float32 leave as much."""
_MAX_VALUES_NAMED = 10
"""Undeclared label values that a message lists."""


def check_label(path: str, volume: Volume, classes: Mapping[str, int]) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Return the label (*spatial) in the smallest type for its classes. Raises DataError where it breaks a rule."""
    array, num_classes = volume.array, len(classes)
    if array.ndim != volume.geometry.ndim:
        message = f"a label has one value per voxel, this one has {array.shape[-1]}: {list(array.shape)}"
        raise broken_rule("label-channels", path, message, "store the class of each voxel as a number")
    notices = volume.notices
    if array.dtype.kind == "f":
        array, rounded = _whole_numbers(path, array)
        notices = (*notices, *rounded)
    if array.min() < 0 or array.max() >= num_classes:
        raise _undeclared_values(path, array, classes)
    return array.astype(np.uint8 if num_classes <= 256 else np.int16), notices


def _whole_numbers(path: str, array: np.ndarray) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Round floats that are nearly whole. Raises DataError where others are among them."""
    with np.errstate(invalid="ignore"):
        whole = np.rint(array)
        distance = np.abs(array - whole)
        fractions = int((~(distance <= _ROUNDING)).sum())  # NaN and infinity are none of them
    if fractions:
        message = f"{fractions} voxels are not whole numbers"
        remedy = "write the label with whole numbers (resample labels with nearest neighbour)"
        raise broken_rule("label-not-integer", path, message, remedy)
    if not (count := int((distance > 0).sum())):
        return whole, ()
    message = f"{count} voxels are up to {distance.max():.1g} from a whole number: rounded"
    return whole, (notice("label-rounded", path, message),)


def _undeclared_values(path: str, array: np.ndarray, classes: Mapping[str, int]) -> DataError:
    values, counts = np.unique(array, return_counts=True)
    undeclared = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if not 0 <= v < len(classes)]
    listing = ", ".join(f"{value} ({count} voxels)" for value, count in undeclared[:_MAX_VALUES_NAMED])
    more = f" and {len(undeclared) - _MAX_VALUES_NAMED} more" if len(undeclared) > _MAX_VALUES_NAMED else ""
    declared = ", ".join(f"{value} {name}" for name, value in classes.items())
    message = f"label values outside the declared classes: {listing}{more}; declared are {declared}"
    if set(values.tolist()) <= {0, 255}:
        remedy = "the mask is black and white: rewrite 255 as the value of its class (1 where there is only one)"
    else:
        remedy = "declare these classes (dataset.json, classes.json or data.classes), or rewrite the label as 0..K-1"
    return broken_rule("label-values", path, message, remedy)
