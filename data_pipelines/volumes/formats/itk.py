"""NRRD and MetaImage (MHA, MHD), read by SimpleITK: arrays (i, j, k) or (i, j, k, channel), placed in RAS+ like NIfTI.

Headers whose voxels lie in another file (``.nhdr``, ``.mhd``) may name one file beside them, nothing else.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files.reading import unreadable
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.formats.base import Geometry, Volume, check_spacing, check_voxels, scaled

if TYPE_CHECKING:
    from SimpleITK import ImageFileReader

_MAX_HEADER_BYTES = 1 << 16
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file:)\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_UNITS = re.compile(rb"^\s*space units:\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_DEFLATED = re.compile(rb"^\s*(?:encoding:\s*gz|CompressedData\s*=\s*True)", re.MULTILINE | re.IGNORECASE)
_RAW = re.compile(rb"^\s*(?:encoding:\s*raw|BinaryData\s*=\s*True)", re.MULTILINE | re.IGNORECASE)
_UNITS_MM = {"mm": 1.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001, "m": 1000.0, "cm": 10.0}
_MAX_DEFLATE_RATIO = 1032
"""Deflate cannot do better (RFC 1951)."""
_FORMATS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the voxels, beside the header's own: one for a detached header, else none.

    Raises DataError for a name that leads elsewhere, or for several files.
    """
    found = _DATA_FILE.search(_header(path))
    name = found[1].decode(errors="replace") if found else "LOCAL"
    if name.upper() == "LOCAL":
        return []
    if name in ("", ".", "..") or name.split()[0].upper() in ("LIST", "SKIPLIST") or any(c in name for c in "%/\\"):
        message = f"its voxels must lie in one file beside it, the header names {name!r}"
        raise unreadable("detached-data", path, message, "convert it to .nrrd or .mha, which hold header and voxels")
    return [path.with_name(name)]


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """Read shape, spacing and affine of the spatial axes from the header."""
    return _geometry(path, _read_header(path, max_voxels))


def read_num_channels(path: Path, max_voxels: int) -> int:
    """Read the number of values per voxel from the header."""
    reader = _read_header(path, max_voxels)
    return int(math.prod(_sizes(reader)[3:]) * reader.GetNumberOfComponents())


def read_volume(path: Path, max_voxels: int) -> Volume:
    """Read the voxels; vectors become the last axis."""
    import SimpleITK

    reader = _read_header(path, max_voxels)
    geometry = _geometry(path, reader)
    array = SimpleITK.GetArrayFromImage(reader.Execute())  # (k, j, i), and the components of a vector last
    axes = tuple(reversed(range(len(reader.GetSize()))))
    shape = (*_sizes(reader), *((reader.GetNumberOfComponents(),) if reader.GetNumberOfComponents() > 1 else ()))
    return Volume(
        scaled(array.transpose(*axes, *range(len(axes), array.ndim)).reshape(shape), None, None),
        geometry,
        notices=_notices(path),
    )


def _read_header(path: Path, max_voxels: int) -> ImageFileReader:
    """Read the header, with every size checked. The reader reads the voxels on ``Execute``."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    files = data_files(path)
    for file in files:
        if not file.is_file():
            raise unreadable("file-missing", file, f"{path.name} says that its voxels lie there; there is no such file")
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_FORMATS[path.suffix.lower()])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    sizes, components = _sizes(reader), reader.GetNumberOfComponents()
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1 or (len(sizes) == 4 and components > 1):
        message = f"expected 2 to 4 axes of at least one voxel, the header declares {list(reader.GetSize())}"
        raise unreadable("wrong-ndim", path, message, "store one 2-D or 3-D volume per file")
    check_voxels(path, (*sizes, components), max_voxels)
    _check_type(path, reader)
    _check_promise(path, files, math.prod(sizes) * components * _item_size(reader))
    return reader


def _header(path: Path) -> bytes:
    """Read the text before the voxels: up to the first empty line (NRRD) or the name of the data file (MetaImage)."""
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER_BYTES).replace(b"\r\n", b"\n")
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        return head.partition(b"\n\n")[0]
    found = _DATA_FILE.search(head)
    return head[: found.end()] if found else head


def _sizes(reader: ImageFileReader) -> tuple[int, ...]:
    """Return the shape without axes of length one behind the third."""
    sizes = reader.GetSize()
    return (*sizes[:3], *(size for size in sizes[3:] if size != 1))


def _item_size(reader: ImageFileReader) -> int:
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    return 8 if "64" in name else 4 if "32" in name else 2 if "16" in name else 1


def _check_type(path: Path, reader: ImageFileReader) -> None:
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    if ("integer" not in name and "float" not in name) or "complex" in name:
        raise unreadable("bad-dtype", path, f"voxels must be integers or floats, got {name}", "convert the voxel type")


def _check_promise(path: Path, files: list[Path], promised: int) -> None:
    """Raise DataError where the files are too short for what the header promises."""
    header, size = _header(path), sum(file.stat().st_size for file in files or [path])
    is_deflated = _DEFLATED.search(header) is not None
    capacity = size * _MAX_DEFLATE_RATIO if is_deflated else size
    if promised > capacity and (is_deflated or _RAW.search(header)):  # text and bzip2 have no such bound
        raise unreadable("short-file", path, f"the header promises {promised} bytes of voxels, the file has {size}")


def _geometry(path: Path, reader: ImageFileReader) -> Geometry:
    """Turn ITK's origin, spacing and direction (LPS+) into an affine in RAS+."""
    total, ndim = len(reader.GetSize()), min(len(_sizes(reader)), 3)
    unit = _unit_mm(path)
    spacing = np.array(reader.GetSpacing())[:ndim] * unit
    check_spacing(path, spacing.tolist())
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (total, total))[:ndim, :ndim]
    affine[:ndim, :ndim] = direction * spacing
    affine[:ndim, 3] = np.array(reader.GetOrigin())[:ndim] * unit
    affine[:2] *= -1
    if not np.isfinite(affine).all() or abs(np.linalg.det(direction)) < 1e-3:
        raise unreadable("bad-affine", path, "the axes of the header are not independent", "correct the header")
    return Geometry(tuple(_sizes(reader)[:ndim]), tuple(spacing.tolist()), tuple(map(tuple, affine.tolist())), unit)


def _unit_mm(path: Path) -> float:
    """Return the unit of length in mm: NRRD may name it, MetaImage is in mm. Raises DataError for an unknown one."""
    found = _UNITS.search(_header(path)) if path.suffix.lower() in (".nrrd", ".nhdr") else None
    names = {name for name in re.findall(r'"([^"]*)"', found[1].decode(errors="replace"))} if found else set()
    names -= {"", "???"}
    if not names:
        return 1.0
    if len(names) > 1 or not names <= set(_UNITS_MM):
        message = f"the units of its axes, {', '.join(sorted(names))}, are not one unit of length"
        raise unreadable("bad-spacing", path, message, "write `space units` in mm")
    return _UNITS_MM[names.pop()]


def _notices(path: Path) -> tuple[Notice, ...]:
    unit = _unit_mm(path)
    if unit == 1.0:
        return ()
    message = f"states its geometry in units of {unit:g} mm: converted to mm"
    return (notice("unit-converted", path, message),)
