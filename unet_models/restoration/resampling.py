"""Bicubic interpolation (Keys 1981, a = -0.5) by whole factors, as convolutions with fixed kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def keys_kernel(distance: Tensor) -> Tensor:
    """Evaluate the cubic kernel (Keys 1981, eq. 15) at distances in pixels."""
    x = distance.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def enlarge(images: Float[Tensor, "batch channels h w"], factor: int) -> Float[Tensor, "batch channels height width"]:
    """Enlarge by bicubic interpolation; the border's pixels go on beyond it.

    Each of the ``factor`` squared offsets of a pixel is a 5x5 convolution, and their outputs are shuffled: exact in
    tiles, and exported as what every runtime knows.
    """
    batch, channels, height, width = images.shape
    kernels = _offset_kernels(factor).to(images)[:, None]  # (factor^2, 1, 5, 5)
    padded = F.pad(images.reshape(batch * channels, 1, height, width), (2, 2, 2, 2), mode="replicate")
    enlarged = F.pixel_shuffle(F.conv2d(padded, kernels), factor)
    return enlarged.reshape(batch, channels, factor * height, factor * width)


def shrink(images: Float[Tensor, "batch channels height width"], factor: int) -> Float[Tensor, "batch channels h w"]:
    """Shrink by antialiased bicubic interpolation, whose kernel is ``factor`` times as wide, as Pillow does."""
    size = images.shape[2] // factor, images.shape[3] // factor
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def _offset_kernels(factor: int) -> Float[Tensor, "offsets 5 5"]:
    """Compute the weights of the 5x5 neighbours for each offset within a pixel, row by row."""
    centres = (torch.arange(factor) + 0.5) / factor - 0.5  # of the new pixels, from the old pixel's centre
    weights = keys_kernel(torch.arange(-2, 3) - centres[:, None])  # (factor, 5)
    return torch.einsum("iy,jx->ijyx", weights, weights).flatten(0, 1)
