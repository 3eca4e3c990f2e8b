"""Topology of a U-Net for a patch: strides and kernels of its stages (Isensee 2021, suppl. note 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_SIDE = 4
"""Voxels that an axis of the coarsest features keeps at least."""
MAX_RATIO = 2.0
"""An axis is halved, and convolved, only while its voxels are less than so many times as large as the finest."""
KERNEL = 3


@dataclass(frozen=True, slots=True)
class Topology:
    """Strides between stages, kernels of the stages, and the patch that the strides divide."""

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    """One entry per halving, finest first."""
    kernels: tuple[tuple[int, ...], ...]
    """One entry per stage, finest first: 1 along axes of voxels that are still coarse, else 3."""

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.strides) + 1

    @property
    def divisors(self) -> tuple[int, ...]:
        """Product of the strides of each axis."""
        return tuple(math.prod(stride[axis] for stride in self.strides) for axis in range(len(self.patch_size)))

    def in_order(self, axes: Sequence[int]) -> Topology:
        """Return the same topology with its axes in another order: the new axis i is the old ``axes[i]``."""
        patch, *rest = (
            tuple(sizes[axis] for axis in axes) for sizes in (self.patch_size, *self.strides, *self.kernels)
        )
        return Topology(patch, tuple(rest[: len(self.strides)]), tuple(rest[len(self.strides) :]))

    def thickened(self, axis: int) -> Topology:
        """Return the same topology in one dimension more: one voxel along a new axis, which nothing looks along."""
        patch, *rest = ((*sizes[:axis], 1, *sizes[axis:]) for sizes in (self.patch_size, *self.strides, *self.kernels))
        return Topology(patch, tuple(rest[: len(self.strides)]), tuple(rest[len(self.strides) :]))


def plan_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Halve axes while they are long enough, those of coarse voxels later; the patch is padded to what they divide.

    ``spacing`` in mm, ``patch_size`` in voxels, per axis in one order.
    """
    sizes, voxels, kernel = list(patch_size), list(spacing), [1] * len(spacing)
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    while halved := _axes_to_halve(sizes, voxels):
        kernel = [KERNEL if size / min(voxels) < MAX_RATIO else own for own, size in zip(kernel, voxels, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(sizes))))
        for axis in halved:
            sizes[axis], voxels[axis] = math.ceil(sizes[axis] / 2), voxels[axis] * 2
    kernels.append((KERNEL,) * len(sizes))
    divisors = [math.prod(stride[axis] for stride in strides) for axis in range(len(sizes))]
    padded = tuple(math.ceil(size / divisor) * divisor for size, divisor in zip(patch_size, divisors, strict=True))
    return Topology(padded, tuple(strides), tuple(kernels))


def _axes_to_halve(sizes: Sequence[float], voxels: Sequence[float]) -> set[int]:
    long = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_SIDE]
    if not long:
        return set()
    finest = min(voxels[axis] for axis in long)
    chosen = {axis for axis in long if voxels[axis] / finest < MAX_RATIO}
    if len(chosen) == 1 and sizes[next(iter(chosen))] < 3 * SMALLEST_SIDE:
        return set()  # one axis alone is halved only where it stays long
    return chosen
