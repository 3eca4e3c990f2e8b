"""Training curves: one chart per quantity, training and validation in the same one."""

from __future__ import annotations

import pytest

from flows.metrics import parse_metric_name
from flows.report.curves import curve_figures, series_name
from tests.support.pages import svg_texts

POINTS = [(1, 0.5), (2, 0.4)]


@pytest.mark.parametrize(
    ("name", "metric", "series"),
    [
        ("train/loss", "loss", "training"),
        ("val/dice/left", "dice", "validation left"),
        ("learning_rate", "learning_rate", "Learning rate"),
    ],
)
def test_names_are_split_into_chart_and_series(name: str, metric: str, series: str) -> None:
    parsed = parse_metric_name(name)
    assert (parsed.metric.name, series_name(parsed)) == (metric, series)


def test_curves_are_grouped_by_quantity() -> None:
    names = ("train/loss", "val/loss", "val/dice", "learning_rate", "samples_per_second")
    titles = [svg_texts(figure.svg or "")[0] for figure in curve_figures(dict.fromkeys(names, POINTS))]
    assert titles == [
        "Loss (lower is better)",
        "Dice (higher is better), validation",
        "Learning rate",
        "Samples per second",
    ]


def test_only_a_loss_that_falls_far_is_logarithmic() -> None:
    falling = [(1, 100.0), (2, 1.0)]
    (loss, rate) = curve_figures({"train/loss": falling, "samples_per_second": falling})
    assert svg_texts(loss.svg or "")[0] == "Loss (lower is better), training, logarithmic"
    assert "logarithmic" not in svg_texts(rate.svg or "")[0]
    (to_zero,) = curve_figures({"train/loss": [(1, 100.0), (2, 0.0)]})
    assert "logarithmic" not in svg_texts(to_zero.svg or "")[0]


def test_a_curve_that_is_no_metric_is_refused() -> None:
    with pytest.raises(KeyError, match="val/sparkle is not in the table of metrics"):
        curve_figures({"val/sparkle": POINTS})
