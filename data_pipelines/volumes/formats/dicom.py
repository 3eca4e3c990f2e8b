"""A folder of DICOM slices by pydicom: one array (column, row, slice), slices sorted along their normal.

The slices may be the frames of a single file (Enhanced multi-frame).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.formats.base import Geometry, Volume, scaled
from data_pipelines.volumes.formats.frames import decode_frames, frame_number
from data_pipelines.volumes.formats.slices import list_slices, place_slices, read_headers, value_of

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_PREAMBLE = 128
"""Bytes before the four that mark a DICOM file."""


def is_series(folder: Path) -> bool:
    """Tell whether the folder holds a DICOM file, by its content: slices often have no suffix."""
    return any(file.exists() and is_dicom(file) for file in list_slices(folder))


def is_dicom(file: Path) -> bool:
    """Tell whether the file is marked as DICOM."""
    with file.open("rb") as stream:
        return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def read_geometry(folder: Path, max_voxels: int, tolerance_mm: float) -> Geometry:
    """Read shape, spacing and affine of the one series in ``folder`` from its headers."""
    return place_slices(folder, read_headers(folder), max_voxels, tolerance_mm)[1]


def read_volume(folder: Path, max_voxels: int, tolerance_mm: float) -> Volume:
    """Read the slices of the one series in ``folder``, each rescaled by its own slope and intercept."""
    import pydicom

    headers = read_headers(folder)
    files, geometry = place_slices(folder, headers, max_voxels, tolerance_mm)
    if (file := files[0].parent).is_file():
        with named_errors(file):
            frames = decode_frames(file, headers)
        slices = [_in_units(frames[frame_number(key) - 1], headers[key]) for key in files]
    else:
        slices = []
        for file in files:
            with named_errors(file):
                slices.append(_read_slice(file, pydicom.dcmread(file)))
    return Volume(np.stack(slices, axis=-1), geometry, notices=_notices(folder, headers))


def _read_slice(file: Path, dataset: FileDataset) -> np.ndarray:
    """Decode one slice (column, row) in the units that its rescaling gives."""
    if "NumberOfFrames" in dataset and value_of(dataset, "NumberOfFrames") is None:
        del dataset.NumberOfFrames
    stored = dataset.pixel_array
    if stored.shape != (dataset.Rows, dataset.Columns):
        message = f"expected one grey image of {dataset.Rows} rows and {dataset.Columns} columns, got {stored.shape}"
        raise unreadable("not-a-slice", file, message, "export single slices")
    return _in_units(stored, dataset)


def _in_units(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Rescale stored values (row, column) to those of the image (column, row), white being the highest."""
    if _is_inverted(dataset):
        stored = _inverted(stored, dataset)
    if value_of(dataset, "ModalityLUTSequence") is not None:
        from pydicom.pixels import apply_modality_lut

        return scaled(apply_modality_lut(stored, dataset).T, None, None)
    slope, intercept = value_of(dataset, "RescaleSlope"), value_of(dataset, "RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    return scaled(stored.T, slope, float(intercept or 0))  # (row, column) -> (column, row)


def _is_inverted(header: FileDataset) -> bool:
    """Tell whether the lowest stored value is white."""
    return str(value_of(header, "PhotometricInterpretation") or "").strip().upper() == "MONOCHROME1"


def _inverted(stored: np.ndarray, header: FileDataset) -> np.ndarray:
    """Reverse the stored values within their bits, as GDCM does: the lowest becomes the highest."""
    if stored.dtype.kind == "f":
        return -stored
    if stored.dtype.kind == "i":
        return -1 - stored
    return (1 << int(header.BitsStored)) - 1 - stored


def _notices(folder: Path, headers: dict[Path, FileDataset]) -> tuple[Notice, ...]:
    found = []
    if num_inverted := sum(map(_is_inverted, headers.values())):
        message = f"{num_inverted} slices are MONOCHROME1 (low values are white): inverted"
        found.append(notice("inverted-contrast", folder, message))
    (first, *others) = headers.values()
    if not others and not (value_of(first, "SliceThickness") or value_of(first, "SpacingBetweenSlices")):
        found.append(notice("spacing-unstated", folder, "a single slice without a thickness: taken as 1 mm"))
    return tuple(found)
