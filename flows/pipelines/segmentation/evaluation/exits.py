"""Dice against time of early exits: each case predicted at several thresholds, and without exits."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict

from data_pipelines.specs import Spec
from flows.report.blocks import CellLike, Figure, Section, Table
from flows.report.charts import line_chart

if TYPE_CHECKING:
    from flows.pipelines.segmentation.segmenter import Segmenter


class ExitScore(Spec):
    """One case at one threshold."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    threshold: float | None
    """Probability above which a voxel is settled; None: no early exits."""
    dice: float
    """Mean over the foreground classes, on the network's grid; NaN where none is there."""
    seconds: float
    """Time of the prediction, test-time augmentation included."""
    share_left: float
    """Share of the windows, with their mirrored copies, that left before full resolution."""


def compare_exits(
    segmenter: Segmenter, image: np.ndarray, mask: np.ndarray, thresholds: Sequence[float]
) -> Iterator[ExitScore]:
    """Predict a preprocessed image (C, *spatial) at every threshold and without exits; compare with ``mask``.

    What is timed first would pay for warming up: the prediction without exits is made twice.
    """
    from unet_models.metrics import overlap
    from unet_models.networks.early_exit import EarlyExit

    spec, labels = segmenter.bundle.predict, segmenter.bundle.labels
    segmenter.predict(segmenter.network, image, spec)
    for threshold in (None, *sorted(thresholds, reverse=True)):
        model = (
            segmenter.network
            if threshold is None
            else EarlyExit(segmenter.network, threshold, is_exclusive=not labels.regions)
        )
        started = time.perf_counter()
        prediction = labels.decide(segmenter.predict(model, image, spec))
        seconds = time.perf_counter() - started
        left = model.num_left if isinstance(model, EarlyExit) else [1]
        dice = overlap.target_dice(prediction, mask, list(labels.targets.values()), labels.num_classes)
        yield ExitScore(
            threshold=threshold,
            dice=float(np.nanmean(dice)) if np.isfinite(dice).any() else math.nan,
            seconds=seconds,
            share_left=1 - left[-1] / sum(left),
        )


def exits_section(scores: Sequence[ExitScore]) -> Section:
    """Write the section of the report: one row per threshold, and Dice over time."""
    by_threshold: dict[float | None, list[ExitScore]] = {}
    for score in scores:
        by_threshold.setdefault(score.threshold, []).append(score)
    rows: list[list[CellLike]] = []
    points = []
    for threshold, found in by_threshold.items():
        dice = [score.dice for score in found if math.isfinite(score.dice)]
        mean, seconds = statistics.fmean(dice) if dice else math.nan, statistics.fmean(score.seconds for score in found)
        share = statistics.fmean(score.share_left for score in found)
        rows.append(["none" if threshold is None else f"{threshold:g}", mean, seconds, f"{share:.0%}"])
        points.append((seconds, mean))
    table = Table(columns=["Threshold", "Mean Dice", "Seconds per case", "Windows that left early"], rows=rows)
    chart = line_chart({"": sorted(points)}, title="Mean Dice", x_label="seconds per case")
    intro = (
        "Windows whose voxels are all predicted with a probability above the threshold leave the decoder at a coarser "
        "stage; in the others such voxels keep the coarser prediction. Dice is measured on the network's grid, over "
        "all held-out cases; times are of this machine, one after the other."
    )
    return Section("Early exits", intro, [table, Figure(svg=chart, caption="Each point is a threshold.")])
