"""Configurations whose trainings cannot be compared step by step are refused before anything runs."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.ablation.run import check_comparable, find_ablation
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.segmentation.config import SegmentationConfig


@pytest.mark.parametrize(
    ("train", "message"),
    [({"validate_cases": 0}, "set train.validate_cases above 0"), ({"within": "5m"}, "not train.within")],
)
def test_trainings_are_compared_step_by_step(train: dict[str, object], message: str) -> None:
    check_comparable(SegmentationConfig())
    with pytest.raises(ConfigError, match=message):
        check_comparable(SegmentationConfig.model_validate({"train": train}))


def test_pipelines_without_ablations_say_so() -> None:
    assert find_ablation(SegmentationConfig(), "skips").name == "skips"
    with pytest.raises(ConfigError, match="pipeline restoration can compare nothing"):
        find_ablation(RestorationConfig(), "skips")


def test_a_variant_is_one_training() -> None:
    config = SegmentationConfig.model_validate({"candidates": {"wide": {"train": {"model": {"norm": "batch"}}}}})
    with pytest.raises(ConfigError, match=r"asks for 2 \(base, fold 0, wide, fold 0\)"):
        check_comparable(config)
