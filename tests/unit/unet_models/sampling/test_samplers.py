"""Sampling of latents: traced step by step, and requests that no sampler can take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from unet_models.sampling.conditions import Conditions
from unet_models.sampling.noise import alphas_cumprod
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
        *(generators, Conditions(states), Conditions(states)),
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


class Gaussian(nn.Module):
    """The best prediction of a velocity for latents from a normal distribution, in closed form."""

    def __init__(self, spec: NoiseSpec, mean: float, std: float) -> None:
        super().__init__()
        self.alphas, self.mean, self.std = alphas_cumprod(spec), mean, std
        self.timesteps: list[int] = []

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        t = int(timesteps[0])
        self.timesteps.append(t)
        assert 0 <= t < len(self.alphas)
        a = self.alphas[t]
        variance = a * self.std**2 + 1 - a
        clean = self.mean + a.sqrt() * self.std**2 * (latents - a.sqrt() * self.mean) / variance
        noise = (latents - a.sqrt() * clean) / (1 - a).sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * clean


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [20, 61, 500, 600, 999, 1000])
def test_samples_of_a_known_distribution_have_its_mean_and_deviation(sampler: str, steps: int) -> None:
    noise = NoiseSpec(schedule="cosine", prediction_type="v_prediction")
    spec = SampleSpec.model_validate({"sampler": sampler, "num_inference_steps": steps, "guidance_scale": 1})
    denoiser, states = Gaussian(noise, 1.0, 0.5), Conditions(torch.zeros(1, 3, 2))
    found = sample_latents(denoiser, noise, spec, (4, 32, 32), [torch.Generator().manual_seed(0)], states, states)
    assert len(denoiser.timesteps) == steps
    assert denoiser.timesteps[0] == 999  # pure noise comes at its own level
    assert denoiser.timesteps == sorted(set(denoiser.timesteps), reverse=True)
    assert found.mean().item() == pytest.approx(1.0, abs=0.03)
    assert found.std().item() == pytest.approx(0.5, rel=0.15 if steps == 20 else 0.08)  # few steps sharpen


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_inference_steps \(11\) must be at most .* \(10\)"):
        sample(Zeros(), 11, [1.0], [])
