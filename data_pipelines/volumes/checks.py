"""Rules that a case must keep, each checked before training begins and reported with its file and remedy.

``check_case`` reads each file of a case once and returns arrays that every later stage may trust. ``check_dataset``
holds the rules that only all cases together can break.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, ProblemList, broken_rule
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.formats.base import Geometry, Volume
from data_pipelines.volumes.specs import DataSpec

_SPACING_TOLERANCE = 1e-3
"""Relative."""
_CORNER_TOLERANCE_MM = 1e-2
_MAX_VALUES_NAMED = 10
"""Undeclared label values that a message lists."""


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """A case that keeps every rule: image and label on one grid, finite, labels within the declared classes."""

    case_id: str
    subject: str
    image: np.ndarray
    """(C, *spatial) float32, as stored (not reoriented)."""
    label: np.ndarray
    """(*spatial) uint8, int16 where there are more than 256 classes."""
    geometry: Geometry


def check_case(case: Case, dataset: Dataset, spec: DataSpec) -> CheckedCase:
    """Read the files of ``case``, each once, and check them. Raises DataError with every broken rule."""
    problems = ProblemList()
    images: list[tuple[str, Volume]] = []
    labels: list[tuple[str, Volume]] = []  # one, or none where it cannot be read
    channels: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for path in case.images:
        with problems.collecting(case.case_id):
            images.append((path, read_volume(path, spec.max_voxels)))
    with problems.collecting(case.case_id):
        labels.append((case.label, read_volume(case.label, spec.max_voxels, label=True)))
    for path, volume in images:
        with problems.collecting(case.case_id):
            channels += _check_image(path, volume, case, dataset, spec)
    if not problems:
        with problems.collecting(case.case_id):
            _check_channel_count(case, len(channels), dataset)
    readable = [*images, *labels]
    for path, volume in readable[1:]:
        with problems.collecting(case.case_id):
            check_same_grid(readable[0][0], readable[0][1].geometry, path, volume.geometry)
    for path, volume in labels:
        with problems.collecting(case.case_id):
            masks.append(_check_label(path, volume, dataset, spec))
    if problems:
        raise DataError(problems)
    image = np.stack([channel.astype(np.float32, copy=False) for channel in channels])
    return CheckedCase(case.case_id, case.subject, image, masks[0], images[0][1].geometry)


# --- images ----------------------------------------------------------------------------------------------------------


def _check_image(path: str, volume: Volume, case: Case, dataset: Dataset, spec: DataSpec) -> list[np.ndarray]:
    """Return the channels (*spatial) of one file. Raises DataError for a wrong number of axes or bad voxel values."""
    array = volume.array
    _check_ndim(path, volume, spec)
    if array.ndim == volume.geometry.ndim:
        channels = [array]
    # A fourth axis (or colour) is one of channels only where the data set declares as many for its only file.
    elif len(case.images) > 1 or array.shape[-1] != len(dataset.channels) or array.shape[-1] == 1:
        raise _extra_axis(path, array.shape, dataset, spec)
    else:
        channels = list(np.moveaxis(array, -1, 0))
    problems = ProblemList()
    for index, channel in enumerate(channels):
        with problems.collecting():
            _check_intensities(path, channel, f"channel {index}: " if len(channels) > 1 else "")
    if problems:
        raise DataError(problems)
    return channels


def _check_ndim(path: str, volume: Volume, spec: DataSpec) -> None:
    if volume.geometry.ndim != spec.ndim:
        shape = volume.array.shape
        message = f"expected {spec.ndim} spatial axes (data.ndim), the file has {len(shape)}: {list(shape)}"
        raise broken_rule("wrong-ndim", path, message, "set data.ndim, or convert the file")


def _check_intensities(path: str, channel: np.ndarray, where: str) -> None:
    """Raise DataError where voxels are not finite, or all the same."""
    finite = np.isfinite(channel) if channel.dtype.kind == "f" else None
    if finite is not None and not finite.all():
        nan, total = int(np.isnan(channel).sum()), int((~finite).sum())
        message = f"{where}{nan} voxels are NaN and {total - nan} infinite"
        raise broken_rule("non-finite", path, message, "replace these voxels, or leave the case out")
    if channel.min() == channel.max():
        message = f"{where}every voxel has the same value, {channel.flat[0]:g}"
        raise broken_rule("constant-image", path, message, "the image is empty: leave the case out")


def _extra_axis(path: str, shape: Sequence[int], dataset: Dataset, spec: DataSpec) -> DataError:
    declared = f"{len(dataset.channels)} channels are declared ({', '.join(dataset.channels)})"
    if spec.ndim == 2:
        message = f"the image has {shape[-1]} colour channels, {declared}"
        return broken_rule("channel-count", path, message, "convert the image, or correct data.channels")
    message = f"the file is {len(shape)}-D {list(shape)} where 3-D is expected; {declared}"
    remedy = "store one 3-D volume per file, or declare one channel for each entry of the last axis"
    return broken_rule("wrong-ndim", path, message, remedy)


def _check_channel_count(case: Case, found: int, dataset: Dataset) -> None:
    if found != len(dataset.channels):
        message = f"{found} channels in the files, {len(dataset.channels)} declared: {', '.join(dataset.channels)}"
        remedy = "add the missing channels, or correct data.channels"
        raise broken_rule("channel-count", case.images[0], message, remedy)


# --- geometry --------------------------------------------------------------------------------------------------------


def check_same_grid(path: str, ours: Geometry, other_path: str, theirs: Geometry) -> None:
    """Raise DataError where two files of one case do not lie on the same grid.

    Tolerances: spacing 0.1 %, and 0.01 mm between the two positions of any corner of the grid.
    """
    name = Path(path).name
    if ours.shape != theirs.shape:
        message = f"shape {list(theirs.shape)} differs from {list(ours.shape)} of {name}"
    elif not np.allclose(ours.spacing, theirs.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        message = f"spacing {_rounded(theirs.spacing)} mm differs from {_rounded(ours.spacing)} mm of {name}"
    elif (distance := _corner_distance(ours, theirs)) > _CORNER_TOLERANCE_MM:
        message = _placement_message(ours, theirs, distance, name)
    else:
        return
    remedy = "resample the label onto the image's grid, or correct the header that is wrong"
    raise broken_rule("geometry-mismatch", other_path, message, remedy)


def _corner_distance(ours: Geometry, theirs: Geometry) -> float:
    """Compute the largest distance in mm between the same corner of the grid as the two headers place it."""
    if ours.affine is None or theirs.affine is None:
        return 0.0
    corners = np.array(list(itertools.product(*((0, n - 1) for n in ours.shape), (1,))), dtype=np.float64)
    apart = corners @ (ours.affine_array() - theirs.affine_array()).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _placement_message(ours: Geometry, theirs: Geometry, distance: float, name: str) -> str:
    from nibabel.orientations import aff2axcodes

    here, there = ("".join(aff2axcodes(g.affine_array())) for g in (ours, theirs))
    if here != there:
        return f"orientation {there} differs from {here} of {name}; corners lie {distance:.2f} mm apart"
    return f"position or rotation differs from {name}: corners of the grid lie {distance:.2f} mm apart"


def _rounded(spacing: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in spacing]


# --- labels ----------------------------------------------------------------------------------------------------------


def _check_label(path: str, volume: Volume, dataset: Dataset, spec: DataSpec) -> np.ndarray:
    """Return the label (*spatial) in the smallest type for its classes. Raises DataError where it breaks a rule."""
    array, num_classes = volume.array, len(dataset.classes)
    _check_ndim(path, volume, spec)
    if array.ndim != spec.ndim:
        message = f"a label has one value per voxel, this one has {array.shape[-1]}: {list(array.shape)}"
        raise broken_rule("label-channels", path, message, "store the class of each voxel as a number")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fractions = int((~np.isfinite(array) | (array != np.rint(array))).sum())
        if fractions:
            message = f"{fractions} voxels are not whole numbers"
            remedy = "write the label with whole numbers (resample labels with nearest neighbour)"
            raise broken_rule("label-not-integer", path, message, remedy)
    if array.min() < 0 or array.max() >= num_classes:
        raise _undeclared_values(path, array, dataset)
    return array.astype(np.uint8 if num_classes <= 256 else np.int16)


def _undeclared_values(path: str, array: np.ndarray, dataset: Dataset) -> DataError:
    values, counts = np.unique(array, return_counts=True)
    undeclared = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if not 0 <= v < len(dataset.classes)]
    listing = ", ".join(f"{value} ({count} voxels)" for value, count in undeclared[:_MAX_VALUES_NAMED])
    more = f" and {len(undeclared) - _MAX_VALUES_NAMED} more" if len(undeclared) > _MAX_VALUES_NAMED else ""
    declared = ", ".join(f"{value} {name}" for name, value in dataset.classes.items())
    message = f"label values outside the declared classes: {listing}{more}; declared are {declared}"
    if set(values.tolist()) <= {0, 255}:
        remedy = "the mask is black and white: rewrite 255 as the value of its class (1 where there is only one)"
    else:
        remedy = "declare these classes (dataset.json, classes.json or data.classes), or rewrite the label as 0..K-1"
    return broken_rule("label-values", path, message, remedy)


# --- the data set ----------------------------------------------------------------------------------------------------


def check_dataset(dataset: Dataset, counts_by_case: Mapping[str, Sequence[int]]) -> None:
    """Raise DataError with every rule that only all usable cases together can break.

    ``counts_by_case`` holds, for each case that kept the rules above, its number of voxels per class value.
    """
    problems = ProblemList()
    with problems.collecting():
        _check_num_cases(dataset, len(counts_by_case))
    totals = np.zeros(len(dataset.classes), dtype=np.int64)
    for counts in counts_by_case.values():
        totals[: len(counts)] += np.asarray(counts, dtype=np.int64)
    absent = [name for name, value in dataset.classes.items() if totals[value] == 0 and counts_by_case]
    for name in absent:
        with problems.collecting():
            message = f"no case has a voxel of class {name} ({dataset.classes[name]})"
            remedy = "take the class out of the declaration, or add cases that show it"
            raise broken_rule("absent-class", _folder_of(dataset), message, remedy)
    if problems:
        raise DataError(problems)


def _check_num_cases(dataset: Dataset, num_cases: int) -> None:
    if num_cases < 2:
        message = f"at least 2 usable cases are needed, to train on and to validate; found {num_cases}"
        remedy = "correct the cases named above, or add cases"
        raise broken_rule("too-few-cases", _folder_of(dataset), message, remedy)


def _folder_of(dataset: Dataset) -> str:
    """Return the folder that stands for the whole data set: of its labels, or common to its broken files."""
    if dataset.cases:
        return str(Path(dataset.cases[0].label).parent)
    paths = [problem.path for problem in dataset.problems]
    return os.path.commonpath(paths) if paths else dataset.name
