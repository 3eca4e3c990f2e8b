"""PNG, JPEG and TIFF by Pillow: arrays (row, column) or (row, column, channel)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Geometry, Volume, check_voxels
from data_pipelines.files.reading import unreadable

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_EXIF_ORIENTATION = 0x0112


def read_geometry(path: Path, max_voxels: int) -> Geometry:
    """(rows, columns) of the upright image, with a spacing of 1."""
    with _open_image(path, max_voxels) as image:
        return _geometry(image)


def read_num_channels(path: Path, max_voxels: int) -> int:
    """3 for colour, 1 for grey."""
    with _open_image(path, max_voxels) as image:
        return len(_plain_mode(image.mode)) if _plain_mode(image.mode) == "RGB" else 1


def read_volume(path: Path, max_voxels: int, label: bool) -> Volume:
    """The upright image; ``label=True`` keeps the indices of a palette, otherwise its colours are read."""
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
def _open_image(path: Path, max_voxels: int) -> Generator[PillowImage, None, None]:
    """An image whose pixels are not yet decoded, of a size within the limits (Pillow's own, 179 Mpx, holds too)."""
    from PIL import Image

    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        known = ", ".join((*NIFTI_SUFFIXES, *IMAGE_SUFFIXES))
        raise unreadable("unknown-format", path, f"the name ends in none of {known}", "convert the file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
        except Image.DecompressionBombError as error:
            raise unreadable("too-large", path, str(error), "cut the image into tiles") from None
    with image:
        check_voxels(path, image.size[::-1], max_voxels)
        if getattr(image, "n_frames", 1) > 1:
            raise unreadable("several-pages", path, f"holds {image.n_frames} pages", "store one image per file")  # type: ignore[attr-defined]
        yield image


def _geometry(image: PillowImage) -> Geometry:
    width, height = image.size
    if image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8):  # stored on its side
        width, height = height, width
    return Geometry((height, width), (1.0, 1.0))


def _plain_mode(mode: str) -> str:
    """Grey and colour stay what they are, transparency goes, palettes and other colour spaces become RGB."""
    if mode in ("1", "L", "F", "I") or mode.startswith("I;16"):
        return mode
    return "L" if mode in ("LA", "La") else "RGB"
