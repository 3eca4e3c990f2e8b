"""Which version is promoted to champion."""

from __future__ import annotations

import pytest

from flows.config.specs import RegistrySpec
from flows.registry.gate import decide_alias


@pytest.mark.parametrize(
    ("metrics", "champion", "thresholds", "alias", "reason"),
    [
        ({"dice": 0.9}, None, {}, "champion", "no champion was evaluated on the same data"),
        ({"dice": 0.9}, {"dice": 0.89}, {}, "champion", "0.9000 beats the champion's 0.8900"),
        ({"dice": 0.9}, {"dice": 0.9}, {}, "challenger", "does not beat"),
        ({"dice": 0.9}, None, {"dice": 0.95}, "challenger", "below the threshold 0.95"),
        ({"dice": float("nan")}, None, {"dice": 0.1}, "challenger", "below the threshold"),
        ({"dice": 0.9}, None, {"surface_dice": 0.1}, "challenger", "surface_dice is nan"),
    ],
)
def test_gate(
    metrics: dict[str, float], champion: dict[str, float] | None, thresholds: dict[str, float], alias: str, reason: str
) -> None:
    found, why = decide_alias(metrics, champion, RegistrySpec(min_metrics=thresholds), "dice")
    assert found == alias
    assert reason in why


@pytest.mark.parametrize(
    ("ours", "theirs", "limits", "alias"),
    [(1.0, 2.0, {}, "champion"), (2.0, 1.0, {}, "challenger"), (1.0, 2.0, {"frechet_distance": 0.5}, "challenger")],
)
def test_of_distances_less_is_better(ours: float, theirs: float, limits: dict[str, float], alias: str) -> None:
    name = "frechet_distance[clip,n=10]"
    spec = RegistrySpec(max_metrics=limits)
    found, _ = decide_alias({name: ours, f"{name}/prior": 9.0}, {name: theirs}, spec, "frechet_distance")
    assert found == alias


@pytest.mark.parametrize(
    ("compared", "ours", "theirs", "alias"),
    [
        ("volume_error_ml", 9.0, 1.0, "challenger"),
        ("volume_error_ml", 1.0, 9.0, "champion"),
        ("volume_error_percent", -1.0, 5.0, "champion"),
        ("volume_error_percent", 5.0, -1.0, "challenger"),
        ("volume_error_percent", -5.0, 1.0, "challenger"),
        ("hd95_mm/liver", 2.0, 3.0, "champion"),
        ("hd95_mm/liver", 3.0, 2.0, "challenger"),
        ("fid", 7.0, 8.0, "champion"),
        ("fid", 8.0, 7.0, "challenger"),
        ("precision", 0.8, 0.7, "champion"),
    ],
)
def test_the_compared_metric_decides_in_its_own_direction(
    compared: str, ours: float, theirs: float, alias: str
) -> None:
    """Dice is worse in every case: it does not count where another metric is named."""
    spec = RegistrySpec(compare_metric=compared)
    found, why = decide_alias({"dice": 0.1, compared: ours}, {"dice": 0.9, compared: theirs}, spec, "dice")
    assert found == alias
    assert why.startswith(compared)


def test_champion_without_the_compared_metric_gives_way() -> None:
    assert decide_alias({"dice": 0.5}, {"iou": 0.9}, RegistrySpec(), "dice")[0] == "champion"


@pytest.mark.parametrize("champion", [None, {}, {"fid[n=10]": 5.0}])
def test_model_without_the_compared_metric_never_becomes_champion(champion: dict[str, float] | None) -> None:
    found, why = decide_alias({"fid[n=10]": 1.0}, champion, RegistrySpec(), "frechet_distance")
    assert found == "challenger"
    assert "frechet_distance was not measured" in why
    assert "fid[n=10]" in why
