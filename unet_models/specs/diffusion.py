"""Configuration of latent diffusion: the noise schedule, its training, and sampling."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec
from unet_models.specs.loop import ModelTrainSpec
from unet_models.specs.networks import DenoiserSpec


class NoiseSpec(Spec):
    """The diffusion process: how much noise each timestep carries, and what the network predicts."""

    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    """How beta grows: linearly (Ho 2020), its square root linearly (Rombach 2022), or cosine alphas (Nichol 2021)."""
    num_timesteps: int = Field(default=1000, ge=2)
    """Timesteps of training."""
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    """First beta (linear, scaled_linear)."""
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    """Last beta (linear, scaled_linear)."""
    zero_terminal_snr: bool = False
    """Rescale betas so that the last timestep is pure noise (Lin 2023, algorithm 1)."""
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """The noise, the clean latents, or the velocity (Salimans 2022)."""

    @model_validator(mode="after")
    def _terminal_step_can_be_predicted(self) -> Self:
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "zero_terminal_snr: at the last timestep there is nothing but noise, so predicting it (epsilon) says "
                "nothing of the image; set prediction_type to v_prediction or sample"
            )
        return self


class DiffusionSpec(ModelTrainSpec):
    """One training of a latent-diffusion U-Net."""

    model: DenoiserSpec = DenoiserSpec()
    """The network."""
    noise: NoiseSpec = NoiseSpec()
    """The diffusion process."""
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Bound of the signal-to-noise ratio in the loss weights (Hang 2023); none: every timestep weighs the same."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of samples that see the empty prompt instead of their caption, which guidance needs."""


class ImageRequest(Spec):
    """One image to be drawn."""

    prompt: str
    """What it shows."""
    seed: int
    """The same seed gives the same image."""
    guidance_scale: float
    """As ``SampleSpec.guidance_scale``."""
    negative_prompt: str = ""
    """What to stay away from."""
    width: int | None = Field(default=None, ge=1)
    """In pixels, a multiple of what the autoencoder shrinks sides by; none: as trained."""
    height: int | None = Field(default=None, ge=1)
    """As ``width``."""


class SampleSpec(Spec):
    """How images are drawn from a trained model."""

    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "dpm_solver"
    """Ancestral (Ho 2020), deterministic (Song 2021), or DPM-Solver++ of second order (Lu 2022)."""
    num_inference_steps: int = Field(default=20, ge=1)
    """Network evaluations per image."""
    guidance_scale: float = Field(default=4.0, ge=1)
    """How far to go beyond the prediction with the prompt, away from the one without (Ho 2022); 1: no guidance."""
    batch_size: int = Field(default=32, ge=1)
    """Images drawn at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32 gives the same image on every machine up to rounding; bf16 is faster on a GPU."""


class Bundle(Spec):
    """What the networks of a text-to-image model must be accompanied by to be usable."""

    format: int = 1
    noise: NoiseSpec
    """The diffusion process."""
    sample: SampleSpec
    """What holds where a request says nothing else."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of an image's latents."""
    scaling_factor: float
    """What latents are multiplied by before the diffusion process."""
