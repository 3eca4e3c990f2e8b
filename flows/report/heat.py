"""Maps of weights over an image, as PNG: the image in grey, weights as translucent heat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flows.report.planes import choose_slices, enlarged, picture_size, shown_channels, to_bytes, to_png, window

HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Red, green, blue of weights 0, 1/4, ... 1: matplotlib's inferno, brighter the higher, also for the colour-blind."""
MAX_OPACITY = 0.75
"""Opacity of a weight of 1; a weight of 0 is transparent."""
GAP = 4
"""White pixels between planes."""


def draw_heat(
    image: np.ndarray,
    weights: NDArray[np.float32],
    spacing: Sequence[float],
    longest_side: int = 400,
    *,
    is_canonical: bool = True,
) -> bytes:
    """Draw the planes of an image (C, *spatial) under weights (*spatial) in 0..1, side by side in one PNG.

    The planes are those of ``overlay_planes``, through the slices with the largest sum of weights. ``spacing``: in mm.
    ``is_canonical``: as there.
    """
    channels = shown_channels(image, weights.ndim)
    levels = window(channels, weights.ndim)
    slices = choose_slices([weights], spacing, longest_side, is_canonical=is_canonical)
    return to_png(
        _side_by_side(
            [
                _draw(
                    to_bytes(s.of(channels), levels),
                    s.of(weights),
                    picture_size(s.of(weights).shape, s.pixels_per_voxel),
                )
                for s in slices
            ]
        )
    )


def _draw(grey: np.ndarray, weights: np.ndarray, size: tuple[int, int]) -> NDArray[np.float32]:
    shares = enlarged(to_bytes(weights, (0.0, 1.0)), size)[..., :1] / 255  # (height, width, 1)
    stops = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(shares[..., 0], stops, HEAT[:, channel]) for channel in range(3)], axis=-1)
    opacity = MAX_OPACITY * shares
    return ((1 - opacity) * enlarged(grey, size) + opacity * colours).astype(np.float32)


def _side_by_side(pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join pictures along one line, centred, on white."""
    height = max(len(picture) for picture in pictures)
    columns = []
    for picture in pictures:
        missing = height - len(picture)
        edges = ((missing // 2, missing - missing // 2), (0, GAP), (0, 0))
        columns.append(np.pad(picture, edges, constant_values=255.0))
    return np.concatenate(columns, axis=1)[:, :-GAP]
