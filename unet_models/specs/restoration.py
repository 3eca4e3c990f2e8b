"""Configuration of image restoration: the task, its network's training, and prediction in tiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data_pipelines.errors import ConfigError
from data_pipelines.specs import Spec
from unet_models.specs.loop import ModelTrainSpec
from unet_models.specs.networks import UNetSpec

SSIM_WINDOW = 11
"""Side of the window of SSIM in pixels (Wang 2004)."""
LOCAL_NORMS = ("none", "batch")
"""Normalisations whose output at a pixel depends on its neighbourhood alone, so that tiles are exact."""


class DenoisingSpec(Spec):
    """Removal of noise: the network predicts the noise, which is subtracted (DnCNN, Zhang 2017)."""

    name: Literal["denoising"] = "denoising"
    """Name of the task."""
    noise: Literal["gaussian", "poisson"] = "gaussian"
    """``gaussian``: independent of the image, of standard deviation ``sigma``; ``poisson``: counts of photons, of which
    white has ``peak``."""
    sigma: float | tuple[float, float] = 25.0
    """Standard deviation of Gaussian noise, in 8-bit levels (0..255): one number, or a range of which each image
    draws one (blind denoising)."""
    peak: float = Field(default=30.0, gt=0)
    """Expected photons of white in Poisson noise: fewer are noisier."""

    @model_validator(mode="after")
    def _check_sigma(self) -> Self:
        low, high = self.sigma_range
        if not 0 <= low <= high or high == 0:
            raise ValueError(f"sigma: give a positive number, or a range [a, b] with 0 <= a <= b, got {self.sigma}")
        return self

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest standard deviation, in 8-bit levels."""
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)


class SuperResolutionSpec(Spec):
    """Enlargement of images that were shrunk by antialiased bicubic interpolation."""

    name: Literal["super_resolution"] = "super_resolution"
    """Name of the task."""
    factor: Literal[2, 3, 4] = 2
    """Enlargement of either side."""
    upsample: Literal["pixel_shuffle", "resize"] = "pixel_shuffle"
    """``pixel_shuffle``: the network works on the small image, and its channels become pixels (Shi 2016). ``resize``:
    it works on the image enlarged by bicubic interpolation (VDSR, Kim 2016), at ``factor`` squared times the cost.
    Either adds what it predicts to the bicubic enlargement."""


class InpaintingSpec(Spec):
    """Filling of holes: irregular strokes and boxes. Known pixels are kept exactly."""

    name: Literal["inpainting"] = "inpainting"
    """Name of the task."""
    num_strokes: tuple[int, int] = (1, 4)
    """Range of the number of strokes in an image."""
    stroke_width: tuple[float, float] = (0.05, 0.15)
    """Range of their width, as a fraction of the image's shorter side."""
    num_boxes: tuple[int, int] = (0, 2)
    """Range of the number of boxes."""
    box_size: tuple[float, float] = (0.1, 0.3)
    """Range of a box's sides, as a fraction of the image's."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("num_strokes", "stroke_width", "num_boxes", "box_size"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}: give a range [a, b] with 0 <= a <= b, got [{low}, {high}]")
        if not self.num_strokes[0] + self.num_boxes[0]:
            raise ValueError("num_strokes and num_boxes both begin at 0, and every image needs a hole; raise one")
        return self


class ColourisationSpec(Spec):
    """Colours of a grey image: the channels a and b of CIELAB (D65) from its lightness L (Zhang 2016)."""

    name: Literal["colourisation"] = "colourisation"
    """Name of the task."""
    output: Literal["regression", "classes"] = "regression"
    """``regression``: a and b as numbers, which come out pale where several colours are likely. ``classes``: the
    probabilities of colours on a grid of 10, whose annealed mean is taken."""
    rebalance: float = Field(default=0.5, gt=0, le=1)
    """Rebalancing of rare colours in the loss of ``classes``: a colour weighs the inverse of its frequency mixed with
    this share of the uniform distribution. 1: no rebalancing."""
    temperature: float = Field(default=0.38, gt=0, le=1)
    """Temperature of the annealed mean; near 0 the likeliest colour, 1 the mean."""


TaskSpec = Annotated[
    DenoisingSpec | SuperResolutionSpec | InpaintingSpec | ColourisationSpec, Field(discriminator="name")
]
"""Restoration task; ``name`` selects it."""

Term = Literal["l1", "l2", "charbonnier", "ssim", "cross_entropy", "adversarial"]


class RestorationLossSpec(Spec):
    """Loss of restored images: a weighted sum of terms."""

    terms: dict[Term, float] = Field(default={})
    """Loss terms by name, and the weight of each: absolute error, squared error, Charbonnier (the former, smooth at 0),
    1 - SSIM, and for realistic texture the adversarial loss of a patch discriminator that is trained along.
    ``cross_entropy`` is that of colourisation by classes, and the only one there beside ``adversarial``. Empty
    (default): ``charbonnier``; for colourisation ``l2``, since the colour of least absolute error is mostly grey, and
    by classes ``cross_entropy``."""
    charbonnier_epsilon: float = Field(default=1e-3, gt=0)
    """Error, as a fraction of white, below which the Charbonnier loss is quadratic."""
    adversarial_start: int = Field(default=0, ge=0)
    """Optimizer step from which the adversarial loss counts."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if negative := [name for name, weight in self.terms.items() if weight < 0]:
            raise ValueError(f"terms: weights must be 0 or more, got {negative[0]}: {self.terms[negative[0]]}")
        compared = [weight for name, weight in self.terms.items() if name != "adversarial"]
        if compared and not any(compared):
            raise ValueError(f"terms: one beside adversarial needs a weight above 0, got {self.terms}")
        return self


class RestorationSpec(ModelTrainSpec):
    """Training of a restoration network on random patches of images."""

    global_batch_size: int = Field(default=16, ge=1)
    """Patches per optimizer step, over all workers together."""
    patch_size: int = Field(default=64, ge=16)
    """Side of a training patch in pixels of the restored image. Images must not be smaller (``data.min_side``)."""
    augment: Literal["none", "mirror", "dihedral"] = "dihedral"
    """Random copies of training patches: ``mirror`` left-right, ``dihedral`` all eight mirrorings and quarter turns."""
    model: UNetSpec = UNetSpec(channels=(32, 64, 128), norm="none")
    """Architecture of the network."""
    loss: RestorationLossSpec = RestorationLossSpec()
    """Training loss."""

    @model_validator(mode="before")
    @classmethod
    def _keep_other_defaults(cls, values: Any) -> Any:
        """Give fields of ``model`` that are left out the defaults that they have here, not those of segmentation."""
        given = values.get("model") if isinstance(values, dict) else None
        if not isinstance(given, dict) or given.get("preset"):
            return values
        default: UNetSpec = cls.model_fields["model"].default
        return values | {"model": default.model_dump(exclude_unset=True) | given}

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        try:
            self.model.check_axes(ndim=2)
        except ConfigError as error:
            raise ValueError(f"model.{error}") from None
        if self.model.deep_supervision:
            raise ValueError("model.deep_supervision: images have one output; set it to 0")
        if self.model.fusion is not None:
            raise ValueError("model.fusion: text and sound are inputs of segmentation networks; leave it out")
        if self.model.padding != "same":
            raise ValueError("model.padding: restored images keep their size; set it to same")
        return self


class TileSpec(Spec):
    """Prediction of images of any size, in tiles that overlap by the network's receptive field."""

    tile: int | None = Field(default=512, ge=16)
    """Side of a tile in pixels of the input, without its overlap: limits memory, and changes nothing about the image.
    Null: every image as a whole, which networks with normalisation ``instance`` or ``group`` need."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numeric precision of the forward pass."""


def tiles_are_exact(model: UNetSpec) -> bool:
    """Tell whether a network may see an image in tiles: its normalisation takes no statistics of the whole image."""
    return model.norm in LOCAL_NORMS


class ImageBundle(Spec):
    """Description of a restoration model: its task, and all that its weights need beside them."""

    format: int = 1
    task: TaskSpec
    model: UNetSpec
    predict: TileSpec
    background: tuple[int, int, int]
    """Colour behind transparent pixels, as in training."""
    max_pixels: int
    """Maximum number of pixels of an input file, as in training."""
