"""Configuration of the segmentation pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_pipelines.volumes.specs import DataSpec
from flows.config.pipeline import PipelineConfig
from flows.tuning.spec import SearchSpec
from unet_models.specs.segmentation import PredictSpec, TrainSpec


class EvaluateSpec(PredictSpec):
    """Prediction and scoring of the held-out cases, in their original geometry."""

    tolerance_mm: float = Field(default=1.0, gt=0)
    """Tolerance of the surface Dice, in mm."""
    exit_thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Values of ``exit_confidence`` whose Dice and time the report compares; each predicts every held-out case once
    more."""


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
        exits = self.evaluate.exit_confidence is not None or self.evaluate.exit_thresholds
        if exits and self.train.model.fusion is not None:
            raise ValueError("evaluate.exit_confidence and exit_thresholds are for networks without train.model.fusion")
        if exits and not (self.train.model.deep_supervision and self.train.model.decoder == "unet"):
            raise ValueError(
                "evaluate.exit_confidence and exit_thresholds need heads to leave at: set train.model.deep_supervision "
                f"to 1 or more, with decoder unet (got {self.train.model.deep_supervision}, {self.train.model.decoder})"
            )
        self._check_folds()
        spacing = self.data.preprocess.spacing
        if isinstance(spacing, tuple) and len(spacing) != self.data.ndim:
            raise ValueError(f"data.preprocess.spacing has {len(spacing)} numbers, data.ndim is {self.data.ndim}")
        self.check_batch("train", self.train.global_batch_size)
        return self

    def _check_folds(self) -> None:
        """Refuse what members of an ensemble cannot have."""
        if isinstance(self.data.fold, int):
            return
        parts = {
            "search": self.search is not None,
            "train.model.fusion": self.train.model.fusion is not None,
            "evaluate.exit_confidence": self.evaluate.exit_confidence is not None,
        }
        for name, is_set in parts.items():
            if is_set:
                raise ValueError(
                    f"data.fold: several folds become one model, which has no {name}; leave it out, or set one fold"
                )
