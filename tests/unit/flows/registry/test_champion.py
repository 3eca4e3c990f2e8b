"""Comparison by figures alone: only of versions evaluated on the same data, each metric in its own direction."""

from __future__ import annotations

import json

import pytest

from flows.registry.champion import EVALUATION_TAG, Champion, compare_figures
from flows.registry.gate import Comparison, Incomparable
from flows.registry.models import METRICS_TAG


def champion(**metrics: float) -> Champion:
    return Champion("spleen", "3", "models:/m-1", {EVALUATION_TAG: "data", METRICS_TAG: json.dumps(metrics)})


@pytest.mark.parametrize(
    ("metric", "ours", "theirs", "is_better"),
    [
        ("dice", 0.9, 0.8, True),
        ("volume_error_ml", 9.0, 1.0, False),
        ("volume_error_ml", 1.0, 9.0, True),
        ("volume_error_percent", -1.0, 5.0, True),
        ("volume_error_percent", 5.0, -1.0, False),
        ("volume_error_percent", -5.0, 1.0, False),
        ("hd95_mm/liver", 2.0, 3.0, True),
        ("fid", 8.0, 7.0, False),
    ],
)
def test_the_metric_decides_in_its_own_direction(metric: str, ours: float, theirs: float, is_better: bool) -> None:
    outcome = compare_figures("data", metric, {metric: ours}, champion(**{metric: theirs})).outcome
    assert isinstance(outcome, Comparison)
    assert (outcome.lower_bound > 0) == is_better


@pytest.mark.parametrize(("data", "reason"), [("other", "on other data"), ("data", "not measured by dice")])
def test_what_cannot_be_compared(data: str, reason: str) -> None:
    outcome = compare_figures(data, "dice", {"dice": 0.9}, champion(iou=0.5)).outcome
    assert isinstance(outcome, Incomparable)
    assert reason in outcome.reason
