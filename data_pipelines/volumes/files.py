"""Volumes and images on disk -> arrays with their geometry. Every size is known from a header before voxels are read.

    .nii, .nii.gz                 NIfTI, header by nibabel; array as stored, axes (i, j, k) or (i, j, k, channel)
    .png, .jpg, .jpeg, .tif       Pillow; array (row, column) or (row, column, channel)
    a folder of DICOM slices      pydicom; array (column, row, slice), slices sorted along their normal

Orientation is left as stored: the affine says where the voxels lie.
"""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.volumes.formats import dicom, images, nifti
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Geometry, Volume
from data_pipelines.files.reading import VolumeError, named_errors
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.formats.nifti import write_nifti

__all__ = [
    "IMAGE_SUFFIXES",
    "NIFTI_SUFFIXES",
    "Geometry",
    "Volume",
    "VolumeError",
    "is_volume_name",
    "read_geometry",
    "read_num_channels",
    "read_volume",
    "strip_suffix",
    "write_nifti",
    "write_picture",
]


def strip_suffix(name: str) -> str:
    """The file name without its volume or image suffix: ``a_01.nii.gz`` -> ``a_01``; other names unchanged."""
    for suffix in (*NIFTI_SUFFIXES, *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_volume_name(name: str) -> bool:
    """Whether a file of this name is one that ``read_volume`` knows; hidden files (``._a.nii.gz``) are not."""
    return not name.startswith(".") and strip_suffix(name) != name


def read_geometry(path: str | os.PathLike[str], max_voxels: int) -> Geometry:
    """Shape, spacing and affine of a volume from its headers alone.

    Raises VolumeError where the header is unreadable, declares more than ``max_voxels``, a spacing that is not
    positive, or more data than the file can hold.
    """
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return dicom.read_geometry(path, max_voxels)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_geometry(path, max_voxels)
        return images.read_geometry(path, max_voxels)


def read_volume(path: str | os.PathLike[str], max_voxels: int, *, label: bool = False) -> Volume:
    """The voxels of one file (or one folder of DICOM slices) with their geometry.

    Integers without a scale stay integers, everything else becomes float32. Of images with a palette ``label=True``
    keeps the stored indices (they are the classes), otherwise their colours are read; transparency is dropped.
    Raises VolumeError as ``read_geometry`` does, and for truncated or corrupt data.
    """
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return dicom.read_volume(path, max_voxels)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_volume(path, max_voxels)
        return images.read_volume(path, max_voxels, label)


def read_num_channels(path: str | os.PathLike[str], max_voxels: int) -> int:
    """How many channels ``read_volume`` gives for an image or volume, from its header alone."""
    path = Path(path)
    with named_errors(path):
        if path.is_dir():
            return 1
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return nifti.read_num_channels(path, max_voxels)
        return images.read_num_channels(path, max_voxels)
