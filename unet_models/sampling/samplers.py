"""Sampling of latents from a denoiser with classifier-free guidance; the samplers are diffusers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from data_pipelines.errors import InputError
from unet_models.sampling.conditions import Conditions
from unet_models.sampling.noise import build_scheduler
from unet_models.specs.diffusion import NoiseSpec, SampleSpec

Trace = Callable[[int, Tensor], None]
"""Callback that receives the number of a finished sampling step, from 0, and the latents after it."""


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Float[Tensor, "batch channels h w"]:
    """Draw standard normal noise ``(B, *shape)`` on the generators' device, each image from its own generator."""
    return torch.cat([torch.randn((1, *shape), generator=g, device=g.device) for g in generators])


@torch.no_grad()
def sample_latents(
    denoiser: nn.Module,
    noise: NoiseSpec,
    spec: SampleSpec,
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    conditions: Conditions,
    negatives: Conditions,
    guidance_scales: Sequence[float] | None = None,
    trace: Trace | None = None,
) -> Float[Tensor, "batch channels h w"]:
    """Sample latents ``(B, *shape)``, scaled as in training, on the device of the denoiser.

    ``negatives`` are the conditions that guidance leads away from. ``guidance_scales`` gives each image its own
    strength of guidance instead of ``spec.guidance_scale``; values below 1 count as 1, no guidance. Noise is drawn on
    the generators' device, so CPU generators give the same image on any machine. ``trace`` is called after each step.

    Raises InputError for more sampling steps than the process has timesteps.
    """
    if spec.num_inference_steps > noise.num_timesteps:
        raise InputError(
            f"num_inference_steps ({spec.num_inference_steps}) must be at most the number of timesteps of training "
            f"({noise.num_timesteps})"
        )
    device = next((parameter.device for parameter in denoiser.parameters()), torch.device("cpu"))
    scheduler = build_scheduler(spec.sampler, noise, spec.num_inference_steps, device)
    scales = guidance_scales or [spec.guidance_scale] * len(generators)
    predict = GuidedDenoiser(denoiser, conditions, negatives, scales, device)
    latents = draw_noise(shape, generators).to(device) * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        predicted = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, generator=list(generators)).prev_sample
        if trace is not None:
            trace(step, latents)
    return latents


class GuidedDenoiser:
    """DenoisingUNet with classifier-free guidance (Ho 2022, eq. 6).

    The prediction is ``n + g (p - n)``, with p and n those under the conditions and under the negative ones, and g the
    guidance scale of each image. Both predictions come from one forward pass; where no image is guided, or text and
    class are neither of them conditions, that under the conditions alone is computed. The concatenated image is in
    both, as in Stable Diffusion's inpainting: guidance is by text and class.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        conditions: Conditions,
        negatives: Conditions,
        scales: Sequence[float],
        device: torch.device,
    ) -> None:
        clamped = [max(scale, 1.0) for scale in scales]
        self.denoiser = denoiser
        has_guide = conditions.text is not None or conditions.class_labels is not None
        self.is_guided = has_guide and any(scale > 1 for scale in clamped)
        self.scales = torch.tensor(clamped, device=device).view(-1, 1, 1, 1)
        self.conditions = negatives.joined(conditions) if self.is_guided else conditions

    def __call__(
        self, latents: Float[Tensor, "batch channels h w"], timestep: Real[Tensor, ""]
    ) -> Float[Tensor, "batch channels h w"]:
        """Predict noise, sample or velocity at ``timestep``, float32."""
        inputs = torch.cat([latents, latents]) if self.is_guided else latents
        predicted = self.conditions.predict(self.denoiser, inputs, timestep.expand(len(inputs)))
        if not self.is_guided:
            return predicted
        without, under = predicted.chunk(2)
        return without + self.scales * (under - without)
