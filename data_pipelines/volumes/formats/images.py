"""PNG, JPEG and TIFF by Pillow: arrays (row, column) or (row, column, channel). TIFF stacks and deep TIFF: tiff.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.files.pillow import EXIF_ORIENTATION, UPRIGHT, bounded_pixels, is_deep_grey, upright_size
from data_pipelines.files.reading import unreadable
from data_pipelines.volumes.formats import tiff
from data_pipelines.volumes.formats.base import ALL_SUFFIXES, IMAGE_SUFFIXES, Geometry, LabelKind, Volume, check_voxels

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TOO_LARGE = "cut the image into tiles"


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """Read (rows, columns) of the upright image, or (columns, rows, pages) of a stack, from its header."""
    if _is_for_tifffile(path):
        return tiff.read_geometry(path, max_voxels)
    with _open_image(path, max_voxels) as image:
        is_turned = image.format == "TIFF"  # whose size Pillow turns itself
        width, height = image.size if is_turned else upright_size(image.size, _orientation(image))
        return Geometry((height, width), (1.0, 1.0), has_spacing=False)


def read_num_channels(path: Path, max_voxels: int) -> int:
    """Read the number of channels from the header: 3 for colour, 1 for grey."""
    if _is_for_tifffile(path):
        return tiff.read_num_channels(path, max_voxels)
    with _open_image(path, max_voxels) as image:
        return 3 if _plain_mode(image.mode) == "RGB" else 1


def read_volume(path: Path, max_voxels: int, *, label: LabelKind | None) -> Volume:
    """Read the upright image; of a label of ``values`` the indices of a palette, otherwise its colours.

    Raises DataError for a label whose pixels were compressed with loss.
    """
    from PIL import ImageOps

    if label:
        _check_lossless(path)
    if _is_for_tifffile(path):
        return tiff.read_volume(path, max_voxels, label=label == "values")
    with _open_image(path, max_voxels) as image, bounded_pixels(path, "ignore", _TOO_LARGE):
        orientation = _orientation(image)
        upright = ImageOps.exif_transpose(image)
    if label == "colours" and upright.mode in ("1", "L"):
        upright = upright.convert("RGB")
    elif not (label == "values" and upright.mode == "P"):
        upright = upright.convert(_plain_mode(upright.mode))
    array = np.array(upright)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return Volume(array, Geometry(array.shape[:2], (1.0, 1.0), has_spacing=False), orientation)


def write_picture(path: str | os.PathLike[str], labels: np.ndarray) -> None:
    """Write a label map as PNG: values (rows, columns) in grey, 8-bit or 16-bit above 255; colours (rows, columns, 3).

    Raises InputError for values that PNG does not have.
    """
    from PIL import Image

    if labels.min(initial=0) < 0 or labels.max(initial=0) > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: PNG has values of 0 to 65535; write the labels as .nii.gz")
    dtype = np.uint8 if labels.max(initial=0) <= 255 else np.uint16
    Image.fromarray(np.ascontiguousarray(labels, dtype=dtype)).save(path, "PNG")


def _is_for_tifffile(path: Path) -> bool:
    with path.open("rb") as file:
        is_tiff = file.read(4) in _TIFF_MAGIC
    return is_tiff and tiff.needs_tifffile(path)


def _check_lossless(path: Path) -> None:
    """Raise DataError where the classes of a label were compressed with loss: edges become other classes."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:3] == b"\xff\xd8\xff" or (magic in _TIFF_MAGIC and tiff.is_lossy(path)):
        message = "the label is compressed with loss (JPEG): values at edges are no longer those of the classes"
        raise unreadable("lossy-label", path, message, "export the labels again from their source, as PNG")


def _orientation(image: PillowImage) -> int:
    orientation = int(image.getexif().get(EXIF_ORIENTATION, UPRIGHT))
    return orientation if 1 <= orientation <= 8 else UPRIGHT


@contextmanager
def _open_image(path: Path, max_voxels: int) -> Iterator[PillowImage]:
    """Open an image of a size within the limits (Pillow's own, 179 megapixels, holds too) without decoding it."""
    from PIL import Image

    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        message = f"the name ends in none of {', '.join(ALL_SUFFIXES)}"
        raise unreadable("unknown-format", path, message, "convert the file")
    with bounded_pixels(path, "ignore", _TOO_LARGE):
        image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
    with image:
        check_voxels(path, image.size[::-1], max_voxels)
        _check_depth(path, image)
        if getattr(image, "n_frames", 1) > 1:
            raise unreadable("several-pages", path, f"holds {image.n_frames} pages", "store one image per file")  # type: ignore[attr-defined]
        yield image


def _check_depth(path: Path, image: PillowImage) -> None:
    """Raise DataError where Pillow would reduce 16 bits to 8: it has no mode for deep colour."""
    tiles: list[tuple[object, ...]] = getattr(image, "tile", [])
    stored = {str(argument) for tile in tiles for argument in _arguments(tile)}
    if not is_deep_grey(image.mode) and image.mode != "I" and any(";16" in raw for raw in stored):
        message = "16-bit colours (or 16-bit grey with transparency) would be reduced to 8 bits"
        raise unreadable("unsupported-mode", path, message, "convert it to 8-bit RGB or 16-bit grey, or to TIFF")


def _arguments(tile: tuple[object, ...]) -> tuple[object, ...]:
    """Return the arguments of a decoder, the raw mode among them."""
    return tile[-1] if isinstance(tile[-1], tuple) else (tile[-1],)


def _plain_mode(mode: str) -> str:
    """Choose the mode to convert to: grey and colour stay, transparency is dropped, everything else becomes RGB."""
    if mode in ("1", "L", "F", "I") or is_deep_grey(mode):
        return mode
    return "L" if mode in ("LA", "La") else "RGB"
