"""Configuration of training and predicting with a segmentation U-Net."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec
from unet_models.specs.loop import ModelTrainSpec
from unet_models.specs.networks import UNetSpec


class LossSpec(Spec):
    """The segmentation loss: a weighted sum of terms."""

    terms: dict[Literal["cross_entropy", "dice", "iou", "tversky", "focal"], float] = Field(
        default={"cross_entropy": 1.0, "dice": 1.0}
    )
    """Term name to weight."""
    batch_dice: bool = False
    """Sum the overlap terms over the whole global batch instead of per sample (steadier for small 2-D patches)."""
    tversky_alpha: float = Field(default=0.3, ge=0, le=1)
    """Weight of false positives in the Tversky term; false negatives weigh ``1 - alpha``."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """Focusing exponent of the focal term."""


class AugmentSpec(Spec):
    """Random changes to a training patch; each ``p_*`` is the probability that a sample gets it."""

    mirror: bool = True
    """Flip each axis with probability one half."""
    p_rotate: float = Field(default=0.2, ge=0, le=1)
    rotate_degrees: float = Field(default=30.0, ge=0, le=180)
    """Rotation angles are uniform in plus or minus this, about each axis."""
    p_scale: float = Field(default=0.2, ge=0, le=1)
    scale: tuple[float, float] = (0.7, 1.4)
    p_noise: float = Field(default=0.1, ge=0, le=1)
    noise_variance: float = Field(default=0.1, ge=0)
    """Variance is uniform between 0 and this, in units of the normalised intensity."""
    p_blur: float = Field(default=0.2, ge=0, le=1)
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    """Voxels."""
    p_brightness: float = Field(default=0.15, ge=0, le=1)
    brightness: tuple[float, float] = (0.75, 1.25)
    p_contrast: float = Field(default=0.15, ge=0, le=1)
    contrast: tuple[float, float] = (0.75, 1.25)
    p_low_resolution: float = Field(default=0.25, ge=0, le=1)
    low_resolution: tuple[float, float] = (0.5, 1.0)
    p_gamma: float = Field(default=0.3, ge=0, le=1)
    p_gamma_inverted: float = Field(default=0.1, ge=0, le=1)
    gamma: tuple[float, float] = (0.7, 1.5)

    @classmethod
    def nothing(cls) -> Self:
        """No change at all."""
        chances = dict.fromkeys((name for name in cls.model_fields if name.startswith("p_")), 0.0)
        return cls.model_validate({"mirror": False, **chances})


class TrainSpec(ModelTrainSpec):
    """One training of a segmentation U-Net."""

    patch_size: tuple[int, ...] = (40, 56, 40)
    """Voxels of a training patch, one number per spatial axis; the sliding window has the same size."""
    patch_margin: int = Field(default=0, ge=0)
    """Extra voxels read around each patch so that rotation and scaling bring in real surroundings."""
    foreground_fraction: float = Field(default=1 / 3, ge=0, le=1)
    """Last part of each batch whose patches are centred on a foreground voxel, its class drawn uniformly."""
    model: UNetSpec = UNetSpec()
    """The network."""
    loss: LossSpec = LossSpec()
    """The objective."""
    augment: AugmentSpec = AugmentSpec()
    """Random changes to training patches."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if any(size < 1 for size in self.patch_size):
            raise ValueError(f"patch_size: sizes must be positive, got {list(self.patch_size)}")
        if self.loss.batch_dice and self.micro_batch_size is not None:
            raise ValueError(
                "loss.batch_dice sums over the whole batch, which micro_batch_size splits: leave one of the two out, "
                f"got micro_batch_size {self.micro_batch_size}"
            )
        return self


class PredictSpec(Spec):
    """Sliding-window prediction."""

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share of a window that the next one covers again."""
    tta: bool = True
    """Average over mirrored copies (2^ndim windows for one)."""
    batch_size: int = Field(default=4, ge=1)
    """Windows per forward pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32 gives the same labels whatever the batch and the number of threads; bf16 is faster on a GPU."""
