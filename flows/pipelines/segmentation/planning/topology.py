"""Downsampling of a U-Net for a patch: which axes are halved between which stages (Isensee 2021, suppl. note 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_SIDE = 4
"""Voxels that an axis of the coarsest features keeps at least."""
MAX_RATIO = 2.0
"""An axis is halved only while its voxels are less than so many times as large as those of the finest axis."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Strides between stages, and the patch that they divide."""

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    """One entry per halving, finest first."""

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.strides) + 1

    @property
    def divisors(self) -> tuple[int, ...]:
        """Product of the strides of each axis."""
        return tuple(math.prod(stride[axis] for stride in self.strides) for axis in range(len(self.patch_size)))


def plan_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Halve axes while they are long enough, those of coarse voxels later; the patch is padded to what they divide.

    ``spacing`` in mm, ``patch_size`` in voxels, per axis in one order.
    """
    sizes, voxels = list(patch_size), list(spacing)
    strides: list[tuple[int, ...]] = []
    while halved := _axes_to_halve(sizes, voxels):
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(sizes))))
        for axis in halved:
            sizes[axis], voxels[axis] = math.ceil(sizes[axis] / 2), voxels[axis] * 2
    divisors = Topology(tuple(0 for _ in sizes), tuple(strides)).divisors
    padded = tuple(math.ceil(size / divisor) * divisor for size, divisor in zip(patch_size, divisors, strict=True))
    return Topology(padded, tuple(strides))


def _axes_to_halve(sizes: Sequence[float], voxels: Sequence[float]) -> set[int]:
    long = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_SIDE]
    if not long:
        return set()
    finest = min(voxels[axis] for axis in long)
    chosen = {axis for axis in long if voxels[axis] / finest < MAX_RATIO}
    if len(chosen) == 1 and sizes[next(iter(chosen))] < 3 * SMALLEST_SIDE:
        return set()  # one axis alone is halved only where it stays long
    return chosen
