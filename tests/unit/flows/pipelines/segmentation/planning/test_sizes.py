"""Patch, strides and batch, beside what nnU-Net is published to plan."""

from __future__ import annotations

import math

import pytest

from flows.pipelines.segmentation.planning.sizes import plan_sizes
from flows.pipelines.segmentation.planning.topology import plan_topology


@pytest.mark.parametrize(
    ("spacing", "shape", "num_cases", "patch", "batch"),
    [
        ((1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 9),  # hippocampus, 3-D
        ((1, 1), (50, 35), 260 * 36, (56, 40), 366),  # hippocampus, slices
        ((0.8, 0.8, 0.8), (512, 512, 450), 100, (128, 128, 128), 2),  # CT of fine voxels: 8 GB
        ((5.0, 1.25, 1.25), (20, 320, 320), 100, (20, 320, 256), 2),  # thick slices
    ],
)
def test_published_plans(
    spacing: tuple[float, ...], shape: tuple[float, ...], num_cases: int, patch: tuple[int, ...], batch: int
) -> None:
    sizes = plan_sizes(spacing, shape, math.prod(shape) * num_cases, num_classes=3, memory_gb=8)
    assert (sizes.topology.patch_size, sizes.batch_size) == (patch, batch)


def test_thick_slices_are_halved_later() -> None:
    """In the plane first, until its voxels are at most twice as fine as the slices are thick."""
    topology = plan_topology((5.0, 1.25, 1.25), (20, 320, 256))
    assert topology.strides[:2] == ((1, 2, 2), (1, 2, 2))
    assert topology.strides[2] == (2, 2, 2)
    assert topology.divisors[0] == 4


def test_no_axis_gets_shorter_than_four() -> None:
    assert plan_topology((1, 1), (7, 7)).strides == ()
    assert plan_topology((1, 1), (8, 8)).strides == ((2, 2),)
    assert plan_topology((1, 1), (11, 7)).strides == (), "one axis alone is halved from 12 voxels on"
    assert plan_topology((1, 1), (12, 7)).strides == ((2, 1),)


def test_less_memory_makes_a_smaller_patch_and_more_a_larger_batch() -> None:
    shape = (512, 512, 450)
    small, large = (plan_sizes((0.8,) * 3, shape, math.prod(shape) * 100, 3, memory) for memory in (4, 40))
    assert small.topology.patch_size < (128, 128, 128) < large.topology.patch_size
    assert small.channels[-1] == 320
    slices = [plan_sizes((1, 1), (256, 256), 256 * 256 * 10_000, 3, memory).batch_size for memory in (8, 16)]
    assert slices[1] == pytest.approx(2 * slices[0], abs=1)
