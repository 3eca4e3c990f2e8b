"""Diffusion process: noise schedules and samplers of diffusers; noisy latents, training targets and loss weights.

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
PredictionType = Literal["epsilon", "sample", "v_prediction"]

_SCHEDULE = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


def build_scheduler(sampler: Sampler, spec: NoiseSpec, num_inference_steps: int = 1) -> Any:
    """Build diffusers' scheduler for the process of ``spec``: ancestral DDPM, DDIM, or DPM-Solver++ (2M).

    ``num_inference_steps`` is the number of sampling steps that it will be used for. Timesteps are spaced as in
    Stable Diffusion ("leading", from timestep 1 on), unless all timesteps are wanted, which that spacing has no room
    for, or the last one must be pure noise: these take the "trailing" spacing (Lin 2023, section 3.3).
    """
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    is_trailing = spec.zero_terminal_snr or num_inference_steps == spec.num_timesteps
    shared = {
        "num_train_timesteps": spec.num_timesteps,
        "beta_start": spec.beta_start,
        "beta_end": spec.beta_end,
        "beta_schedule": _SCHEDULE[spec.schedule],
        "prediction_type": spec.prediction_type,
        "rescale_betas_zero_snr": spec.zero_terminal_snr,
        "timestep_spacing": "trailing" if is_trailing else "leading",
        "steps_offset": 1,
    }
    if sampler == "ddpm":
        return DDPMScheduler(**shared, clip_sample=False)
    if sampler == "ddim":
        return DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=False)
    return DPMSolverMultistepScheduler(**shared, algorithm_type="dpmsolver++")


def alphas_cumprod(spec: NoiseSpec) -> Float[Tensor, " timesteps"]:
    """Compute the fraction of signal in the variance at each timestep, float32."""
    return build_scheduler("ddpm", spec).alphas_cumprod


def add_noise(
    latents: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
    alphas: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Mix latents and noise at the noise level of ``alphas``, the alphas_cumprod of each sample's timestep."""
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def target(
    prediction_type: PredictionType,
    latents: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
    alphas: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Compute the training target: noise, latents, or velocity.

    The velocity is ``sqrt(a) e - sqrt(1 - a) x`` (Salimans 2022, appendix D).
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latents
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def loss_weights(
    prediction_type: PredictionType, alphas: Float[Tensor, " batch"], gamma: float | None
) -> Float[Tensor, " batch"]:
    """Compute the weight of each sample's squared error: 1, or min-SNR with ``gamma`` (Hang 2023).

    The paper weighs the error of the clean latents by ``min(SNR, gamma)``. One unit of that error is ``SNR`` units of
    the noise's and ``SNR + 1`` of the velocity's, so the weights of these are divided by it.
    """
    if gamma is None:
        return torch.ones_like(alphas)
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=gamma)
    units: dict[PredictionType, Tensor] = {"sample": torch.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
    return weight / units[prediction_type]


def sample_posterior(
    moments: Float[Tensor, "batch two_channels height width"], noise: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Sample latents from the autoencoder's posterior: ``mean + std * noise``.

    ``moments`` hold the mean, then the log-variance, which is clamped as in diffusers.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise


def draw_timesteps(uniform: Float[Tensor, " batch"], num_timesteps: int) -> Int[Tensor, " batch"]:
    """Turn uniform numbers in [0, 1) into timesteps, each equally likely."""
    return (uniform * num_timesteps).long().clamp(max=num_timesteps - 1)
