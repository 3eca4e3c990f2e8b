"""Scores of restored images beside the true ones: PSNR, SSIM and colourfulness, of values in 0..1."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unet_models.restoration.similarity import iter_ssim_strips
from unet_models.specs.restoration import SSIM_WINDOW as WINDOW

MAX_PSNR = 100.0
"""PSNR of images that are equal, in dB: infinity has no mean."""


def psnr(
    restored: Float[Tensor, "3 height width"],
    image: Float[Tensor, "3 height width"],
    region: Float[Tensor, "1 height width"] | None = None,
) -> float:
    """Compute the peak signal-to-noise ratio in dB, at most ``MAX_PSNR``; where ``region`` is 1, if it is given.

    NaN where the region is empty.
    """
    error = (restored.double() - image.double()).square().mean(dim=0)
    error = error.mean() if region is None else error[region[0] > 0].mean()
    if math.isnan(error):
        return math.nan
    return min(-10 * math.log10(max(float(error), 1e-300)), MAX_PSNR)


def similarity(
    restored: Float[Tensor, "3 height width"],
    image: Float[Tensor, "3 height width"],
    region: Float[Tensor, "1 height width"] | None = None,
) -> float:
    """Compute SSIM, averaged over all whole windows, or those whose centre lies where ``region`` is 1.

    NaN where there is no such window.
    """
    if min(image.shape[1:]) < WINDOW:
        return math.nan
    total, count, border = 0.0, 0, WINDOW // 2
    for rows, strip in iter_ssim_strips(restored, image):
        found = strip if region is None else strip[region[0, rows, border:-border] > 0]
        total, count = total + float(found.sum()), count + found.numel()
    return total / count if count else math.nan


def temporal_error(
    frames: tuple[Float[Tensor, "3 height width"], Float[Tensor, "3 height width"]],
    truths: tuple[Float[Tensor, "3 height width"], Float[Tensor, "3 height width"]],
) -> float:
    """Compute the mean absolute difference between the change of two restored frames and that of the true ones, in
    8-bit levels: 0 is no flicker that the clip does not have."""
    changes = [second.double() - first.double() for first, second in (frames, truths)]
    return float((changes[0] - changes[1]).abs().mean()) * 255


def colourfulness(image: Float[Tensor, "3 height width"]) -> float:
    """Compute the colourfulness (Hasler and Suesstrunk 2003, sec. 7), of values as in 0..255."""
    red, green, blue = image.double() * 255
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(1)
    spread = opponents.std(dim=1, correction=0).square().sum().sqrt()
    strength = opponents.mean(dim=1).square().sum().sqrt()
    return float(spread + 0.3 * strength)
