"""Training curves as figures: one chart per quantity, training and validation in the same one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from flows.metrics import PHASES, MetricName, parse_metric_name
from flows.report.blocks import Figure
from flows.report.charts import Point, line_chart

Curves = Mapping[str, Sequence[Point]]
"""Metric name to (step, value)."""
LOG_SPAN = 30.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""


def curve_figures(curves: Curves) -> list[Figure]:
    """Draw recorded series, in order of first appearance.

    Args:
        curves: Name to (step, value). ``train/loss`` and ``val/loss`` share a chart; ``val/dice/left`` is the series
            "validation left" in the chart of ``dice``. Raises KeyError for a name that is not in the table of metrics.
    """
    groups: dict[str, dict[str, Sequence[Point]]] = {}
    for name, points in curves.items():
        parsed = parse_metric_name(name)
        groups.setdefault(parsed.metric.name, {})[series_name(parsed)] = points
    return [_figure(name, series) for name, series in groups.items()]


def series_name(name: MetricName) -> str:
    """Return the series of a curve within its chart; the metric's own title where it is neither train nor val."""
    return " ".join(filter(None, [PHASES.get(name.phase, ""), name.part])) or name.metric.title


def _figure(name: str, series: Mapping[str, Sequence[Point]]) -> Figure:
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    log_y = name == "loss" and bool(values) and min(values) > 0 and max(values) > LOG_SPAN * min(values)
    metric = parse_metric_name(name).metric
    title = f"{metric.titled} ({metric.direction})" if metric.direction else metric.titled
    if len(series) == 1 and (only := next(iter(series))) != metric.title:
        title += f", {only}"
    if log_y:
        title += ", logarithmic"
    return Figure(svg=line_chart(series, title=title, log_y=log_y))
