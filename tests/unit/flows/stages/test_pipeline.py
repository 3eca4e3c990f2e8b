"""Pipelines as values: steps up to one, and steps that there are not."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.catalog import PIPELINES
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.tuning.spec import SearchSpec


def test_steps_up_to_one() -> None:
    pipeline = PIPELINES["segmentation"]
    assert [step.name for step in pipeline.steps_of(SegmentationConfig(), "train")] == ["shard", "train"]
    everything = pipeline.steps_of(SegmentationConfig(search=SearchSpec(), previous="low"))
    assert everything == pipeline.steps
    plain = pipeline.steps_of(SegmentationConfig())
    assert [step.name for step in everything if step not in plain] == ["cascade", "search"]
    with pytest.raises(
        ConfigError, match="run of pipeline segmentation has no stage encode; it has shard, train, evaluate"
    ):
        pipeline.steps_of(SegmentationConfig(), "encode")
