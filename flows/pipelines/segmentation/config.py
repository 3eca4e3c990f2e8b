"""Configuration of the segmentation pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_pipelines.volumes.specs import DataSpec
from flows.config.pipeline import PipelineConfig
from flows.tuning.spec import SearchSpec
from unet_models.specs.segmentation import PredictSpec, TrainSpec


class EvaluateSpec(PredictSpec):
    """Prediction and scoring of the held-out cases, in their original geometry."""

    tolerance_mm: float = Field(default=1.0, gt=0)
    """Tolerance of the surface Dice, in mm."""


class SegmentationConfig(PipelineConfig):
    """Configuration of the segmentation pipeline."""

    pipeline: Literal["segmentation"] = "segmentation"
    """Name of the pipeline."""
    data: DataSpec = DataSpec()
    """Raw data to shards."""
    search: SearchSpec | None = None
    """Search over the network before it is trained, as ``unetflow search`` does. None: the network as configured."""
    train: TrainSpec = TrainSpec()
    """Shards to checkpoint."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Checkpoint to scores."""

    @model_validator(mode="after")
    def _check_axes(self) -> SegmentationConfig:
        if len(self.train.patch_size) != self.data.ndim:
            raise ValueError(
                f"train.patch_size has {len(self.train.patch_size)} numbers, data.ndim is {self.data.ndim}: "
                "give one number per spatial axis"
            )
        spacing = self.data.preprocess.spacing
        if isinstance(spacing, tuple) and len(spacing) != self.data.ndim:
            raise ValueError(f"data.preprocess.spacing has {len(spacing)} numbers, data.ndim is {self.data.ndim}")
        self.check_batch("train", self.train.global_batch_size)
        return self
