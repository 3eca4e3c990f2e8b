"""PNG, JPEG and TIFF by Pillow: arrays (row, column) or (row, column, channel)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files.pillow import EXIF_ORIENTATION, UPRIGHT, bounded_pixels, is_deep_grey, upright_size
from data_pipelines.files.reading import unreadable
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Geometry, Volume, check_voxels

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """Read (rows, columns) of the upright image from its header; the spacing is 1."""
    with _open_image(path, max_voxels) as image:
        width, height = upright_size(image.size, image.getexif().get(EXIF_ORIENTATION, UPRIGHT))
        return Geometry((height, width), (1.0, 1.0))


def read_num_channels(path: Path, max_voxels: int) -> int:
    """Read the number of channels from the header: 3 for colour, 1 for grey."""
    with _open_image(path, max_voxels) as image:
        return 3 if _plain_mode(image.mode) == "RGB" else 1


def read_volume(path: Path, max_voxels: int, *, label: bool) -> Volume:
    """Read the upright image; ``label=True`` keeps the indices of a palette, otherwise its colours are read."""
    from PIL import ImageOps

    with _open_image(path, max_voxels) as image:
        upright = ImageOps.exif_transpose(image)
    if not (label and upright.mode == "P"):
        upright = upright.convert(_plain_mode(upright.mode))
    array = np.array(upright)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return Volume(array, Geometry(array.shape[:2], (1.0, 1.0)))


def write_picture(path: str | os.PathLike[str], labels: np.ndarray) -> None:
    """Write a label map (rows, columns) of at most 256 classes as a grey PNG whose values are the classes."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8)).save(path, "PNG")


@contextmanager
def _open_image(path: Path, max_voxels: int) -> Iterator[PillowImage]:
    """Open an image of a size within the limits (Pillow's own, 179 megapixels, holds too) without decoding it."""
    from PIL import Image

    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        known = ", ".join((*NIFTI_SUFFIXES, *IMAGE_SUFFIXES))
        raise unreadable("unknown-format", path, f"the name ends in none of {known}", "convert the file")
    with bounded_pixels(path, "ignore", "cut the image into tiles"):
        image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
    with image:
        check_voxels(path, image.size[::-1], max_voxels)
        if getattr(image, "n_frames", 1) > 1:
            raise unreadable("several-pages", path, f"holds {image.n_frames} pages", "store one image per file")  # type: ignore[attr-defined]
        yield image


def _plain_mode(mode: str) -> str:
    """Choose the mode to convert to: grey and colour stay, transparency is dropped, everything else becomes RGB."""
    if mode in ("1", "L", "F", "I") or is_deep_grey(mode):
        return mode
    return "L" if mode in ("LA", "La") else "RGB"
