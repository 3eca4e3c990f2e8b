"""Order in which an image is predicted, so that the prediction stays within a memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = Sequence[slice]
"""Range of voxels of an image, per axis."""

PROCESS_GB = 0.7
"""Memory of Python and torch before any image is read, in GB."""
NUM_PLANES = 6
"""Planes of all classes that exist at once while logits are resampled to the original grid."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Order of a prediction. It changes no result but for float rounding."""

    axis: int = 0
    """Spatial axis along which planes are finished."""
    num_strips: int = 1
    """Strips, along another axis, that are swept one after the other; windows that reach two are predicted twice."""
    batch_size: int | None = None
    """Most windows per forward pass; None: as many as the settings say."""
    gigabytes: float = 0.0
    """Estimated memory of the process, in GB, without the features of the network."""


def plan_sweep(
    shape: Sequence[int],
    restored: Sequence[int],
    patch_size: Sequence[int],
    channels: int,
    classes: int,
    batch_size: int,
    limit_gb: float,
    num_planes: int = NUM_PLANES,
    num_copies: int = 1,
) -> Sweep:
    """Choose the sweep of an image of ``shape``, whose labels are resampled to ``restored``, within ``limit_gb`` GB.

    ``num_planes`` planes of all classes exist at once on the grid of the labels, ``num_copies`` times the logits of a
    batch of windows. Fewer windows at a time cost nothing, strips cost time: those come last. Where nothing stays
    within the limit, it is the sweep that needs least.
    """
    padded = [max(n, p) for n, p in zip(shape, patch_size, strict=True)]
    axis = min(range(len(shape)), key=lambda a: (patch_size[a] / padded[a], a))
    planes, restored_planes = math.prod(padded) // padded[axis], math.prod(restored) // restored[axis]
    fixed = PROCESS_GB * 1e9 + channels * math.prod(padded) * 4 + 2 * math.prod(restored)
    window = classes * math.prod(patch_size) * 4

    def candidate(batch: int, num_strips: int) -> Sweep:
        sums = patch_size[axis] * planes * (classes + 1) * 4
        resampled = num_planes * restored_planes * classes * 4
        windows = window * (1 + batch * num_copies)
        return Sweep(axis, num_strips, batch, (fixed + windows + (sums + resampled) / num_strips) / 1e9)

    most = max(n // p for a, (n, p) in enumerate(zip(padded, patch_size, strict=True)) if a != axis)
    found = [candidate(batch_size, 1), *(candidate(1, number) for number in range(1, most + 1))]
    return next((each for each in found if each.gigabytes <= limit_gb), min(found, key=lambda each: each.gigabytes))
