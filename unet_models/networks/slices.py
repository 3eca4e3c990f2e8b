"""A network of images as one of volumes of one slice."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Slicewise(nn.Module):
    """A network of images, for volumes of one slice."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "batch channels 1 *plane"]) -> Float[Tensor, "batch classes 1 *plane"]:
        """Predict the logits of the slice."""
        logits: Tensor = self.network(images.squeeze(2))
        return logits.unsqueeze(2)
