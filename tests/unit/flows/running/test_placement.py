"""A stage runs here without a cluster; with one, a cache hit asks nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.pipeline import PipelineConfig
from flows.running.placement import run_as_job, run_or_submit
from tests.support.records import CountingStages


def test_without_a_cluster_a_stage_runs_here(tmp_path: Path) -> None:
    stages = CountingStages()
    config = PipelineConfig(pipeline="p", storage=str(tmp_path))
    assert not run_or_submit(stages.plan(), config).cached
    assert run_or_submit(stages.plan(), config).cached
    assert len(stages.attempts) == 1


def test_a_cache_hit_submits_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = CountingStages()
    config = PipelineConfig(pipeline="p", storage=str(tmp_path))
    first = run_or_submit(stages.plan(), config)
    with caplog.at_level("INFO"):
        again = run_as_job(stages.plan(), config, "http://127.0.0.1:9", owner="")
    assert again.cached
    assert again.record == first.record
    assert "count: cache hit" in caplog.text
