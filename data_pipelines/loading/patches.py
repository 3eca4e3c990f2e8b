"""Position of a training patch in its volume, and cutting it out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose_corner(
    rng: np.random.Generator, shape: Sequence[int], size: Sequence[int], foreground: np.ndarray | None
) -> tuple[int, ...]:
    """Draw the lowest corner of a patch of ``size`` voxels in a volume of ``shape`` voxels.

    With ``foreground``, an (N, 1 + ndim) array of class and voxel, the patch is centred on a voxel of a class drawn
    uniformly from those present, then moved inside the volume where it would stick out. Along an axis where the volume
    is smaller than the patch, the corner is negative and the volume lies in the middle of the patch.
    """
    inside = [max(n - s, 0) for n, s in zip(shape, size, strict=True)]
    centring = [min(n - s, 0) // 2 for n, s in zip(shape, size, strict=True)]
    if foreground is None or not len(foreground):
        return tuple(int(rng.integers(0, m + 1)) + c for m, c in zip(inside, centring, strict=True))
    classes = foreground[:, 0]
    of_class = foreground[classes == rng.choice(np.unique(classes))]
    voxel = of_class[rng.integers(len(of_class)), 1:]
    return tuple(int(np.clip(v - s // 2, 0, m)) + c for v, s, m, c in zip(voxel, size, inside, centring, strict=True))


def cut(volume: np.ndarray, corner: Sequence[int], patch: np.ndarray) -> None:
    """Fill ``patch`` with the part of ``volume``'s last axes that starts at ``corner``, zeros where it sticks out.

    ``volume`` may be memory-mapped: only the patch is read. Its leading axes must match those of the patch.
    """
    spatial = range(patch.ndim - len(corner), patch.ndim)
    source, target = [slice(None)] * patch.ndim, [slice(None)] * patch.ndim
    for axis, c in zip(spatial, corner, strict=True):
        first, last = max(c, 0), min(c + patch.shape[axis], volume.shape[axis])
        source[axis], target[axis] = slice(first, last), slice(first - c, last - c)
        if last - first < patch.shape[axis]:
            patch.fill(0)
    patch[tuple(target)] = volume[tuple(source)]
