"""What a user may say about networks, training and prediction. Light to import: no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of every configuration model: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class UNetSpec(Spec):
    """One segmentation U-Net: what its stages are made of. See ``unet_models.unet.UNet``."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels of each stage, full resolution first."""
    strides: tuple[int | tuple[int, ...], ...] | None = None
    """Downsampling between stages, one entry fewer than ``channels``; none: 2 on every axis."""
    num_convs: int = Field(default=2, ge=1)
    """Convolutions in each encoder stage."""
    num_decoder_convs: int = Field(default=2, ge=1)
    """Convolutions in each decoder stage."""
    block: Literal["plain", "residual", "separable"] = "plain"
    """conv-norm-act; the same with an identity shortcut (He 2016); or depthwise-separable convolutions (light)."""
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation after each convolution. Batch statistics depend on how samples are spread over workers."""
    activation: Literal["leaky_relu", "relu", "gelu", "silu"] = "leaky_relu"
    """Non-linearity after each normalisation."""
    downsample: Literal["strided", "max_pool"] = "strided"
    """A strided first convolution (nnU-Net), or max pooling (Ronneberger 2015)."""
    upsample: Literal["transposed", "linear"] = "transposed"
    """A transposed convolution, or linear interpolation followed by a 1x1 convolution."""
    upsample_bias: bool = True
    """Whether the transposed convolutions carry a bias."""
    skip: Literal["concat", "add", "gated"] = "concat"
    """How encoder features meet the decoder's: concatenated, added, or gated by attention (Oktay 2018)."""
    deep_supervision: int = Field(default=0, ge=0)
    """Number of coarser decoder stages that also predict during training."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Channel dropout after each convolution's activation in encoder and decoder. Which channels are dropped depends on
    how samples are spread over workers."""

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if len(self.channels) < 2:
            raise ValueError(f"channels: a U-Net needs at least 2 stages, got {list(self.channels)}")
        if self.strides is not None and len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"strides: need {len(self.channels) - 1} entries for {len(self.channels)} stages, "
                f"got {len(self.strides)}"
            )
        if self.deep_supervision >= len(self.channels) - 1:
            raise ValueError(
                f"deep_supervision: at most {len(self.channels) - 2} coarser stages exist, got {self.deep_supervision}"
            )
        return self


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


class OptimizerSpec(Spec):
    """Optimizer, learning rate and its schedule, which is a pure function of the step."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=3e-5, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Nesterov momentum (``sgd``)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moment decay (``adamw``)."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """poly is (1 - step/num_steps)^0.9."""
    warmup_steps: int = Field(default=0, ge=0)
    """Linear warm-up before the schedule."""
    clip_norm: float | None = Field(default=12.0, gt=0)
    """Global gradient-norm clip; none: no clipping."""


class LoopSpec(Spec):
    """What every training has in common: the loop, whatever is trained."""

    global_batch_size: int = Field(default=2, ge=1)
    """Samples per optimizer step over all workers."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Most samples a worker holds at once; a larger share is accumulated. None: its whole share."""
    num_steps: int = Field(default=1000, ge=1)
    """Optimizer steps."""
    seed: int = 0
    """Batch order and all random numbers are functions of (seed, step, slot) alone."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer and schedule."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Exponential moving average of the weights, with warm-up; the average is what is evaluated. None: off."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 runs convolutions under autocast; weights, losses and sums stay in float32."""
    compile: bool = False
    """torch.compile the network (worth it on a GPU)."""
    channels_last: bool = True
    """Channels-last memory, faster wherever it was measured here."""
    validate_every_steps: int = Field(default=500, ge=1)
    """Steps between validations."""
    validate_cases: int = Field(default=16, ge=0)
    """Validation cases looked at during training (evenly spaced over the split); 0: none."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints: the most that a crash can cost."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept, the best by validation (the last, where there is none), beside the newest."""
    select: Literal["last", "best"] = "last"
    """Which checkpoint is evaluated and registered. ``best`` looks at the validation split, so its figure flatters."""
    log_every_steps: int = Field(default=20, ge=1)
    """Steps between log lines; metrics are means over them."""

    @model_validator(mode="after")
    def _best_is_known(self) -> Self:
        if self.select == "best" and not self.validate_cases:
            raise ValueError("select: best needs validation; set validate_cases above 0")
        if self.select == "best" and self.checkpoint_every_steps % self.validate_every_steps:
            raise ValueError(
                f"select: best needs a validation at every checkpoint; make checkpoint_every_steps "
                f"({self.checkpoint_every_steps}) a multiple of validate_every_steps ({self.validate_every_steps})"
            )
        return self


class ModelTrainSpec(LoopSpec):
    """A training whose outcome is registered."""

    warm_start: Literal["", "champion"] = ""
    """Begin with the weights of the registered champion, where there is one, instead of random ones: for a data set
    that grows from night to night."""


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
