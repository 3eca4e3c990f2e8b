"""The steps of the restoration pipeline. Stages are imported when they are planned: the command line starts fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.pipelines.restoration.config import RestorationConfig
from flows.stages.pipeline import Pipeline, Records, Step

if TYPE_CHECKING:
    from flows.pipelines.restoration.evaluate import RestorationScores
    from flows.registry.register import RegistrationFigures
    from flows.sharding.images import ImageShardFigures
    from flows.stages.stage import Stage
    from flows.training.figures import TrainingFigures


def plan_shard(config: RestorationConfig, done: Records) -> Stage[ImageShardFigures]:
    """Plan sharding: images to shards."""
    from flows.sharding.images import shard_stage

    return shard_stage(config.data, config.storage_uri, config.compute.num_cpus)


def plan_train(config: RestorationConfig, done: Records) -> Stage[TrainingFigures]:
    """Plan training: shards to a checkpoint."""
    from flows.pipelines.restoration.train import train_stage

    return train_stage(config, done["shard"])


def plan_evaluate(config: RestorationConfig, done: Records) -> Stage[RestorationScores]:
    """Plan evaluation: checkpoint to scores and a report."""
    from flows.pipelines.restoration.evaluate import evaluate_stage

    return evaluate_stage(config, done["shard"], done["train"])


def plan_register(config: RestorationConfig, done: Records) -> Stage[RegistrationFigures]:
    """Plan registration: checkpoint and scores to a registered model."""
    from flows.pipelines.restoration.register import register_model

    return register_model(config, done["shard"], done["train"], done["evaluate"])


RESTORATION = Pipeline(
    name="restoration",
    config=RestorationConfig,
    steps=(
        Step("shard", plan_shard, "Raw data to shards."),
        Step("train", plan_train, "Shards to a checkpoint."),
        Step("evaluate", plan_evaluate, "Checkpoint to scores and a report."),
        Step("register", plan_register, "Checkpoint and scores to a registered model."),
    ),
)
