"""Structural similarity of images (SSIM, Wang 2004)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unet_models.specs.restoration import SSIM_WINDOW as WINDOW

SIGMA = 1.5
"""Standard deviation of the Gaussian window in pixels (Wang 2004, sec. III-C)."""
K1, K2 = 0.01, 0.03
STRIP_PIXELS = 1 << 17
"""Windows whose SSIM is computed at once where there is no gradient: some 90 MB."""
MIN_STRIP_ROWS = 16
"""Minimum number of their rows, also in very wide images: 10 rows more are read each time."""


def ssim_map(
    restored: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels h w"]:
    """Compute SSIM (Wang 2004, eq. 13) of values in 0..1 for each whole window: h = height - 10.

    Raises ValueError for images smaller than the window.
    """
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {tuple(images.shape[2:])}")
    moments = _moments(restored, images)
    return _compare(_convolve(moments.flatten(0, 2)[:, None]).reshape(*moments.shape[:3], *_inner(images)))


def ssim(restored: Float[Tensor, "batch channels height width"], images: Tensor) -> Float[Tensor, " batch"]:
    """Compute the mean SSIM of each image, over its whole windows and channels."""
    return ssim_map(restored, images).flatten(1).mean(dim=1)


def iter_ssim_strips(
    restored: Float[Tensor, "channels height width"], images: Float[Tensor, "channels height width"]
) -> Iterator[tuple[slice, Float[Tensor, "rows w"]]]:
    """Yield what ``ssim_map`` computes, in float64 and averaged over the channels, in strips: the rows of the image
    that a strip's windows are centred on, and their SSIM.

    Windows are local, so strips change nothing, and memory does not grow with the height of an image.
    """
    height, width = images.shape[1:]
    rows, border = max(STRIP_PIXELS // width, MIN_STRIP_ROWS), WINDOW // 2
    for top in range(0, height - 2 * border, rows):
        bottom = min(top + rows, height - 2 * border)
        read = slice(top, bottom + 2 * border)
        moments = _moments(restored[:, read].double(), images[:, read].double())
        yield slice(top + border, bottom + border), _compare(_add_shifted(moments)).mean(dim=0)


def _moments(x: Tensor, y: Tensor) -> Float[Tensor, "5 ..."]:
    """Stack what is averaged over each window."""
    return torch.stack([x, y, x * x, y * y, x * y])


def _compare(averages: Float[Tensor, "5 ..."]) -> Float[Tensor, "..."]:
    """Compute SSIM of windows from the averages of their moments."""
    mean_x, mean_y, xx, yy, xy = averages
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    return luminance * (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)


def _inner(images: Tensor) -> tuple[int, int]:
    return images.shape[2] - WINDOW + 1, images.shape[3] - WINDOW + 1


def _weights() -> Float[Tensor, " window"]:
    """Compute the weights of a Gaussian window along one axis."""
    x = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (x / SIGMA) ** 2)
    return weights / weights.sum()


def _convolve(images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n 1 h w"]:
    """Average over Gaussian windows, one axis after the other."""
    kernel = _weights().to(images)
    return F.conv2d(F.conv2d(images, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _add_shifted(images: Float[Tensor, "... height width"]) -> Float[Tensor, "... h w"]:
    """Average as ``_convolve`` does, for float64 on CPUs: there torch's convolution copies every window (1.6 GB per
    megapixel). With gradients the convolution is the faster one."""
    for axis in (-2, -1):
        length = images.shape[axis] - WINDOW + 1
        first, *others = _weights().tolist()
        total = images.narrow(axis, 0, length) * first
        for i, weight in enumerate(others, start=1):
            total.add_(images.narrow(axis, i, length), alpha=weight)
        images = total
    return images
