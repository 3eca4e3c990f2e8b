"""Scores of one case, and means over all cases with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_models.metrics import overlap, surface
from unet_models.metrics.comparison import draw_counts

METRIC_NAMES = ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "volume_error_percent")
"""Metrics of a case and class, in the order of tables."""

MEAN_CLASS = "mean"
"""Class name of the mean over all foreground classes."""

Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """Mean and confidence interval of one metric of one class over all cases."""

    metric: str
    """Name of the metric."""
    class_name: str
    """Name of the class or region, or ``mean``: the mean over all of them; of images without classes, empty."""
    mean: float
    """Mean over the cases that have a value; NaN where none has."""
    low: float
    """Lower end of the 95 % bootstrap interval of the mean: of expanded percentiles, which few cases need."""
    high: float
    """Upper end of that interval."""
    num_cases: int
    """Number of cases that have a value."""


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    targets: Mapping[str, Sequence[int]],
    num_classes: int,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> dict[str, dict[str, float]]:
    """Score one case; returns target to metric name to value.

    ``prediction`` and ``truth`` are label maps of one shape, ``(H, W)`` or ``(D, H, W)``, of classes 0 to
    ``num_classes - 1``; a ``truth`` of ``num_classes`` is ignored. ``targets`` maps names to classes, one or the
    several of a region, ``spacing_mm`` holds the voxel size of each axis. Every metric is NaN for a target that is in
    neither map; for one in only one of them Dice, IoU and surface Dice are 0 and ``hd95_mm`` is the diagonal of the
    image. ``volume_error_percent`` is NaN wherever the truth lacks the target.

    Raises ValueError for shapes that differ, labels above these, a bad spacing or tolerance.
    """
    if prediction.shape == truth.shape:
        overlap.check_labels("truth", truth, num_classes + 1)
        prediction, truth = overlap.without_ignored(prediction, truth, num_classes)
    confusion, sets = overlap.confusion_matrix(prediction, truth, num_classes), list(targets.values())
    diagonal_mm = surface.diagonal_mm(truth.shape, spacing_mm)
    per_target = {
        "dice": overlap.dice(confusion, sets),
        "iou": overlap.iou(confusion, sets),
        "volume_error_ml": overlap.volume_error_ml(confusion, overlap.voxel_volume_ml(spacing_mm), sets),
        "volume_error_percent": overlap.volume_error_percent(confusion, sets),
    }
    boxes = _class_boxes(prediction, truth, highest=num_classes - 1)
    scores: dict[str, dict[str, float]] = {}
    for place, (name, classes) in enumerate(targets.items()):
        box = _joint_box([found for found in (boxes.get(label) for label in classes) if found], truth.ndim)
        masks = np.isin(prediction[box], classes), np.isin(truth[box], classes)
        values = {metric: float(figures[place]) for metric, figures in per_target.items()}
        values["hd95_mm"] = surface.hd95_mm(*masks, spacing_mm, one_empty_mm=diagonal_mm)
        values["surface_dice"] = surface.surface_dice(*masks, spacing_mm, tolerance_mm)
        scores[name] = {metric: values[metric] for metric in METRIC_NAMES}
    return scores


def summarise(rows: Sequence[Mapping[str, Any]], *, num_resamples: int = 2000, seed: int = 0) -> list[MetricSummary]:
    """Compute mean and 95 % bootstrap interval of each metric, per class and for the mean over classes.

    ``rows`` hold ``case_id``, ``class_name`` and metrics, one row per case and class; a metric that no row has is left
    out. Cases are drawn with replacement (Efron, Annals of Statistics 1979); percentiles are expanded for few cases.
    For a class, cases without a value (NaN, or no row) are left out before drawing. The mean over classes is the mean
    of the classes' means, and its interval comes from drawing whole cases, because the classes of one case go
    together.

    Raises ValueError for two rows of the same case and class, and for a class named ``mean``.
    """
    class_names = list(dict.fromkeys(row["class_name"] for row in rows))
    if MEAN_CLASS in class_names:
        raise ValueError(f"class_name must not be {MEAN_CLASS!r}: it names the mean over classes; rename the class")
    summaries: list[MetricSummary] = []
    for metric in (name for name in METRIC_NAMES if any(name in row for row in rows)):
        table = score_table(rows, class_names, metric)
        columns = {name: table[:, [index]] for index, name in enumerate(class_names)} | {MEAN_CLASS: table}
        for name, values in columns.items():
            summaries.append(summarise_table(metric, name, values, num_resamples=num_resamples, seed=seed))
    return summaries


def summarise_table(
    metric: str, name: str, values: NDArray[np.float64], *, num_resamples: int = 2000, seed: int = 0
) -> MetricSummary:
    """Compute mean and 95 % bootstrap interval of one metric's values ``(cases, classes)``; see ``summarise``."""
    valid = values[~np.isnan(values).all(axis=1)]
    mean = float(mean_of_class_means(np.ones((1, len(valid))), valid)[0])
    low, high = _bootstrap_interval(valid, num_resamples, seed)
    return MetricSummary(metric, name, mean, low, high, num_cases=len(valid))


def score_table(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Arrange the values of one metric as ``(cases, classes)``; NaN where there is no row or no value."""
    case_ids = {case_id: index for index, case_id in enumerate(dict.fromkeys(row["case_id"] for row in rows))}
    column = {name: index for index, name in enumerate(class_names)}
    values = {(case_ids[row["case_id"]], column[row["class_name"]]): row.get(metric, np.nan) for row in rows}
    if len(values) < len(rows):
        raise ValueError(f"rows must hold each case_id and class_name once, got {len(rows) - len(values)} repeated")
    table = np.full((len(case_ids), len(class_names)), np.nan)
    for position, value in values.items():
        table[position] = value
    return table


def _bootstrap_interval(values: NDArray[np.float64], num_resamples: int, seed: int) -> tuple[float, float]:
    """Compute the 2.5th and 97.5th percentile of the resampled mean; ``values (cases, classes)``, no row all NaN."""
    num_cases = len(values)
    if num_cases == 0:
        return float("nan"), float("nan")
    tail = 100 * _tail(num_cases)
    means = mean_of_class_means(draw_counts(num_cases, num_resamples, seed), values)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _tail(num_cases: int) -> float:
    """Compute the share of resamples to leave out on each side of a 95 % interval (Hesterberg 2015, section 5.4).

    Percentiles of n cases are too narrow by ``sqrt((n - 1) / n)``, and as if the spread were known: the 2.5 % of a
    normal distribution become those of Student's t, which lie further out.
    """
    if num_cases == 1:
        return 0.025
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(0.025, num_cases - 1) * (num_cases / (num_cases - 1)) ** 0.5))


def mean_of_class_means(times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each class over cases, then over classes, leaving NaN out of both.

    ``times (resamples, cases)`` is the weight of each case, ``values (cases, classes)``; returns ``(resamples,)``, NaN
    where a resample holds no value at all.
    """
    known = ~np.isnan(values)
    counts = times @ known.astype(np.float64)
    sums = times @ np.where(known, values, 0.0)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    num_classes = (counts > 0).sum(axis=1)
    return np.divide(means.sum(axis=1), num_classes, out=np.full(len(times), np.nan), where=num_classes > 0)


def _class_boxes(prediction: np.ndarray, truth: np.ndarray, highest: int) -> dict[int, Box]:
    """Find the bounding box over both maps of each label 1 .. ``highest`` that one of them has."""
    from scipy.ndimage import find_objects

    found: Iterable[tuple[Box | None, Box | None]] = zip(
        find_objects(prediction, highest), find_objects(truth, highest), strict=True
    )
    boxes = {label: [box for box in pair if box is not None] for label, pair in enumerate(found, start=1)}
    return {label: _joint_box(present, truth.ndim) for label, present in boxes.items() if present}


def _joint_box(boxes: Sequence[Box], ndim: int) -> Box:
    """Return the smallest box around ``boxes``; an empty one where there are none."""
    if not boxes:
        return (slice(0, 0),) * ndim
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
