"""Images as PNG files, alone and side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np


def png_bytes(image: np.ndarray) -> bytes:
    """Encode an image (H, W, 3) uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def mosaic(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Join PNG files to one: rows below one another, white where they differ in size."""
    from PIL import Image

    images = [[np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in row] for row in rows]
    strips = [_join(row, axis=1) for row in images]
    return png_bytes(_join(strips, axis=0))


def _join(images: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Join images along an axis, those that are shorter along the other one filled up with white."""
    other = 1 - axis
    longest = max(image.shape[other] for image in images)
    padded = []
    for image in images:
        missing = [(0, 0)] * 3
        missing[other] = (0, longest - image.shape[other])
        padded.append(np.pad(image, missing, constant_values=255))
    return np.concatenate(padded, axis=axis)
