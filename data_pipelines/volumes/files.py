"""Volumes and images on disk to arrays with their geometry. Every size is known from a header before voxels are read.

    .nii, .nii.gz                 NIfTI, header by nibabel; array as stored, axes (i, j, k) or (i, j, k, channel)
    .nrrd, .nhdr, .mha, .mhd      SimpleITK; axes as NIfTI
    .png, .jpg, .jpeg, .tif       Pillow; array (row, column) or (row, column, channel)
    .tif with several pages       tifffile; array (column, row, page), and a channel axis where there is one
    a folder of DICOM slices      pydicom; array (column, row, slice), slices sorted along their normal

Orientation is left as stored: the affine says where the voxels lie. Label maps are written as NIfTI, NRRD, MetaImage,
TIFF or PNG.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, InputError
from data_pipelines.files.reading import named_errors
from data_pipelines.volumes.formats import dicom, images, itk, itk_out, nifti, tiff
from data_pipelines.volumes.formats.base import (
    ALL_SUFFIXES,
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    TIFF_SUFFIXES,
    WRITTEN_SUFFIXES,
    Geometry,
    LabelKind,
    Volume,
)
from data_pipelines.volumes.formats.slices import list_slices
from data_pipelines.volumes.specs import SLICE_TOLERANCE_MM


def strip_suffix(name: str) -> str:
    """Remove the volume or image suffix of a file name: ``a_01.nii.gz`` -> ``a_01``; other names stay."""
    for suffix in ALL_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_volume_name(name: str) -> bool:
    """Tell whether ``read_volume`` knows files of this name; hidden files (``._a.nii.gz``) are not volumes."""
    return not name.startswith(".") and strip_suffix(name) != name


def source_files(path: Path) -> list[Path]:
    """List the files that ``read_volume`` reads for ``path``.

    They are the slices of a folder, the voxels beside a detached header, the spacing beside a TIFF stack.
    """
    if path.is_dir():
        return list_slices(path)
    if path.name.lower().endswith(TIFF_SUFFIXES):
        spacing = tiff.sidecar(path)
        return [path] if spacing is None else [path, spacing]
    if not path.name.lower().endswith(ITK_SUFFIXES):
        return [path]
    try:
        return [path, *(file for file in itk.data_files(path) if file.is_file())]
    except (DataError, OSError):  # found again, and reported, when the file is read
        return [path]


def read_geometry(
    path: str | os.PathLike[str], max_voxels: int, slice_tolerance_mm: float = SLICE_TOLERANCE_MM
) -> Geometry:
    """Read shape, spacing and affine of a volume from its headers alone.

    Raises DataError where the header is unreadable, declares more than ``max_voxels``, a spacing that is not positive,
    or more data than the file can hold, and where slices lie more than ``slice_tolerance_mm`` off an even spacing.
    """
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return dicom.read_geometry(path, max_voxels, slice_tolerance_mm)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_geometry(path, max_voxels)
        if path.name.lower().endswith(ITK_SUFFIXES):
            return itk.read_geometry(path, max_voxels)
        return images.read_geometry(path, max_voxels)


def read_volume(
    path: str | os.PathLike[str],
    max_voxels: int,
    slice_tolerance_mm: float = SLICE_TOLERANCE_MM,
    *,
    label: LabelKind | None = None,
) -> Volume:
    """Read the voxels of one file (or one folder of DICOM slices) with their geometry.

    Integers without a scale stay integers, everything else becomes float32. Of images with a palette the colours are
    read, of a label of ``values`` the stored indices; transparency is dropped. A label compressed with loss is refused.
    Raises DataError as ``read_geometry`` does, and for truncated or corrupt data.
    """
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return dicom.read_volume(path, max_voxels, slice_tolerance_mm)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_volume(path, max_voxels)
        if path.name.lower().endswith(ITK_SUFFIXES):
            return itk.read_volume(path, max_voxels)
        return images.read_volume(path, max_voxels, label=label)


def write_labels(path: str | os.PathLike[str], labels: np.ndarray, geometry: Geometry) -> None:
    """Write a label map in the format that the name ends in, complete or not at all.

    ``labels`` are (*spatial), for PNG and TIFF also colours (*spatial, 3). PNG has no geometry, TIFF the voxel size
    alone. Raises InputError for another ending, and for what the format cannot hold.
    """
    path, name = Path(path), Path(path).name.lower()
    if is_turned(name, geometry):
        labels, geometry = labels.swapaxes(0, 1), turned(name, geometry)
    if name.endswith(".png"):
        images.write_picture(path, labels)
    elif name.endswith(TIFF_SUFFIXES):
        tiff.write_tiff(path, labels, geometry)
    elif name.endswith(".nrrd"):
        itk_out.write_nrrd(path, labels, geometry)
    elif name.endswith(".mha"):
        itk_out.write_meta_image(path, labels, geometry)
    elif name.endswith(NIFTI_SUFFIXES):
        nifti.write_nifti(path, labels, geometry.affine_array(), geometry.unit_mm)
    else:
        raise InputError(f"{path}: label maps are written as {', '.join(WRITTEN_SUFFIXES)}; name one of them")


def is_turned(name: str, geometry: Geometry) -> bool:
    """Tell whether what is written to a file of this name has its two axes in the other order than the image: a picture
    has (row, column), every other format (x, y)."""
    return geometry.ndim == 2 and name.lower().endswith(IMAGE_SUFFIXES) != (geometry.affine is None)


def turned(name: str, geometry: Geometry) -> Geometry:
    """Return the geometry of a 2-D image with its axes in the other order, as a file of this name has them."""
    found = replace(geometry, shape=geometry.shape[::-1], spacing=geometry.spacing[::-1])
    return replace(found, affine=None) if name.lower().endswith(IMAGE_SUFFIXES) else found


def read_num_channels(path: str | os.PathLike[str], max_voxels: int) -> int:
    """Read from the header how many channels ``read_volume`` gives. Raises DataError as ``read_geometry`` does."""
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return 1
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_num_channels(path, max_voxels)
        if path.name.lower().endswith(ITK_SUFFIXES):
            return itk.read_num_channels(path, max_voxels)
        return images.read_num_channels(path, max_voxels)
