"""Drawing latents from a noise predictor, with classifier-free guidance; the samplers are diffusers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.specs.diffusion import NoiseSpec, SampleSpec
from unet_models.sampling.noise import build_scheduler

Trace = Callable[[int, Tensor], None]


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Float[Tensor, "batch channels h w"]:
    """Standard normals, each image's from its own generator: (B, *shape) on the generators' device."""
    return torch.cat([torch.randn((1, *shape), generator=g, device=g.device) for g in generators])


@torch.no_grad()
def sample_latents(
    denoiser: nn.Module,
    noise: NoiseSpec,
    spec: SampleSpec,
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    prompts: Float[Tensor, "batch tokens context"],
    negatives: Float[Tensor, "batch tokens context"],
    guidance_scales: Sequence[float] | None = None,
    trace: Trace = lambda step, latents: None,
) -> Float[Tensor, "batch channels h w"]:
    """Latents (B, *shape), scaled as in training, on the device of ``prompts``.

    The prediction is ``n + g (p - n)`` with p and n those with the prompt and with the negative one, and g
    ``spec.guidance_scale``, or each image's own of ``guidance_scales`` (Ho 2022, eq. 6); below 1 it counts as 1, no
    guidance. Noise is drawn on the generators' device, so that the CPU's give the same image on any machine. ``trace``
    sees the latents after each step.
    """
    if spec.num_inference_steps > noise.num_timesteps:
        raise ValueError(
            f"num_inference_steps ({spec.num_inference_steps}) must be at most the number of timesteps of training "
            f"({noise.num_timesteps})"
        )
    device = prompts.device
    scheduler: Any = build_scheduler(spec.sampler, noise, spec.num_inference_steps)
    scheduler.set_timesteps(spec.num_inference_steps, device=device)
    latents = draw_noise(shape, generators).to(device) * scheduler.init_noise_sigma
    scales = [max(scale, 1.0) for scale in guidance_scales or [spec.guidance_scale] * len(prompts)]
    guided = any(scale > 1 for scale in scales)
    weights = torch.tensor(scales, device=device).view(-1, 1, 1, 1)
    context = torch.cat([negatives, prompts]) if guided else prompts
    for i, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        predicted = denoiser(scaled, timestep.expand(len(scaled)), context).float()
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + weights * (with_prompt - without)
        latents = scheduler.step(predicted, timestep, latents, generator=list(generators)).prev_sample
        trace(i, latents)
    return latents
