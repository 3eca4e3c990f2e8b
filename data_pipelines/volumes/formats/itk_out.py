"""NRRD and MetaImage, written: header and compressed voxels in one file, numbers exact, the same bytes each time.

Formats: teem.sourceforge.net/nrrd/format.html, and MetaIO of ITK. Both place voxels in LPS+.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import InputError
from data_pipelines.volumes.formats.base import Geometry, storable

_NRRD_TYPES = {"u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32", "f4": "float"}
_META_TYPES = {
    "u1": "MET_UCHAR",
    "i1": "MET_CHAR",
    "u2": "MET_USHORT",
    "i2": "MET_SHORT",
    "u4": "MET_UINT",
    "i4": "MET_INT",
    "f4": "MET_FLOAT",
}
_NRRD_UNITS = {1.0: "mm", 0.001: "um", 1000.0: "m", 10.0: "cm"}
_LEVEL = 1
"""Compression level: label maps are as small with it, and written several times as fast."""


def write_nrrd(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write ``array`` (*spatial) as NRRD, complete or not at all, in the unit of length of ``geometry``.

    Raises InputError for a 2-D image that does not lie in a plane of x and y.
    """
    stored, axes, origin = _placed(path, array, geometry, geometry.unit_mm)
    ndim = stored.ndim
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[stored.dtype.str[1:]]}",
        f"dimension: {ndim}",
        "space: left-posterior-superior" if ndim == 3 else f"space dimension: {ndim}",
        f"sizes: {_numbers(stored.shape)}",
        f"space directions: {' '.join(_vector(axis) for axis in axes.T)}",
        f"kinds: {' '.join(['domain'] * ndim)}",
        "endian: little",
        "encoding: gzip",
        "space units:" + f' "{_NRRD_UNITS[geometry.unit_mm]}"' * ndim,
        f"space origin: {_vector(origin)}",
    ]
    voxels = gzip.compress(stored.tobytes(order="F"), compresslevel=_LEVEL, mtime=0)
    _write(path, header, b"\n", voxels)


def write_meta_image(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write ``array`` (*spatial) as MetaImage (MHA) in mm, complete or not at all.

    Raises InputError for a 2-D image that does not lie in a plane of x and y.
    """
    stored, axes, origin = _placed(path, array, geometry, 1.0)
    spacing = np.linalg.norm(axes, axis=0)
    voxels = zlib.compress(stored.tobytes(order="F"), _LEVEL)
    header = [
        "ObjectType = Image",
        f"NDims = {stored.ndim}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(voxels)}",
        f"TransformMatrix = {_numbers((axes / spacing).T.ravel())}",
        f"Offset = {_numbers(origin)}",
        f"ElementSpacing = {_numbers(spacing)}",
        f"DimSize = {_numbers(stored.shape)}",
        f"ElementType = {_META_TYPES[stored.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    _write(path, header, b"", voxels)


def _placed(
    path: Path, array: np.ndarray, geometry: Geometry, unit_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return voxels in little-endian order, the step along each axis as a column, and the origin: LPS+, in the unit."""
    stored, ndim = storable(array), array.ndim
    affine = geometry.affine_array() / [[unit_mm], [unit_mm], [unit_mm], [1.0]]
    affine[:2] *= -1  # RAS+ to LPS+
    if np.abs(affine[ndim:3, :ndim]).max(initial=0) > 1e-6 * np.abs(affine).max():
        raise InputError(f"{path}: this format places 2-D images in planes of x and y alone; write .nii.gz")
    return stored.astype(stored.dtype.newbyteorder("<"), copy=False), affine[:ndim, :ndim], affine[:ndim, 3]


def _write(path: Path, header: list[str], end: bytes, voxels: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in header).encode() + end + voxels)


def _vector(numbers: Iterable[float]) -> str:
    return f"({','.join(map(_text, numbers))})"


def _numbers(numbers: Iterable[float]) -> str:
    return " ".join(map(_text, numbers))


def _text(number: float) -> str:
    """Write a number so that reading gives the same one; zero without a sign."""
    return f"{float(number) + 0.0:.17g}"
