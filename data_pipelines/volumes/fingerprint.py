"""Statistics of a data set: spacings, shapes, intensities and class frequencies, per case and over all cases.

Statistics do not depend on how a file stores its axes: shapes and spacings are in the order right-left, back-front,
down-up (the axes of the closest RAS+ orientation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.specs import Spec
from data_pipelines.volumes.checks import CheckedCase
from data_pipelines.volumes.formats.base import Geometry

LOW, MEDIAN, HIGH = 0.005, 0.5, 0.995
_TAIL = (0.0, 0.0025, LOW, 0.0075, 0.01, 0.015, 0.02)
PROBABILITIES = tuple(
    float(each) for each in np.unique(np.round([*_TAIL, *np.linspace(0.05, 0.95, 19), *np.subtract(1, _TAIL)], 4))
)
"""Probabilities of the quantiles that are kept of a case; dense where intensities are clipped."""
_PARTS = 4
"""Points between two quantiles by which a case stands when cases are pooled."""


class ChannelStatistics(Spec):
    """Intensities of one channel inside the foreground (every class but the background)."""

    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float
    percentile_00_5: float
    percentile_50_0: float
    percentile_99_5: float
    quantiles: tuple[float, ...] = ()
    """Quantiles at ``PROBABILITIES``, from which those of several cases follow. Empty: of an earlier version."""


class CaseStatistics(Spec):
    """Statistics of one case. Where its label is background only, the intensities are those of the whole image."""

    case_id: str
    shape: tuple[int, ...]
    """Voxels per spatial axis, in RAS order."""
    spacing: tuple[float, ...]
    """mm per spatial axis, in RAS order."""
    channels: tuple[ChannelStatistics, ...]
    voxels_per_class: tuple[int, ...]
    """Number of voxels of each class, by its number."""
    num_ignored: int = 0
    """Number of voxels without annotation."""


class Fingerprint(Spec):
    """Statistics of a data set."""

    num_cases: int
    classes: dict[str, int]
    channel_names: tuple[str, ...]
    median_shape: tuple[float, ...]
    min_shape: tuple[int, ...]
    max_shape: tuple[int, ...]
    median_spacing: tuple[float, ...]
    """mm per axis."""
    min_spacing: tuple[float, ...]
    """mm per axis."""
    max_spacing: tuple[float, ...]
    """mm per axis."""
    channels: tuple[ChannelStatistics, ...]
    """Pooled over all foreground voxels: moments and extremes exactly, percentiles from the quantiles of the cases."""
    voxels_per_class: dict[str, int]
    """Number of voxels of each class over all cases."""
    num_ignored: int = 0
    """Number of voxels without annotation over all cases."""
    class_frequencies: dict[str, float]
    """Share of each class in all annotated voxels; they add up to 1."""
    cases_per_class: dict[str, int]
    """Number of cases that show the class."""


def case_statistics(case: CheckedCase, num_classes: int) -> CaseStatistics:
    """Compute the statistics of a checked case with image (C, *spatial) and label (*spatial)."""
    counts = count_classes(case.label, num_classes)
    foreground = (case.label > 0) & (case.label < num_classes)
    inside = foreground if foreground.any() else np.ones_like(foreground)
    order = ras_axes(case.geometry)
    return CaseStatistics(
        case_id=case.case_id,
        shape=tuple(case.geometry.shape[axis] for axis in order),
        spacing=tuple(case.geometry.spacing[axis] for axis in order),
        channels=tuple(_channel_statistics(channel[inside]) for channel in case.image),
        voxels_per_class=tuple(int(count) for count in counts),
        num_ignored=case.label.size - int(counts.sum()),
    )


def count_classes(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the voxels of each class (num_classes,); ignored ones, of higher numbers, are none of them."""
    return np.bincount(label.ravel(), minlength=num_classes)[:num_classes]


def ras_axes(geometry: Geometry) -> tuple[int, ...]:
    """Find the stored axes that run closest to x, y and z; (0, 1) for 2-D."""
    if geometry.affine is None or geometry.ndim == 2:
        return tuple(range(geometry.ndim))
    from nibabel.orientations import io_orientation

    target = io_orientation(geometry.affine_array())[:, 0]
    return tuple(int(axis) for axis in np.argsort(target))


def _channel_statistics(values: np.ndarray) -> ChannelStatistics:
    # float64 sums: intensities of 1e6 squared and added up lose all their digits in float32.
    quantiles = np.quantile(values, PROBABILITIES)
    low, median, high = np.interp((LOW, MEDIAN, HIGH), PROBABILITIES, quantiles)
    return ChannelStatistics(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        min=float(values.min()),
        max=float(values.max()),
        percentile_00_5=float(low),
        percentile_50_0=float(median),
        percentile_99_5=float(high),
        quantiles=tuple(quantiles.tolist()),
    )


def merge_statistics(
    cases: Sequence[CaseStatistics], classes: dict[str, int], channel_names: Sequence[str]
) -> Fingerprint:
    """Merge the statistics of cases (at least one, in any order) into the fingerprint of a data set."""
    if not cases:
        raise ValueError("merge_statistics: needs the statistics of at least one case")
    shapes = np.array([case.shape for case in cases])
    spacings = np.array([case.spacing for case in cases])
    counts = np.array([case.voxels_per_class for case in cases], dtype=np.int64)  # (case, class)
    totals = counts.sum(axis=0)
    return Fingerprint(
        num_cases=len(cases),
        classes=classes,
        channel_names=tuple(channel_names),
        median_shape=tuple(np.median(shapes, axis=0).tolist()),
        min_shape=tuple(shapes.min(axis=0).tolist()),
        max_shape=tuple(shapes.max(axis=0).tolist()),
        median_spacing=tuple(np.median(spacings, axis=0).tolist()),
        min_spacing=tuple(spacings.min(axis=0).tolist()),
        max_spacing=tuple(spacings.max(axis=0).tolist()),
        channels=tuple(_pool_channel(cases, counts, index) for index in range(len(channel_names))),
        voxels_per_class={name: int(totals[value]) for name, value in classes.items()},
        num_ignored=sum(case.num_ignored for case in cases),
        class_frequencies={name: float(totals[value] / totals.sum()) for name, value in classes.items()},
        cases_per_class={name: int((counts[:, value] > 0).sum()) for name, value in classes.items()},
    )


def _pool_channel(cases: Sequence[CaseStatistics], counts: np.ndarray, index: int) -> ChannelStatistics:
    """Pool one channel over the foreground of all cases that have one."""
    weights = counts[:, 1:].sum(axis=1).astype(np.float64)
    chosen = weights > 0 if weights.any() else np.ones(len(cases), dtype=bool)
    weights = weights[chosen] if weights.any() else counts.sum(axis=1).astype(np.float64)
    channels = [case.channels[index] for case, keep in zip(cases, chosen, strict=True) if keep]
    if len(channels) == 1:
        return channels[0]
    means, stds = np.array([c.mean for c in channels]), np.array([c.std for c in channels])
    mean = float(np.average(means, weights=weights))
    # Variance within the cases plus variance between their means.
    variance = float(np.average(stds**2 + (means - mean) ** 2, weights=weights))
    quantiles = pooled_quantiles(channels, weights)
    low, median, high = np.interp((LOW, MEDIAN, HIGH), PROBABILITIES, quantiles)
    return ChannelStatistics(
        mean=mean,
        std=variance**0.5,
        min=min(c.min for c in channels),
        max=max(c.max for c in channels),
        percentile_00_5=float(low),
        percentile_50_0=float(median),
        percentile_99_5=float(high),
        quantiles=tuple(quantiles.tolist()),
    )


def pooled_quantiles(channels: Sequence[ChannelStatistics], weights: np.ndarray) -> np.ndarray:
    """Estimate the quantiles at ``PROBABILITIES`` of all voxels of cases, of which each has ``weights`` many.

    Each case stands by points between its quantiles, which hold the same share of its voxels.
    """
    numbers = np.arange(len(PROBABILITIES))
    edges = np.interp(np.arange(_PARTS * numbers[-1] + 1) / _PARTS, numbers, PROBABILITIES)
    middles, shares = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    values = np.concatenate([np.interp(middles, *_known(each)) for each in channels])
    counts = np.concatenate([weight * shares for weight in weights / weights.sum()])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order]) - counts[order] / 2
    found: np.ndarray = np.interp(PROBABILITIES, below, values[order])
    found[0], found[-1] = min(each.min for each in channels), max(each.max for each in channels)
    return found


def _known(channel: ChannelStatistics) -> tuple[Sequence[float], Sequence[float]]:
    """Return probabilities and the quantiles that are known of them."""
    if channel.quantiles:
        return PROBABILITIES, channel.quantiles
    values = (channel.min, channel.percentile_00_5, channel.percentile_50_0, channel.percentile_99_5, channel.max)
    return (0.0, LOW, MEDIAN, HIGH, 1.0), values
