"""Slices of a DICOM series: headers of a folder, the files that belong together, and where they lie in space.

Empty tags count as absent. Positions may be rounded: a straight, evenly divided line is fitted through them, and the
distance of each slice from its place on the line is judged. The line need not be the normal of the slices: a tilted
gantry gives a sheared affine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.errors import DataError, ProblemList
from data_pipelines.files.reading import is_file_or_broken_link, named_errors, unreadable
from data_pipelines.volumes.formats.base import Geometry, check_spacing, check_voxels
from data_pipelines.volumes.formats.frames import is_multi_frame, split_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

Headers = dict[Path, "FileDataset"]
"""Path of each slice to its header."""

_MAX_SLICES = 1 << 16
_MAX_TOLERANCE = 0.2
"""Maximum tolerance as a share of the distance between slices: a missing slice moves others by more."""
_SLICE_TAGS = (
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
_COMMON_TAGS = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")


def list_slices(folder: Path) -> list[Path]:
    """List the files that may be slices, sorted by name; hidden files and ``DICOMDIR`` are not.

    A link to nothing may be one: without it the volume would be cut.
    """
    entries = (f for f in folder.iterdir() if not f.name.startswith(".") and f.name != "DICOMDIR")
    return sorted(filter(is_file_or_broken_link, entries))


def value_of(header: FileDataset, tag: str) -> Any:
    """Return the value of a tag; None where it is absent or empty."""
    value = header.get(tag)
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def read_headers(folder: Path) -> Headers:
    """Read the header of every slice: of each file of the folder, or of each frame of a single multi-frame file.

    Raises DataError for a file that is not a slice, or that cannot be decoded.
    """
    files = list_slices(folder)
    if not files or len(files) > _MAX_SLICES:
        message = f"expected 1 to {_MAX_SLICES} DICOM slices, found {len(files)} files"
        raise unreadable("no-slices", folder, message, "put the files of one DICOM series into the folder")
    headers = {file: read_dataset(file) for file in files}
    if len(files) == 1 and is_multi_frame(headers[files[0]]):
        headers = split_frames(files[0], headers[files[0]])
    for file, header in headers.items():
        _check_header(file, header)
    return headers


def place_slices(folder: Path, headers: Headers, max_voxels: int, tolerance_mm: float) -> tuple[list[Path], Geometry]:
    """Sort the slices of a folder along their normal; return them with their common geometry.

    Raises DataError where they are not one series of equal, evenly spaced slices.
    """
    _check_one_series(folder, headers)
    first = next(iter(headers.values()))
    row, column = unit_directions(next(iter(headers)), first)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = {file: np.array(h.ImagePositionPatient, dtype=np.float64) for file, h in headers.items()}
    files = sorted(headers, key=lambda file: (float(normal @ positions[file]), file.name))
    row_spacing, column_spacing = (float(value) for value in first.PixelSpacing)
    shape = (int(first.Columns), int(first.Rows), len(files))
    check_voxels(folder, shape, max_voxels)
    if len(files) == 1:
        thickness = value_of(first, "SliceThickness") or value_of(first, "SpacingBetweenSlices") or 1.0
        origin, step = positions[files[0]], normal * float(thickness)
    else:
        origin, step = _fit_line(folder, files, np.stack([positions[file] for file in files]), normal, tolerance_mm)
    spacing = (column_spacing, row_spacing, float(np.linalg.norm(step)))
    check_spacing(folder, spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * column_spacing, column * row_spacing, step], axis=1)
    affine[:3, 3] = origin
    affine[:2] *= -1  # DICOM counts to the left and back (LPS+), NIfTI to the right and front (RAS+)
    return files, Geometry(shape, spacing, tuple(map(tuple, affine.tolist())))


def unit_directions(file: Path, header: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors along the rows and down the columns; as stored they may be rounded."""
    stored = np.array(header.ImageOrientationPatient, dtype=np.float64)
    row, column = np.reshape(stored, (2, 3)) if stored.size == 6 else np.zeros((2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(0.9 < length < 1.1 for length in lengths) or abs(row @ column) > 0.01:
        message = f"ImageOrientationPatient {stored.tolist()} is no pair of perpendicular unit vectors"
        raise unreadable("bad-affine", file, message, "correct the header")
    return row / lengths[0], column / lengths[1]


# --- headers ---------------------------------------------------------------------------------------------------------


def read_dataset(file: Path) -> FileDataset:
    """Read a DICOM file without its pixels. Raises DataError where it is none, or its pixels cannot be decoded."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with named_errors(file):
        try:
            syntax = read_file_meta_info(file).get("TransferSyntaxUID")
            if syntax == DeflatedExplicitVRLittleEndian:  # would be inflated whole, to any size, to read the header
                raise unreadable("deflated-slice", file, "is a deflated DICOM file", "export it without deflate")
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            raise unreadable("not-dicom", file, "is not a DICOM file", "move it out of the folder") from None
    if syntax is not None:
        _check_decoder(file, syntax)
    return header


def _check_header(file: Path, header: FileDataset) -> None:
    """Raise DataError where a header is not that of a grey slice with a place."""
    missing = [tag for tag in _SLICE_TAGS if value_of(header, tag) is None]
    if missing or int(value_of(header, "NumberOfFrames") or 1) > 1:
        message = f"lacks {', '.join(missing)}" if missing else "holds several frames"
        remedy = "export single slices, or put a multi-frame file into a folder of its own"
        raise unreadable("not-a-slice", file, f"expected one image slice per file; it {message}", remedy)
    if int(value_of(header, "SamplesPerPixel") or 1) != 1:
        raise unreadable("colour-slice", file, "colour DICOM is not supported", "export grey slices")


def _check_decoder(file: Path, syntax: Any) -> None:
    """Raise DataError where nothing that is installed can decode the transfer syntax."""
    from pydicom.pixels import get_decoder

    if not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        message = f"its pixels are compressed as {syntax.name} ({syntax}), which is not supported"
        raise unreadable("missing-decoder", file, message, "export it uncompressed") from None
    if not decoder.is_available:
        lacking = "; ".join(decoder.missing_dependencies)
        message = f"its pixels are compressed as {syntax.name}, and no decoder is installed ({lacking})"
        raise unreadable("missing-decoder", file, message, "install one of these packages, or export it uncompressed")


# --- one series ------------------------------------------------------------------------------------------------------


def _check_one_series(folder: Path, headers: Headers) -> None:
    """Raise DataError where the slices are of several series or on different grids; a minority is named by file."""
    series: dict[str, list[Path]] = defaultdict(list)
    for file, header in headers.items():
        series[str(header.SeriesInstanceUID)].append(file)
    if len(series) > 1:
        found = ", ".join(f"{uid} ({len(files)} slices)" for uid, files in sorted(series.items()))
        message, remedy = f"expected one series, found {found}", "keep one series per folder"
        raise _named(folder, list(series.values()), lambda path: unreadable("several-series", path, message, remedy))
    groups: list[list[Path]] = []
    for file, header in headers.items():
        alike = next((group for group in groups if not _differing_tags(header, headers[group[0]])), None)
        groups.append([file]) if alike is None else alike.append(file)
    if len(groups) > 1:
        common = headers[max(groups, key=len)[0]]
        raise _named(folder, groups, lambda path: _mixed(path, headers, groups, common))


def _named(folder: Path, groups: list[list[Path]], build: Any) -> DataError:
    """Name each file of the smaller groups where one group has most of the slices, else the folder."""
    groups = sorted(groups, key=len)
    num_odd = sum(len(group) for group in groups[:-1])
    if num_odd >= len(groups[-1]):
        return build(folder)
    problems = ProblemList()
    for file in (file for group in groups[:-1] for file in group):
        with problems.collecting():
            raise build(file)
    return DataError(problems)


def _mixed(path: Path, headers: Headers, groups: list[list[Path]], common: FileDataset) -> DataError:
    """Build the error of one odd slice, or of a folder without a majority."""
    odd = headers[path] if path in headers else headers[min(groups, key=len)[0]]
    differing = _differing_tags(odd, common)
    message = "; ".join(f"{tag} is {odd[tag].value}, in the other slices {common[tag].value}" for tag in differing)
    return unreadable("mixed-slices", path, message, "keep the slices of one scan only (no localisers)")


def _differing_tags(header: FileDataset, other: FileDataset) -> list[str]:
    return [
        tag
        for tag in _COMMON_TAGS
        if not np.allclose(
            np.atleast_1d(header[tag].value).astype(float), np.atleast_1d(other[tag].value).astype(float), atol=1e-4
        )
    ]


# --- positions -------------------------------------------------------------------------------------------------------


def _fit_line(
    folder: Path, files: Sequence[Path], positions: np.ndarray, normal: np.ndarray, tolerance_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit ``origin + k * step`` through the positions (N, 3) of the slices, in mm, by least squares.

    Raises DataError where a slice lies more than ``tolerance_mm``, or a fifth of the step, from its place.
    """
    index = np.arange(len(files)) - (len(files) - 1) / 2
    step = index @ positions / (index @ index)
    origin = positions.mean(axis=0) + index[0] * step
    distances = np.linalg.norm(positions - origin - np.arange(len(files))[:, None] * step, axis=1)
    gap = float(normal @ step)
    if gap <= np.linalg.norm(step) / 2 or distances.max() > min(tolerance_mm, _MAX_TOLERANCE * gap) + 1e-9:
        raise _uneven(folder, files, positions @ normal, float(distances.max()), tolerance_mm)
    return origin, step


def _uneven(folder: Path, files: Sequence[Path], depths: np.ndarray, distance: float, tolerance_mm: float) -> DataError:
    gaps = np.diff(depths)
    typical = float(np.median(gaps))
    worst = int(np.abs(gaps - typical).argmax())
    message = (
        f"slices must be evenly spaced: between {files[worst].name} and {files[worst + 1].name} lie "
        f"{gaps[worst]:.3f} mm, elsewhere {typical:.3f} mm; the farthest slice lies {distance:.3f} mm off an even line"
    )
    remedy = (
        "restore the missing slices, or remove those that are there twice; where positions are only rounded, raise "
        f"data.slice_tolerance_mm ({tolerance_mm:g})"
    )
    return unreadable("uneven-slices", folder, message, remedy)
