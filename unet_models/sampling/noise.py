"""The diffusion process: schedules and samplers are diffusers', targets and loss weights are here.

A noisy latent is ``sqrt(a) x + sqrt(1 - a) e`` with ``a = alphas_cumprod[t]``, clean latents x and noise e
(Ho 2020, eq. 4).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unet_models.specs.diffusion import NoiseSpec

Sampler = Literal["ddpm", "ddim", "dpm_solver"]

_SCHEDULE = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


def build_scheduler(sampler: Sampler, spec: NoiseSpec, num_steps: int = 1) -> Any:
    """diffusers' scheduler for the process of ``spec``: ancestral DDPM, DDIM, or DPM-Solver++ (2M).

    ``num_steps`` is how many it is meant for: timesteps lie as Stable Diffusion has them, from 1 on, which leaves no
    room for all of them.
    """
    trailing = spec.zero_terminal_snr or num_steps == spec.num_timesteps
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    shared = {
        "num_train_timesteps": spec.num_timesteps,
        "beta_start": spec.beta_start,
        "beta_end": spec.beta_end,
        "beta_schedule": _SCHEDULE[spec.schedule],
        "prediction_type": spec.prediction_type,
        "rescale_betas_zero_snr": spec.zero_terminal_snr,
        "timestep_spacing": "trailing" if trailing else "leading",
        "steps_offset": 1,
    }
    if sampler == "ddpm":
        return DDPMScheduler(**shared, clip_sample=False)
    if sampler == "ddim":
        return DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=False)
    return DPMSolverMultistepScheduler(**shared, algorithm_type="dpmsolver++")


def alphas_cumprod(spec: NoiseSpec) -> Float[Tensor, " timesteps"]:
    """The share of signal in the variance at each timestep, float32."""
    return build_scheduler("ddpm", spec).alphas_cumprod


def add_noise(
    latents: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
    alphas: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Latents at the noise level of ``alphas`` (alphas_cumprod of each sample's timestep)."""
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def target(
    prediction_type: str,
    latents: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
    alphas: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """What the network should predict; velocity is ``sqrt(a) e - sqrt(1 - a) x`` (Salimans 2022, appendix D)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latents
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def loss_weights(prediction_type: str, alphas: Float[Tensor, " batch"], gamma: float | None) -> Float[Tensor, " batch"]:
    """Weight of each sample's squared error: 1, or min-SNR (Hang 2023).

    The paper weighs the error of the clean latents by ``min(SNR, gamma)``. One unit of that error is ``SNR`` units of
    the noise's and ``SNR + 1`` of the velocity's, by which their weights are divided.
    """
    if gamma is None:
        return torch.ones_like(alphas)
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=gamma)
    units: dict[str, Tensor] = {"sample": torch.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
    return weight / units[prediction_type]


def sample_posterior(
    moments: Float[Tensor, "batch two_channels height width"], noise: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Latents drawn from the autoencoder's posterior: mean and log-variance, clamped as diffusers does."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise


def draw_timesteps(uniform: Float[Tensor, " batch"], num_timesteps: int) -> Int[Tensor, " batch"]:
    """Numbers in [0, 1) -> timesteps, each equally likely."""
    return (uniform * num_timesteps).long().clamp(max=num_timesteps - 1)
