"""Losses of restored images, as sums of named terms; one value per sample, in float32."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unet_models.restoration.similarity import ssim
from unet_models.specs.restoration import RestorationLossSpec


def image_loss(
    restored: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    spec: RestorationLossSpec,
) -> Float[Tensor, " batch"]:
    """Compute the weighted sum of ``spec.terms`` for each sample; the adversarial term is added elsewhere.

    Charbonnier is ``sqrt(error^2 + epsilon^2) - epsilon`` (Charbonnier 1994), averaged over the pixels.
    """
    error = restored.float() - images
    loss = error.new_zeros(len(images))
    for term, weight in spec.terms.items():
        if term == "ssim":
            loss = loss + weight * (1 - ssim(restored.float(), images))
        elif term in ("l1", "l2", "charbonnier"):
            loss = loss + weight * _pixels(term, error, spec.charbonnier_epsilon).flatten(1).mean(dim=1)
    return loss


def _pixels(term: str, error: Tensor, epsilon: float) -> Tensor:
    if term == "l1":
        return error.abs()
    return error.square() if term == "l2" else torch.sqrt(error.square() + epsilon**2) - epsilon
