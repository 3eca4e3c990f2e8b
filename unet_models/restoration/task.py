"""Interface of a restoration task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unet_models.restoration.losses import image_loss
from unet_models.specs.restoration import RestorationLossSpec

Images = Float[Tensor, "batch 3 height width"]
Inputs = Float[Tensor, "batch channels h w"]


class Task(ABC):
    """One kind of degradation and how a network's output undoes it.

    ``inputs (B, in_channels, h, w)`` in 0..1 are what the network sees of a degraded image; ``images (B, 3, H, W)`` are
    in 0..1, too, and H = ``factor`` h.
    """

    in_channels: int = 3
    out_channels: int = 3
    """Channels of the network's output."""
    factor: int = 1
    """Pixels of a restored image along one of its input."""

    @abstractmethod
    def degrade(self, images: Images, generators: Sequence[torch.Generator]) -> Inputs:
        """Make inputs of images; sample i draws from ``generators[i]``, which are of the CPU."""

    @abstractmethod
    def restore(self, output: Float[Tensor, "batch outputs h w"], inputs: Inputs) -> Images:
        """Make images, which may leave 0..1, of the network's output."""

    @abstractmethod
    def baseline(self, inputs: Inputs) -> Images:
        """Restore without a network, in the most obvious way."""

    def prepare(self, images: Images, holes: Float[Tensor, "batch 1 height width"] | None = None) -> Inputs:
        """Make inputs of images that are degraded already. ``holes`` is 1 where pixels are to be filled."""
        return images

    def crop(self, images: Images) -> Images:
        """Cut images to sizes that can be degraded."""
        return images

    def region(self, inputs: Inputs) -> Float[Tensor, "batch 1 height width"] | None:
        """Return 1 where pixels are restored, 0 where they are known; None: all are restored."""
        return None

    def loss(
        self, output: Tensor, inputs: Inputs, images: Images, spec: RestorationLossSpec
    ) -> Float[Tensor, " batch"]:
        """Compare what the network's output makes with the true images."""
        return image_loss(self.restore(output, inputs), images, spec)
