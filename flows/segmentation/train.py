"""Stage ``train`` of the first pipeline: shards -> the segmentation U-Net's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.config import SegmentationConfig
from flows.sharded import shards_uri
from flows.stages import Attempt, Record, Stage
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(config: SegmentationConfig, shards: Record) -> Stage:
    """Plan the stage."""

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.training.segmentation import SegmentationTask

        return SegmentationTask(
            spec=config.train,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            num_channels=len(shards.figures["channels"]),
            classes=shards.figures["classes"],
        )

    return training_stage("train", config, config.train, (shards,), open_task)
