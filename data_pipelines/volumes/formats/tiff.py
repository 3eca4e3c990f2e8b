"""TIFF by tifffile: stacks of pages as volumes (column, row, page), and single images that Pillow would reduce.

Written for ImageJ: a page per slice, with the voxel size.

The voxel size of a stack is that of the JSON file beside it, as nnU-Net has it ({"spacing": [z, y, x]} in mm), else
that of ImageJ's or OME's description where it states all three axes; else 1 mm stands for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import InputError
from data_pipelines.files.pillow import EXIF_ORIENTATION, UPRIGHT, is_sideways, upright_size
from data_pipelines.files.reading import unreadable
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.formats.base import Geometry, Volume, check_spacing, check_voxels, scaled

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_DEPTH_AXES, _CHANNEL_AXES = "ZIQ", "SC"
_UNITS_MM = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "\\u00b5m"), 0.001),
    **dict.fromkeys(("mm", "millimeter"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 1e-6),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("m", "meter"), 1000.0),
    **dict.fromkeys(("inch", "in"), 25.4),
}
_CHANNEL_NUMBER = re.compile(r"_\d{4}$")
_MAX_SIDECAR_BYTES = 1 << 20
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
"""EXIF orientation to the function that turns an image (row, column, ...) upright."""
_ALPHA = (1, 2)
"""Values of ExtraSamples that are transparency (TIFF 6.0, section 18); 0 is whatever else was measured."""
_LOSSY = {"JPEG", "OJPEG", "JPEGXL", "JPEGXR", "JPEG_2000_LOSSY", "WEBP", "JPEG_LOSSY"}


def sidecar(path: Path) -> Path | None:
    """Return the JSON file beside a stack: NAME.json for NAME_0000.tif or NAME.tif; None where there is none."""
    stem = path.name[: -len(path.suffix)]
    names = dict.fromkeys((f"{stem}.json", f"{_CHANNEL_NUMBER.sub('', stem)}.json"))
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def needs_tifffile(path: Path) -> bool:
    """Tell whether the file is a stack, or a single image whose values Pillow would reduce or not read."""
    with _open_tiff(path) as (file, series):
        sizes = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis != "S" and size > 1]
        is_grey = "S" not in series.axes and file.pages[0].photometric.name == "MINISBLACK"
        is_plain = series.dtype in (np.uint8, np.bool_) or (is_grey and series.dtype in (np.uint16, np.float32))
        is_garbled = is_sideways(_orientation(file)) and file.pages[0].compression.name == "NONE"  # by Pillow 12 and 13
        is_known = file.pages[0].photometric.name in ("MINISBLACK", "RGB")
        has_more = is_known and any(kind not in _ALPHA for kind in file.pages[0].extrasamples)  # Pillow reads none
        return len(sizes) > 2 or not is_plain or is_garbled or has_more


def is_lossy(path: Path) -> bool:
    """Tell whether the pixels are compressed with loss."""
    with _open_tiff(path) as (file, _):
        return file.pages[0].compression.name in _LOSSY


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """Read shape and spacing from the header."""
    with _open_tiff(path) as (file, series):
        _check_header(path, file, series, max_voxels)
        return _geometry(path, file, series)


def read_num_channels(path: Path, max_voxels: int) -> int:
    """Read the number of values per voxel from the header; transparency is none of them."""
    with _open_tiff(path) as (file, series):
        _check_header(path, file, series, max_voxels)
        return len(_channels(file, series))


def read_volume(path: Path, max_voxels: int, *, label: bool) -> Volume:
    """Read the voxels of all pages, single images upright; channels are the last axis, transparency is dropped."""
    with _open_tiff(path) as (file, series):
        _check_header(path, file, series, max_voxels)
        geometry = _geometry(path, file, series)
        array = _arranged(_decode(path, file, series, label), series, geometry.ndim)
        channels, orientation = _channels(file, series), _orientation(file)
    array = _UPRIGHT[orientation](array)
    if array.ndim > geometry.ndim:
        if len(channels) == 1:
            array = array[..., channels[0]]
        elif len(channels) < array.shape[-1]:  # an index copies
            array = array[..., channels]
    return Volume(scaled(array, None, None), geometry, orientation, _notices(path, geometry))


def write_tiff(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write labels: (row, column) or (column, row, page), or colours (..., 3), deflated; complete or not at all.

    ImageJ's description holds the voxel size in mm where the geometry has one; placement and directions have no place
    in TIFF. Raises InputError for values that 16 bits do not hold.
    """
    import tifffile

    if array.min(initial=0) < 0 or array.max(initial=0) > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: TIFF has labels of 0 to 65535; write them as .nii.gz")
    is_colour, ndim = array.ndim > geometry.ndim, geometry.ndim
    stored = array.astype(np.uint8 if array.max(initial=0) <= 255 else np.uint16)
    stored = stored if ndim == 2 else stored.swapaxes(0, 2)  # (page, row, column)
    axes = ("YX" if ndim == 2 else "ZYX") + "S" * is_colour
    x, y, z = geometry.spacing if ndim == 3 else (*geometry.spacing[::-1], 1.0)
    size: dict[str, Any] = {"resolution": (1 / x, 1 / y), "metadata": {"axes": axes, "unit": "mm", "spacing": z}}
    described = size if geometry.has_spacing else {"metadata": {"axes": axes}}
    photometric = "rgb" if is_colour else "minisblack"
    with atomic_file(path) as temporary:
        tifffile.imwrite(temporary, stored, imagej=True, photometric=photometric, compression="zlib", **described)


@contextmanager
def _open_tiff(path: Path) -> Iterator[tuple[TiffFile, TiffPageSeries]]:
    """Open the file and its only series of pages. Raises DataError where pages of several sizes lie in it."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            sizes = ", ".join("x".join(map(str, series.shape)) for series in file.series[:5])
            message = f"holds {len(file.series)} images of different sizes or kinds: {sizes}"
            raise unreadable("several-pages", path, message, "store one image or one stack per file")
        yield file, file.series[0]


def _check_header(path: Path, file: TiffFile, series: TiffPageSeries, max_voxels: int) -> None:
    """Raise DataError for too many voxels, for axes that are no volume's, and for types that are no numbers."""
    check_voxels(path, series.shape, max_voxels)
    long_axes = "".join(axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1)
    unknown = long_axes.strip("YX").translate(str.maketrans("", "", _DEPTH_AXES + _CHANNEL_AXES + "YX"))
    num_depth, num_channel = (sum(axis in kinds for axis in long_axes) for kinds in (_DEPTH_AXES, _CHANNEL_AXES))
    if unknown or num_depth > 1 or num_channel > 1:
        message = f"its axes are {series.axes} {list(series.shape)}; known are X, Y, one of depth and one of channels"
        raise unreadable("wrong-ndim", path, message, "store one image or one stack per file, without an axis of time")
    if series.dtype is None or series.dtype.kind not in "buif":
        raise unreadable("bad-dtype", path, f"voxels must be numbers, got {series.dtype}", "convert the voxel type")
    if num_depth and _orientation(file) != UPRIGHT:
        message = f"the tag Orientation is {_orientation(file)}: the stored rows are not those that are shown"
        raise unreadable("exif-orientation", path, message, "store the image upright, without an orientation tag")


def _orientation(file: TiffFile) -> int:
    """Return the orientation that the image was stored in, 1..8."""
    tag = file.pages[0].tags.get(EXIF_ORIENTATION)
    return int(tag.value) if tag is not None and int(tag.value) in _UPRIGHT else UPRIGHT


def _decode(path: Path, file: TiffFile, series: TiffPageSeries, label: bool) -> np.ndarray:
    """Decode all pages, black being the lowest value. Raises DataError where colours or decoders are not supported."""
    kind = file.pages[0].photometric.name
    if kind not in ("MINISBLACK", "MINISWHITE", "RGB") and not (label and kind == "PALETTE"):
        message = f"colours of the kind {kind} are not supported in stacks and in deep images"
        raise unreadable("unsupported-mode", path, message, "convert it to grey or RGB")
    try:
        array = np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        remedy = "install the package `imagecodecs`, or store it uncompressed or deflated"
        raise unreadable("missing-decoder", path, f"no decoder is installed: {error}", remedy) from None
    array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    if kind == "MINISWHITE" and array.dtype.kind == "u":
        return (1 << file.pages[0].bitspersample) - 1 - array
    return array


def _arranged(stored: np.ndarray, series: TiffPageSeries, ndim: int) -> np.ndarray:
    """Order the axes: (row, column) or (column, row, page), then that of channels where there is one."""
    axes = [axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 or axis in "YX"]
    depth = [axis for axis in axes if axis in _DEPTH_AXES]
    order = [*("YX" if ndim == 2 else "XY"), *depth, *(axis for axis in axes if axis in _CHANNEL_AXES)]
    array = stored.reshape([series.shape[series.axes.index(axis)] for axis in axes])
    return array.transpose([axes.index(axis) for axis in order])


def _channels(file: TiffFile, series: TiffPageSeries) -> list[int]:
    """Return the places of the values of a voxel that are no transparency."""
    count = math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis in _CHANNEL_AXES)
    extra = tuple(file.pages[0].extrasamples) if "S" in series.axes else ()
    first = count - len(extra)
    return [place for place in range(count) if place < first or extra[place - first] not in _ALPHA] or [0]


# --- voxel size ------------------------------------------------------------------------------------------------------


def _geometry(path: Path, file: TiffFile, series: TiffPageSeries) -> Geometry:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    depth = next((size for axis, size in sizes.items() if axis in _DEPTH_AXES and size > 1), None)
    if depth is None:
        rows_columns = upright_size((sizes["Y"], sizes["X"]), _orientation(file))
        return Geometry(rows_columns, (1.0, 1.0), has_spacing=False)
    stated = _sidecar_spacing(path) or _stated_spacing(file)
    if stated is not None:
        check_spacing(path, stated)
    shape = (sizes["X"], sizes["Y"], depth)
    return Geometry(shape, stated or (1.0, 1.0, 1.0), has_spacing=stated is not None)


def _sidecar_spacing(path: Path) -> tuple[float, float, float] | None:
    """Read the distances between columns, rows and pages from the JSON file; None where it states none."""
    file = sidecar(path)
    if file is None or file.stat().st_size > _MAX_SIDECAR_BYTES:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        stated = content.get("spacing") if isinstance(content, dict) else None
        if stated is None:
            return None
        z, y, x = map(float, stated)
    except (ValueError, TypeError, RecursionError) as error:
        message, remedy = f"states no spacing of three axes: {error}", 'write it as {"spacing": [z, y, x]}, in mm'
        raise unreadable("bad-spacing", file, message, remedy) from None
    return x, y, z


def _stated_spacing(file: TiffFile) -> tuple[float, float, float] | None:
    """Return the distances in mm between columns, rows and pages; None where one of them is not stated."""
    if file.is_ome and file.ome_metadata:
        return _ome_spacing(file.ome_metadata)
    described = file.imagej_metadata or {}
    unit = _UNITS_MM.get(str(described.get("unit", "")).lower())
    if unit is None or "spacing" not in described:
        return None
    per_unit = [file.pages[0].tags.get(name) for name in ("XResolution", "YResolution")]
    if any(tag is None or not tag.value[0] or not tag.value[1] for tag in per_unit):
        return None
    x, y = (unit * tag.value[1] / tag.value[0] for tag in per_unit)
    return x, y, unit * abs(float(described["spacing"]))


def _ome_spacing(text: str) -> tuple[float, float, float] | None:
    """Read the physical sizes of OME-XML; their unit is the micrometre where none is named."""
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    if found is None:
        return None
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', found.group()))
    sizes = []
    for axis in "XYZ":
        unit = _UNITS_MM.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        if unit is None or f"PhysicalSize{axis}" not in attributes:
            return None
        sizes.append(unit * float(attributes[f"PhysicalSize{axis}"]))
    return sizes[0], sizes[1], sizes[2]


def _notices(path: Path, geometry: Geometry) -> tuple[Notice, ...]:
    if geometry.ndim == 2 or geometry.has_spacing:
        return ()
    message = (
        "the stack states no voxel size of all three axes: taken as 1 mm each, so distances in mm are in pixels, and "
        "volumes in voxels"
    )
    return (notice("spacing-unstated", path, message),)
