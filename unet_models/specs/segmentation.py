"""Configuration of training a segmentation U-Net and of predicting with it."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_pipelines.errors import ConfigError
from data_pipelines.specs import Spec
from unet_models.specs.loop import ModelTrainSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.valid import border_of, find_misfits


class LossSpec(Spec):
    """Segmentation loss: a weighted sum of terms."""

    terms: dict[Literal["cross_entropy", "dice", "iou", "tversky", "focal"], float] = Field(
        default={"cross_entropy": 1.0, "dice": 1.0}
    )
    """Loss terms by name, and the weight of each."""
    batch_dice: bool = False
    """Compute the overlap terms (dice, iou, tversky) over the whole global batch instead of per sample; steadier for
    small 2-D patches."""
    tversky_alpha: float = Field(default=0.3, ge=0, le=1)
    """Weight of false positives in the Tversky term; false negatives weigh ``1 - tversky_alpha``."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """Focusing exponent of the focal term (Lin 2017); 0 makes it the cross-entropy."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if min(self.terms.values(), default=0.0) < 0 or not any(self.terms.values()):
            raise ValueError(f"terms: weights must be 0 or more, and one above 0, got {self.terms}")
        return self


class TargetSpec(Spec):
    """Meaning of a segmentation network's outputs, and of the numbers in masks."""

    num_classes: int
    """Number of exclusive classes, background included; masks hold 0 to one below it, and it where they are ignored."""
    regions: tuple[tuple[int, ...], ...] = ()
    """Classes of each output, which may overlap; empty: the outputs are the classes."""
    has_ignored: bool = False
    """True where masks may have ignored voxels."""
    weights: tuple[float, ...] = ()
    """Weight of each output in the loss; empty: all weigh alike."""


class AugmentSpec(Spec):
    """Random augmentation of training patches (nnU-Net's transforms).

    Each ``p_*`` is the probability that a sample gets that transform; its strength is uniform in the range given.
    """

    mirror_axes: tuple[int, ...] | None = None
    """Axes that are mirrored, each with probability one half, in training and in test-time augmentation: canonical
    axes of a volume (0 right-left, 1 front-back, 2 up-down), 0 rows and 1 columns of an image. ``[]`` mirrors none,
    for classes that differ only by side. None: all axes."""
    p_rotate: float = Field(default=0.2, ge=0, le=1)
    """Probability of rotation."""
    rotate_degrees: float = Field(default=30.0, ge=0, le=180)
    """Maximum rotation angle about each axis, in degrees, in either direction."""
    p_scale: float = Field(default=0.2, ge=0, le=1)
    """Probability of scaling."""
    scale: tuple[float, float] = (0.7, 1.4)
    """Range of the scale factor; above 1 structures become larger."""
    coarse_axis: Literal["auto", 0, 1, 2] | None = "auto"
    """Axis of thick slices in 3-D, counted from 0: rotation, scaling and low resolution leave it alone and work in the
    plane of the other two, as in nnU-Net. ``auto``: the axis whose spacing is more than 3 times the finest one's, where
    it is the only one. None: no axis."""
    p_noise: float = Field(default=0.1, ge=0, le=1)
    """Probability of additive Gaussian noise."""
    noise_std: float = Field(default=0.1, ge=0)
    """Maximum standard deviation of the noise, in units of the normalised intensity."""
    p_blur: float = Field(default=0.2, ge=0, le=1)
    """Probability of Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    """Range of the standard deviation of the blur, in voxels."""
    p_brightness: float = Field(default=0.15, ge=0, le=1)
    """Probability of a brightness change."""
    brightness: tuple[float, float] = (0.75, 1.25)
    """Range of the factor that intensities are multiplied by."""
    p_contrast: float = Field(default=0.15, ge=0, le=1)
    """Probability of a contrast change."""
    contrast: tuple[float, float] = (0.75, 1.25)
    """Range of the factor that deviations from the mean intensity are multiplied by; the result is clipped to the
    range of the original intensities."""
    p_low_resolution: float = Field(default=0.25, ge=0, le=1)
    """Probability of simulated low resolution: downsampling, then linear upsampling to the original size."""
    low_resolution: tuple[float, float] = (0.5, 1.0)
    """Range of the downsampling factor; 0.5 halves each axis, 1 changes nothing."""
    p_gamma: float = Field(default=0.3, ge=0, le=1)
    """Probability of gamma correction, which keeps mean and standard deviation."""
    p_gamma_inverted: float = Field(default=0.1, ge=0, le=1)
    """Probability of gamma correction of the inverted intensities, drawn apart from ``p_gamma``."""
    gamma: tuple[float, float] = (0.7, 1.5)
    """Range of the exponent of both gamma corrections."""
    p_distort: float = Field(default=0.4, ge=0, le=1)
    """Probability, for each class of a cascade's previous segmentation, that it is dilated, eroded, closed or opened:
    the network must not rely on its borders. Read by cascades alone."""
    distort_radius: int = Field(default=4, ge=1)
    """Maximum radius of these, in voxels."""
    p_remove: float = Field(default=0.2, ge=0, le=1)
    """Probability, for each class of a cascade's previous segmentation, that one of its components, of less than 15 %
    of the patch, is taken away: the network must find what was missed. Read by cascades alone."""

    @classmethod
    def nothing(cls) -> Self:
        """Build a spec that changes nothing."""
        probabilities = dict.fromkeys((name for name in cls.model_fields if name.startswith("p_")), 0.0)
        return cls.model_validate({"mirror_axes": (), **probabilities})

    def mirrored(self, ndim: int) -> tuple[int, ...]:
        """Return the axes to mirror of ``ndim`` spatial ones."""
        return tuple(range(ndim)) if self.mirror_axes is None else self.mirror_axes


class TrainSpec(ModelTrainSpec):
    """Training of a segmentation U-Net."""

    patch_size: tuple[int, ...] = (40, 56, 40)
    """Size of a training patch in voxels, one number per spatial axis; also the window size of sliding-window
    prediction. A network with valid convolutions (``model.padding``) is given its border in addition: 572 voxels
    for a patch of 388 in Ronneberger 2015."""
    patch_growth: int = Field(default=1, ge=1)
    """Sizes of patches that training goes through, the smallest first and each for as many steps (Fischer 2024): early
    steps, on small patches, are cheap. They are multiples of the product of the network's strides, twice it or more. 1
    (default): ``patch_size`` all along."""
    patch_margin: int | tuple[int, ...] | None = None
    """Extra voxels read on each side of a patch, so that rotation and scaling bring in real surroundings instead of
    zeros: one number, or one per spatial axis. None: as many as the largest rotation and scaling reach, where the
    volumes have them."""
    foreground_fraction: float = Field(default=1 / 3, ge=0, le=1)
    """Fraction of each batch whose patches are centred on a foreground voxel of a uniformly drawn class (foreground
    oversampling)."""
    model: UNetSpec = UNetSpec()
    """Architecture of the network."""
    loss: LossSpec = LossSpec()
    """Training loss."""
    class_weights: dict[str, Annotated[float, Field(gt=0)]] | Literal["auto"] | None = None
    """Weight of each class (or region) in the loss, by name; those that are not named have 1. ``auto``: small ones have
    the square root of how many times the typical (median) one is as large, at most 10. None: all weigh alike."""
    augment: AugmentSpec = AugmentSpec()
    """Random augmentation of training patches."""

    @property
    def margins(self) -> tuple[int, ...]:
        """Voxels read on each side of a patch, per axis; none where ``patch_margin`` is still to be computed."""
        if isinstance(self.patch_margin, tuple):
            return self.patch_margin
        return (self.patch_margin or 0,) * len(self.patch_size)

    @property
    def border(self) -> tuple[int, ...]:
        """Voxels around a patch that valid convolutions need to predict it, on each side, per axis; else 0."""
        return border_of(self.model, len(self.patch_size))

    @property
    def input_size(self) -> tuple[int, ...]:
        """Size of the network's input: a patch and its border."""
        return self.with_border(self.patch_size)

    def with_border(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of a patch and its border."""
        return tuple(size + 2 * border for size, border in zip(patch, self.border, strict=True))

    @property
    def patch_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the patches of each phase of the training."""
        count, full = self.patch_growth, self.patch_size
        stages = self.model.strides_per_axis(len(full))
        strides = [math.prod(stage[axis] for stage in stages) for axis in range(len(full))]

        def size_of(phase: int, axis: int) -> int:
            multiple = -(-full[axis] * phase // (count * strides[axis]))
            return min(full[axis], max(2, multiple) * strides[axis])

        return *(tuple(size_of(phase, axis) for axis in range(len(full))) for phase in range(1, count)), full

    def patch_at(self, step: int) -> tuple[int, ...]:
        """Return the size of the patches of an optimizer step, from 0."""
        if self.patch_growth == 1:
            return self.patch_size
        return self.patch_sizes[min(step * self.patch_growth // self.num_steps, self.patch_growth - 1)]

    def work(self, first: int, last: int) -> float:
        """Return the work of steps from ``first`` up to ``last``, exclusive, by the voxels of their patches."""
        phases, done = self.patch_sizes, 0.0
        for number, patch in enumerate(phases):
            starts, ends = (-(-(number + i) * self.num_steps // len(phases)) for i in range(2))
            steps = max(0, min(last, ends) - max(first, starts))
            done += steps * math.prod(patch) / math.prod(self.patch_size)
        return done

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if any(size < 1 for size in self.patch_size):
            raise ValueError(f"patch_size: sizes must be positive, got {list(self.patch_size)}")
        try:
            self.model.check_axes(len(self.patch_size))
        except ConfigError as error:
            raise ValueError(f"model.{error}") from None
        for axis, (smaller, larger) in find_misfits(self.model, self.patch_size).items():
            raise ValueError(
                f"patch_size: valid convolutions cannot predict {self.patch_size[axis]} voxels along axis {axis}; "
                f"give {f'{smaller} or ' if smaller > 0 else ''}{larger}"
            )
        axes, ndim = self.augment.mirrored(len(self.patch_size)), len(self.patch_size)
        if len(set(axes)) < len(axes) or not set(axes) <= set(range(ndim)):
            raise ValueError(f"augment.mirror_axes: different axes of 0..{ndim - 1} are needed, got {list(axes)}")
        if self.patch_growth > 1 and self.model.padding == "valid":
            raise ValueError("patch_growth: valid convolutions fit few sizes; set it to 1, or model.padding to same")
        if len(self.margins) != len(self.patch_size) or min(self.margins) < 0:
            raise ValueError(
                f"patch_margin must be one number, or one per axis of patch_size ({len(self.patch_size)}), 0 or more, "
                f"got {self.patch_margin}"
            )
        if self.loss.batch_dice and self.micro_batch_size is not None:
            raise ValueError(
                "loss.batch_dice sums over the whole batch, which micro_batch_size splits: leave one of the two out, "
                f"got micro_batch_size {self.micro_batch_size}"
            )
        return self


class PredictSpec(Spec):
    """Sliding-window prediction."""

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Minimum overlap of neighbouring windows, as a fraction of the window size."""
    weighting: Literal["gaussian", "nnunet"] = "gaussian"
    """Weights of a window's voxels: a Gaussian about its middle; ``nnunet`` has its peak half a voxel beyond the middle
    of even sizes, as nnU-Net's, whose labels it reproduces."""
    tta: bool | Literal["auto"] = True
    """Test-time augmentation: average the predictions of all copies mirrored along the axes that training mirrored
    (``train.augment.mirror_axes``). With all of n axes it takes 2^n times as long. ``auto``: every held-out case is
    predicted with it and without, and the registered model has it where it raises the mean Dice by 0.001 or more."""
    exit_confidence: float | None = Field(default=None, gt=0, le=1)
    """Class probability above which voxels are settled at a coarser head of deep supervision: windows that are settled
    everywhere leave the decoder there, which saves time. 1: none is ever settled. None: no early exits."""
    batch_size: int = Field(default=4, ge=1)
    """Most windows per forward pass; affects speed and memory alone."""
    memory_gb: float = Field(default=4.0, gt=0)
    """Memory in GB that the prediction of an image may take, without the features of the network. An image of
    many voxels and classes is predicted in strips to stay within it: windows where two meet are predicted twice. It
    changes no label."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numeric precision of the forward pass. ``fp32`` gives the same labels for every batch size and number of
    threads; ``bf16`` is faster on a GPU."""


def count_windows(size: float, window: int, overlap: float) -> int:
    """Return how many windows cover ``size`` voxels of an axis, where neighbours share ``overlap`` of one at least."""
    return 1 + math.ceil(max(0.0, size - window) / max(window * (1 - overlap), 1))
