"""The champion on a new version's data: a stage of the pipeline that compares, measured once."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.pipeline import PipelineConfig
from flows.config.specs import ComputeSpec, RegistrySpec
from flows.registry.champion import Champion
from flows.stages.attempt import Attempt
from flows.stages.record import Figures
from flows.stages.stage import Stage
from flows.stages.status import StageStatus, live_statuses
from flows.training.champion import evaluate_champion
from tests.support.records import CountFigures, finished


class SlowFigures(Figures):
    """Figures of a stage that took long."""

    def earlier_seconds(self) -> float:
        return 1000.0


def test_the_champion_is_measured_once_as_a_stage_of_the_pipeline(tmp_path: Path) -> None:
    config = PipelineConfig(
        pipeline="organ",
        storage=str(tmp_path),
        registry=RegistrySpec(name="spleen"),
        compute=ComputeSpec(num_workers=3),
    )
    champion = Champion("spleen", "3", "models:/m-1", {})
    shards = finished("shard", CountFigures(), index="index.parquet")
    statuses: list[StageStatus] = []

    def compute(attempt: Attempt) -> SlowFigures:
        statuses.extend(live_statuses())
        return SlowFigures()

    first, second = (
        evaluate_champion(config, champion, {"tolerance_mm": 1.0}, (shards,), compute, SlowFigures) for _ in range(2)
    )
    assert first == second
    (status,) = statuses
    assert (status.pipeline, status.model, status.stage) == ("organ", "spleen", "evaluate_champion")
    assert config.compute.num_cpus >= 3
    assert first.cpu_seconds == pytest.approx(1000 * config.compute.num_cpus, rel=0.1)
    identity = {"model": "models:/m-1", "tolerance_mm": 1.0}
    assert first.key == Stage("evaluate_champion", identity, (shards,), compute, SlowFigures).key, "as ever"
