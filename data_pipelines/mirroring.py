"""Positions beyond the ends of an axis, mirrored back inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mirrored_indices(first: int, last: int, size: int) -> NDArray[np.intp]:
    """Return where ``first`` ... ``last - 1`` of an axis of ``size`` voxels lie when its ends are mirrors.

    The end voxel is not repeated (Ronneberger 2015, figure 2): of 4 voxels, -2 ... 5 are 2 1 0 1 2 3 2 1.
    """
    period = max(2 * (size - 1), 1)
    indices = np.arange(first, last) % period
    return np.where(indices < size, indices, period - indices)
