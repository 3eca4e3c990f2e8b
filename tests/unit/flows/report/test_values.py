"""Metric values as text, with the digits of their metric."""

from __future__ import annotations

import math

import pytest

from flows.metrics import METRICS
from flows.report.values import interval_text, value_cell, value_text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("dice", 0.88349, "0.883"),
        ("hd95_mm", 1.256, "1.26"),
        ("volume_error_percent", -3.04, "-3.0"),
        ("psnr", 31.517, "31.52"),
        ("dice", math.nan, "absent"),
        ("dice", None, "absent"),
    ],
)
def test_values_have_the_digits_of_their_metric(name: str, value: float | None, text: str) -> None:
    assert value_text(METRICS[name], value) == text


def test_intervals_and_cells() -> None:
    assert interval_text(METRICS["dice"], 0.8812, 0.8973) == "0.881 to 0.897"
    assert interval_text(METRICS["dice"], math.nan, 0.9) == ""
    cell = value_cell(METRICS["hd95_mm"], 1.256, "note")
    assert (cell.text, cell.note, cell.number) == ("1.26", "note", 1.256)
