"""Structural similarity of images (SSIM, Wang 2004)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unet_models.specs.restoration import SSIM_WINDOW as WINDOW

SIGMA = 1.5
"""Standard deviation of the Gaussian window in pixels (Wang 2004, sec. III-C)."""
K1, K2 = 0.01, 0.03


def ssim_map(
    restored: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels h w"]:
    """Compute SSIM (Wang 2004, eq. 13) of values in 0..1 for each whole window: h = height - 10.

    Raises ValueError for images smaller than the window.
    """
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {tuple(images.shape[2:])}")
    parts = torch.stack([restored, images, restored * restored, images * images, restored * images])
    mean_x, mean_y, xx, yy, xy = _blur(parts.flatten(0, 2)[:, None]).reshape(*parts.shape[:3], *_inner(images))
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    return luminance * (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)


def ssim(restored: Float[Tensor, "batch channels height width"], images: Tensor) -> Float[Tensor, " batch"]:
    """Compute the mean SSIM of each image, over its whole windows and channels."""
    return ssim_map(restored, images).flatten(1).mean(dim=1)


def _inner(images: Tensor) -> tuple[int, int]:
    return images.shape[2] - WINDOW + 1, images.shape[3] - WINDOW + 1


def _blur(images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n 1 h w"]:
    """Average over Gaussian windows, one axis after the other."""
    x = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (x / SIGMA) ** 2)
    kernel = (weights / weights.sum()).to(images)
    return F.conv2d(F.conv2d(images, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
