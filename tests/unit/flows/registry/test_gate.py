"""Which version is promoted to champion."""

from __future__ import annotations

import math

import pytest

from flows.config.specs import RegistrySpec
from flows.registry.gate import Comparison, Incomparable, decide_alias

NOTHING = RegistrySpec()


def comparison(lower_bound: float) -> Comparison:
    return Comparison("dice", 0.91, 0.9, lower_bound, level=0.95, num_cases=12)


@pytest.mark.parametrize(
    ("lower_bound", "alias", "reason"),
    [
        (0.004, "champion", "better beyond noise: dice 0.9100 against the champion's 0.9000 on the same 12 cases"),
        (0.0, "challenger", "not better beyond noise"),
        (-0.01, "challenger", "better by at least -0.0100 at level 0.95"),
        (-math.inf, "challenger", "no bound at level 0.95"),
    ],
)
def test_a_version_must_be_better_beyond_noise(lower_bound: float, alias: str, reason: str) -> None:
    found, why = decide_alias({"dice": 0.91}, comparison(lower_bound), NOTHING, "dice")
    assert found == alias
    assert reason in why


@pytest.mark.parametrize(
    ("metrics", "spec", "reason"),
    [
        ({"dice": 0.9}, RegistrySpec(min_metrics={"dice": 0.95}), "dice is 0.9000, below the threshold 0.95"),
        ({"dice": 0.9}, RegistrySpec(min_metrics={"surface_dice": 0.1}), "surface_dice is nan, below"),
        ({"dice": 0.9, "hd95_mm": 9.0}, RegistrySpec(max_metrics={"hd95_mm": 5}), "hd95_mm is 9.0000, above"),
        ({"dice": math.nan}, NOTHING, "dice is not finite"),
        ({"dice": 0.9, "hd95_mm": math.inf}, NOTHING, "hd95_mm is not finite"),
        ({"iou": 0.9}, NOTHING, "dice was not measured"),
        ({"fid[n=10]": 1.0}, NOTHING, "there are ['fid[n=10]']"),
    ],
)
@pytest.mark.parametrize("champion", [None, Incomparable("other classes"), comparison(0.5)])
def test_a_version_that_misses_a_threshold_or_a_metric(
    champion: Comparison | Incomparable | None, metrics: dict[str, float], spec: RegistrySpec, reason: str
) -> None:
    found, why = decide_alias(metrics, champion, spec, "dice")
    assert found == "challenger"
    assert reason in why


def test_the_first_version_has_nothing_to_beat() -> None:
    assert decide_alias({"dice": 0.1}, None, NOTHING, "dice")[0] == "champion"


def test_a_champion_that_cannot_be_measured_any_more() -> None:
    champion = Incomparable("version 3: it segments 0 background, 1 liver, the data hold 0 background, 1 spleen")
    found, why = decide_alias({"dice": 0.99}, champion, NOTHING, "dice")
    assert found == "challenger"
    assert "cannot be compared on the same data: version 3: it segments 0 background, 1 liver" in why
    found, why = decide_alias({"dice": 0.99}, champion, RegistrySpec(without_comparison="promote"), "dice")
    assert found == "champion"
    assert "promoted without a comparison" in why
