"""Rules of a label map: one value per voxel, among those of the declared classes."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.classes import Labels, pack_colours
from data_pipelines.volumes.formats.base import Volume

_ROUNDING = 1e-3
"""Distance from a whole number up to which a stored float is that number: scales and float32 leave as much."""
_MAX_VALUES_NAMED = 10
"""Undeclared label values that a message lists."""


def check_label(path: str, volume: Volume, labels: Labels) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Return the number of each voxel's class (*spatial). Raises DataError where the label breaks a rule."""
    array, notices = _one_value_per_voxel(path, volume, labels), volume.notices
    if array.dtype.kind == "f":
        array, rounded = _whole_numbers(path, array)
        notices = (*notices, *rounded)
    numbers = labels.read(array)
    if (undeclared := numbers > labels.ignored_number).any():
        raise _undeclared_values(path, array[undeclared], labels)
    return numbers, (*notices, *ignored_voxels(path, numbers, labels))


def ignored_voxels(path: str, numbers: np.ndarray, labels: Labels) -> tuple[Notice, ...]:
    """Count the voxels that are ignored. Raises DataError where no others are left."""
    count = int((numbers == labels.ignored_number).sum()) if labels.ignored else 0
    if count == numbers.size:
        remedy = "annotate a part of it, or leave the case out"
        raise broken_rule("nothing-annotated", path, f"all {count} voxels are ignored", remedy)
    message = f"{count} of {numbers.size} voxels ({count / numbers.size:.1%}) are ignored: no part of loss and scores"
    return (notice("ignored-voxels", path, message),) if count else ()


def _one_value_per_voxel(path: str, volume: Volume, labels: Labels) -> np.ndarray:
    """Return the values (*spatial), colours as one number each. Raises DataError where there are several channels."""
    array = volume.array
    if labels.is_colour:
        if array.ndim != volume.geometry.ndim + 1 or array.shape[-1] != 3 or array.dtype != np.uint8:
            message = f"the classes are colours, this label has {array.dtype} values of shape {list(array.shape)}"
            raise broken_rule(
                "label-channels", path, message, "store it in 8-bit RGB, or give the values of the classes"
            )
        return pack_colours(array)
    if array.ndim != volume.geometry.ndim:
        message = f"a label has one value per voxel, this one has {array.shape[-1]}: {list(array.shape)}"
        remedy = 'store the class of each voxel as a number, or name colours: data.classes={road: "#ff00ff", ...}'
        raise broken_rule("label-channels", path, message, remedy)
    return array


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


def _undeclared_values(path: str, undeclared: np.ndarray, labels: Labels) -> DataError:
    values, counts = np.unique(undeclared, return_counts=True)
    found = list(zip(values.tolist(), counts.tolist(), strict=True))
    listing = ", ".join(
        f"{labels.value_text(int(value))} ({count} voxels)" for value, count in found[:_MAX_VALUES_NAMED]
    )
    more = f" and {len(found) - _MAX_VALUES_NAMED} more" if len(found) > _MAX_VALUES_NAMED else ""
    message = f"label values outside the declared classes: {listing}{more}; declared are {labels.describe()}"
    remedy = "give each value a class in data.classes (dataset.json, classes.json), or correct the label"
    if values.tolist() == [255] and labels.num_classes == 2:
        name = labels.names[1]
        remedy = f"the mask is black and white: set data.classes={{{labels.names[0]}: 0, {name}: 255}}"
    return broken_rule("label-values", path, message, remedy)
