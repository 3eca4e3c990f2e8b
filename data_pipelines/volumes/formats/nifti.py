"""NIfTI: header by nibabel, voxels read here, never more than the header promises.

Axes of length one behind the third are dropped, and lengths are converted to mm (``xyzt_units``).
"""

from __future__ import annotations

import gzip
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.atomic import atomic_file
from data_pipelines.files.reading import unreadable
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.formats.base import Geometry, Volume, check_spacing, check_voxels, scaled, storable

_MAX_GZIP_RATIO = 1032
"""Deflate cannot do better (RFC 1951), so a shorter file cannot hold what its header promises."""
_MAX_VOXEL_OFFSET = 1 << 24
"""Maximum byte at which voxels may start: NIfTI extensions before them are kilobytes, a hostile offset is not."""
_MAX_NIFTI1_SIDE = 32_767
"""Longest side of an image that the 16 bits of NIfTI-1 hold; NIfTI-2 has 64."""
_SPACING_TOLERANCE = 0.01
"""Share by which the voxel sizes of an sform may differ from those of ``pixdim`` by rounding."""
_UNIT_MASK = 0x07
"""Bits of ``xyzt_units`` that name the unit of length; the others name that of time."""
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of metre, millimetre and micrometre to mm."""


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """Read shape, spacing and affine of the spatial axes from the header."""
    with _open_stream(path) as stream:
        return _read_header(stream, path, max_voxels)[1]


def read_num_channels(path: Path, max_voxels: int) -> int:
    """Read the length of the channel axis from the header; 1 where there is none."""
    with _open_stream(path) as stream:
        header, geometry = _read_header(stream, path, max_voxels)
        return math.prod(_plain_shape(header)[geometry.ndim :])


def read_volume(path: Path, max_voxels: int) -> Volume:
    """Read the array as stored, axes (i, j, k) or (i, j, k, channel)."""
    with _open_stream(path) as stream:
        header, geometry = _read_header(stream, path, max_voxels)
        shape, dtype = _plain_shape(header), header.get_data_dtype()
        offset, size = int(header["vox_offset"]), math.prod(shape) * dtype.itemsize
        stream.seek(offset)
        data = stream.read(size)  # never more than the header promised, which max_voxels bounds
        if len(data) < size:
            raise unreadable(
                "short-file", path, f"the header promises {size} bytes of voxels, the file has {len(data)}"
            )
        # Reading on to the end makes gzip compare its checksum: a file cut in its last bytes is found too.
        if stream.read(1):
            raise unreadable("excess-data", path, f"more data than the {size} bytes of voxels that the header promises")
    slope, intercept = header.get_slope_inter()
    stored = np.frombuffer(data, dtype).reshape(shape, order="F")
    return Volume(
        scaled(stored, slope, intercept),
        geometry,
        notices=(*_unit_notices(header, path), *_orientation_notices(header, path)),
    )


def write_nifti(
    path: str | os.PathLike[str],
    array: np.ndarray,
    affine: np.ndarray | Sequence[Sequence[float]],
    unit_mm: float = 1.0,
) -> None:
    """Write ``array`` (*spatial) as NIfTI, compressed where the name ends in ``.gz``; complete or not at all.

    ``affine`` is in mm; the header states it in the unit of ``unit_mm`` mm, as the file did that it comes from, where
    NIfTI has that unit. The same input gives the same bytes (no time stamp). bool becomes uint8, 64-bit numbers become
    32-bit. An image with a side above 32,767 becomes NIfTI-2. Raises ValueError for integers beyond 32 bits.
    """
    path = Path(path)
    payload = _nifti_image(storable(np.asarray(array)), np.asarray(affine, dtype=np.float64), unit_mm).to_bytes()
    if path.name.endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=1, mtime=0)
    with atomic_file(path) as temporary:
        temporary.write_bytes(payload)


def nifti_header(shape: tuple[int, ...], dtype: type[np.generic], geometry: Geometry) -> bytes:
    """Build what stands before the voxels, in Fortran order, of an image with the geometry of another."""
    voxels = np.broadcast_to(np.zeros((), dtype), shape)
    header = _nifti_image(voxels, geometry.affine_array(), geometry.unit_mm).header
    header.set_data_offset(header.single_vox_offset)  # behind a header without extensions
    buffer = io.BytesIO()
    header.write_to(buffer)
    return buffer.getvalue().ljust(header.single_vox_offset, b"\0")


def _nifti_image(voxels: np.ndarray, affine: np.ndarray, unit_mm: float) -> Any:
    import nibabel as nib

    unit_mm = unit_mm if unit_mm in _UNITS_MM.values() else 1.0
    image_class = nib.Nifti1Image if max(voxels.shape) <= _MAX_NIFTI1_SIDE else nib.Nifti2Image
    image = image_class(voxels, affine / [[unit_mm], [unit_mm], [unit_mm], [1.0]])
    image.header["xyzt_units"] = next(code for code, length in _UNITS_MM.items() if length == unit_mm)
    return image


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open the uncompressed stream; compression is recognised by the first bytes, not by the name."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if compressed:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream  # type: ignore[misc]  # GzipFile reads like any binary file
        else:
            yield raw


def _read_header(stream: BinaryIO, path: Path, max_voxels: int) -> tuple[Any, Geometry]:
    """Read nibabel's header and the geometry, all of it checked; leaves the stream after the header's fixed part."""
    import nibabel as nib

    block = stream.read(348)
    is_nifti2 = 540 in (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    block += stream.read(540 - 348) if is_nifti2 else b""
    header_class = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
    if len(block) < header_class.sizeof_hdr:
        raise unreadable("short-file", path, f"{len(block)} bytes are too few for a NIfTI header")
    header = header_class(block, check=False)  # check=True would silently correct a negative spacing
    if bytes(header["magic"].item())[:3] not in (b"n+1", b"n+2"):
        raise unreadable("bad-header", path, "is not a single-file NIfTI", "convert it to .nii.gz")
    num_axes = int(header["dim"][0])
    shape = tuple(int(size) for size in header["dim"][1 : num_axes + 1])
    if not 2 <= num_axes <= 7 or min(shape) < 1 or len(_plain_shape(header)) > 4:
        message = f"expected 2 to 4 axes of at least one voxel, the header declares {num_axes}: {list(shape)}"
        raise unreadable("wrong-ndim", path, message, "store one 2-D or 3-D volume per file")
    check_voxels(path, shape, max_voxels)
    _check_promise(header, path, shape)
    return header, _geometry(header, path, _plain_shape(header)[:3])


def _plain_shape(header: Any) -> tuple[int, ...]:
    """Return the shape without axes of length one behind the third, which some programs add: (x, y, z, 1, channels)."""
    shape = [int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1]]
    return (*shape[:3], *(size for size in shape[3:] if size != 1))


def _unit_mm(header: Any) -> float:
    """Return the unit of length in mm; a unit that is not stated, or none of NIfTI's, is taken as mm."""
    return _UNITS_MM.get(int(header["xyzt_units"]) & _UNIT_MASK, 1.0)


def _unit_notices(header: Any, path: Path) -> tuple[Notice, ...]:
    code = int(header["xyzt_units"]) & _UNIT_MASK
    if code == 2:
        return ()
    if code in _UNITS_MM:
        message = f"states its geometry in units of {_UNITS_MM[code]:g} mm: converted to mm"
        return (notice("unit-converted", path, message),)
    return (notice("unit-unstated", path, "the header names no unit of length (xyzt_units): taken as mm"),)


def _orientation_notices(header: Any, path: Path) -> Iterator[Notice]:
    """Yield a notice where the header of a volume states no orientation, or two that contradict each other.

    Which of them is right nobody knows: the sform is used, else the qform, as nibabel does.
    """
    from nibabel.orientations import aff2axcodes
    from nibabel.spatialimages import HeaderDataError

    shape = _plain_shape(header)
    has_sform, has_qform = (int(header[f"{name}_code"]) != 0 for name in ("sform", "qform"))
    if len(shape) < 3 or shape[2] == 1:
        return
    if not has_sform and not has_qform:
        message = (
            "states no orientation (sform_code and qform_code are 0): taken to run right to left, back to front, up"
        )
        yield notice("orientation-unstated", path, message)
    if not has_sform:
        return
    stated, spacing = header["pixdim"][1:4], np.linalg.norm(header.get_sform()[:3, :3], axis=0)
    if not np.allclose(spacing, stated, rtol=_SPACING_TOLERANCE, atol=0):
        found, other = (" x ".join(f"{value:.4g}" for value in each) for each in (spacing, stated))
        yield notice("geometry-contradicts", path, f"voxels are {found} by its sform, which is used, {other} by pixdim")
    if not has_qform:
        return
    with suppress(ValueError, HeaderDataError):  # of a qform that is no rotation, and is not used
        codes = ["".join(aff2axcodes(affine)) for affine in (header.get_sform(), header.get_qform())]
        if codes[0] != codes[1]:
            message = f"its axes run to {codes[0]} by its sform, which is used, to {codes[1]} by its qform"
            yield notice("geometry-contradicts", path, message)


def _check_promise(header: Any, path: Path, shape: tuple[int, ...]) -> None:
    """Raise DataError where the voxel type is not supported, or the file is too short for what its header promises."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise unreadable("bad-dtype", path, f"voxels must be integers or floats, got {dtype}", "convert the voxel type")
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset <= _MAX_VOXEL_OFFSET:
        raise unreadable("bad-header", path, f"the voxels cannot start at byte {offset:g}")
    promised, size = int(offset) + math.prod(shape) * dtype.itemsize, path.stat().st_size
    with path.open("rb") as raw:
        capacity = size * _MAX_GZIP_RATIO if raw.read(2) == b"\x1f\x8b" else size
    if promised > capacity:
        raise unreadable("short-file", path, f"the header promises {promised} bytes of data, the file has {size}")


def _geometry(header: Any, path: Path, shape: tuple[int, ...]) -> Geometry:
    """Read spacing and affine in mm. A 2-D image keeps its 4x4 affine, whose third axis is the plane's normal."""
    unit = _unit_mm(header)
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # the standard's meaning of 0, of which nibabel makes no affine
    check_spacing(path, [float(value) for value in header["pixdim"][1 : len(shape) + 1]])
    affine = np.asarray(header.get_best_affine(), dtype=np.float64) * [[unit], [unit], [unit], [1.0]]
    if not np.isfinite(affine).all():
        raise unreadable("bad-affine", path, "the affine holds NaN or infinite numbers", "correct the header")
    spacing = np.linalg.norm(affine[:3, : len(shape)], axis=0)
    check_spacing(path, spacing.tolist())
    if len(shape) == 2 and not affine[:3, 2].any():  # as some programs write images
        affine[:3, 2] = np.cross(*(affine[:3, :2] / spacing).T) * unit
    if abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))) < 1e-3:
        raise unreadable("bad-affine", path, "the axes of the affine are not independent", "correct the header")
    return Geometry(shape, tuple(spacing.tolist()), tuple(map(tuple, affine.tolist())), unit)
