"""Surface distances against closed forms and MONAI."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import create_table_neighbour_code_to_contour_length as monai_lengths
from monai.metrics.utils import create_table_neighbour_code_to_surface_area as monai_areas
from scipy.ndimage import distance_transform_edt, gaussian_filter

from unet_models.metrics.surface import boundary_voxels, diagonal_mm, hd95_mm, surface_dice
from unet_models.metrics.surface_elements import element_sizes, surface_elements

# MONAI warns of an argument that its own functions pass on.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (3.0, 1.0, 0.5), (0.3, 0.3, 5.0), (0.7, 1.3, 2.9)]
spacings_mm = st.sampled_from(SPACINGS)


def box_mask(shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth random shapes of several parts and holes, some of them cut off by the border."""
    return gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5) > 0.05


def mask_pairs():
    shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5)
    return shapes.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))).filter(
        lambda pair: pair[0].any() and pair[1].any()
    )


def batched(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def monai_hd95(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    return compute_hausdorff_distance(
        batched(prediction), batched(truth), include_background=True, percentile=95, spacing=list(spacing)
    ).item()


def monai_surface_dice(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> float:
    return compute_surface_dice(
        batched(prediction),
        batched(truth),
        [tolerance],
        include_background=True,
        spacing=list(spacing),
        use_subvoxels=True,
    ).item()


# Surface elements


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_256_blocks_are_monais(spacing: tuple[float, ...]):
    np.testing.assert_allclose(element_sizes(np.array(spacing)), monai_areas(spacing)[0], rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_lengths_of_all_16_blocks_are_monais(spacing: tuple[float, ...]):
    np.testing.assert_allclose(element_sizes(np.array(spacing[:2])), monai_lengths(spacing[:2])[0], rtol=1e-6)


def test_areas_known_in_closed_form():
    areas = element_sizes(np.ones(3))
    assert areas[0b00000000] == areas[0b11111111] == 0
    assert areas[0b10000000] == pytest.approx(np.sqrt(3) / 8)  # one corner: a triangle
    assert areas[0b11000000] == pytest.approx(np.sqrt(2) / 2)  # one edge: a slanted rectangle
    assert areas[0b11110000] == pytest.approx(1)  # one face: a plane
    assert areas[0b11101000] == pytest.approx(3 * np.sqrt(3) / 4)  # a corner and its neighbours: a regular hexagon
    assert areas[0b10000001] == pytest.approx(np.sqrt(3) / 4)  # opposite corners: two triangles


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_follow_rotations_reflections_and_exchange_of_inside_and_outside(spacing: tuple[float, ...]):
    areas = element_sizes(np.array(spacing))
    np.testing.assert_allclose(areas, areas[::-1], rtol=1e-12)  # code 255 - c is the complement of c
    weights = 2 ** np.arange(7, -1, -1)
    corners = np.array([[int(bit) for bit in f"{code:08b}"] for code in range(256)]).reshape(256, 2, 2, 2)
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = corners.transpose(0, *(1 + axis for axis in order))
        turned = turned[:, :: flips[0], :: flips[1], :: flips[2]].reshape(256, 8) @ weights
        np.testing.assert_allclose(element_sizes(np.array(spacing)[list(order)])[turned], areas, rtol=1e-12)


def test_surface_of_a_box_is_its_faces_with_bevelled_edges_and_corners():
    (a, b, c), (x, y, z) = (4, 3, 5), (1.0, 2.0, 0.5)
    mask = box_mask((7, 8, 9), (1, 2, 3), (1 + a, 2 + b, 3 + c))
    faces = 2 * ((a - 1) * (b - 1) * x * y + (b - 1) * (c - 1) * y * z + (a - 1) * (c - 1) * x * z)
    edges = 4 * ((a - 1) * x * np.hypot(y, z) / 2 + (b - 1) * y * np.hypot(x, z) / 2 + (c - 1) * z * np.hypot(x, y) / 2)
    corners = np.linalg.norm([y * z, x * z, x * y])  # 8 triangles of |n| / 8
    assert surface_elements(mask, np.array([x, y, z]))[1].sum() == pytest.approx(faces + edges + corners)


def test_outline_of_a_rectangle_is_its_sides_with_bevelled_corners():
    mask = box_mask((6, 9), (0, 2), (4, 9))  # it touches the border on two sides
    outline = 2 * (3 * 2.0 + 6 * 0.5) + 4 * np.hypot(2.0, 0.5) / 2
    assert surface_elements(mask, np.array([2.0, 0.5]))[1].sum() == pytest.approx(outline)


def test_boundary_voxels_of_a_box_are_its_shell():
    mask = box_mask((6, 6, 6), (0, 1, 1), (5, 5, 5))
    inner = box_mask((6, 6, 6), (1, 2, 2), (4, 4, 4))
    np.testing.assert_array_equal(boundary_voxels(mask), mask & ~inner)


# 95 % Hausdorff distance


def test_hd95_between_two_voxels_is_their_distance():
    prediction, truth = np.zeros((2, 5, 6, 7), dtype=bool)
    prediction[0, 1, 2] = truth[1, 4, 6] = True
    assert hd95_mm(prediction, truth, (12.0, 1.0, 1.0)) == pytest.approx(13)  # 12, 3, 4
    assert hd95_mm(prediction[:, 1], truth[:, 4], (1.0, 2.0)) == pytest.approx(np.hypot(1, 8))


def test_hd95_takes_the_larger_direction_and_interpolates_the_percentile():
    prediction = np.zeros((1, 21), dtype=bool)
    prediction[0] = True  # every voxel of a one-voxel row is boundary, at 0 to 20 from the first
    truth = box_mask((1, 21), (0, 0), (1, 1))
    assert hd95_mm(prediction, truth, (1.0, 1.0)) == hd95_mm(truth, prediction, (1.0, 1.0)) == pytest.approx(19)
    assert hd95_mm(prediction[:, :11], truth[:, :11], (1.0, 2.0)) == pytest.approx(19)  # 9.5 of 0 .. 10, doubled


def test_hd95_percentile_is_exact_in_a_case_where_single_precision_is_not():
    # The missing corner is 1 from the truth, 17 boundary voxels are at 0: rank 0.95 x 17 = 16.15, hence 0.15.
    prediction, truth = np.ones((2, 2, 3, 3), dtype=bool)
    truth[0, 0, 0] = False
    assert hd95_mm(prediction, truth, (1.0, 1.0, 1.0)) == pytest.approx(0.15, rel=1e-12)
    assert monai_hd95(prediction, truth, (1.0, 1.0, 1.0)) == pytest.approx(0.15, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", [(24, 31), (13, 18, 15)])
def test_both_metrics_are_monais_on_smooth_shapes(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int):
    prediction, truth, spacing = blobs(shape, seed), blobs(shape, seed + 100), spacing[: len(shape)]
    assert hd95_mm(prediction, truth, spacing) == pytest.approx(monai_hd95(prediction, truth, spacing), rel=1e-6)
    for tolerance in (0.0, 0.5, 1.0, 2.5):
        expected = monai_surface_dice(prediction, truth, spacing, tolerance)
        assert surface_dice(prediction, truth, spacing, tolerance) == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(mask_pairs(), spacings_mm, st.sampled_from([0.0, 1.0, 2.0]))
def test_both_metrics_are_monais_on_any_masks(
    pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...], tolerance: float
):
    prediction, truth = pair
    spacing = spacing[: truth.ndim]
    # MONAI works out the rank 0.95 (n - 1) in float32: off by up to n 2^-24 of the gap between two distances.
    rounding = truth.size * 2**-24 * diagonal_mm(truth.shape, spacing)
    expected = monai_hd95(prediction, truth, spacing)
    assert hd95_mm(prediction, truth, spacing) == pytest.approx(expected, rel=1e-6, abs=rounding)
    expected = monai_surface_dice(prediction, truth, spacing, tolerance)
    assert surface_dice(prediction, truth, spacing, tolerance) == pytest.approx(expected, rel=1e-5)


def test_hd95_is_that_of_a_distance_transform():
    prediction, truth, spacing = blobs((20, 22, 18), 1), blobs((20, 22, 18), 2), (2.0, 0.7, 1.1)
    edges = boundary_voxels(prediction), boundary_voxels(truth)
    directed = (
        distance_transform_edt(~edges[1], sampling=spacing)[edges[0]],
        distance_transform_edt(~edges[0], sampling=spacing)[edges[1]],
    )
    assert hd95_mm(prediction, truth, spacing) == pytest.approx(max(np.percentile(d, 95) for d in directed))


# Surface Dice


def test_surface_dice_of_a_shifted_plane_jumps_at_the_shift():
    # Two slabs that fill the image but for their last layers; the tops lie 2 voxels of 1.5 mm apart.
    prediction, truth = box_mask((20, 9, 9), (0, 0, 0), (10, 9, 9)), box_mask((20, 9, 9), (0, 0, 0), (12, 9, 9))
    assert surface_dice(prediction, truth, (1.5, 1.0, 1.0), 3.0) == pytest.approx(1)
    assert surface_dice(prediction, truth, (1.5, 1.0, 1.0), 2.9) < 1


def test_surface_dice_weighs_elements_by_length():
    # A 3x3 square and its top row. Tolerance 0 counts the shared elements alone: three sides of the row.
    square, row = box_mask((5, 5), (1, 1), (4, 4)), box_mask((5, 5), (1, 1), (2, 4))
    diagonal = np.sqrt(2) / 2
    square_length, row_length = 8 + 4 * diagonal, 4 + 4 * diagonal
    # Blocks with surface of both: two bevels and two units above, and the ends of the row below it, where the
    # square has a straight unit and the row a bevel.
    shared_of_square, shared_of_row = 2 * diagonal + 2 + 2, 4 * diagonal + 2
    expected = (shared_of_square + shared_of_row) / (square_length + row_length)
    assert surface_dice(square, row, (1.0, 1.0), 0.0) == pytest.approx(expected)


def test_tolerance_includes_distances_that_equal_it_but_for_rounding():
    prediction, truth = box_mask((1, 9), (0, 0), (1, 2)), box_mask((1, 9), (0, 3), (1, 5))
    spacing = (1.0, float(np.float32(0.3)))  # 3 x 0.30000001 > 0.9
    assert surface_dice(prediction, truth, spacing, 0.9) == 1
    assert surface_dice(prediction, truth, spacing, 0.89) < 1


def test_surface_dice_grows_with_tolerance_from_shared_elements_to_one():
    prediction, truth = blobs((12, 12, 12), 3), blobs((12, 12, 12), 4)
    values = [surface_dice(prediction, truth, (1.0, 1.0, 2.0), tolerance) for tolerance in (0, 1, 2, 4, 50)]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] == 1


# Both


@settings(deadline=None, max_examples=40)
@given(mask_pairs(), spacings_mm, st.integers(1, 3))
def test_order_padding_and_unit_do_not_matter(
    pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...], margin: int
):
    prediction, truth = pair
    spacing = spacing[: truth.ndim]
    distance, share = hd95_mm(prediction, truth, spacing), surface_dice(prediction, truth, spacing, 1.0)
    padded = np.pad(prediction, margin), np.pad(truth, margin)
    doubled = tuple(2 * size for size in spacing)
    assert hd95_mm(truth, prediction, spacing) == pytest.approx(distance)
    assert hd95_mm(*padded, spacing) == pytest.approx(distance)
    assert hd95_mm(prediction, truth, doubled) == pytest.approx(2 * distance)
    assert surface_dice(truth, prediction, spacing, 1.0) == pytest.approx(share)
    assert surface_dice(*padded, spacing, 1.0) == pytest.approx(share)
    assert surface_dice(prediction, truth, doubled, 2.0) == pytest.approx(share)
    assert hd95_mm(truth, truth, spacing) == 0
    assert surface_dice(truth, truth, spacing, 0.0) == 1
    assert distance <= diagonal_mm(truth.shape, spacing)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 12)])
def test_empty_masks(shape: tuple[int, ...]):
    empty, full, spacing = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool), (2.0,) * len(shape)
    assert np.isnan(hd95_mm(empty, empty, spacing))
    assert np.isnan(surface_dice(empty, empty, spacing, 1.0))
    for pair in ((empty, full), (full, empty)):
        assert hd95_mm(*pair, spacing) == pytest.approx(2 * np.linalg.norm(shape))  # 10 mm, 26 mm
        assert hd95_mm(*pair, spacing, one_empty_mm=99.0) == 99
        assert surface_dice(*pair, spacing, 1.0) == 0


def test_bad_input_is_refused():
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match=r"got \(3, 3\) and \(3, 4\)"):
        hd95_mm(mask, np.ones((3, 4), dtype=bool), (1.0, 1.0))
    with pytest.raises(ValueError, match="boolean, got int64"):
        surface_dice(mask.astype(np.int64), mask, (1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="2 positive numbers"):
        hd95_mm(mask, mask, (1.0, 1.0, 1.0))
    for tolerance in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="tolerance_mm must be"):
            surface_dice(mask, mask, (1.0, 1.0), tolerance)
