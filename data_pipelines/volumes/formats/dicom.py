"""A folder of DICOM slices by pydicom: one array (column, row, slice), slices sorted along their normal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.volumes.formats.base import Geometry, Volume, check_spacing, check_voxels, scaled

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_MAX_SLICES = 1 << 16
_GAP_TOLERANCE = 0.01
"""Maximum relative deviation of a gap between slices from the median gap."""
_SLICE_TAGS = (
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)


def read_geometry(folder: Path, max_voxels: int) -> Geometry:
    """Read shape, spacing and affine of the one series in ``folder`` from its headers."""
    return _read_series(folder, max_voxels)[1]


def read_volume(folder: Path, max_voxels: int) -> Volume:
    """Read the slices of the one series in ``folder``, each rescaled by its own slope and intercept."""
    import pydicom

    files, geometry = _read_series(folder, max_voxels)
    slices = []
    for file in files:
        with named_errors(file):
            dataset = pydicom.dcmread(file)
            slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
            slices.append(scaled(dataset.pixel_array.T, slope, intercept))  # (row, column) -> (column, row)
    return Volume(np.stack(slices, axis=-1), geometry)


def _read_series(folder: Path, max_voxels: int) -> tuple[list[Path], Geometry]:
    """Read the headers of a series: its files, sorted along the slice normal, and their common geometry."""
    headers = _read_slice_headers(folder)
    _check_one_series(folder, headers)
    first = next(iter(headers.values()))
    row, column = np.reshape(np.array(first.ImageOrientationPatient, dtype=np.float64), (2, 3))
    normal = np.cross(row, column)
    depth = {file: float(normal @ np.array(h.ImagePositionPatient, dtype=np.float64)) for file, h in headers.items()}
    files = sorted(headers, key=lambda file: (depth[file], file.name))
    row_spacing, column_spacing = (float(value) for value in first.PixelSpacing)
    thickness = float(first.get("SliceThickness") or 1.0)
    gap = _slice_gap(folder, files, [depth[file] for file in files], thickness)
    shape = (int(first.Columns), int(first.Rows), len(files))
    spacing = (column_spacing, row_spacing, gap)
    check_voxels(folder, shape, max_voxels)
    check_spacing(folder, spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, normal], axis=1) * spacing
    affine[:3, 3] = headers[files[0]].ImagePositionPatient
    affine[:2] *= -1  # DICOM counts to the left and back (LPS+), NIfTI to the right and front (RAS+)
    return files, Geometry(shape, spacing, tuple(map(tuple, affine.tolist())))


def _read_slice_headers(folder: Path) -> dict[Path, FileDataset]:
    """Read every header of the folder. Raises DataError for a file that is not a single image slice."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".") and f.name != "DICOMDIR")
    if not files or len(files) > _MAX_SLICES:
        message = f"expected 1 to {_MAX_SLICES} DICOM slices, found {len(files)} files"
        raise unreadable("no-slices", folder, message, "put the files of one DICOM series into the folder")
    headers = {}
    for file in files:
        try:
            syntax = read_file_meta_info(file).get("TransferSyntaxUID")
            if syntax == DeflatedExplicitVRLittleEndian:  # would be inflated whole, to any size, to read the header
                raise unreadable("deflated-slice", file, "is a deflated DICOM file", "export it without deflate")
            headers[file] = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            raise unreadable("not-dicom", file, "is not a DICOM file", "move it out of the folder") from None
        missing = [tag for tag in _SLICE_TAGS if headers[file].get(tag) is None]
        if missing or int(headers[file].get("NumberOfFrames") or 1) > 1:
            message = f"lacks {', '.join(missing)}" if missing else "holds several frames"
            raise unreadable(
                "not-a-slice", file, f"expected one image slice per file; it {message}", "export single slices"
            )
    return headers


def _check_one_series(folder: Path, headers: dict[Path, FileDataset]) -> None:
    """Raise DataError where the slices are of several series, in colour, or on different grids."""
    series = Counter(str(header.SeriesInstanceUID) for header in headers.values())
    if len(series) > 1:
        found = ", ".join(f"{uid} ({count} slices)" for uid, count in sorted(series.items()))
        raise unreadable("several-series", folder, f"expected one series, found {found}", "keep one series per folder")
    first = next(iter(headers.values()))
    for file, header in headers.items():
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise unreadable("colour-slice", file, "colour DICOM is not supported", "export grey slices")
        for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            ours, theirs = np.atleast_1d(header[tag].value), np.atleast_1d(first[tag].value)
            if not np.allclose(ours.astype(float), theirs.astype(float), atol=1e-4):
                message = f"{tag} is {header[tag].value}, in the first slice {first[tag].value}"
                raise unreadable("mixed-slices", file, message, "keep the slices of one scan only (no localisers)")


def _slice_gap(folder: Path, files: list[Path], depths: list[float], thickness: float) -> float:
    """Measure the distance between slices in mm. Raises DataError where they are not evenly spaced."""
    if len(files) == 1:
        return thickness
    gaps = np.diff(depths)
    typical = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        if gap <= 0 or abs(gap - typical) > _GAP_TOLERANCE * typical:
            between = f"between {files[index].name} and {files[index + 1].name}"
            message = f"slices must be evenly spaced: {between} lie {gap:.3f} mm, elsewhere {typical:.3f} mm"
            remedy = "restore the missing slices, or remove those that are there twice"
            raise unreadable("uneven-slices", folder, message, remedy)
    return typical
