"""Bicubic interpolation beside Pillow's and torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unet_models.restoration.resampling import enlarge, shrink


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_enlargement_is_that_of_torch_inside(factor: int) -> None:
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    theirs = F.interpolate(images, scale_factor=factor, mode="bicubic", antialias=True)
    border = 2 * factor  # there torch cuts its kernel off
    inner = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(enlarge(images, factor)[inner], theirs[inner], rtol=0, atol=1e-5)
    torch.testing.assert_close(enlarge(torch.ones(1, 1, 4, 4), factor), torch.ones(1, 1, 4 * factor, 4 * factor))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_is_that_of_pillow(factor: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 24), dtype=np.uint8)
    size = (24 // factor, 12 // factor)
    theirs = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)).astype(int)
    ours = shrink(torch.from_numpy(pixels)[None, None].float(), factor)[0, 0].clamp(0, 255).round().int().numpy()
    assert np.abs(ours - theirs).max() <= 1
