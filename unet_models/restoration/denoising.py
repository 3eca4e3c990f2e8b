"""Denoising: the network predicts the noise (DnCNN, Zhang 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unet_models.restoration.task import Images, Inputs, Task
from unet_models.specs.restoration import DenoisingSpec


class Denoising(Task):
    """Additive Gaussian noise of one or a drawn standard deviation, or Poisson noise.

    Noisy values are neither clipped nor rounded, as in the literature's benchmarks.
    """

    def __init__(self, spec: DenoisingSpec) -> None:
        self.spec = spec

    def degrade(self, images: Images, generators: Sequence[torch.Generator]) -> Inputs:
        """Add noise."""
        if self.spec.noise == "poisson":
            return torch.stack([self._count(image, g) for image, g in zip(images, generators, strict=True)])
        return torch.stack([self._add(image, g) for image, g in zip(images, generators, strict=True)])

    def restore(self, output: Tensor, inputs: Inputs) -> Images:
        """Subtract the noise that the network predicts."""
        return inputs - output

    def baseline(self, inputs: Inputs) -> Images:
        """Return the noisy image."""
        return inputs

    def _add(self, image: Tensor, generator: torch.Generator) -> Tensor:
        low, high = self.spec.sigma_range
        sigma = low + (high - low) * float(torch.rand((), generator=generator))
        noise = torch.empty(image.shape).normal_(generator=generator)
        return image + noise.to(image.device) * (sigma / 255)

    def _count(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Draw photons of which white has ``peak``."""
        photons = torch.poisson(image.cpu() * self.spec.peak, generator=generator)
        return (photons / self.spec.peak).to(image.device)
