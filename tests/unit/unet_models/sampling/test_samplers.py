"""Sampling of latents: traced step by step, and requests that no sampler can take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from unet_models.sampling.samplers import sample_latents
from unet_models.specs.diffusion import NoiseSpec, SampleSpec

# diffusers asks numpy for arrays of tensors in a way that torch does not support yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")


class Zeros(nn.Module):
    """Predicts zeros and counts its calls and the samples in each."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        assert len(latents) == len(timesteps) == len(context)
        self.sizes.append(len(latents))
        return torch.zeros_like(latents)


def sample(denoiser: nn.Module, steps: int, scales: list[float], traced: list[tuple[int, Tensor]]) -> Tensor:
    states = torch.zeros(len(scales), 3, 2)
    generators = [torch.Generator().manual_seed(i) for i in range(len(scales))]
    return sample_latents(
        *(denoiser, NoiseSpec(num_timesteps=10), SampleSpec(num_inference_steps=steps), (4, 2, 3)),
        *(generators, states, states),
        guidance_scales=scales,
        trace=lambda step, latents: traced.append((step, latents)),
    )


@pytest.mark.parametrize(("scales", "size"), [([1.0, 0.5], 2), ([1.0, 3.0], 4)])
def test_trace_sees_each_step_and_guidance_doubles_the_batch(scales: list[float], size: int) -> None:
    denoiser, traced = Zeros(), []
    latents = sample(denoiser, 5, scales, traced)
    assert [step for step, _ in traced] == list(range(5))
    assert torch.equal(traced[-1][1], latents)
    assert denoiser.sizes == [size] * 5


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_inference_steps \(11\) must be at most .* \(10\)"):
        sample(Zeros(), 11, [1.0], [])
