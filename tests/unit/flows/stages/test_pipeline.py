"""Pipelines as values: steps up to one, and steps that there are not."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.catalog import PIPELINES


def test_steps_up_to_one() -> None:
    pipeline = PIPELINES["segmentation"]
    assert [step.name for step in pipeline.steps_until("train")] == ["shard", "train"]
    assert pipeline.steps_until("register") == pipeline.steps_until(None) == pipeline.steps
    with pytest.raises(ConfigError, match="pipeline segmentation has no stage encode; it has shard, train, evaluate"):
        pipeline.steps_until("encode")
