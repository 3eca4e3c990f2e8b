"""Candidates for a data set of volumes: full resolution, slices, and a low resolution before the full one.

Spacing and sizes follow nnU-Net (Isensee 2021, suppl. note 6), so that its published plans and ours are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.volumes.spacing import MAX_ANISOTROPY, majority_spacing
from flows.pipelines.segmentation.planning.networks import NETWORKS, PlannedNetwork
from flows.pipelines.segmentation.planning.sizes import Sizes, plan_sizes

COARSE_PERCENTILE = 10
"""Percentile of the spacings of an axis of thick slices: few cases are resampled to coarser voxels than they have."""
SMALL_SHARE = 0.25
"""Share of the median image below which a patch sees too little around it: a low resolution is planned, too."""
COARSENING = 1.03
"""Factor by which voxels grow until the patch covers that share."""
MAX_RATIO_BETWEEN_AXES = 2.0
"""Axes of voxels finer than that are coarsened before the others."""
MIN_VOXEL_RATIO = 2.0
"""A low resolution has at most one half of the voxels; else it is not worth a training."""
BESIDE = 1e-5
"""Difference in mm that keeps an axis of thick slices the coarsest."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that could be trained."""

    name: str
    """``3d_fullres``, ``2d`` or ``3d_lowres``, as in nnU-Net."""
    spacing: tuple[float, ...]
    """mm per axis."""
    shape: tuple[float, ...]
    """Median image in voxels of ``spacing``."""
    sizes: Sizes

    def in_order(self, axes: Sequence[int]) -> Candidate:
        """Return the same candidate with its axes in another order."""
        spacing, shape = (tuple(values[axis] for axis in axes) for values in (self.spacing, self.shape))
        sizes = replace(self.sizes, topology=self.sizes.topology.in_order(axes))
        return Candidate(self.name, spacing, shape, sizes)

    def thickened(self, axis: int, volume: Candidate) -> Candidate:
        """Return slices across an axis of a volume's candidate as patches of one voxel along it."""
        spacing, shape = list(self.spacing), list(self.shape)
        spacing.insert(axis, volume.spacing[axis])
        shape.insert(axis, volume.shape[axis])
        sizes = replace(self.sizes, topology=self.sizes.topology.thickened(axis))
        return Candidate(self.name, tuple(spacing), tuple(shape), sizes)


@dataclass(frozen=True, slots=True)
class Images:
    """Description of a data set for planning; axes of all lists in one order."""

    spacings: Sequence[Sequence[float]]
    """mm per axis, one entry per case."""
    shapes: Sequence[Sequence[int]]
    """Voxels per axis, one entry per case, without what a foreground crop removes."""
    num_classes: int
    """Number of classes, the background included."""


def plan_candidates(images: Images, memory_gb: float, network: PlannedNetwork = NETWORKS["nnunet"]) -> list[Candidate]:
    """Plan what fits the images, the most promising first; slices are those across the coarsest axis.

    2-D images have one candidate, ``2d``.
    """
    spacing = target_spacing(images)
    shape = median_shape(images, spacing)
    order = planning_order(spacing)
    num_voxels = math.prod(shape) * len(images.shapes)
    planner = _Planner(images.num_classes, memory_gb, network)
    slices = order if len(order) == 2 else order[1:]
    flat = planner.plan("2d", [spacing[a] for a in slices], [shape[a] for a in slices], num_voxels)
    if len(order) == 2:
        return [flat]
    ordered = [spacing[axis] for axis in order], [shape[axis] for axis in order]
    full = planner.plan("3d_fullres", *ordered, num_voxels)
    coarse = planner.plan_low_resolution(full, len(images.shapes))
    flat = flat.in_order(sorted(range(2), key=lambda i: slices[i]))
    back = sorted(range(3), key=lambda i: order[i])
    return [full.in_order(back), flat, *([coarse.in_order(back)] if coarse else [])]


def target_spacing(images: Images) -> tuple[float, ...]:
    """Return the voxel size in mm to resample to: typical along each axis, finer along an axis of thick slices.

    Slices are thick where their spacing is more than 3 times that of both other axes, and there are less than a third
    as many of them as pixels along each.
    """
    spacings, sizes = np.asarray(images.spacings, float), np.median(np.asarray(images.shapes), axis=0)
    typical = [majority_spacing(axis) or float(f"{np.median(axis):.6g}") for axis in spacings.T]
    coarse = int(np.argmax(typical))
    others = [axis for axis in range(len(typical)) if axis != coarse]
    coarsest_other = max(typical[axis] for axis in others)
    is_thick = typical[coarse] > MAX_ANISOTROPY * coarsest_other
    if len(typical) == 3 and is_thick and sizes[coarse] * MAX_ANISOTROPY < min(sizes[others]):
        finer = float(np.percentile(spacings[:, coarse], COARSE_PERCENTILE))
        typical[coarse] = finer if finer >= coarsest_other else coarsest_other + BESIDE
    return tuple(typical)


def median_shape(images: Images, spacing: Sequence[float]) -> tuple[float, ...]:
    """Return the median shape of the cases in voxels of ``spacing``."""
    shapes = [
        [round(n * own / wanted) for n, own, wanted in zip(shape, its, spacing, strict=True)]
        for shape, its in zip(images.shapes, images.spacings, strict=True)
    ]
    return tuple(float(each) for each in np.median(shapes, axis=0))


def planning_order(spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the order of axes in which sizes are planned, which decides where two cover the same share.

    The coarsest axis comes first, then the last to the first: nnU-Net's order, whose arrays are z, y, x.
    """
    if len(spacing) == 2:
        return (0, 1)
    backwards = sorted(range(len(spacing)), reverse=True)
    coarsest = max(backwards, key=lambda axis: spacing[axis])
    return (coarsest, *(axis for axis in backwards if axis != coarsest))


@dataclass(frozen=True, slots=True)
class _Planner:
    num_classes: int
    memory_gb: float
    network: PlannedNetwork

    def plan(self, name: str, spacing: Sequence[float], shape: Sequence[float], num_voxels: float) -> Candidate:
        sizes = plan_sizes(spacing, shape, num_voxels, self.num_classes, self.memory_gb, self.network)
        return Candidate(name, tuple(spacing), tuple(shape), sizes)

    def plan_low_resolution(self, full: Candidate, num_cases: int) -> Candidate | None:
        """Coarsen voxels, the finer ones first, until a patch covers a quarter of the median image."""
        voxels, spacing, found = math.prod(full.shape), np.array(full.spacing), None
        patch = full.sizes.topology.patch_size
        while math.prod(patch) / voxels < SMALL_SHARE:
            finer = spacing.max() / spacing > MAX_RATIO_BETWEEN_AXES
            spacing[finer if finer.any() else slice(None)] *= COARSENING
            shape = np.array(full.spacing) / spacing * np.array(full.shape)
            voxels = float(np.prod(shape))
            sizes = [round(float(each)) for each in shape]
            found = self.plan("3d_lowres", spacing.tolist(), sizes, voxels * num_cases)
            patch = found.sizes.topology.patch_size
        return found if math.prod(full.shape) / voxels >= MIN_VOXEL_RATIO else None
