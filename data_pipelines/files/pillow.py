"""Pillow's limits, EXIF orientation and colour modes, shared by images as volumes and captioned images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from data_pipelines.files.reading import unreadable

EXIF_ORIENTATION = 0x0112
"""EXIF tag of the orientation, 1..8."""
UPRIGHT = 1
"""Orientation of an image that is stored as it is shown."""
_SIDEWAYS = (5, 6, 7, 8)


@contextmanager
def bounded_pixels(path: Path, on_warning: Literal["error", "ignore"], remedy: str) -> Iterator[None]:
    """Raise DataError where Pillow finds an image too large to be opened.

    Pillow warns above 89 megapixels and raises above 179; ``on_warning`` handles the warning.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter(on_warning, Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise unreadable("too-large", path, str(error), remedy) from None


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height of an image of the ``stored`` size once it is turned upright."""
    return stored[::-1] if is_sideways(orientation) else stored


def is_sideways(orientation: int) -> bool:
    """Tell whether turning an image of this orientation upright swaps its sides."""
    return orientation in _SIDEWAYS


def is_deep_grey(mode: str) -> bool:
    """Tell whether the mode is 16-bit grey, in any byte order."""
    return mode.startswith("I;16")
