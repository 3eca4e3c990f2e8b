"""The steps of the segmentation pipeline. Stages are imported when they are planned: the command line starts fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Pipeline, Records, Step

if TYPE_CHECKING:
    from flows.pipelines.segmentation.shard import VolumeShardFigures
    from flows.registry.register import RegistrationFigures
    from flows.stages.record import EvaluationFigures
    from flows.stages.stage import Stage
    from flows.training.figures import TrainingFigures


def plan_shard(config: SegmentationConfig, done: Records) -> Stage[VolumeShardFigures]:
    """Plan sharding: raw cases to shards."""
    from flows.pipelines.segmentation.shard import shard_stage

    return shard_stage(config.data, config.storage_uri, config.compute.num_cpus)


def plan_train(config: SegmentationConfig, done: Records) -> Stage[TrainingFigures]:
    """Plan training: shards to a checkpoint."""
    from flows.pipelines.segmentation.train import train_stage

    return train_stage(config, done["shard"])


def plan_evaluate(config: SegmentationConfig, done: Records) -> Stage[EvaluationFigures]:
    """Plan evaluation: checkpoint to scores and a report."""
    from flows.pipelines.segmentation.evaluate import evaluate_stage

    return evaluate_stage(config, done["shard"], done["train"])


def plan_register(config: SegmentationConfig, done: Records) -> Stage[RegistrationFigures]:
    """Plan registration: checkpoint and scores to a registered model."""
    from flows.pipelines.segmentation.register import register_model

    return register_model(config, done["shard"], done["train"], done["evaluate"])


SEGMENTATION = Pipeline(
    name="segmentation",
    config=SegmentationConfig,
    steps=(
        Step("shard", plan_shard, "Raw data to shards."),
        Step("train", plan_train, "Shards to a checkpoint."),
        Step("evaluate", plan_evaluate, "Checkpoint to scores and a report."),
        Step("register", plan_register, "Checkpoint and scores to a registered model."),
    ),
)
