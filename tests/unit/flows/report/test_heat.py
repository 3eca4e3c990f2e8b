"""Heat: transparent where weights are 0, brighter with each, through the slices with the most of it."""

from __future__ import annotations

import numpy as np

from flows.report.heat import GAP, HEAT, MAX_OPACITY, draw_heat
from tests.support.pages import read_pixels


def test_a_weight_of_one_covers_and_of_zero_shows_the_image() -> None:
    image = np.full((1, 2, 8), 128.0)
    image[0, :, 0], image[0, :, -1] = 0, 256
    weights = np.zeros((2, 8), np.float32)
    weights[0] = 1
    pixels = read_pixels(draw_heat(image, weights, (1, 1), longest_side=80))
    assert pixels.shape == (20, 80, 3)
    grey = pixels[-1, 40].astype(float)
    np.testing.assert_allclose(grey, 128, atol=2)
    np.testing.assert_allclose(pixels[0, 40], MAX_OPACITY * HEAT[-1] + (1 - MAX_OPACITY) * grey, atol=2)


def test_planes_of_a_volume_go_through_the_heat_side_by_side() -> None:
    weights = np.zeros((6, 10, 4), np.float32)
    weights[5, 9, 3] = 1
    pixels = read_pixels(draw_heat(np.zeros((1, 6, 10, 4)), weights, (1, 1, 1), longest_side=100))
    assert pixels.shape == (100, 60 + GAP + 60 + GAP + 100, 3)  # axial, coronal, sagittal
    starts = (0, 60 + GAP, 2 * (60 + GAP))
    for start, height in zip(starts, (100, 40, 40), strict=True):
        first = (100 - height) // 2
        assert pixels[first + 2, start + 2].max() > 150, "the corner: patient's right, anterior, superior"
        assert pixels[first + height - 3, start + 30].max() == 0
    np.testing.assert_array_equal(pixels[:, 60 : 60 + GAP], 255)
