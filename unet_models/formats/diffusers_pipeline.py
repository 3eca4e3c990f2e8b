"""Noise process and scale of the latents of a pipeline of diffusers, read from the configurations of its parts.

Needs no diffusers. A key that a configuration lacks has diffusers' default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unet_models.specs.diffusion import BETA_SCHEDULES

DEFAULT_SCALING_FACTOR = 0.18215
"""That of Stable Diffusion 1.x, whose published ``vae/config.json`` does not say it."""


def read_noise(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Read the noise process of a ``scheduler_config.json``, by field of ``NoiseSpec``.

    A value that is not implemented is returned as it is; of the betas, those that the schedule reads. A scheduler
    without betas (flow matching, EDM) has its class for a schedule.
    """
    if "beta_schedule" not in scheduler and "_class_name" in scheduler:
        return {"schedule": scheduler["_class_name"]}
    named = {theirs: ours for ours, theirs in BETA_SCHEDULES.items()}
    schedule = scheduler.get("beta_schedule", "linear")
    if scheduler.get("trained_betas") is not None:
        schedule = "trained_betas"
    found = {
        "schedule": named.get(schedule, schedule),
        "num_timesteps": scheduler.get("num_train_timesteps", 1000),
        "beta_start": scheduler.get("beta_start", 0.0001),
        "beta_end": scheduler.get("beta_end", 0.02),
        "zero_terminal_snr": scheduler.get("rescale_betas_zero_snr", False),
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
    }
    read = found.keys() - ({"beta_start", "beta_end"} if found["schedule"] == "cosine" else set())
    return {field: value for field, value in found.items() if field in read}


def read_scaling_factor(autoencoder: Mapping[str, Any]) -> float:
    """Read the factor that latents are multiplied by from the ``config.json`` of an ``AutoencoderKL``."""
    return float(autoencoder.get("scaling_factor", DEFAULT_SCALING_FACTOR))
