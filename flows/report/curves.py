"""Training curves as figures: one chart per quantity, training and validation in the same one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from flows.report.blocks import Figure
from flows.report.charts import Point, line_chart

PHASES = {"train": "training", "val": "validation"}
TITLES = {
    "loss": "Loss (lower is better)",
    "dice": "Dice (higher is better)",
    "iou": "IoU (higher is better)",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "samples_per_second": "Samples per second",
}
LOG_SPAN = 30.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""


def curve_figures(curves: Mapping[str, Sequence[Point]]) -> list[Figure]:
    """Charts of recorded series, in order of first appearance.

    Args:
        curves: Name to (step, value). ``train/loss`` and ``val/loss`` share a chart; ``val/dice/left`` is the series
            "validation left" in the chart of ``dice``.
    """
    groups: dict[str, dict[str, Sequence[Point]]] = {}
    for name, points in curves.items():
        quantity, label = split_name(name)
        groups.setdefault(quantity, {})[label] = points
    return [_figure(quantity, series) for quantity, series in groups.items()]


def split_name(name: str) -> tuple[str, str]:
    """Quantity and series of a curve: ``val/dice/left`` is ("dice", "validation left")."""
    parts = [part for part in name.split("/") if part]
    phase = PHASES.get(parts[0], "") if len(parts) > 1 else ""
    if phase:
        parts = parts[1:]
    quantity, *rest = parts or [name]
    return quantity, " ".join(filter(None, [phase, *rest])) or quantity


def _figure(quantity: str, series: Mapping[str, Sequence[Point]]) -> Figure:
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    log_y = "loss" in quantity and bool(values) and min(values) > 0 and max(values) > LOG_SPAN * min(values)
    plain = quantity.replace("_", " ")
    title = TITLES.get(quantity, plain[:1].upper() + plain[1:])
    if len(series) == 1 and (only := next(iter(series))) != quantity:
        title += f", {only}"
    if log_y:
        title += ", logarithmic"
    return Figure(svg=line_chart(series, title=title, log_y=log_y))
