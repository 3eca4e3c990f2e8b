"""The segmentation network of a spec."""

from __future__ import annotations

import torch

from unet_models.networks.build import build_network
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec


def test_network_has_the_spec_the_channels_and_the_weights_of_its_seed() -> None:
    spec = UNetSpec(channels=(3, 5), skip="gated")
    torch.manual_seed(0)
    built = build_network(spec, in_channels=2, num_classes=4, ndim=2)
    torch.manual_seed(0)
    expected = UNet(spec, 2, 4, ndim=2)
    images = torch.randn(1, 2, 6, 8)
    assert built(images).shape == (1, 4, 6, 8)
    assert torch.equal(built(images), expected(images))
