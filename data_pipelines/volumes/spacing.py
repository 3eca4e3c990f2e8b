"""Spacings of a data set: the one to resample to, and the axis of thick slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_ANISOTROPY = 3.0
"""Ratio of two axes' spacings beyond which the coarser one is treated apart (nnU-Net's threshold)."""
SAME = 1e-3
"""Relative difference up to which spacings are one: scanners and formats round them."""
ROUNDING = 5e-3
"""Relative error that rounding may make."""


def typical_spacing(spacings: Sequence[float]) -> float:
    """Choose the spacing to resample one axis to, in mm, from those of all cases.

    The spacing of most cases is kept as it is, so that these are not resampled. Where no spacing has a majority, it is
    the median, rounded to as few digits as change it by at most 0.5 %, so that a few new cases do not move it.
    """
    majority = majority_spacing(spacings)
    if majority is not None:
        return majority
    median = float(np.median(spacings))
    rounded = (float(f"{median:.{digits}g}") for digits in range(1, 18))
    return next(value for value in rounded if abs(value - median) <= ROUNDING * median)


def majority_spacing(spacings: Sequence[float]) -> float | None:
    """Return the spacing of more than half of the cases, in mm along one axis; None where there is none."""
    values = [float(f"{value:.6g}") for value in spacings]  # float32 headers say 0.69999999 for 0.7
    median = float(np.median(values))
    near = Counter(value for value in values if abs(value - median) <= SAME * median)
    if 2 * near.total() <= len(values):
        return None
    return max(near, key=lambda value: (near[value], -abs(value - median)))


def find_coarse_axis(spacing: Sequence[float]) -> int | None:
    """Find the axis of thick slices: in 3-D, the only one whose spacing is more than 3 times the finest; else None.

    ``spacing`` is in mm per axis. With two such axes there is no plane in which voxels are nearly square.
    """
    coarse = [axis for axis, value in enumerate(spacing) if value > MAX_ANISOTROPY * min(spacing)]
    return coarse[0] if len(spacing) == 3 and len(coarse) == 1 else None
