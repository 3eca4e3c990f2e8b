"""Classifier-free guidance, and noise that depends on an image's own generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unet_models.sampling.conditions import Conditions
from unet_models.sampling.samplers import draw_noise, sample_latents
from unet_models.specs.diffusion import NoiseSpec, SampleSpec

# diffusers' DPM-Solver hands tensors to numpy as numpy 1 took them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")


class ContextMean(nn.Module):
    """Predicts the mean of its context everywhere."""

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return context.mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(latents)


def sample(scale: float, prompt: float, negative: float = 0.0, **spec: object) -> Tensor:
    return sample_latents(
        ContextMean(),
        NoiseSpec(prediction_type="sample", schedule="cosine"),
        SampleSpec.model_validate({"num_inference_steps": 4, "guidance_scale": scale, **spec}),
        (1, 2, 2),
        [torch.Generator().manual_seed(1)],
        Conditions(torch.full((1, 3, 5), prompt)),
        Conditions(torch.full((1, 3, 5), negative)),
    )


@pytest.mark.parametrize(("scale", "wanted"), [(1.0, 0.5), (3.0, 1.5)])
def test_guidance_goes_beyond_the_prompt_by_its_scale(scale: float, wanted: float) -> None:
    found = sample(scale, prompt=0.5, sampler="dpm_solver")
    torch.testing.assert_close(found, torch.full_like(found, wanted), atol=1e-2, rtol=0)


def test_guidance_starts_from_the_negative_prompt() -> None:
    found = sample(2.0, prompt=0.5, negative=0.25)
    torch.testing.assert_close(found, torch.full_like(found, 0.75), atol=1e-2, rtol=0)


def test_noise_of_an_image_is_its_generators_alone() -> None:
    together = draw_noise((4, 2, 2), [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    alone = draw_noise((4, 2, 2), [torch.Generator().manual_seed(2)])
    assert torch.equal(together[1:2], alone)


class LabelMean(nn.Module):
    """Predicts the class label everywhere, and counts the samples that it is shown."""

    num_shown = 0

    def forward(self, latents: Tensor, timesteps: Tensor, text: None, class_labels: Tensor | None = None) -> Tensor:
        self.num_shown += len(latents)
        labels = torch.zeros(len(latents)) if class_labels is None else class_labels.float()
        return labels.view(-1, 1, 1, 1).expand_as(latents[:, :1]) / 2


@pytest.mark.parametrize(("has_class", "num_shown", "wanted"), [(True, 2, 2.0), (False, 1, 0.0)])
def test_classes_guide_as_text_does_and_an_image_alone_does_not(
    *, has_class: bool, num_shown: int, wanted: float
) -> None:
    network, known = LabelMean(), torch.ones(1, 2, 2, 2)
    labels = [torch.tensor([number]) if has_class else None for number in (2, 1)]
    found = sample_latents(
        network,
        NoiseSpec(prediction_type="sample", schedule="cosine"),
        SampleSpec(num_inference_steps=1, guidance_scale=3),
        (1, 2, 2),
        [torch.Generator().manual_seed(1)],
        *(Conditions(class_labels=label, known=known) for label in labels),
    )
    assert network.num_shown == num_shown
    torch.testing.assert_close(found, torch.full_like(found, wanted), atol=1e-2, rtol=0)
