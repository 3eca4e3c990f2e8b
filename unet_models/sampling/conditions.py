"""Conditions of a denoiser, in training and in sampling: text, class, and an image concatenated to the latents.

The image is given by its latents, of which a part is known: all of them in low resolution, or those outside a hole in
full. It enters as the layout of Stable Diffusion's inpainting networks: noisy latents, mask, known latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from unet_models.specs.diffusion import ImageConditionSpec


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions of a batch; None for those that the denoiser does not take."""

    text: Float[Tensor, "batch tokens context"] | None = None
    """Text states."""
    class_labels: Int[Tensor, " batch"] | None = None
    known: Float[Tensor, "batch one_and_channels height width"] | None = None
    """What is known of the latents, see ``known_part``."""

    def predict(
        self,
        denoiser: nn.Module,
        noisy_latents: Float[Tensor, "batch channels height width"],
        timesteps: Real[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Predict noise, velocity or clean latents under these conditions, in float32."""
        inputs = noisy_latents if self.known is None else torch.cat([noisy_latents, self.known], dim=1)
        labels = {} if self.class_labels is None else {"class_labels": self.class_labels}
        predicted: Tensor = denoiser(inputs, timesteps, self.text, **labels)
        return predicted.float()

    def joined(self, other: Conditions) -> Conditions:
        """Join the conditions of two batches of one denoiser to those of both."""
        pairs = ((self.text, other.text), (self.class_labels, other.class_labels), (self.known, other.known))
        return Conditions(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))


def known_part(
    latents: Float[Tensor, "batch channels height width"], hole: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch one_and_channels height width"]:
    """Join the mask of what is unknown (1 in the hole) and the latents outside it."""
    return torch.cat([hole, latents * (1 - hole)], dim=1)


def nothing_known(latents: Float[Tensor, "batch channels height width"]) -> Tensor:
    """Build the condition that stands for no image: everything is a hole."""
    return known_part(latents, torch.ones_like(latents[:, :1]))


def low_resolution(
    latents: Float[Tensor, "batch channels height width"], factor: int
) -> Float[Tensor, "batch channels height width"]:
    """Average squares of ``factor`` pixels, and spread the averages over them again."""
    height, width = latents.shape[2:]
    means = F.interpolate(latents, size=(-(-height // factor), -(-width // factor)), mode="area")
    return F.interpolate(means, size=(height, width), mode="nearest-exact")


def boxes(uniform: Float[Tensor, "batch 4"], height: int, width: int) -> Float[Tensor, "batch 1 height width"]:
    """Build masks of one box each, 1 inside: its sides are 1/4 to 3/4 of the whole, it lies inside.

    ``uniform`` are numbers in [0, 1), for height, width, top and left.
    """
    masks = []
    for size, share, place in ((height, uniform[:, 0], uniform[:, 2]), (width, uniform[:, 1], uniform[:, 3])):
        length = ((0.25 + 0.5 * share) * size).ceil()
        first = (place * (size - length + 1)).floor()
        pixels = torch.arange(size, device=uniform.device)
        masks.append((pixels >= first[:, None]) & (pixels < (first + length)[:, None]))  # (B, size)
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None].float()


def degrade(
    latents: Float[Tensor, "batch channels height width"],
    spec: ImageConditionSpec,
    uniform: Float[Tensor, "batch 4"],
) -> Float[Tensor, "batch one_and_channels height width"]:
    """Build the image condition of ``latents`` that the spec describes; the box of a hole comes from ``uniform``."""
    if spec.kind == "low_resolution":
        return known_part(low_resolution(latents, spec.factor), torch.zeros_like(latents[:, :1]))
    return known_part(latents, boxes(uniform, *latents.shape[2:]))


def hole_in_latents(hole: Float[Tensor, "batch 1 height width"], factor: int) -> Float[Tensor, "batch 1 h w"]:
    """Reduce the mask of a hole in pixels to latents: a latent is unknown where any pixel of its square is."""
    size = tuple(math.ceil(side / factor) for side in hole.shape[2:])
    return F.adaptive_max_pool2d(hole, size)
