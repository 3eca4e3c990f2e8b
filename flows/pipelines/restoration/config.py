"""Configuration of the restoration pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_pipelines.images.specs import ImageSpec
from flows.config.pipeline import PipelineConfig
from unet_models.specs.restoration import (
    ColourisationSpec,
    DenoisingSpec,
    InpaintingSpec,
    RestorationSpec,
    SuperResolutionSpec,
    TaskSpec,
    Term,
    TileSpec,
    tiles_are_exact,
)


class EvaluateRestorationSpec(TileSpec):
    """Restoration of the held-out images, and its scores."""

    seed: int = Field(default=0, ge=0)
    """Seed of the degradation: that of an image is a function of (seed, its id)."""
    num_shown: int = Field(default=6, ge=0)
    """Images that the report shows beside the worst, the median and the best one."""


class RestorationConfig(PipelineConfig):
    """Configuration of the restoration pipeline."""

    pipeline: Literal["restoration"] = "restoration"
    """Name of the pipeline."""
    task: TaskSpec = DenoisingSpec()
    """Restoration task; ``name`` selects it."""
    data: ImageSpec = ImageSpec()
    """Images to shards."""
    train: RestorationSpec = RestorationSpec()
    """Shards to checkpoint."""
    evaluate: EvaluateRestorationSpec = EvaluateRestorationSpec()
    """Checkpoint to scores."""

    @property
    def main_metric(self) -> str:
        """Name of the metric that says most of the task."""
        return "psnr/hole" if isinstance(self.task, InpaintingSpec) else "psnr"

    @property
    def training(self) -> RestorationSpec:
        """Settings of the training with the loss terms of the task, where none are given."""
        terms = self.train.loss.terms or {default_term(self.task): 1.0}
        loss = self.train.loss.model_copy(update={"terms": terms})
        return self.train.model_copy(update={"loss": loss})

    @model_validator(mode="after")
    def _check_sizes(self) -> RestorationConfig:
        self.check_batch("train", self.train.global_batch_size)
        if isinstance(self.task, SuperResolutionSpec) and self.train.patch_size % self.task.factor:
            raise ValueError(
                f"train.patch_size ({self.train.patch_size}) must be a multiple of task.factor ({self.task.factor})"
            )
        if self.data.crop == "square" and self.data.resolution < self.train.patch_size:
            raise ValueError(
                f"data.resolution ({self.data.resolution}) must be at least train.patch_size ({self.train.patch_size})"
            )
        if self.data.crop == "buckets":
            raise ValueError("data.crop: buckets are of the diffusion pipeline; choose none or square")
        return self

    @model_validator(mode="after")
    def _check_tiles(self) -> RestorationConfig:
        if self.evaluate.tile is not None and not tiles_are_exact(self.train.model):
            raise ValueError(
                f"evaluate.tile: with train.model.norm {self.train.model.norm} every pixel depends on the whole image, "
                "and tiles would show; set evaluate.tile to null, or train.model.norm to none or batch"
            )
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> RestorationConfig:
        given = set(self.training.loss.terms) - {"adversarial"}
        allowed = loss_terms(self.task)
        if not given or not given <= allowed:
            raise ValueError(
                f"train.loss.terms: task {self.task.name} takes one or more of {', '.join(sorted(allowed))}, "
                f"and adversarial beside them, got {', '.join(self.train.loss.terms)}"
            )
        return self


def default_term(task: TaskSpec) -> Term:
    """Return the loss term of a task where the configuration names none."""
    if not isinstance(task, ColourisationSpec):
        return "charbonnier"
    return "cross_entropy" if task.output == "classes" else "l2"


def loss_terms(task: TaskSpec) -> set[str]:
    """Return the loss terms of a task, but for the adversarial one."""
    if not isinstance(task, ColourisationSpec):
        return {"l1", "l2", "charbonnier", "ssim"}
    return {"cross_entropy"} if task.output == "classes" else {"l1", "l2", "charbonnier"}
