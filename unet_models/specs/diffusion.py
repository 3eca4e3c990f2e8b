"""Configuration of latent diffusion: the noise schedule, its training, and sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec
from unet_models.specs.denoisers import DenoiserSpec, DenoisingUNetSpec
from unet_models.specs.loop import ModelTrainSpec

MIN_SIGNAL = 1e-6
"""Share of signal at the last timestep that predicting the noise needs: below it, an error of the predicted noise is
more than 1,000 times as large in the image."""
MIN_WEIGHT = 1e-12
"""Share of signal at the last timestep below which its min-SNR weight counts as 0."""

BETA_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
"""``NoiseSpec.schedule`` to ``beta_schedule`` of diffusers' schedulers."""


class NoiseSpec(Spec):
    """Diffusion process: the noise schedule, and the quantity that the network predicts."""

    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    """Noise schedule: ``linear`` betas (Ho 2020), ``scaled_linear``, whose square roots are linear (Rombach 2022), or
    ``cosine`` alphas (Nichol 2021)."""
    num_timesteps: int = Field(default=1000, ge=2)
    """Number of timesteps of the diffusion process in training."""
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    """Beta of the first timestep; read by the linear and scaled_linear schedules."""
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    """Beta of the last timestep; read by the linear and scaled_linear schedules."""
    zero_terminal_snr: bool = False
    """Rescale betas so that the last timestep is pure noise (Lin 2023, algorithm 1)."""
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """Quantity that the network predicts: the noise, the clean latents, or the velocity (Salimans 2022)."""

    @property
    def last_alpha(self) -> float:
        """Share of signal in the variance at the last timestep, where sampling starts (``alphas_cumprod[-1]``)."""
        return 0.0 if self.zero_terminal_snr else math.prod(1 - beta for beta in self._iter_betas())

    def _iter_betas(self) -> Iterator[float]:
        steps = self.num_timesteps
        power = 2 if self.schedule == "scaled_linear" else 1
        start, end = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        for i in range(steps):
            if self.schedule == "cosine":  # Nichol 2021, eq. 17
                yield min(1 - _cosine_alpha((i + 1) / steps) / _cosine_alpha(i / steps), 0.999)
            else:
                yield (start + (end - start) * i / (steps - 1)) ** power

    @model_validator(mode="after")
    def _check_terminal_snr(self) -> Self:
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "zero_terminal_snr: at the last timestep there is nothing but noise, so predicting it (epsilon) says "
                "nothing of the image; set prediction_type to v_prediction or sample"
            )
        return self


def _cosine_alpha(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


class ImageConditionSpec(Spec):
    """Image that is concatenated to the noisy latents; in training it is derived from the latents of each image."""

    kind: Literal["none", "low_resolution", "masked"] = "none"
    """``low_resolution``: the latents averaged over squares. ``masked``: the latents outside a box, whose place is
    random (1/4 to 3/4 of either side). Either adds a mask and the latent channels to ``model.in_channels``."""
    factor: int = Field(default=4, ge=2)
    """Side in latent pixels of the squares of ``low_resolution``."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of hiding the image in training, which drawing without one needs."""


class DiffusionSpec(ModelTrainSpec):
    """Training of the denoiser of latent diffusion."""

    model: DenoiserSpec = DenoisingUNetSpec()
    """Architecture of the network."""
    noise: NoiseSpec = NoiseSpec()
    """Diffusion process."""
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Upper bound of the signal-to-noise ratio in the loss weights (min-SNR, Hang 2023). None: all timesteps weigh
    the same. Not allowed with ``noise.zero_terminal_snr``: the last timestep would weigh nothing, and sampling starts
    there."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of replacing a caption by the empty prompt in training, which classifier-free guidance needs."""
    class_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of replacing a class by the label of no class in training, which classifier-free guidance and drawing
    without a class need. Read where ``model.num_class_embeds`` is set."""
    image_condition: ImageConditionSpec = ImageConditionSpec()
    """Image that is concatenated to the noisy latents."""

    @model_validator(mode="after")
    def _check_in_channels(self) -> Self:
        latent = self.model.out_channels
        needed = latent if self.image_condition.kind == "none" else 2 * latent + 1
        if self.model.in_channels != needed:
            added = "" if needed == latent else f" ({latent} noisy latents, 1 mask, {latent} of the image)"
            raise ValueError(
                f"model.in_channels ({self.model.in_channels}) must be {needed}{added} with model.out_channels "
                f"{latent} and image_condition.kind {self.image_condition.kind}"
            )
        return self

    @model_validator(mode="after")
    def _check_last_timestep(self) -> Self:
        signal = self.noise.last_alpha
        if self.min_snr_gamma is not None and signal < MIN_WEIGHT:
            raise ValueError(
                "min_snr_gamma: it weighs the last timestep, which is pure noise, by 0, so that the network never "
                "learns the step that sampling starts with; set min_snr_gamma to null "
                f"(got {self.min_snr_gamma:g}), or noise.zero_terminal_snr to false"
            )
        if self.noise.prediction_type == "epsilon" and signal < MIN_SIGNAL:
            raise ValueError(
                f"noise.prediction_type: at the last timestep {signal:.1g} of the variance is signal; sampling starts "
                "there, and predicting the noise (epsilon) says nothing of the image; set prediction_type to "
                "v_prediction or sample"
            )
        return self


class ImageRequest(Spec):
    """Request for one image."""

    prompt: str = ""
    """Text that describes the image; ignored by a model without text."""
    class_name: str = ""
    """Name of the image's class; empty: none. A model without classes refuses one."""
    seed: int
    """Random seed; the same seed gives the same image."""
    guidance_scale: float
    """Strength of classifier-free guidance, see ``SampleSpec.guidance_scale``."""
    negative_prompt: str = ""
    """Text that describes what to avoid; the default is the empty prompt."""
    width: int | None = Field(default=None, ge=1)
    """Width in pixels, a multiple of the autoencoder's downsampling factor. None: the width of the training images."""
    height: int | None = Field(default=None, ge=1)
    """Height in pixels, a multiple of the autoencoder's downsampling factor. None: the height of the training
    images."""


class SampleSpec(Spec):
    """Sampling of images from a trained model."""

    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "dpm_solver"
    """Sampler: ancestral DDPM (Ho 2020), deterministic DDIM (Song 2021), or DPM-Solver++ of second order (Lu 2022)."""
    num_inference_steps: int = Field(default=20, ge=1)
    """Sampling steps per image, at most ``num_timesteps`` of the noise schedule."""
    guidance_scale: float = Field(default=4.0, ge=1)
    """Strength of classifier-free guidance (Ho 2022): the factor that extrapolates from the prediction with the
    negative prompt to the one with the prompt. 1: no guidance."""
    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numeric precision of the forward pass. ``fp32`` gives the same image on every machine up to rounding; ``bf16``
    is faster on a GPU."""


class Bundle(Spec):
    """Metadata that a text-to-image model needs beside its networks."""

    format: int = 1
    """Version of this metadata."""
    noise: NoiseSpec
    """Diffusion process."""
    sample: SampleSpec
    """Default sampling settings, for requests that leave them out."""
    latent_shape: tuple[int, int, int]
    """Default shape of an image's latents: channels, height, width."""
    scaling_factor: float
    """Factor that latents are multiplied by before the diffusion process."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of their labels; the label after the last one stands for no class."""
    image_condition: ImageConditionSpec = ImageConditionSpec()
    """Image that is concatenated to the noisy latents."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour behind transparent pixels, in the images that it was trained on: RGB, 0..255."""
