"""Who becomes champion."""

from __future__ import annotations

import pytest

from flows.config import RegistrySpec
from flows.register import decide_alias


@pytest.mark.parametrize(
    ("metrics", "champion", "thresholds", "alias", "reason"),
    [
        ({"dice": 0.9}, None, {}, "champion", "no champion was evaluated on the same data"),
        ({"dice": 0.9}, {"dice": 0.89}, {}, "champion", "0.9000 beats the champion's 0.8900"),
        ({"dice": 0.9}, {"dice": 0.9}, {}, "challenger", "does not beat"),
        ({"dice": 0.9}, None, {"dice": 0.95}, "challenger", "below the threshold 0.95"),
        ({"dice": float("nan")}, None, {"dice": 0.1}, "challenger", "below the threshold"),
        ({}, None, {"surface_dice": 0.1}, "challenger", "surface_dice is nan"),
    ],
)
def test_gate(
    metrics: dict[str, float], champion: dict[str, float] | None, thresholds: dict[str, float], alias: str, reason: str
) -> None:
    found, why = decide_alias(metrics, champion, RegistrySpec(min_metrics=thresholds), "dice")
    assert found == alias
    assert reason in why
