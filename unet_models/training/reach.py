"""Voxels around a patch that its augmentation reads (nnU-Net's initial patch size)."""

from __future__ import annotations

import math
from itertools import combinations

from unet_models.specs.segmentation import AugmentSpec


def augmentation_margin(patch_size: tuple[int, ...], spec: AugmentSpec) -> tuple[int, ...]:
    """Compute how far beyond each side of a patch the largest rotation and the strongest shrinking read, in voxels.

    As in nnU-Net rotations about the axes count one at a time: about all of them at once a few corner voxels lie
    farther out. ``spec.coarse_axis`` must be resolved; ``auto`` counts as None.
    """
    coarse = spec.coarse_axis if len(patch_size) == 3 and spec.coarse_axis != "auto" else None
    plane = [axis for axis in range(len(patch_size)) if axis != coarse]
    turned = [float(size) for size in patch_size]
    if spec.p_rotate > 0:
        for i, j in combinations(plane, 2):
            turned[i] = max(turned[i], _turned(patch_size[i], patch_size[j], spec.rotate_degrees))
            turned[j] = max(turned[j], _turned(patch_size[j], patch_size[i], spec.rotate_degrees))
    shrinking = min(spec.scale[0], 1.0) if spec.p_scale > 0 else 1.0
    extents = [size / shrinking if axis in plane else size for axis, size in enumerate(turned)]
    return tuple(max(math.ceil((e - n) / 2), 0) for e, n in zip(extents, patch_size, strict=True))


def _turned(along: int, across: int, degrees: float) -> float:
    """Compute the largest extent along an axis of an ``along`` x ``across`` rectangle turned by up to ``degrees``."""
    angle = min(math.radians(degrees), math.atan2(across, along))  # beyond it the extent shrinks again
    return along * math.cos(angle) + across * math.sin(angle)
