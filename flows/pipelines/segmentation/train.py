"""Stage ``train`` of the first pipeline: shards -> the segmentation U-Net's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.shards import shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(config: SegmentationConfig, shards: Record) -> Stage:
    """Plan the stage."""

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.segmentation.task import SegmentationTask

        return SegmentationTask(
            spec=config.train,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            num_channels=len(shards.figures["channels"]),
            classes=shards.figures["classes"],
        )

    return training_stage("train", config, config.train, (shards,), open_task)
