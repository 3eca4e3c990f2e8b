"""CIELAB beside scikit-image's, and the grid of quantised colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color

from unet_models.restoration.colour import colour_grid, lab_to_rgb, rgb_to_lab


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """All kinds of colours, black, white and the near-black part of the curve among them."""
    steps = torch.tensor([0, 0.01, 0.04, 0.05, 0.3, 0.7, 1.0], dtype=torch.float64)
    return torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 7, 49)


def test_lab_is_that_of_scikit_image(images: torch.Tensor) -> None:
    theirs = color.rgb2lab(images[0].movedim(0, -1).numpy(), illuminant="D65", observer="2")
    np.testing.assert_allclose(rgb_to_lab(images)[0].movedim(0, -1).numpy(), theirs, atol=2e-4)  # of its matrix
    np.testing.assert_allclose(rgb_to_lab(torch.ones(1, 3, 1, 1))[0, :, 0, 0], [100, 0, 0], atol=2e-2)


def test_round_trip_and_colours_outside_srgb(images: torch.Tensor) -> None:
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(images)).numpy(), images.numpy(), atol=1e-6)
    vivid = torch.tensor([50.0, 120.0, 120.0]).view(1, 3, 1, 1)
    assert set(lab_to_rgb(vivid).flatten().tolist()) & {0.0, 1.0}


def test_black_has_a_finite_gradient() -> None:
    images = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab_to_rgb(rgb_to_lab(images) + 1.0).sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_grid_holds_the_colours_of_srgb() -> None:
    grid = colour_grid()
    assert 200 < len(grid) < 313, "those of sRGB, fewer than Zhang's 313 of a wider gamut"
    assert set((grid % 10).flatten().tolist()) == {0.0}
