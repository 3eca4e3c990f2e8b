"""Metric values as text and as table cells."""

from __future__ import annotations

import math

from flows.metrics import Metric
from flows.report.axes import number_text
from flows.report.blocks import Cell


def value_text(metric: Metric, value: float | None) -> str:
    """Write a value with the metric's digits; NaN and None are "absent"."""
    return number_text(value, metric.decimals)


def interval_text(metric: Metric, low: float, high: float) -> str:
    """Write an interval in words; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{value_text(metric, low)} to {value_text(metric, high)}"


def value_cell(metric: Metric, value: float, note: str = "") -> Cell:
    """Build a table cell that is sorted by its value."""
    return Cell(value_text(metric, value), note=note, number=value)
