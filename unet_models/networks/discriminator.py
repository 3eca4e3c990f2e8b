"""Discriminator of image patches, and the scores by which it and what it judges are trained."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call


class PatchDiscriminator(nn.Sequential):
    """Discriminator of real and reconstructed patches of 34 pixels; positive scores mean real (Isola 2017).

    Maps images ``(B, 3, H, W)`` to scores ``(B, 1, H/4 - 2, W/4 - 2)``. It has two strided layers, and group
    normalisation in place of batch normalisation: each image is judged by itself, however a batch is spread over
    workers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.GroupNorm(16, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, padding=1, bias=False),
            nn.GroupNorm(16, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 4, padding=1),
        )


def patch_scores(
    discriminator: nn.Module, restored: Float[Tensor, "batch 3 height width"], images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Score restored and true images in -1..1 patch by patch.

    Returns the scores of the restored images, with gradient for what restored them alone; then those of the images and
    of the restored images, with gradient for the discriminator alone. So one backward pass and one optimizer train
    both.
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    fooled = functional_call(discriminator, frozen, (restored,))
    return fooled, discriminator(images), discriminator(restored.detach())
