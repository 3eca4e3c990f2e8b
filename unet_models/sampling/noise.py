"""Diffusion process: noise schedules and samplers of diffusers; noisy latents, training targets and loss weights.

A noisy latent is ``sqrt(a) x + sqrt(1 - a) e`` with ``a = alphas_cumprod[t]``, clean latents x and noise e
(Ho 2020, eq. 4).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unet_models.specs.diffusion import BETA_SCHEDULES, NoiseSpec

Sampler = Literal["ddpm", "ddim", "dpm_solver"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]


def build_scheduler(
    sampler: Sampler, spec: NoiseSpec, num_inference_steps: int | None = None, device: torch.device | None = None
) -> Any:
    """Build diffusers' scheduler for the process of ``spec``: ancestral DDPM, DDIM, or DPM-Solver++ (2M).

    With ``num_inference_steps`` its timesteps are set, on ``device``. They are spaced from the last timestep down
    ("trailing", Lin 2023, section 3.3), so that sampling starts from pure noise at the noise level that the network was
    trained for, whatever their number; Stable Diffusion's "leading" spacing starts below it.

    DDIM is the DPM-Solver++ of first order (Lu 2022, section 4.1), which steps from each timestep to the next one of
    its list: diffusers' DDIMScheduler takes the whole part of the mean distance, and is off where it is no integer.
    """
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    shared = {
        "num_train_timesteps": spec.num_timesteps,
        "beta_start": spec.beta_start,
        "beta_end": spec.beta_end,
        "beta_schedule": BETA_SCHEDULES[spec.schedule],
        "prediction_type": spec.prediction_type,
        "rescale_betas_zero_snr": spec.zero_terminal_snr,
        "timestep_spacing": "trailing",
        "steps_offset": 1,  # not used by this spacing; diffusers' pipeline warns of another value
    }
    scheduler: Any
    if sampler == "ddpm":
        scheduler = DDPMScheduler(**shared, clip_sample=False)
    else:
        order = 1 if sampler == "ddim" else 2
        scheduler = DPMSolverMultistepScheduler(**shared, algorithm_type="dpmsolver++", solver_order=order)
    if num_inference_steps is not None:
        _set_timesteps(scheduler, num_inference_steps, device)
    return scheduler


def _set_timesteps(scheduler: Any, num_inference_steps: int, device: torch.device | None) -> None:
    """Set exactly that many timesteps, of which none is negative.

    For some numbers (61 of 1000) diffusers' rounding adds timestep -1, which it takes for the noisiest one.
    """
    scheduler.set_timesteps(num_inference_steps, device=device)
    if len(scheduler.timesteps) > num_inference_steps:
        scheduler.set_timesteps(timesteps=scheduler.timesteps[:num_inference_steps].tolist(), device=device)


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
