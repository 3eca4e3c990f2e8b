"""Logits of a prepared case to its label map as stored: resampled, decided, uncropped, stored axes.

Logits arrive and are resampled plane by plane, so that they are never held as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.preprocess import Preprocessing, restore_mask

Box = tuple[slice, ...]
"""Range of voxels of the prepared grid, per axis."""
PredictPlanes = Callable[[Box], Iterable[Float[Tensor, " classes *plane"]]]
"""Predicts the logits of a box: planes across one axis, in order."""
Place = tuple[slice | int, ...]
"""Index of a plane, or of a part of it, in an array on the cropped canonical grid."""
Watch = Callable[[Place, Float[Tensor, " classes *plane"]], None]
"""Is given the logits of each plane on the original grid, and where it is."""


def restore_labels(
    predict: PredictPlanes,
    done: Preprocessing,
    labels: Labels,
    axis: int = 0,
    num_strips: int = 1,
    watch: Watch | None = None,
) -> np.ndarray:
    """Turn the logits of a prepared case into the (*stored) numbers of classes in the original geometry.

    ``predict`` yields planes across ``axis`` of the prepared grid. The grid is divided along its longest other axis
    into ``num_strips`` boxes, each predicted by a call. Logits are resampled linearly, slices that are much thicker
    than their pixels one by one, before the class of each voxel is decided. ``watch`` sees every plane, too; planes may
    have more channels than the network has outputs, which are for it.
    """
    size = done.cropped_shape
    grids = [
        _Grid.between(n, m, nearest=a == done.coarse_axis)
        for a, (n, m) in enumerate(zip(done.shape, size, strict=True))
    ]
    across = max((a for a in range(len(size)) if a != axis), key=lambda a: size[a])
    numbers = np.zeros(size, np.uint8 if labels.num_classes <= 256 else np.int16)
    for low, high in _divide(size[across], num_strips):
        part = [grid.part(low, high) if a == across else grid for a, grid in enumerate(grids)]
        planes = predict(tuple(grid.read for grid in part))
        for index, logits in enumerate(_resample(planes, part, axis)):
            place = _place(len(size), {axis: index, across: slice(low, high)})
            numbers[place] = labels.decide(logits[: labels.num_outputs].cpu().numpy())
            if watch is not None:
                watch(place, logits)
    return restore_mask(numbers, done)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Linear interpolation along one axis: each voxel lies between two others, voxel edges aligned."""

    read: slice
    """Voxels that are read."""
    lower: np.ndarray
    """(M,) neighbour before each voxel, counted from the first that is read."""
    upper: np.ndarray
    """(M,) neighbour behind each voxel."""
    weight: np.ndarray
    """(M,) float32 weight of the neighbour behind."""

    @classmethod
    def between(cls, n: int, m: int, *, nearest: bool) -> Self:
        """Interpolate from ``n`` to ``m`` voxels over the same extent, or take the nearest; borders are repeated."""
        position = (np.arange(m) + 0.5) * n / m
        at = np.floor(position) if nearest else np.clip(position - 0.5, 0, n - 1)
        lower = np.floor(at).astype(int)
        upper = lower if nearest else np.minimum(lower + 1, n - 1)
        return cls(slice(0, n), lower, upper, (at - lower).astype(np.float32))

    def part(self, low: int, high: int) -> Self:
        """Return the interpolation of the voxels in a range, which reads what these need."""
        lower, upper, weight = (each[low:high] for each in (self.lower, self.upper, self.weight))
        first = int(lower[0])
        return type(self)(slice(first, int(upper[-1]) + 1), lower - first, upper - first, weight)

    def __call__(self, x: Tensor, axis: int) -> Tensor:
        """Interpolate along an axis."""
        if not self.weight.any() and np.array_equal(self.lower, np.arange(x.shape[axis])):
            return x
        below = x.index_select(axis, torch.from_numpy(self.lower).to(x.device))
        if not self.weight.any():
            return below
        above = x.index_select(axis, torch.from_numpy(self.upper).to(x.device))
        weight = torch.from_numpy(self.weight).to(x.device).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        return below.lerp_(above, weight)


def _resample(planes: Iterable[Tensor], grids: Sequence[_Grid], axis: int) -> Iterator[Tensor]:
    """Resample planes (K, *plane) across ``axis``: each by itself, then along the axis."""
    in_plane = [grid for a, grid in enumerate(grids) if a != axis]
    along, numbered = grids[axis], iter(enumerate(planes))
    held: dict[int, Tensor] = {}
    for lower, upper, weight in zip(along.lower, along.upper, along.weight, strict=True):
        needed = {int(lower), int(upper) if weight else int(lower)}
        held = {number: plane for number, plane in held.items() if number in needed}
        while len(held) < len(needed):
            number, plane = next(numbered)
            if number in needed:
                for dim, grid in enumerate(in_plane, start=1):
                    plane = grid(plane, dim)
                held[number] = plane
        below = held[int(lower)]
        yield below.lerp(held[int(upper)], float(weight)) if weight else below


def _place(ndim: int, parts: Mapping[int, slice | int]) -> Place:
    return tuple(parts.get(a, slice(None)) for a in range(ndim))


def _divide(size: int, number: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of ``number`` parts of about one size."""
    edges = np.linspace(0, size, min(number, size) + 1).round().astype(int).tolist()
    yield from zip(edges[:-1], edges[1:], strict=True)
