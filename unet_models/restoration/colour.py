"""sRGB to CIELAB (D65, 2 degrees) and back, and a grid of quantised colours (Zhang 2016)."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
"""Linear sRGB to XYZ (IEC 61966-2-1)."""
FROM_XYZ = (
    (3.240481343201, -1.537151516271, -0.498536326169),
    (-0.969254949997, 1.875990001490, 0.041555926558),
    (0.055646639135, -0.204041338367, 1.057311069645),
)
"""The inverse, as literals: a graph that is exported cannot invert."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of D65 for the observer of 2 degrees."""
GRID = 10.0
"""Distance of quantised colours in a and b."""
DELTA = 6 / 29


def rgb_to_lab(images: Float[Tensor, "batch 3 *spatial"]) -> Float[Tensor, "batch 3 *spatial"]:
    """Convert sRGB in 0..1 to L (0..100), a and b."""
    linear = torch.where(images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    x, y, z = (_cube_root(each / white) for each, white in zip(_mix(linear, TO_XYZ), WHITE, strict=True))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Float[Tensor, "batch 3 *spatial"]) -> Float[Tensor, "batch 3 *spatial"]:
    """Convert L, a and b to sRGB, clipped to 0..1 where a colour is none of its."""
    y = (lab[:, 0] + 16) / 116
    xyz = torch.stack(
        [_cube(each) * white for each, white in zip((y + lab[:, 1] / 500, y, y - lab[:, 2] / 200), WHITE, strict=True)],
        dim=1,
    )
    linear = torch.stack(_mix(xyz, FROM_XYZ), dim=1)
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, linear * 12.92).clamp(0, 1)


@lru_cache(maxsize=1)
def colour_grid() -> Float[Tensor, "colours 2"]:
    """List the points (a, b) of the grid that are the nearest to any colour of sRGB."""
    steps = torch.linspace(0, 1, 33)
    cube = torch.cartesian_prod(steps, steps, steps)
    ab = rgb_to_lab(cube[:, :, None])[:, 1:, 0]
    return torch.unique((ab / GRID).round(), dim=0) * GRID


def _mix(channels: Tensor, matrix: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    first, second, third = channels.unbind(1)
    return [row[0] * first + row[1] * second + row[2] * third for row in matrix]


def _cube_root(t: Tensor) -> Tensor:
    """Take the cube root, a straight line near black (CIE 15)."""
    return torch.where(t > DELTA**3, t.clamp_min(DELTA**3) ** (1 / 3), t / (3 * DELTA**2) + 4 / 29)


def _cube(t: Tensor) -> Tensor:
    return torch.where(t > DELTA, t**3, 3 * DELTA**2 * (t - 4 / 29))
