"""Networks of images see the slices of volumes."""

from __future__ import annotations

import torch
from torch import nn

from unet_models.networks.slices import Slicewise


def test_slices_are_images() -> None:
    conv, images = nn.Conv2d(1, 2, 3, padding=1), torch.randn(2, 1, 1, 5, 6)
    torch.testing.assert_close(Slicewise(conv)(images)[:, :, 0], conv(images[:, :, 0]))
