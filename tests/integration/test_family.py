"""Every member of the segmentation family, from its shipped configuration to a registered model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.shards.index import MASK, read_rows
from data_pipelines.shards.reader import ShardReader
from flows.pipelines.catalog import load_config
from flows.pipelines.segmentation.evaluate import evaluate_stage
from flows.pipelines.segmentation.register import register_model
from flows.pipelines.segmentation.shard import VolumeShardFigures, shard_stage
from flows.pipelines.segmentation.train import train_stage
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.stages.stage import run_stage
from tests.support.project import CHECKOUT

CONFIGS = {path.stem: path for path in sorted((CHECKOUT / "flows" / "configs" / "family").glob("*.yaml"))}
MARGIN = 0.1
"""Mean Dice above that of the best constant label."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("family")


@pytest.fixture(scope="module")
def shards(storage: Path) -> Record[VolumeShardFigures]:
    """Shards that all configurations share."""
    config = load_config(next(iter(CONFIGS.values())), [f"storage={storage}"])
    return run_stage(shard_stage(config.data, config.storage_uri), config.storage_uri).record


@pytest.fixture(scope="module")
def constant(shards: Record[VolumeShardFigures]) -> float:
    """Mean Dice of painting every voxel in the best label: its own class's Dice, and 0 of the others."""
    rows = [number for number, row in enumerate(read_rows(shards.output("index"))) if row["split"] == "val"]
    reader = ShardReader.from_uri(shards.output("index"), shards_uri(shards))
    masks = [reader.array(row, MASK) for row in rows]
    classes = range(1, shards.figures.labels.num_classes)
    dice = [np.mean([2 * (m == k).sum() / (m.size + (m == k).sum()) for m in masks if (m == k).any()]) for k in classes]
    return float(max(dice)) / len(classes)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_member_is_trained_evaluated_and_registered(
    name: str, storage: Path, shards: Record[VolumeShardFigures], constant: float
) -> None:
    config = load_config(CONFIGS[name], [f"storage={storage}"])
    assert shard_stage(config.data, config.storage_uri).key == shards.key
    training = run_stage(train_stage(config, shards), config.storage_uri).record
    scores = run_stage(evaluate_stage(config, shards, training), config.storage_uri).record
    version = run_stage(register_model(config, shards, training, scores), config.storage_uri).record
    assert version.figures.alias == "champion"
    assert 0 < constant < 0.1
    assert scores.figures.metrics["dice"] > constant + MARGIN
