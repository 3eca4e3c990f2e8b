"""Rules that a case must keep, each checked before training begins and reported with its file and remedy.

``check_image`` reads the image of a case or of a prediction, ``check_case`` image and label; each file is read once,
and what they return every later stage may trust. ``check_dataset`` holds the rules that only all cases together can
break.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, ProblemList, broken_rule
from data_pipelines.notices import Notice, notice, of_case
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.dicom_labels import SUFFIX, read_dicom_label
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.formats.base import Geometry, LabelKind, Volume
from data_pipelines.volumes.grids import check_same_grid, check_same_side_up, is_same_grid, oriented_like
from data_pipelines.volumes.labels import check_label
from data_pipelines.volumes.modalities import read_sound, read_text
from data_pipelines.volumes.specs import DataSpec, InputSpec


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that keeps every rule: all channels finite and on one grid, at least one of them not constant."""

    image: np.ndarray
    """(C, *spatial) float32, as stored (not reoriented)."""
    geometry: Geometry
    """Grid of the spatial axes."""
    stored_shape: tuple[int, ...]
    """Shape of one channel in the file: (x, y, 1) where a 2-D image is stored as one slice."""
    notices: tuple[Notice, ...] = ()
    """Assumptions and conversions."""


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """A case that keeps every rule: image and label on one grid, finite, labels within the declared classes."""

    case_id: str
    subject: str
    image: np.ndarray
    """(C, *spatial) float32, as stored (not reoriented)."""
    label: np.ndarray
    """(*spatial) numbers of classes."""
    geometry: Geometry
    notices: tuple[Notice, ...] = ()
    """Assumptions and conversions."""
    text: str | None = None
    """A text about the image; None: there is none."""
    sound: np.ndarray | None = None
    """(T,) float32 at ``modalities.SAMPLE_RATE``; None: there is none."""


_File = tuple[str, Volume]
"""Path and content of one file."""


def check_image(paths: Sequence[str], channels: Sequence[str], ndim: int, spec: InputSpec) -> CheckedImage:
    """Read the files of one image, each once, and check them against the declared ``channels`` and number of axes.

    Raises DataError with every broken rule.
    """
    problems = ProblemList()
    files = _read_files(paths, ndim, spec, problems)
    image, notices = _check_channels(files, len(paths), channels, ndim, problems)
    _check_grids(files, spec, problems)
    if problems:
        raise DataError(problems)
    (_, first) = files[0]
    stored = (*first.geometry.shape, 1) if first.is_slice else first.geometry.shape
    return CheckedImage(image, first.geometry, stored, notices)


def check_case(case: Case, dataset: Dataset, spec: DataSpec) -> CheckedCase:
    """Read the files of ``case``, each once, and check them. Raises DataError with every broken rule."""
    problems = ProblemList()
    files = _read_files(case.images, spec.ndim, spec, problems)
    image, notices = _check_channels(files, len(case.images), dataset.channels, spec.ndim, problems)
    masks = _read_masks(case.label, files, dataset.labels, spec, problems)
    notices = (*notices, *(one for _, label_notices in masks for one in label_notices))
    text, sound = None, None
    with problems.collecting():
        text = read_text(case.text) if case.text else None
    with problems.collecting():
        if case.sound:
            sound, sound_notices = read_sound(case.sound)
            notices = (*notices, *sound_notices)
    if problems:
        raise DataError([replace(problem, case_id=case.case_id) for problem in problems])
    geometry, notices = files[0][1].geometry, of_case(notices, case.case_id)
    return CheckedCase(case.case_id, case.subject, image, masks[0][0], geometry, notices, text, sound)


def _read_masks(
    label: str, files: Sequence[_File], labels: Labels, spec: DataSpec, problems: ProblemList
) -> list[tuple[np.ndarray, tuple[Notice, ...]]]:
    """Read the label of an image as numbers of classes, with its notices; none where a rule is broken."""
    masks = []
    if label.lower().endswith(SUFFIX):
        for _, image in files[:1]:
            with problems.collecting():
                masks.append(read_dicom_label(Path(label), image.geometry, labels, spec.grid_tolerance))
        _check_grids(files, spec, problems)
        return masks
    kind: LabelKind = "colours" if labels.is_colour else "values"
    found = _read_files([label], spec.ndim, spec, problems, kind)  # one, or none where it cannot be read
    if files:
        found = [(path, _reoriented(path, volume, files[0][1].geometry, spec)) for path, volume in found]
    _check_grids([*files, *found], spec, problems)
    for path, volume in found:
        with problems.collecting():
            _check_ndim(path, volume, spec.ndim)
            masks.append(check_label(path, volume, labels))
    return masks


def _read_files(
    paths: Sequence[str], ndim: int, spec: InputSpec, problems: ProblemList, label: LabelKind | None = None
) -> list[_File]:
    """Read the files that can be read; the others are problems."""
    files = []
    for path in paths:
        with problems.collecting():
            volume = read_volume(path, spec.max_voxels, spec.slice_tolerance_mm, label=label)
            files.append((path, _without_slice_axis(volume) if ndim == 2 else volume))
    return files


def _without_slice_axis(volume: Volume) -> Volume:
    """Turn one slice (x, y, 1) into a 2-D image (x, y); anything else stays."""
    flat = volume.geometry.without_slice_axis()
    if flat is volume.geometry:
        return volume
    return replace(volume, array=np.squeeze(volume.array, axis=2), geometry=flat, is_slice=True)


# --- images ----------------------------------------------------------------------------------------------------------


def _check_channels(
    files: Sequence[_File], num_files: int, channels: Sequence[str], ndim: int, problems: ProblemList
) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Return the image (C, *spatial) float32 and the notices of its files; empty where a rule is broken."""
    found: list[tuple[str, np.ndarray]] = []
    for path, volume in files:
        with problems.collecting():
            arrays = _split_channels(path, volume, num_files, channels, ndim)
            names = [f"channel {index}: " if len(arrays) > 1 else "" for index in range(len(arrays))]
            found += [(path, array) for array in arrays]
            check_finite(path, arrays, names)
    if not problems:
        with problems.collecting():
            _check_channel_count(files[0][0], len(found), channels)
            notices = (*(one for _, volume in files for one in volume.notices), *check_varies(found, channels))
            if len({array.shape for _, array in found}) == 1:  # else the grids differ, and that is named
                return np.stack([array.astype(np.float32, copy=False) for _, array in found]), notices
    return np.zeros((0,) * (ndim + 1), np.float32), ()


def _split_channels(path: str, volume: Volume, num_files: int, channels: Sequence[str], ndim: int) -> list[np.ndarray]:
    """Return the channels (*spatial) of one file. Raises DataError for a wrong number of axes."""
    array = volume.array
    _check_ndim(path, volume, ndim)
    if array.ndim == volume.geometry.ndim:
        return [array]
    # A fourth axis (or colour) is one of channels only where the data set declares as many for its only file.
    if num_files > 1 or array.shape[-1] != len(channels):
        raise _extra_axis(path, array.shape, channels, ndim)
    return list(np.moveaxis(array, -1, 0))


def _check_ndim(path: str, volume: Volume, ndim: int) -> None:
    if volume.geometry.ndim != ndim:
        shape, found = volume.array.shape, volume.geometry.ndim
        channels = " and one of channels" if len(shape) > found else ""
        message = f"expected {ndim} spatial axes (data.ndim), the file has {found}{channels}: {list(shape)}"
        raise broken_rule("wrong-ndim", path, message, "set data.ndim, or convert the file")


def check_finite(path: str, arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Raise DataError naming each array with voxels that are NaN or infinite as float32."""
    problems = ProblemList()
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        with problems.collecting():
            message = f"{name}{nan} voxels are NaN and {infinite} infinite"
            raise broken_rule("non-finite", path, message, "replace these voxels, or leave the case out")
    if problems:
        raise DataError(problems)


def check_varies(found: Sequence[tuple[str, np.ndarray]], channels: Sequence[str]) -> tuple[Notice, ...]:
    """Raise DataError where every channel is constant; one among others that vary is noticed only."""
    constant = [index for index, (_, array) in enumerate(found) if array.min() == array.max()]
    values = {index: f"every voxel has the same value, {found[index][1].flat[0]:g}" for index in constant}
    if len(constant) == len(found):
        remedy = "the image is empty: leave the case out"
        raise broken_rule("constant-image", found[0][0], values[0], remedy)
    return tuple(
        notice("constant-channel", found[index][0], f"channel {index} ({channels[index]}): {value}")
        for index, value in values.items()
    )


def _extra_axis(path: str, shape: Sequence[int], channels: Sequence[str], ndim: int) -> DataError:
    declared = f"{len(channels)} channels are declared ({', '.join(channels)})"
    if ndim == 2:
        message = f"the image has {shape[-1]} colour channels, {declared}"
        return broken_rule("channel-count", path, message, "convert the image, or correct data.channels")
    message = f"the file is {len(shape)}-D {list(shape)} where 3-D is expected; {declared}"
    remedy = "store one 3-D volume per file, or declare one channel for each entry of the last axis"
    return broken_rule("wrong-ndim", path, message, remedy)


def _check_channel_count(path: str, found: int, channels: Sequence[str]) -> None:
    if found != len(channels):
        message = f"{found} channels in the files, {len(channels)} declared: {', '.join(channels)}"
        remedy = "add the missing channels, or correct data.channels"
        raise broken_rule("channel-count", path, message, remedy)


# --- grids -----------------------------------------------------------------------------------------------------------


def _check_grids(files: Sequence[_File], spec: InputSpec, problems: ProblemList) -> None:
    """Compare each file with the first: EXIF orientation, then the grid."""
    for path, volume in files[1:]:
        first_path, first = files[0]
        with problems.collecting():
            check_same_side_up(first_path, first, path, volume)
            check_same_grid(first_path, first.geometry, path, volume.geometry, spec.grid_tolerance)


def _reoriented(path: str, label: Volume, grid: Geometry, spec: InputSpec) -> Volume:
    """Reorder the axes of a label that lies on the image's grid, stored along other axes; any other label stays."""
    turned = oriented_like(label, grid)
    if turned is label or not is_same_grid(grid, turned.geometry, spec.grid_tolerance):
        return label
    message = "lies on the image's grid with its axes reversed or swapped: reordered as the image is"
    return replace(turned, notices=(*turned.notices, notice("label-reoriented", path, message)))


# --- the data set ----------------------------------------------------------------------------------------------------


def check_dataset(dataset: Dataset, counts_by_case: Mapping[str, Sequence[int]]) -> None:
    """Raise DataError with every rule that only all usable cases together can break.

    ``counts_by_case`` holds, for each case that kept the rules above, its number of voxels per class value.
    """
    problems = ProblemList()
    with problems.collecting():
        _check_num_cases(dataset, len(counts_by_case))
    totals = np.zeros(dataset.labels.num_classes, dtype=np.int64)
    for counts in counts_by_case.values():
        totals[: len(counts)] += np.asarray(counts, dtype=np.int64)
    wanted = {dataset.labels.names[0]: (0,)} | dataset.labels.targets
    absent = [name for name, numbers in wanted.items() if not totals[list(numbers)].any() and counts_by_case]
    for name in absent:
        with problems.collecting():
            message = f"no case has a voxel of class {name}; the classes are {dataset.labels.describe()}"
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
