"""Networks that map degraded to restored images: one for prediction and export, one for training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.build import build_network
from unet_models.networks.discriminator import PatchDiscriminator, patch_scores
from unet_models.networks.unet import UNet
from unet_models.restoration.task import Images, Inputs, Task
from unet_models.specs.networks import UNetSpec

CENTRE = 0.5
"""Mean that is subtracted from inputs."""


class Restorer(nn.Module):
    """A network and its task: inputs of degraded images to restored images in 0..1."""

    def __init__(self, network: UNet, task: Task) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.reach: int | None = None
        """Input pixels that the network reads beyond a tile; None: not yet measured."""

    @classmethod
    def build(cls, spec: UNetSpec, task: Task) -> Restorer:
        """Build a network that predicts 0 until it is trained, and so restores as the baseline of most tasks does."""
        network = build_network(spec, task.in_channels, task.out_channels, ndim=2)
        for head in cast("Iterable[nn.Conv2d]", network.decoder.heads):
            nn.init.zeros_(head.weight)
        return cls(network, task)

    def predict(self, inputs: Inputs) -> Float[Tensor, "batch outputs h w"]:
        """Run the network alone."""
        output: Tensor = self.network(inputs - CENTRE)
        return output.float()

    def forward(self, inputs: Inputs) -> Images:
        """Restore; values are clipped to 0..1."""
        return self.restore(self.predict(inputs), inputs)

    def restore(self, output: Float[Tensor, "batch outputs h w"], inputs: Inputs) -> Images:
        """Make images of the network's output; values are clipped to 0..1."""
        return self.task.restore(output, inputs).clamp(0, 1)


class TrainableRestorer(nn.Module):
    """A restorer, and a discriminator where one is trained along, in one forward pass, as needed by DDP."""

    def __init__(self, restorer: Restorer, *, is_adversarial: bool) -> None:
        super().__init__()
        self.restorer = restorer
        self.discriminator = PatchDiscriminator() if is_adversarial else None

    def forward(self, inputs: Inputs, images: Images) -> tuple[Tensor, ...]:
        """Predict; returns the network's output, and with a discriminator its ``patch_scores`` of restored images."""
        output = self.restorer.predict(inputs)
        if self.discriminator is None:
            return (output,)
        restored = self.restorer.task.restore(output, inputs)
        return output, *patch_scores(self.discriminator, 2 * restored - 1, 2 * images - 1)
