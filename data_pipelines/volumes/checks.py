"""The rules a case must keep, each found before training begins and named with its file and remedy.

``check_case`` reads each file of a case once and returns either arrays that every later stage may trust, or all the
rules the case breaks. ``check_dataset`` holds the rules that only all cases together can break.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.errors import Problem
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.formats.base import Geometry, Volume
from data_pipelines.files.reading import VolumeError
from data_pipelines.volumes.files import read_volume

_SPACING_TOLERANCE = 1e-3  # relative
_CORNER_TOLERANCE_MM = 1e-2
_MAX_VALUES_NAMED = 10


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


def check_case(case: Case, dataset: Dataset, spec: DataSpec) -> CheckedCase | list[Problem]:
    """Read the files of ``case``, each once, and check them; every broken rule is listed, none is raised."""
    problems: list[Problem] = []
    images = [_read(path, spec, problems) for path in case.images]
    label = _read(case.label, spec, problems, label=True)
    readable = [(path, v) for path, v in zip(case.images, images, strict=True) if v is not None]
    channels: list[np.ndarray] = []
    for path, volume in readable:
        channels += _channel_views(path, volume, case, dataset, spec, problems)
    if len(readable) == len(case.images) and not problems and len(channels) != len(dataset.channels):
        problems.append(_channel_count_problem(case, len(channels), dataset))
    named = [*readable, *([(case.label, label)] if label is not None else [])]
    for path, volume in named[1:]:
        problems += compare_geometries(named[0][0], named[0][1].geometry, path, volume.geometry)
    values = None if label is None else _check_label(case.label, label, dataset, spec, problems)
    if problems or values is None:
        return [dataclasses.replace(problem, case_id=case.case_id) for problem in problems]
    image = np.stack([channel.astype(np.float32, copy=False) for channel in channels])
    return CheckedCase(case.case_id, case.subject, image, values, readable[0][1].geometry)


def _read(path: str, spec: DataSpec, problems: list[Problem], *, label: bool = False) -> Volume | None:
    try:
        return read_volume(path, spec.max_voxels, label=label)
    except VolumeError as error:
        problems.append(error.problem)
        return None


# --- images ----------------------------------------------------------------------------------------------------------


def _channel_views(
    path: str, volume: Volume, case: Case, dataset: Dataset, spec: DataSpec, problems: list[Problem]
) -> list[np.ndarray]:
    """The channels (*spatial) of one file, after checking number of axes and voxel values."""
    if volume.geometry.ndim != spec.ndim:
        problems.append(_ndim_problem(path, volume.array.shape, spec))
        return []
    array = volume.array
    if array.ndim == volume.geometry.ndim:
        problems += _intensity_problems(path, [array])
        return [array]
    # A fourth axis (or colour) is one of channels only where the data set declares as many for its only file.
    if len(case.images) > 1 or array.shape[-1] != len(dataset.channels) or array.shape[-1] == 1:
        problems.append(_extra_axis_problem(path, array.shape, dataset, spec))
        return []
    channels = list(np.moveaxis(array, -1, 0))
    problems += _intensity_problems(path, channels)
    return channels


def _intensity_problems(path: str, channels: Sequence[np.ndarray]) -> list[Problem]:
    problems = []
    for index, channel in enumerate(channels):
        where = f"channel {index}: " if len(channels) > 1 else ""
        finite = np.isfinite(channel) if channel.dtype.kind == "f" else None
        if finite is not None and not finite.all():
            nan, total = int(np.isnan(channel).sum()), int((~finite).sum())
            message = f"{where}{nan} voxels are NaN and {total - nan} infinite"
            problems.append(Problem("non-finite", path, message, "replace these voxels, or leave the case out"))
        elif channel.min() == channel.max():
            message = f"{where}every voxel has the same value, {channel.flat[0]:g}"
            problems.append(Problem("constant-image", path, message, "the image is empty: leave the case out"))
    return problems


def _ndim_problem(path: str, shape: Sequence[int], spec: DataSpec) -> Problem:
    message = f"{spec.ndim} spatial axes are due (data.ndim), the file has {len(shape)}: {list(shape)}"
    return Problem("wrong-ndim", path, message, "set data.ndim, or convert the file")


def _extra_axis_problem(path: str, shape: Sequence[int], dataset: Dataset, spec: DataSpec) -> Problem:
    declared = f"{len(dataset.channels)} channels are declared ({', '.join(dataset.channels)})"
    if spec.ndim == 2:
        message = f"the image has {shape[-1]} colour channels, {declared}"
        return Problem("channel-count", path, message, "convert the image, or correct data.channels")
    message = f"the file is {len(shape)}-D {list(shape)} where 3-D is due; {declared}"
    remedy = "store one 3-D volume per file, or declare one channel for each entry of the last axis"
    return Problem("wrong-ndim", path, message, remedy)


def _channel_count_problem(case: Case, found: int, dataset: Dataset) -> Problem:
    message = f"{found} channels in the files, {len(dataset.channels)} declared: {', '.join(dataset.channels)}"
    return Problem("channel-count", case.images[0], message, "add the missing channels, or correct data.channels")


# --- geometry --------------------------------------------------------------------------------------------------------


def compare_geometries(path: str, ours: Geometry, other_path: str, theirs: Geometry) -> list[Problem]:
    """The first way in which two files of one case do not lie on the same grid, if any.

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
        return []
    remedy = "resample the label onto the image's grid, or correct the header that is wrong"
    return [Problem("geometry-mismatch", other_path, message, remedy)]


def _corner_distance(ours: Geometry, theirs: Geometry) -> float:
    """Largest distance in mm between the same corner of the grid as the two headers place it."""
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


def _check_label(
    path: str, volume: Volume, dataset: Dataset, spec: DataSpec, problems: list[Problem]
) -> np.ndarray | None:
    """The label (*spatial) in the smallest type for its classes, or None with the broken rule appended."""
    array, num_classes = volume.array, len(dataset.classes)
    if volume.geometry.ndim != spec.ndim:
        problems.append(_ndim_problem(path, array.shape, spec))
        return None
    if array.ndim != spec.ndim:
        message = f"a label has one value per voxel, this one has {array.shape[-1]}: {list(array.shape)}"
        problems.append(Problem("label-channels", path, message, "store the class of each voxel as a number"))
        return None
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            broken = int((~np.isfinite(array) | (array != np.rint(array))).sum())
        if broken:
            message = f"{broken} voxels are not whole numbers"
            remedy = "write the label with whole numbers (resample labels with nearest neighbour)"
            problems.append(Problem("label-not-integer", path, message, remedy))
            return None
    if array.min() < 0 or array.max() >= num_classes:
        problems.append(_label_values_problem(path, array, dataset))
        return None
    return array.astype(np.uint8 if num_classes <= 256 else np.int16)


def _label_values_problem(path: str, array: np.ndarray, dataset: Dataset) -> Problem:
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
    return Problem("label-values", path, message, remedy)


# --- the data set ----------------------------------------------------------------------------------------------------


def check_dataset(dataset: Dataset, counts_by_case: Mapping[str, Sequence[int]]) -> list[Problem]:
    """Rules that only all usable cases together can break.

    ``counts_by_case`` holds, for each case that kept the rules above, its number of voxels per class value.
    """
    problems: list[Problem] = []
    where = _folder_of(dataset)
    if len(counts_by_case) < 2:
        message = f"at least 2 usable cases are due, to train on and to validate; found {len(counts_by_case)}"
        problems.append(Problem("too-few-cases", where, message, "mend the cases named above, or add cases"))
    totals = np.zeros(len(dataset.classes), dtype=np.int64)
    for counts in counts_by_case.values():
        totals[: len(counts)] += np.asarray(counts, dtype=np.int64)
    for name, value in dataset.classes.items():
        if totals[value] == 0 and counts_by_case:
            message = f"no case has a voxel of class {name} ({value})"
            remedy = "take the class out of the declaration, or add cases that show it"
            problems.append(Problem("absent-class", where, message, remedy))
    return problems


def _folder_of(dataset: Dataset) -> str:
    """The folder to name for the whole data set: of its labels, or what its broken files have in common."""
    if dataset.cases:
        return str(Path(dataset.cases[0].label).parent)
    paths = [problem.path for problem in dataset.problems]
    return os.path.commonpath(paths) if paths else dataset.name
