"""Stage ``train``: shards to the segmentation U-Net's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_pipelines.volumes.classes import Labels
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.initial import Meaning, prefixed
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.pipelines.segmentation.task import SegmentationTask
    from flows.training.task import TrainingTask


def train_stage(config: SegmentationConfig, shards: Record[VolumeShardFigures]) -> Stage[TrainingFigures]:
    """Plan the stage."""

    def build(attempt: Attempt) -> TrainingTask:
        return build_task(config, shards)

    meaning = _meaning(shards.figures.labels, shards.figures.channels, config.train.model.model_dump(mode="json"))
    return training_stage("train", config, config.train, (shards,), build, meaning=meaning, describe=describe_bundle)


def describe_bundle(bundle: Mapping[str, Any]) -> Meaning:
    """Read from the file beside a segmentation model's weights what they stand for."""
    return _meaning(Labels.model_validate(bundle["labels"]), tuple(bundle["channels"]), bundle["model"])


def _meaning(labels: Labels, channels: tuple[str, ...], model: Mapping[str, Any]) -> Meaning:
    made_for = {"channels": list(channels)} | prefixed("train.model", model)
    return Meaning(classes=labels.output_names, made_for=made_for)


def build_task(config: SegmentationConfig, shards: Record[VolumeShardFigures]) -> SegmentationTask:
    """Describe the training for its workers."""
    from data_pipelines.shards.index import read_table
    from data_pipelines.shards.reader import ShardReader
    from flows.pipelines.segmentation.augmentation import fit_augmentation
    from flows.pipelines.segmentation.modalities import check_modalities
    from flows.pipelines.segmentation.task import SegmentationTask
    from flows.pipelines.segmentation.weights import output_weights

    index = read_table(shards.output("index"))
    check_modalities(config.train.model, ShardReader(index, shards_uri(shards)))
    return SegmentationTask(
        spec=fit_augmentation(config.train, index),
        index_uri=shards.output("index"),
        shards_uri=shards_uri(shards),
        num_channels=len(shards.figures.channels),
        labels=shards.figures.labels,
        num_previous=shards.figures.num_previous,
        weights=output_weights(config.train.class_weights, shards.figures.labels, index),
    )
