"""Position of a training patch in its volume, and cutting it out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.mirroring import mirrored_indices
from data_pipelines.shards.index import ANNOTATED


def candidate_centres(voxels: np.ndarray, *, is_forced: bool) -> np.ndarray:
    """Choose the rows of a sample's (N, 1 + ndim) classes and voxels that a patch may be centred on.

    They are the foreground where it ``is_forced`` and there is some, else the annotated voxels, which are listed where
    others are ignored: patches of ignored voxels alone would teach nothing.
    """
    is_annotated = voxels[:, 0] == ANNOTATED
    return voxels[~is_annotated] if is_forced and not is_annotated.all() else voxels[is_annotated]


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


def cut_mirrored(
    volume: np.ndarray, corner: Sequence[int], patch: np.ndarray, inner: Sequence[tuple[int, int]]
) -> None:
    """Fill ``patch`` as ``cut`` does, but mirror what lies beyond both the volume and the part ``inner`` of the patch.

    ``inner`` holds the first voxel and the end of that part along each axis, in coordinates of the volume: where it
    sticks out of the volume it is zeros, and these are mirrored with the volume.
    """
    spatial = range(patch.ndim - len(corner), patch.ndim)
    places = []
    for n, c, length, (first, end) in zip(
        volume.shape[-len(corner) :], corner, patch.shape[-len(corner) :], inner, strict=True
    ):
        low = min(first, 0)
        places.append(mirrored_indices(c - low, c + length - low, max(end, n) - low) + low)
    lowest = [int(place.min()) for place in places]
    extents = [int(place.max()) + 1 - low for place, low in zip(places, lowest, strict=True)]
    read = np.empty((*patch.shape[: spatial.start], *extents), patch.dtype)
    cut(volume, lowest, read)
    for axis, place, low in zip(spatial, places, lowest, strict=True):
        read = np.take(read, place - low, axis=axis)
    patch[...] = read
