"""Overlays: planes as radiologists see them, true in aspect, the truth outlined and the prediction filled."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from flows.report.overlays import FILL_OPACITY, overlay_planes
from flows.report.palette import class_colour
from tests.support.pages import read_pixels
from tests.support.volumes import corner_volume


def test_planes_show_the_patients_right_on_the_left_and_anterior_and_superior_up() -> None:
    image, truth = corner_volume()
    planes = overlay_planes(image, truth, np.zeros_like(truth), (1, 1, 1), longest_side=200)
    assert [plane.name for plane in planes] == [
        "axial, slice 4 of 4",
        "coronal, slice 9 of 10",
        "sagittal, slice 6 of 6",
    ]
    for plane in planes:
        red = read_pixels(plane.png)[..., 0]
        rows, columns = red.shape
        # The centre of the bright corner, clear of its outline.
        assert red[: rows // 4].max() == 255
        assert red[rows // 2 :].max() < 40
        assert red[:, columns // 2 :].max() < 40


def test_pixels_have_the_true_aspect_and_one_scale() -> None:
    image, truth = corner_volume((6, 10, 4))
    planes = overlay_planes(image, truth, truth, (1.0, 1.0, 2.5), longest_side=300)
    sizes = [Image.open(io.BytesIO(plane.png)).size for plane in planes]
    assert sizes == [(180, 300), (180, 300), (300, 300)]


def test_slices_have_most_of_the_truth_else_of_the_prediction_else_the_middle() -> None:
    image = np.zeros((5, 6, 7))
    truth, prediction = np.zeros((2, 5, 6, 7), np.uint8)
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 4 of 7", "coronal, slice 4 of 6", "sagittal, slice 3 of 5"]
    prediction[1, 1, 1] = 1
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 2 of 7", "coronal, slice 2 of 6", "sagittal, slice 2 of 5"]
    truth[3, 3, 3:6] = 2
    truth[3, 4, 5] = 2
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 6 of 7", "coronal, slice 4 of 6", "sagittal, slice 4 of 5"]


def test_truth_is_an_outline_and_prediction_a_translucent_fill() -> None:
    image = np.full((10, 10), 100, np.uint8)
    truth, prediction = np.zeros((2, 10, 10), np.uint8)
    truth[0:4, 0:4] = 1
    prediction[6:10, 6:10] = 2
    (plane,) = overlay_planes(image, truth, prediction, (1, 1), longest_side=200)
    picture = read_pixels(plane.png)
    below_border = [tuple(picture[row, 40]) for row in (80, 79, 78, 77, 76)]  # from outside inwards
    hairline, plain = (35, 35, 35), (100, 100, 100)
    assert below_border == [plain, class_colour(1), class_colour(1), hairline, plain]
    mixed = (1 - FILL_OPACITY) * 100 + FILL_OPACITY * np.array(class_colour(2))
    assert picture[160, 160] == pytest.approx(mixed, abs=1)
    assert picture[125, 160] == pytest.approx(mixed, abs=1)


def test_two_dimensional_colour_images_keep_their_colours_and_orientation() -> None:
    image = np.zeros((3, 4, 8), np.uint8)
    image[0, :2], image[2, 2:] = 250, 90
    empty = np.zeros((4, 8), np.uint8)
    (plane,) = overlay_planes(image, empty, empty, (1, 1), longest_side=80)
    picture = read_pixels(plane.png)
    assert picture.shape == (40, 80, 3)
    assert tuple(picture[2, 40]) == (250, 0, 0)
    assert tuple(picture[37, 40]) == (0, 0, 90)


def test_first_channel_is_shown_and_constant_or_broken_voxels_do_no_harm() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    image = np.stack([np.full((4, 4, 4), 7.0), np.random.default_rng(0).normal(size=(4, 4, 4))])
    for constant in (image, np.full((4, 4, 4), math.nan)):
        for plane in overlay_planes(constant, empty, empty, (1, 1, 1)):
            assert read_pixels(plane.png).max() == 0
    image[0, 2:] = 9.0
    image[0, 0] = math.nan, math.inf, -math.inf, math.nan
    axial = read_pixels(overlay_planes(image, empty, empty, (1, 1, 1), longest_side=40)[0].png)[..., 0]
    assert axial[20, 5] == 255
    assert axial[20, 25] == 0


def test_overlays_refuse_what_does_not_fit_together() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"same spatial shape, got \(4, 4, 5\)"):
        overlay_planes(np.zeros((4, 4, 5)), labels, labels, (1, 1, 1))
    with pytest.raises(ValueError, match="spacing must be 3 positive"):
        overlay_planes(labels, labels, labels, (1, 0, 1))
    with pytest.raises(ValueError, match="2-D or 3-D"):
        overlay_planes(labels, labels[0, 0], labels[0, 0], (1,))
