"""What a data set allows: spacing, full resolution, slices, low resolution. Beside nnU-Net: tests/peers."""

from __future__ import annotations

import pytest

from flows.pipelines.segmentation.planning.candidates import Images, plan_candidates, planning_order, target_spacing


def images(spacing: tuple[float, ...], shape: tuple[int, ...], number: int = 10) -> Images:
    return Images([spacing] * number, [shape] * number, num_classes=3)


def test_thick_slices_take_a_low_percentile() -> None:
    """Of 2 to 20 mm the tenth percentile, where there are few of them; never finer than in the plane."""
    thick = [(0.7, 0.7, float(value)) for value in range(2, 21)]
    few = Images(thick, [(320, 320, 20)] * len(thick), 2)
    assert target_spacing(few) == (0.7, 0.7, pytest.approx(3.8))
    many = Images(thick, [(320, 320, 200)] * len(thick), 2)
    assert target_spacing(many) == (0.7, 0.7, 11)
    coarse_in_plane = Images([(5.0, 5.0, z) for z in (2.0, 2.0, 20.0, 20.0, 20.0)], [(320, 320, 20)] * 5, 2)
    assert target_spacing(coarse_in_plane) == (5, 5, pytest.approx(5, abs=1e-4))


def test_most_cases_are_not_resampled() -> None:
    assert target_spacing(images((1.0, 1.0, 1.0), (8, 8, 8))) == (1, 1, 1)
    assert target_spacing(Images([(z, 1, 1) for z in (1.0, 1.2, 1.31, 1.4)], [(8, 8, 8)] * 4, 2))[0] == 1.255


def test_an_image_of_a_few_patches_has_full_resolution_and_slices() -> None:
    full, slices = plan_candidates(images((1, 1, 1), (36, 50, 35), 260), memory_gb=8)
    assert (full.name, full.sizes.topology.patch_size, full.sizes.batch_size) == ("3d_fullres", (40, 56, 40), 9)
    assert (slices.name, slices.spacing, slices.sizes.topology.patch_size) == ("2d", (1, 1), (40, 56))


def test_slices_are_those_across_the_coarsest_axis() -> None:
    full, slices = plan_candidates(images((0.6, 3.6, 0.7), (320, 20, 256)), memory_gb=8)
    assert slices.spacing == (0.6, 0.7)
    assert slices.sizes.topology.patch_size == (320, 256)
    assert full.sizes.topology.kernels[0] == (3, 1, 3)
    assert full.sizes.topology.kernels[-1] == (3, 3, 3)
    assert full.sizes.topology.strides[0] == (2, 1, 2)


def test_a_large_image_has_a_low_resolution() -> None:
    """Voxels grow until the patch covers a quarter of the image; finer axes first."""
    full, _, low = plan_candidates(images((0.8, 0.8, 6.0), (512, 512, 200)), memory_gb=8)
    assert low.name == "3d_lowres"
    assert low.spacing[0] > 2 * full.spacing[0]
    assert low.spacing[2] == 6, "the two others are still finer"
    patch, shape = low.sizes.topology.patch_size, low.shape
    assert patch[0] * patch[1] * patch[2] >= 0.25 * shape[0] * shape[1] * shape[2]


def test_images_have_one_candidate() -> None:
    (only,) = plan_candidates(images((1, 1), (40, 64)), memory_gb=8)
    assert (only.name, only.sizes.topology.patch_size) == ("2d", (40, 64))


def test_order_of_planning_is_that_of_nnunet() -> None:
    """The coarsest axis, then z, y, x."""
    assert planning_order((1, 1, 1)) == (2, 1, 0)
    assert planning_order((3, 1, 1)) == (0, 2, 1)
    assert planning_order((1, 1)) == (0, 1)
