"""Polygons fill what scikit-image fills, and what their area says."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from skimage.draw import polygon2mask

from data_pipelines.volumes.contours import fill_polygon, join_contours


@pytest.mark.parametrize("seed", range(5))
def test_any_polygon_is_that_of_scikit_image(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-5, 45, (9, 2))
    np.testing.assert_array_equal(fill_polygon(points, (40, 30)), polygon2mask((40, 30), points))


def test_the_area_of_an_ellipse() -> None:
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    mask = fill_polygon(np.stack([100 + 60 * np.cos(angles), 90 + 35 * np.sin(angles)], axis=1), (200, 180))
    assert mask.sum() == pytest.approx(np.pi * 60 * 35, rel=5e-3)
    assert np.argwhere(mask).mean(axis=0) == pytest.approx([100, 90], abs=0.1)


def test_neighbours_share_no_pixel_and_leave_none() -> None:
    left, right = ([[a, 0], [b, 0], [b, 4], [a, 4]] for a, b in ((0, 3), (3, 6)))
    masks = [fill_polygon(np.array(square, float), (6, 4)) for square in (left, right)]
    np.testing.assert_array_equal(masks[0] ^ masks[1], np.ones((6, 4)))
    assert not (masks[0] & masks[1]).any()


def test_outside_the_grid_is_nothing() -> None:
    assert not fill_polygon(np.array([[-9.0, -9.0], [-5.0, -9.0], [-5.0, -2.0]]), (4, 4)).any()
    assert fill_polygon(np.array([[-9.0, -9.0], [20.0, -9.0], [20.0, 20.0], [-9.0, 20.0]]), (4, 4)).all()


def box(low: int, high: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[low:high, low:high] = True
    return mask


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_holes_and_islands_in_any_order(order: tuple[int, ...]) -> None:
    contours = [box(1, 19), box(4, 16), box(8, 12)]
    filled, united = join_contours([contours[i] for i in order])
    np.testing.assert_array_equal(filled, box(1, 19) & ~box(4, 16) | box(8, 12))
    assert united == 0


def test_repeated_and_overlapping_contours_are_united() -> None:
    filled, united = join_contours([box(2, 10), box(2, 10), box(6, 14), box(0, 0)])
    np.testing.assert_array_equal(filled, box(2, 10) | box(6, 14))
    assert united == 2


def test_a_hole_may_touch_the_border() -> None:
    hole = box(3, 10)
    hole[2, 3] = True
    filled, united = join_contours([hole, box(3, 18)])
    np.testing.assert_array_equal(filled, box(3, 18) & ~hole)
    assert united == 0


def test_exclusive_contours_cancel_where_they_overlap() -> None:
    filled, united = join_contours([box(2, 10), box(6, 14)], exclusive=True)
    np.testing.assert_array_equal(filled, box(2, 10) ^ box(6, 14))
    assert united == 0
